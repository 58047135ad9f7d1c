"""The models a node coordinates, without an engine: what becomes of one that meets a fault of this program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
from planning_makers import a_plan

from meshnode.engine.runs.models import Models
from meshnode.events import Event, SplitLoadFailed
from proto.ids import NodeId
from proto.messages import Fence

ATTIC = NodeId("a" * 52)


async def test_fault_met_with_one_model_is_told_and_costs_nobody_else(tmp_path: Path) -> None:
    told: list[Event] = []
    failed: list[tuple[str, str]] = []
    over = anyio.Event()

    def faulty(model: str) -> Any:
        raise TypeError(f"unsupported operand in {model}")

    def has_failed(model: str, _fence: Fence, _node: NodeId, reason: str) -> None:
        failed.append((model, reason))
        over.set()

    unused: Any = None
    models = Models(
        unused, ATTIC, unused, tmp_path, threads=1, package=faulty, emit=told.append, failed=has_failed
    )  # fmt: skip
    async with anyio.create_task_group() as tasks:
        models.run("m", a_plan((7, 11)), Fence(1, ATTIC), tasks)
        with anyio.fail_after(30):
            await over.wait()
    assert failed == [("m", "a fault of this node: TypeError: unsupported operand in m")]
    assert [type(event) for event in told] == [SplitLoadFailed]
