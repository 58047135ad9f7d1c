"""How far a run is, in words."""

from __future__ import annotations

import pytest
from planning_makers import a_plan

from meshnode.engine.runs.run import Run, RunState
from proto.ids import NodeId
from proto.messages import Fence, StageReport, StageState

STUDY, LOFT = NodeId("study" + "a" * 47), NodeId("loft" + "a" * 48)
FENCE = Fence(1, "node0")


@pytest.fixture
async def run() -> Run:
    """Made on an event loop, as its events need."""
    return Run("m", a_plan((4, 7, 7)), FENCE, (STUDY, LOFT), 0.0)


async def test_stages_that_are_waited_for_are_named_with_how_far_each_is(run: Run) -> None:
    assert run.progress == "waiting for stages: studyaaaaa starting, loftaaaaaa starting"
    run.stages[STUDY] = StageReport("m", FENCE, StageState.FILLING, 40_000_000, 80_000_000, "")
    run.stages[LOFT] = StageReport("m", FENCE, StageState.READY, 0, 0, "")
    assert run.progress == (
        "waiting for stages: studyaaaaa filling its weights cache 50% of 80.0MB, loftaaaaaa ready"
    )  # fmt: skip


async def test_loading_is_told_in_percent_and_bytes(run: Run) -> None:
    run.state, run.percent = RunState.LOADING, 42
    assert run.weights_bytes > 0
    assert run.progress.startswith("loading 42% of ")
    assert run.progress.endswith("B")
