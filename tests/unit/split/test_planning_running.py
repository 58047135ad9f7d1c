"""A job with a running plan gets the plan that leaves most of it in place."""

from __future__ import annotations

from dataclasses import replace

from meshnode.split import PlanAsked
from meshnode.split.planning import PlanJob, plan_here
from planner import LayerSpec, Link, LinkMatrix, ModelSpec, NodeSpec, Objective, SplitPlan, Workload

GB = 10**9
ASKED = PlanAsked(
    ModelSpec("m", (LayerSpec(count=9, weight_bytes=GB),)), Workload(context=256), objective=Objective.FEWEST
)


def a_job(*names: str) -> PlanJob:
    nodes = tuple(NodeSpec.single(name, usable_bytes=4 * GB, host_usable_bytes=GB) for name in names)
    links = {(a, b): Link(1.0) for a in names for b in names if a != b}
    return PlanJob(ASKED, nodes, LinkMatrix(links), ())


def places(plan: SplitPlan) -> dict[int, str]:
    return {layer: stage.node for stage in plan.stages for layer in range(stage.layer_start, stage.layer_end)}


def test_replan_of_a_job_moves_only_what_was_lost() -> None:
    running = plan_here(a_job("a", "b", "c"))
    assert isinstance(running, SplitPlan)
    lost = running.stages[1].node
    names = [name for name in "abcd" if name != lost]
    new = plan_here(replace(a_job(*names), running=running, margin=0.15))
    assert isinstance(new, SplitPlan)
    before, after = places(running), places(new)
    assert {layer for layer in before if before[layer] != after[layer]} == {
        layer for layer in before if before[layer] == lost
    }
