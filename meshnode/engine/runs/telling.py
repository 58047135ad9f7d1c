"""What is told of a run while it loads: how far it is, and its memory beside the plan's.

What lives here: `Telling`, which makes events of both. What does not: the run (`meshnode.engine.runs.models`), the
comparison (`meshnode.engine.runs.checking`), how far people are shown that it is (`meshnode.engine.runs.run`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from meshnode.engine.runs.checking import Placed, memory_rows
from meshnode.engine.runs.run import Run
from meshnode.events import Event, SplitLoading, SplitMemoryCheck
from planner.model import ModelSpec
from proto.ids import NodeId
from proto.messages import StageReport

PERCENT_STEP: Final = 10
"""Progress is told in steps of this size: a line each, not a hundred."""


class Telling:
    """Tells of the runs that `local` coordinates."""

    def __init__(self, local: NodeId, emit: Callable[[Event], None]) -> None:
        self._local = local
        self._emit = emit

    def loading(self, run: Run, share: float) -> None:
        """So much of the model is loaded."""
        self._step(run, "loading", self._local, run.percent, share, run.weights_bytes)
        run.percent = int(share * 100)

    def filling(self, run: Run, worker: NodeId, report: StageReport, before: StageReport | None) -> None:
        """So far a worker has what it needs of the weights; `before` is its report before this one."""
        total = max(1, report.total_bytes)
        told = 0 if before is None else int(100 * before.done_bytes / max(1, before.total_bytes))
        step = "fetching" if report.fetching else "filling from local files"
        self._step(run, step, worker, told, report.done_bytes / total, total)

    def memory(self, run: Run, placed: Sequence[Placed], model: ModelSpec) -> None:
        """What each device really holds."""
        for row in memory_rows(run.report, placed, run.plan, model):
            self._emit(
                SplitMemoryCheck(
                    run.model, run.fence.generation, row.node, row.device, row.weights, row.predicted_weights,
                    row.cache, row.predicted_cache, row.compute, row.predicted_compute, row.mapped,
                )
            )  # fmt: skip

    def _step(self, run: Run, step: str, node: NodeId, told: int, share: float, total_bytes: int) -> None:
        percent = int(share * 100)
        if percent // PERCENT_STEP > told // PERCENT_STEP:
            done = int(share * total_bytes)
            self._emit(SplitLoading(run.model, run.fence.generation, step, node, percent, done, total_bytes))
