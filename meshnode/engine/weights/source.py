"""Gives the workers of a plan the tensors of their stages that they lack: the source's side of tunnels for weights.

What lives here: `WeightsSource`. What does not: reading and hashing (`meshnode.engine.weights.source_process`), which
stage a worker holds in which plan (`meshnode.engine.runs.models`), the worker's side (`meshnode.engine.weights.fetch`).

A worker gets the tensors of the stage that it holds in the plan that runs here now, and no others. A few are served at
once; the others wait their turn. Whoever takes nothing for a minute is let go, and comes again where it stopped.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from meshnode.child import child_environment
from meshnode.engine.confinement.reach import Reach
from meshnode.engine.devices import engine_environment
from meshnode.engine.process import running
from meshnode.engine.weights.cache import LocalPackage
from meshnode.engine.weights.source_process import SourceOrders
from meshnode.tunnel import LoopbackStream, Opening, Tunnel, splice
from planner.plan import SplitPlan
from proto.ids import NodeId
from proto.messages import Fence

SOURCE_MODULE: Final = "meshnode.engine.weights.source_process"
SERVED_AT_ONCE: Final = 4
"""Each takes a process and a share of the network; more would only make each slower."""


@dataclass(frozen=True)
class StageWeights:
    """What one worker's stage is made of: layers [start, end) of each of `ranges`, the output head where `head`."""

    paths: tuple[str, ...]
    manifest: str
    ranges: tuple[tuple[int, int], ...]
    head: bool


def stage_weights(
    running: tuple[SplitPlan, Fence] | None, local: LocalPackage | None, worker: NodeId, opening: Opening
) -> StageWeights | str:
    """What `worker`'s stage is made of in the plan that is `running` under its fence here, of the package that is
    `local`; or why it gets nothing."""
    if running is None or running[1] != opening.fence:
        return f"fenced: that plan of {opening.model[:100]} is not run here"
    if local is None:
        return "the files are gone"
    stages = [stage for stage in running[0].stages if stage.node == worker]
    if not stages:
        return "no stage of it is on that node"
    head = any(stage.layer_end == local.package.spec.layer_count for stage in stages)
    ranges = tuple((stage.layer_start, stage.layer_end) for stage in stages)
    return StageWeights(local.paths, local.manifest, ranges, head)


class WeightsSource:
    """`stage_of` says what a peer holds in the plan of an opening, or why it gets nothing. `known` is the folder of
    what is known of model files; `reach` is what a child may use."""

    def __init__(self, known: Path, stage_of: Callable[[NodeId, Opening], StageWeights | str], reach: Reach) -> None:
        self._reach = reach
        self._known = known
        self._stage_of = stage_of
        self._turns = anyio.Semaphore(SERVED_AT_ONCE)
        self._open: dict[tuple[NodeId, str], Tunnel] = {}

    def admit(self, peer: NodeId, opening: Opening) -> str | None:
        """See `meshnode.tunnel.Admit`."""
        found = self._stage_of(peer, opening)
        return found if isinstance(found, str) else None

    async def serve(self, tunnel: Tunnel) -> None:
        """One tunnel to its end. A worker that comes again has lost the one before."""
        key = (tunnel.peer, tunnel.model)
        if (before := self._open.pop(key, None)) is not None:
            before.cut("the worker has opened another one")
        self._open[key] = tunnel
        try:
            async with self._turns:
                await self._serve(tunnel)
        finally:
            if self._open.get(key) is tunnel:
                del self._open[key]

    async def _serve(self, tunnel: Tunnel) -> None:
        stage = self._stage_of(tunnel.peer, tunnel.opening)
        if isinstance(stage, str):
            tunnel.cut(stage)
            return
        ours, theirs = socket.socketpair()
        with ours, theirs:
            orders = SourceOrders(
                stage.paths,
                stage.manifest,
                stage.ranges,
                stage.head,
                str(self._known),
                theirs.fileno(),
                self._reach,
            )
            command = [sys.executable, "-m", SOURCE_MODULE, orders.to_argument()]
            environment = child_environment(engine_environment(()))
            async with running(command, environment, pass_fds=[theirs.fileno()]) as process:
                theirs.close()
                await splice(tunnel, LoopbackStream(ours))
                await process.wait()
