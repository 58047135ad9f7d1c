"""Who may coordinate a split.

Lives here: `coordinators_of` and what bars all of them. Not here: which of them gives the best plan
(`planner.optimising`), nor the readiness of a node to coordinate (`meshnode.readiness`).

In a star the coordinator keeps the token embedding and its own compute buffers in host memory and, for engines that
need it, holds the complete package. A host budget or a package that is unknown bars nobody: unknown is not cannot. In a
chain the token enters where the first stage is, so nobody is named beforehand unless pinned or an RTT cap is set.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.engine import Topology
from planner.memory import MemoryNeed
from planner.nodes import NodeSpec
from planner.request import PlanRequest


@dataclass(frozen=True, slots=True)
class Coordinators:
    """`ids`: who may coordinate, largest host budget first; `None` as one of them means: the first stage's node.

    `barrier`: what bars everybody where `ids` is empty, `coordinator_host` or `coordinator_package`.
    """

    ids: tuple[str | None, ...]
    barrier: str | None = None


def coordinators_of(request: PlanRequest, need: MemoryNeed) -> Coordinators:
    """Everybody who may coordinate `request`; a pinned coordinator alone."""
    pinned = request.constraints.coordinator
    if request.engine.topology is not Topology.STAR:
        capped = request.constraints.max_stage_rtt_ms is not None and not request.links.free
        if pinned is None and capped:
            return Coordinators(tuple(node.id for node in request.workers))
        return Coordinators((pinned,))
    asked = [node for node in request.nodes if pinned in (None, node.id)]
    holding = [node for node in asked if not (request.engine.needs_package and node.has_package is False)]
    able = [node for node in holding if has_host_room(node, need)]
    if not able:
        return Coordinators((), "coordinator_host" if holding else "coordinator_package")
    return Coordinators(
        tuple(node.id for node in sorted(able, key=lambda node: (-(node.host_usable_bytes or 0), node.id)))
    )


def has_host_room(node: NodeSpec, need: MemoryNeed) -> bool:
    """Whether the node's host budget, if known, holds what a coordinator keeps in host memory."""
    return node.host_usable_bytes is None or node.host_usable_bytes >= need.host_bytes
