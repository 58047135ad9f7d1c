"""One plan being run: how far it is, what was reported of it, why it is over.

What lives here: `Run`, `RunState` and `RunFailed`. What does not: what is done with them
(`meshnode.engine.runs.models`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import anyio

from meshnode.engine.process import EngineProcess
from meshnode.engine.runs.llama_server import says_trouble
from meshnode.engine.runs.report import LoadReport
from meshnode.resources.sizes import amount
from planner.plan import SplitPlan
from proto.ids import NodeId, short
from proto.messages import Fence, StageReport, StageState


class RunState(StrEnum):
    """How far a run is."""

    STAGES = "waiting for stages"
    LOADING = "loading"
    SERVING = "serving"
    OVER = "over"


class RunFailed(Exception):
    """A plan that stands can't be run: whose part failed, and why."""

    def __init__(self, node: NodeId, reason: str) -> None:
        self.node = node
        self.reason = reason
        super().__init__(f"{short(node)}: {reason}")


@dataclass
class Run:
    """One plan being run. `stages` has the newest report of each worker; `cause` says why it is over."""

    model: str
    plan: SplitPlan
    fence: Fence
    workers: tuple[NodeId, ...]
    started_s: float
    state: RunState = RunState.STAGES
    percent: int = 0
    cause: str = ""
    stages: dict[NodeId, StageReport] = field(default_factory=dict)
    report: LoadReport = field(default_factory=LoadReport)
    process: EngineProcess | None = None
    own_server_pid: int | None = None
    """Of the RPC server for this machine's CPU, where there is one (`meshnode.engine.runs.own_server`)."""
    tokens: dict[str, float] | None = None
    """Tokens read (`prompt`) and made (`completion`) since it serves, and the newest request's speed (`per_second`)."""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    changed: anyio.Event = field(default_factory=anyio.Event)
    answered: anyio.Event = field(default_factory=anyio.Event)
    """Set when a request has been answered; whoever waits for the next replaces it."""

    def keeps(self, line: str) -> bool:
        """Whether a line of llama-server's log is kept: while it serves, only what tells of its own trouble."""
        return self.state is not RunState.SERVING or says_trouble(line)

    def read_line(self, line: str) -> None:
        """A line of the log."""
        self.report.read_line(line)
        if self.report.is_complete and self.state is RunState.LOADING:
            self.wake()

    def wake(self) -> None:
        """Something about it changed."""
        self.changed.set()
        self.changed = anyio.Event()

    @property
    def weights_bytes(self) -> int:
        """What the plan's devices hold of the model once it is loaded."""
        return sum(stage.bytes.weights + stage.bytes.endpoint for stage in self.plan.stages)

    @property
    def progress(self) -> str:
        """How far it is, for people: `loading 42% of 0.2GB`."""
        if self.state is RunState.STAGES:
            return f"waiting for stages: {', '.join(map(self._stage_progress, self.workers))}"
        if self.state is RunState.LOADING:
            return f"loading {self.percent}% of {amount(self.weights_bytes)}"
        return self.state.value

    def _stage_progress(self, worker: NodeId) -> str:
        report = self.stages.get(worker)
        if report is None or report.state is not StageState.FILLING:
            return f"{short(worker)} {'starting' if report is None else report.state.value}"
        doing = "fetching weights" if report.fetching else "filling its weights cache"
        percent = int(100 * report.done_bytes / max(1, report.total_bytes))
        return f"{short(worker)} {doing} {percent}% of {amount(report.total_bytes)}"

    def sending_bytes(self, local: NodeId) -> int:
        """What the workers get over tunnels from `local`: their tensors without those they have by hash."""
        theirs = (stage.bytes for stage in self.plan.stages if stage.node != local)
        return sum(each.weights + each.endpoint for each in theirs) - sum(
            report.done_bytes for report in self.stages.values()
        )

    def status(self) -> dict[str, Any]:
        """Plain JSON of how far it is."""
        return {
            "state": self.state.value,
            "percent": self.percent,
            "total_bytes": self.weights_bytes,
            "progress": self.progress,
            "tokens": self.tokens,
            "stages": [
                {
                    "node": worker,
                    "state": None if (report := self.stages.get(worker)) is None else _state_word(report),
                    "done_bytes": 0 if report is None else report.done_bytes,
                    "total_bytes": 0 if report is None else report.total_bytes,
                }
                for worker in self.workers
            ],
        }

    def failed_stage(self) -> StageReport | None:
        """The report of a stage that can't run any more."""
        return next((each for each in self.stages.values() if each.state is StageState.FAILED), None)


def _state_word(report: StageReport) -> str:
    """`fetching` is how a cache is filled from elsewhere."""
    return "fetching" if report.fetching and report.state is StageState.FILLING else report.state.value
