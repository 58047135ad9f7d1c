"""A worker's stages: one RPC server per split generation, led to by tunnels of its coordinator only.

What lives here: `Stages`. What does not: reserving and fences (`meshnode.split`), the processes
(`meshnode.engine.stage.process`), the tunnels (`meshnode.tunnel`), the model's side (`meshnode.engine.runs.models`).

    start ──> weights cache filled ──> RPC server up ──Ready──> tunnels spliced to it ──> stop, or the server's own end

One server per generation, because a server serves one client at a time and keeps what that client left behind. Each
step is told to the coordinator in a `StageReport`, over the link and not over a tunnel: an engine that dies is named
with its signal and its last words there, when the tunnel only sees a lost connection.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import anyio.abc

from meshnode.child import child_environment
from meshnode.engine.devices import engine_device_names, engine_environment
from meshnode.engine.found import Engine, stage_command
from meshnode.engine.process import EngineProcess, running
from meshnode.engine.stage.passage import Passage, PassageClosed
from meshnode.engine.stage.process import START_S, StageOrders
from meshnode.engine.weights.cache import WeightsCache
from meshnode.events import EngineDied, Event, StageStarted
from meshnode.split import Held
from meshnode.tunnel import LoopbackStream, Tunnel, splice
from proto.messages import Fence, StageReport, StageState

HASH: Final = 16
"""Hex digits that a tensor's file in the cache is named by."""
READY_S: Final = 60.0
"""How long a tunnel waits for its stage's server: a coordinator may be quicker than the worker's own start."""
MAX_TEXT: Final = 500
TELL_AGAIN_S: Final = 3.0


@dataclass
class _Stage:
    held: Held
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ready: anyio.Event = field(default_factory=anyio.Event)
    reached: bool = False
    kept_bytes: int = 0
    """Of tensors that the server has by hash."""
    server_pid: int | None = None
    process: EngineProcess | None = None
    passage: Passage | None = None
    stopped: bool = False


