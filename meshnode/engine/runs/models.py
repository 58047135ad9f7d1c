"""The models this node coordinates: each plan that stands is loaded, checked against what the engine did, and served.

What lives here: `Models`. What does not: deciding on plans (`meshnode.split`), the workers' stages
(`meshnode.engine.stage.stages`), clients' requests (`meshnode.engine.api.gateway`).

    run ──every stage reports ready──> model process loads ──layers where the plan says──> serving ──> stop, or its end

The model's process reaches each stage through a loopback port that leads into a tunnel, for that process alone. It
answers HTTP on a Unix socket in a directory of this node's own. Whatever ends a run is told once, with its cause: a
stage's report names an engine that died on a worker, which here only looks like a lost connection.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc
import anyio.to_thread
from anyio.abc import ByteStream

from meshnode.child import child_environment
from meshnode.engine.commands import MAX_DEVICES, MAX_SERVER_DEVICES
from meshnode.engine.devices import engine_environment
from meshnode.engine.found import Engine
from meshnode.engine.http1 import Answer, whole_body
from meshnode.engine.process import EngineProcess, running
from meshnode.engine.runs.checking import Placed, placed_on, wrong_layers
from meshnode.engine.runs.devices import lead_to_devices, model_command
from meshnode.engine.runs.llama_server import refusal
from meshnode.engine.runs.own_server import OwnServerEnded
from meshnode.engine.runs.run import Run, RunFailed, RunState
from meshnode.engine.runs.telling import Telling
from meshnode.engine.runs.watch import (
    ALIVE_S,
    SERVER_PATIENCE_S,
    LoadProgress,
    answers,
    counted_tokens,
    mapped_bytes,
    wait_healthy,
)
from meshnode.engine.serving.process import EngineDevice
from meshnode.engine.stillness import PATIENCE_S
from meshnode.engine.weights.cache import LocalPackage
from meshnode.engine.wishes.llama_server import server_request
from meshnode.events import EngineDied, Event, SplitLoadFailed, SplitServing
from meshnode.models import ModelFileError, sampled_manifest
from meshnode.split import Gate
from meshnode.tunnel import Purpose, Tunnels
from planner.plan import SplitPlan
from proto.ids import NodeId
from proto.messages import Fence, StageReport, StageState

TOKEN_KINDS: Final = ("prompt", "completion", "per_second")
CAUSE_S: Final = 2.0
"""After the model's process ended: so long a worker's report of the real cause may take to arrive."""
MAX_REFUSAL_BYTES: Final = 64 * 1024
REPORT_S: Final = 5.0
"""After llama-server answers: so long its report of what it loaded may take to be read."""


class Models:
    """All models this node coordinates. `package` gives what this node has of a model; `failed` is told that a run
    is over by itself: model, fence, whose fault, why."""

    def __init__(
        self,
        engine: Engine,
        local: NodeId,
        tunnels: Tunnels,
        directory: Path,
        *,
        threads: int,
        package: Callable[[str], LocalPackage | None],
        emit: Callable[[Event], None],
        failed: Callable[[str, Fence, NodeId, str], None],
    ) -> None:
        self._engine = engine
        self._local = local
        self._tunnels = tunnels
        self._directory = directory
        self._threads = threads
        self._package = package
        self._emit = emit
        self._telling = Telling(local, emit)
        self._failed = failed
        self._runs: dict[str, Run] = {}
        self._gates: dict[str, Gate] = {}

    # --- what the split desk says ---

    def run(self, model: str, plan: SplitPlan, fence: Fence, tasks: anyio.abc.TaskGroup) -> None:
        """Run `plan` in `tasks` until `stop`."""
        workers = tuple(NodeId(node) for node in plan.nodes if node != self._local)
        run = self._runs[model] = Run(model, plan, fence, workers, time.monotonic())
        tasks.start_soon(self._run, run)

    def stop(self, model: str, fence: Fence, reason: str) -> None:
        """The model's process is killed before this returns."""
        run = self._runs.get(model)
        if run is None or run.fence != fence:
            return
        run.cause = run.cause or reason
        self._end(run)
        del self._runs[model]

    def set_gate(self, model: str, gate: Gate) -> None:
        """Serve, hold or refuse requests."""
        self._gates[model] = gate
        if (run := self._runs.get(model)) is not None:
            run.wake()

    def stage_reported(self, worker: NodeId, report: StageReport) -> None:
        """A worker tells how its stage is; one that is not in the plan says nothing here."""
        run = self._runs.get(report.model)
        if run is None or run.fence != report.fence or worker not in run.workers:
            return
        before = run.stages.get(worker)
        run.stages[worker] = report
        if report.state is StageState.FILLING:
            self._telling.filling(run, worker, report, before)
        run.wake()

    # --- what the gateway asks ---

    def get(self, model: str) -> Run | None:
        """The run of `model`, if there is one."""
        return self._runs.get(model)

    def gate(self, model: str) -> Gate:
        """What becomes of requests to `model`."""
        return self._gates.get(model, Gate.CLOSED)

    async def connect(self, run: Run) -> ByteStream:
        """A connection to the model's process. Raises `OSError` where it is gone."""
        return await anyio.connect_unix(self._socket(run))

    def request_for(self, run: Run, path: str, body: bytes) -> bytes:
        """What goes to the model's process of a client's request. The package's own process looks itself; to
        llama-server goes what is known. Raises `WrongWish`."""
        return body if self._engine.llama_server is None else server_request(body, path, run.plan.context)

    async def in_our_words(self, path: str, answer: Answer) -> Answer:
        """The head of an answer to a request to `path`, or where llama-server refused it, that refusal in the shape
        that all others have. Raises `AnswerBroken`."""
        if self._engine.llama_server is None or answer.status < 400:
            return answer
        body = json.dumps(refusal(path, answer.status, await whole_body(answer, MAX_REFUSAL_BYTES))).encode()
        return Answer(answer.status, {b"content-type": b"application/json"}, _once(body))

    def answered(self, run: Run) -> None:
        """A request to `run` is over."""
        run.answered.set()

    async def why_over(self, run: Run) -> str:
        """Why `run` is over: its cause, once it is known, or what can be said soon."""
        with anyio.move_on_after(CAUSE_S + 1):
            while run.state is not RunState.OVER or not run.cause:
                await run.changed.wait()
        return run.cause or "the connection to the engine broke"

    def pids(self) -> frozenset[int]:
        """The processes whose memory is this node's own."""
        processes = (run.process.pid for run in self._runs.values() if run.process is not None)
        servers = (run.own_server_pid for run in self._runs.values() if run.own_server_pid is not None)
        return frozenset((*processes, *servers))

    def status(self, model: str) -> dict[str, Any] | None:
        """Plain JSON of how far `model` is; None where it does not run here."""
        run = self._runs.get(model)
        return None if run is None else run.status()

    # --- one run ---

    async def _run(self, run: Run) -> None:
        with run.scope:
            try:
                await self._load_and_serve(run)
            except* RunFailed as group:
                self._give_up(run, _first(group))
            except* (ModelFileError, OwnServerEnded) as group:
                self._give_up(run, RunFailed(self._local, str(_first(group))))
            except* OSError as group:
                self._give_up(run, RunFailed(self._local, f"the engine can't be started: {_first(group)}"))
            except* Exception as group:  # noqa: BLE001  # a fault met with one model must not cost the others theirs
                fault = _first(group)
                self._give_up(run, RunFailed(self._local, f"a fault of this node: {type(fault).__name__}: {fault}"))
        self._end(run)

    def _give_up(self, run: Run, error: Exception) -> None:
        """It failed by itself: say so, once, to the log and to the desk."""
        assert isinstance(error, RunFailed)
        if run.cause:
            return
        run.cause = str(error)
        generation = run.fence.generation
        self._emit(SplitLoadFailed(run.model, generation, error.node, error.reason))
        self._end(run)
        self._failed(run.model, run.fence, error.node, error.reason)

    def _end(self, run: Run) -> None:
        run.state = RunState.OVER
        if run.process is not None:
            run.process.kill()
        run.scope.cancel()
        run.wake()

    async def _load_and_serve(self, run: Run) -> None:
        """Raises `RunFailed` at the end, which never comes by itself."""
        local = self._package(run.model)
        if local is None:
            raise RunFailed(self._local, "its files are gone")
        most = MAX_DEVICES if self._engine.llama_server is None else MAX_SERVER_DEVICES
        if len(run.plan.stages) > most:
            raise RunFailed(self._local, f"{len(run.plan.stages)} stages, and llama.cpp takes at most {most}")
        if self._engine.llama_server is None and run.plan.workload.lanes > 1:
            advice = f"{self._engine.version} serves one lane; use llama-server, or lanes 1"
            raise RunFailed(self._local, f"lanes {run.plan.workload.lanes}: {advice}")
        if await anyio.to_thread.run_sync(sampled_manifest, local.package) != local.manifest:
            raise RunFailed(self._local, f"{local.paths[0]} changed since the plan was made")
        await self._stages_ready(run)
        async with anyio.create_task_group() as listeners:
            devices = await lead_to_devices(self._engine, run, self._local, self._tunnels, self._threads, listeners)
            command = self._command(run, local.paths, devices)
            environment = child_environment(engine_environment(self._own_devices(run)))
            keeps = run.keeps if self._engine.llama_server is not None else lambda _: True
            async with running(command, environment, on_line=run.read_line, keeps=keeps) as process:
                run.process = process
                run.state = RunState.LOADING
                await self._loaded(run, process)
                self._check(run, placed_on(run.plan, devices))
                self._serving(run, process)
                listeners.start_soon(self._count, run, process)
                listeners.start_soon(self._watch, run)
                ending = await process.wait()
            self._emit(EngineDied(run.model, run.fence.generation, "model", ending.how, ending.last_lines))
            raise await self._real_cause(run, RunFailed(self._local, f"the model's engine process ended: {ending}"))

    async def _stages_ready(self, run: Run) -> None:
        while True:
            if (failed := run.failed_stage()) is not None:
                raise self._stage_failed(run, failed)
            if all(self._is_ready(run, worker) for worker in run.workers):
                return
            await run.changed.wait()

    def _is_ready(self, run: Run, worker: NodeId) -> bool:
        report = run.stages.get(worker)
        return report is not None and report.state is StageState.READY

    def _stage_failed(self, run: Run, report: StageReport) -> RunFailed:
        worker = next(node for node, mine in run.stages.items() if mine is report)
        return RunFailed(worker, report.text)

    async def _real_cause(self, run: Run, seen: RunFailed) -> RunFailed:
        """A model's process whose stage is lost aborts within milliseconds; the worker's report says more."""
        if not run.workers:
            return seen
        with anyio.move_on_after(CAUSE_S):
            while run.failed_stage() is None:
                await run.changed.wait()
        failed = run.failed_stage()
        return seen if failed is None else self._stage_failed(run, failed)

    # --- devices and processes ---

    def _own_devices(self, run: Run) -> list[str]:
        return [stage.device for stage in run.plan.stages if stage.node == self._local]

    def _command(self, run: Run, paths: Sequence[str], devices: Sequence[EngineDevice]) -> list[str]:
        socket = Path(self._socket(run))
        socket.parent.mkdir(mode=0o700, exist_ok=True)
        return model_command(self._engine, run.plan, paths, devices, socket=socket, threads=self._threads)

    def _socket(self, run: Run) -> str:
        """Short, since a Unix socket's path is: one per generation, in a folder where nothing else is."""
        name = hashlib.sha256(run.model.encode()).hexdigest()[:8]
        return str(self._directory / f"{name}-{run.fence.generation}" / "m.sock")

    # --- loading ---

    async def _loaded(self, run: Run, process: EngineProcess) -> None:
        """Until the process answers. Raises `RunFailed` where it ends before, or a stage fails meanwhile."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._fail_with_stage, run)
            if self._engine.llama_server is None:
                await self._hear(run, process)
            else:
                await self._ask_health(run, process)
            tasks.cancel_scope.cancel()

    async def _fail_with_stage(self, run: Run) -> None:
        while (failed := run.failed_stage()) is None:
            await run.changed.wait()
        raise self._stage_failed(run, failed)

    async def _hear(self, run: Run, process: EngineProcess) -> None:
        async for word in process.words:
            if word.get("ready") is True:
                return
            if isinstance(share := word.get("progress"), float):
                self._telling.loading(run, share)
        raise await self._ended_early(run, process)

    async def _count(self, run: Run, process: EngineProcess) -> None:
        """What our own process says of its requests; llama-server is asked after each."""
        if self._engine.llama_server is not None:
            await self._ask_tokens(run)
        async for word in process.words:
            tokens = word.get("tokens")
            if isinstance(tokens, dict) and all(_is_count(tokens.get(kind)) for kind in TOKEN_KINDS):
                run.tokens = {kind: tokens[kind] for kind in TOKEN_KINDS}

    async def _watch(self, run: Run) -> None:
        """A process that hangs would hold its clients for ever. Raises `RunFailed` for one that answers no more."""
        is_server = self._engine.llama_server is not None
        path, patience_s = ("/metrics", SERVER_PATIENCE_S) if is_server else ("/health", PATIENCE_S)
        misses = 0
        while misses * ALIVE_S < patience_s:
            if await answers(lambda: self.connect(run), path):
                misses = 0
                await anyio.sleep(ALIVE_S)
            else:
                misses += 1
        raise RunFailed(self._local, f"the model's engine process hangs: no answer for {patience_s:g} s")

    async def _ask_health(self, run: Run, process: EngineProcess) -> None:
        progress = LoadProgress(self._file_bytes(run.model), run.sending_bytes(self._local))

        def tell() -> None:
            self._telling.loading(run, progress.share(mapped_bytes(process), self._sent_bytes(run)))

        if not await wait_healthy(lambda: self.connect(run), process, tell):
            raise await self._ended_early(run, process)
        with anyio.move_on_after(REPORT_S):
            while not run.report.is_complete:
                await run.changed.wait()

    async def _ask_tokens(self, run: Run) -> None:
        counted: dict[str, float] = {}
        while True:
            await run.answered.wait()
            run.answered = anyio.Event()
            counted = await counted_tokens(lambda: self.connect(run), counted) or counted
            run.tokens = {kind: counted[kind] for kind in TOKEN_KINDS} if counted else None

    def _file_bytes(self, model: str) -> int:
        local = self._package(model)
        return 0 if local is None else local.package.size_bytes

    def _sent_bytes(self, run: Run) -> int:
        rows = self._tunnels.status()["open"]
        fields = {"purpose": Purpose.ENGINE.value, "model": run.model, "generation": run.fence.generation}
        return sum(row["sent_bytes"] for row in rows if fields.items() <= row.items())

    async def _ended_early(self, run: Run, process: EngineProcess) -> RunFailed:
        ending = await process.wait()
        self._emit(EngineDied(run.model, run.fence.generation, "model", ending.how, ending.last_lines))
        return await self._real_cause(run, RunFailed(self._local, f"the engine ended while loading: {ending}"))

    def _check(self, run: Run, placed: Sequence[Placed]) -> None:
        """Raises `RunFailed` where layers are not where the plan has them."""
        problem = wrong_layers(run.report, placed)
        if (local := self._package(run.model)) is not None:
            self._telling.memory(run, placed, local.package.spec)
        if problem is not None:
            raise RunFailed(self._local, problem)

    def _serving(self, run: Run, process: EngineProcess) -> None:
        run.state, run.percent = RunState.SERVING, 100
        process.forget_log()
        after_s = round(time.monotonic() - run.started_s, 1)
        self._emit(SplitServing(run.model, run.fence.generation, len(run.plan.stages), after_s))
        run.wake()


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _is_count(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool) and 0 <= found < 1e15


def _first(group: BaseExceptionGroup[Any]) -> Exception:
    """One of the errors: they are told one at a time, and the first is the cause of the others."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
