"""A mesh feed for tests of waiting code: real tasks and clock, views published by hand, peers that answer or don't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio
from making_views import a_confirm, a_view

from meshnode.membership.view import MeshView, NodeView
from meshnode.readiness import LatestView, SettleSettings
from proto.ids import NodeId
from proto.messages import Confirm

QUICK = SettleSettings(dwell_s=0.05, first_quorum_window_s=0.05, deadline_s=5.0, confirm_s=1.0)


@dataclass
class WaitingMesh:
    """A feed over `LatestView`; nodes in `mute` never answer."""

    latest: LatestView
    mute: frozenset[NodeId] = frozenset()
    asked: list[NodeId] = field(default_factory=list)
    measured: list[NodeId] = field(default_factory=list)
    looked: int = 0

    def view(self) -> MeshView:
        self.looked += 1
        return self.latest.view()

    async def newer_view(self, seen: MeshView) -> MeshView:
        return await self.latest.newer_view(seen)

    async def ask_confirm(self, node: NodeId, model: str) -> Confirm | None:
        self.asked.append(node)
        if node in self.mute:
            await anyio.sleep_forever()
        return a_confirm(self.latest.view().nodes[node])

    def measure(self, nodes: Sequence[NodeId]) -> None:
        self.measured.extend(nodes)


def a_mesh(*nodes: NodeView, mute: frozenset[NodeId] = frozenset()) -> WaitingMesh:
    """A mesh of these nodes, seen from `a`."""
    return WaitingMesh(LatestView(a_view(*nodes)), mute)
