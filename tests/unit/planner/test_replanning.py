"""A replan moves as little as a plan as good as the best can, and says what it moves."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from planning_makers import linked

from planner import (
    CapacityShortfall,
    Constraints,
    InvalidPlanInput,
    LayerSpec,
    ModelSpec,
    Move,
    NodeSpec,
    Replanned,
    SplitPlan,
    Workload,
    plan_split,
    replan,
)

GB = 10**9
MODEL = ModelSpec("m", (LayerSpec(count=12, weight_bytes=GB),), output_bytes=GB // 2, hidden_size=1000)
AT = Workload(context=0)


def a_node(name: str, usable_gb: float = 5, bandwidth_gb_s: float | None = 100, **more: Any) -> NodeSpec:
    speed = None if bandwidth_gb_s is None else bandwidth_gb_s * 1e9
    return NodeSpec.single(name, usable_bytes=round(usable_gb * GB), memory_bandwidth_bytes_per_s=speed, **more)


def planned(*nodes: NodeSpec, **options: Any) -> SplitPlan:
    return plan_split(MODEL, nodes, linked(*nodes), AT, **{"engine": "chain", **options})


def moved(running: SplitPlan, *nodes: NodeSpec, **options: Any) -> Replanned:
    return replan(MODEL, nodes, linked(*nodes), AT, running, **{"engine": "chain", **options})


def places(plan: SplitPlan) -> dict[int, str]:
    return {layer: stage.node for stage in plan.stages for layer in range(stage.layer_start, stage.layer_end)}


A, B, C = a_node("a"), a_node("b"), a_node("c")


@pytest.mark.parametrize("objective", ["latency", "throughput", "fewest", "proportional"])
@pytest.mark.parametrize("engine", ["chain", "llama_cpp_rpc"])
def test_unchanged_mesh_keeps_the_running_plan(objective: str, engine: str) -> None:
    running = planned(A, B, C, objective=objective, engine=engine)
    again = moved(running, A, B, C, objective=objective, engine=engine)
    assert (again.move, again.moved_bytes, again.kept_layers, again.transfers) == (Move.KEEP, 0, 12, ())
    assert again.plan.stages == running.stages
    assert again.running_value == pytest.approx(running.value)


@pytest.mark.parametrize("objective", ["latency", "throughput", "fewest"])
@pytest.mark.parametrize("engine", ["chain", "llama_cpp_rpc"])
def test_only_the_layers_of_a_lost_node_move_to_its_substitute(objective: str, engine: str) -> None:
    constraints = Constraints(coordinator="a")
    running = planned(A, B, C, objective=objective, engine=engine, constraints=constraints)
    lost = running.stages[1].node if running.stages[1].node != "a" else running.stages[2].node
    rest = [node for node in (A, B, C, a_node("d")) if node.id != lost]
    new = moved(running, *rest, objective=objective, engine=engine, constraints=constraints)
    assert new.move is Move.REPAIR
    before, after = places(running), places(new.plan)
    assert {layer for layer in before if before[layer] != after[layer]} == {
        layer for layer, node in before.items() if node == lost
    }
    assert "d" in new.plan.nodes
    assert all(transfer.source is None and transfer.fetched for transfer in new.transfers)


def test_transfers_count_the_head_with_the_last_layer() -> None:
    running = planned(A, B, C, constraints=Constraints(coordinator="a"))
    last = running.stages[-1]
    rest = [node for node in (A, B, C, a_node("d")) if node.id != last.node]
    new = moved(running, *rest)
    assert new.moved_bytes == last.layers * GB + GB // 2


def test_slightly_better_plan_is_not_worth_moving_for() -> None:
    running = planned(A, B, C)
    faster = a_node("d", bandwidth_gb_s=110)
    assert moved(running, A, B, C, faster, margin=0.1).move is Move.KEEP
    assert moved(running, A, B, C, faster, margin=0.0).move is Move.IMPROVE


def test_improvement_gains_more_than_the_margin_over_the_running_plan() -> None:
    running = planned(A, B, C)
    fast = a_node("d", bandwidth_gb_s=1000)
    new = moved(running, A, B, C, fast, margin=0.1)
    assert new.move is Move.IMPROVE
    assert new.running_value is not None
    assert new.plan.value <= new.running_value * 0.9
    assert new.plan.value <= new.best_value / 0.9
    assert new.moved_bytes > 0


def test_plan_within_the_margin_that_keeps_more_in_place_is_preferred() -> None:
    """The best plan would fill the fast newcomer; all layers but the lost ones can stay for a few percent."""
    running = planned(A, B, C, constraints=Constraints(coordinator="a"))
    lost = running.stages[-1].node
    rest = [node for node in (A, B, C) if node.id != lost]
    newcomer = a_node("d", usable_gb=6, bandwidth_gb_s=110)
    loose = moved(running, *rest, newcomer, margin=0.2)
    strict = moved(running, *rest, newcomer, margin=0.0)
    assert loose.moved_bytes < strict.moved_bytes
    assert loose.plan.value > strict.plan.value
    assert any("keep layers in place" in warning for warning in loose.plan.warnings)
    assert loose.plan.value <= loose.best_value / 0.8


def test_node_that_holds_the_package_needs_nothing_sent() -> None:
    running = planned(A, B, C, constraints=Constraints(coordinator="a"))
    rest = [node for node in (A, B, C) if node.id != running.stages[-1].node]
    new = moved(running, *rest, a_node("d", has_package=True))
    assert new.moved_bytes > 0
    assert new.fetched_bytes == 0


def test_capacity_only_plans_move_least_among_those_of_as_many_stages() -> None:
    nodes = [a_node(name, bandwidth_gb_s=None) for name in "abc"]
    running = planned(*nodes)
    lost = running.stages[1].node
    rest = [node for node in nodes if node.id != lost]
    new = moved(running, *rest, a_node("d", bandwidth_gb_s=None))
    assert (new.plan.unit, len(new.plan.stages)) == ("stages", 3)
    assert new.moved_bytes == new.least_moved_bytes == running.stages[1].layers * GB


def test_no_plan_left_is_a_shortfall() -> None:
    running = planned(A, B, C)
    with pytest.raises(CapacityShortfall):
        moved(running, A, B)


def test_running_plan_of_another_model_is_refused() -> None:
    running = planned(A, B, C)
    other = ModelSpec("other", (LayerSpec(count=5, weight_bytes=GB),))
    with pytest.raises(InvalidPlanInput, match="running"):
        replan(other, (A, B, C), linked(A, B, C), AT, running)


@pytest.mark.parametrize("margin", [-0.1, 1.0, float("nan"), True, "much"])
def test_margin_out_of_range_is_refused(margin: Any) -> None:
    with pytest.raises(InvalidPlanInput, match="margin"):
        moved(planned(A, B, C), A, B, C, margin=margin)


def test_target_that_the_best_plan_meets_is_met_by_the_cheaper_move_too() -> None:
    running = planned(A, B, C, constraints=Constraints(coordinator="a"))
    rest = [node for node in (A, B, C) if node.id != running.stages[-1].node]
    nodes = [*rest, a_node("d", usable_gb=6, bandwidth_gb_s=110)]
    best = planned(*nodes)
    assert best.prediction is not None
    target = best.prediction.tokens_per_s * 0.9999
    new = moved(running, *nodes, margin=0.2, constraints=Constraints(min_tokens_per_s=target))
    assert new.plan.prediction is not None
    assert new.plan.prediction.tokens_per_s >= target


def test_json_says_move_transfers_and_bytes() -> None:
    running = planned(A, B, C, constraints=Constraints(coordinator="a"))
    rest = [node for node in (A, B, C) if node.id != running.stages[-1].node]
    shown = moved(running, *rest, a_node("d")).to_dict()
    assert shown["move"] == "repair"
    assert sum(transfer["bytes"] for transfer in shown["transfers"]) == shown["moved_bytes"]
    assert shown["plan"]["result"] == "plan"


def test_importing_the_planner_imports_no_numpy() -> None:
    code = "import sys, planner; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_running_plan_whose_device_shrank_is_repaired() -> None:
    running = planned(A, B, C)
    smaller = replace(B, devices=(replace(B.devices[0], declared_usable_bytes=2 * GB),))
    new = moved(running, A, smaller, C, a_node("d"))
    assert new.move is Move.REPAIR
    assert new.running_value is None
    assert all(stage.bytes.total <= stage.bytes.usable for stage in new.plan.stages)