class Stages:
    """All stages this worker runs. `tell` sends a report to the coordinator of its fence."""

    def __init__(
        self,
        engine: Engine,
        weights: WeightsCache,
        *,
        threads: int,
        emit: Callable[[Event], None],
        tell: Callable[[StageReport], None],
    ) -> None:
        self._engine = engine
        self._weights = weights
        self._threads = threads
        self._emit = emit
        self._tell = tell
        self._stages: dict[tuple[str, Fence], _Stage] = {}

    def pids(self) -> frozenset[int]:
        """The processes whose memory is this node's own."""
        return frozenset(stage.server_pid for stage in self._stages.values() if stage.server_pid is not None)

    def start(self, held: Held, tasks: anyio.abc.TaskGroup) -> None:
        """Run this stage in `tasks` until `stop`."""
        stage = self._stages[held.model, held.fence] = _Stage(held)
        tasks.start_soon(self._run, stage)

    def stop(self, held: Held) -> None:
        """The server is killed before this returns."""
        stage = self._stages.pop((held.model, held.fence), None)
        if stage is None:
            return
        stage.stopped = True
        if stage.process is not None:
            stage.process.kill()
        stage.scope.cancel()

    async def serve(self, tunnel: Tunnel) -> None:
        """One connection of the coordinator's engine, to its end. Who may open one was decided before."""
        stage = None if tunnel.fence is None else self._stages.get((tunnel.model, tunnel.fence))
        with anyio.move_on_after(READY_S):
            if stage is not None:
                await stage.ready.wait()
        if stage is None or stage.passage is None:
            await tunnel.aclose()
            return
        stage.reached = True
        try:
            connected = await stage.passage.connect()
        except PassageClosed:
            await tunnel.aclose()
            return
        await splice(tunnel, LoopbackStream(connected))

    # --- one stage ---

    async def _run(self, stage: _Stage) -> None:
        held = stage.held
        with stage.scope:
            try:
                problem = await self._serve_until_end(stage)
            except OSError as error:
                problem = f"the engine can't be started: {error}"
            except Exception as error:  # noqa: BLE001  # a fault met with one stage must not cost the others theirs
                problem = f"a fault of this node: {type(error).__name__}: {error}"
            stage.server_pid = None
            if not stage.stopped:
                self._report(held, StageState.FAILED, text=problem)
        self._weights.release(held)

    async def _serve_until_end(self, stage: _Stage) -> str:
        """Runs the server. Returns why it ended, which it never should."""
        held = stage.held
        cache = await self._weights.prepare(held, lambda *figures: self._report_filling(held, *figures))
        ours, theirs = socket.socketpair()
        with ours, theirs:
            orders = self._orders(held, theirs.fileno(), cache)
            devices = [device for device, _, _ in held.ranges]
            environment = child_environment(engine_environment(devices))
            async with running(stage_command(orders), environment, pass_fds=[theirs.fileno()]) as process:
                theirs.close()
                stage.process = process
                if await self._comes_up(stage, process):
                    stage.passage = Passage(ours)
                    stage.kept_bytes = _kept_bytes(cache)
                    self._ready(stage, process, cache)
                    await self._until_reached(stage, process)
                ending = await process.wait()
        stage.ready.set()
        stage.passage = None
        if not stage.stopped:
            self._emit(EngineDied(held.model, held.fence.generation, "stage", ending.how, ending.last_lines))
        return f"the stage's engine process ended: {ending}"

    async def _until_reached(self, stage: _Stage, process: EngineProcess) -> None:
        """Says `ready` again until the coordinator has come: a link that was just made anew lost the first."""
        while process.is_running and not stage.reached:
            with anyio.move_on_after(TELL_AGAIN_S):
                await process.wait()
            self._report_ready(stage)

    async def _comes_up(self, stage: _Stage, process: EngineProcess) -> bool:
        try:
            with anyio.fail_after(START_S + 30):
                word = await process.words.receive()
        except (TimeoutError, anyio.EndOfStream):
            process.kill()
            return False
        pid = word.get("pid")
        stage.server_pid = pid if isinstance(pid, int) else None
        return word.get("ready") is True

    def _ready(self, stage: _Stage, process: EngineProcess, cache: str | None) -> None:
        held = stage.held
        stage.ready.set()
        self._emit(
            StageStarted(
                model=held.model, generation=held.fence.generation, coordinator=held.fence.coordinator,
                layer_start=held.layer_start, layer_end=held.layer_end, pid=process.pid,
                private_network=self._engine.private_network, landlock=self._engine.confinement.landlock,
                tcp_only=self._engine.confinement.sockets, cached_weights=cache is not None,
            )
        )  # fmt: skip
        self._report_ready(stage)

    def _orders(self, held: Held, passage_fd: int, cache: str | None) -> StageOrders:
        engine = self._engine
        return StageOrders(
            devices=engine_device_names([device for device, _, _ in held.ranges]),
            threads=self._threads,
            passage_fd=passage_fd,
            libraries=None if engine.libraries is None else str(engine.libraries),
            rpc_server=None if engine.rpc_server is None else str(engine.rpc_server),
            cache=cache,
            reach=engine.reach,
        )

    # --- what the coordinator hears ---

    def _report_filling(self, held: Held, done_bytes: int, total_bytes: int, fetching: bool) -> None:
        self._tell(
            StageReport(held.model, held.fence, StageState.FILLING, done_bytes, total_bytes, fetching=fetching)
        )  # fmt: skip

    def _report_ready(self, stage: _Stage) -> None:
        """With the bytes that need not be sent, so that the coordinator can tell how far it has loaded."""
        held, kept_bytes = stage.held, stage.kept_bytes
        self._tell(StageReport(held.model, held.fence, StageState.READY, kept_bytes, kept_bytes))

    def _report(self, held: Held, state: StageState, text: str = "") -> None:
        self._tell(StageReport(held.model, held.fence, state, text=text[:MAX_TEXT]))


def _kept_bytes(cache: str | None) -> int:
    return 0 if cache is None else sum(file.stat().st_size for file in Path(cache).iterdir() if len(file.name) == HASH)
