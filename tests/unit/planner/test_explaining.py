"""An explained plan says why each node is in or out, with figures that are true."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from planning_makers import a_node, linked

from planner import (
    CapacityShortfall,
    Constraints,
    LayerSpec,
    LinkMatrix,
    ModelSpec,
    NodeSpec,
    SplitPlan,
    Willingness,
    Workload,
    plan_split,
)
from planner.plan import Explanation, NodeVerdict

GB = 10**9
MODEL = ModelSpec("m", (LayerSpec(count=10, weight_bytes=GB),), hidden_size=1000)


def explained(*nodes: NodeSpec, links: LinkMatrix | None = None, **options: Any) -> tuple[SplitPlan, Explanation]:
    asked = {"engine": "chain", **options}
    plan = plan_split(MODEL, nodes, links or linked(*nodes), Workload(context=0), explain=True, **asked)
    assert plan.explanation is not None
    return plan, plan.explanation


def verdict(explanation: Explanation, node: str) -> NodeVerdict:
    return next(each for each in explanation.verdicts if each.node == node)


def test_every_node_gets_one_verdict_and_used_means_that_it_holds_layers() -> None:
    nodes = [a_node(name, bandwidth_gb_s=speed) for name, speed in (("a", 100), ("b", 90), ("c", 80), ("d", 70))]
    plan, explanation = explained(*nodes)
    assert [each.node for each in explanation.verdicts] == ["a", "b", "c", "d"]
    assert {each.node for each in explanation.verdicts if each.used} == set(plan.nodes)


def test_worth_of_a_used_node_is_the_value_of_the_plan_made_without_it() -> None:
    a, b, c = a_node("a"), a_node("b", bandwidth_gb_s=50), a_node("c", bandwidth_gb_s=20)
    _, explanation = explained(a, b, c)
    without_b = plan_split(MODEL, (a, c), linked(a, c), Workload(context=0), engine="chain")
    assert verdict(explanation, "b").without_value == pytest.approx(without_b.value)


def test_runner_up_is_the_best_of_the_plans_without_one_node() -> None:
    a, b, c = a_node("a"), a_node("b", bandwidth_gb_s=50), a_node("c", bandwidth_gb_s=20)
    plan, explanation = explained(a, b, c)
    assert explanation.runner_up is not None
    values = [each.without_value for each in explanation.verdicts if each.without_value is not None]
    assert explanation.runner_up.value == min(values)
    assert explanation.runner_up.value >= plan.value
    assert explanation.runner_up.without not in explanation.runner_up.nodes


def test_node_that_is_needed_says_that_no_plan_was_found_without_it() -> None:
    _, explanation = explained(a_node("a"), a_node("b"))
    assert "no plan was found without it" in verdict(explanation, "a").why
    assert explanation.runner_up is None


def test_node_slower_than_all_that_are_used_says_by_how_much() -> None:
    _, explanation = explained(a_node("a"), a_node("b"), a_node("slow", bandwidth_gb_s=10))
    slow = verdict(explanation, "slow")
    assert slow.layer_ms == pytest.approx(100.0)
    assert slow.why == "slower than every node used: 100.00 ms for a layer, at most 10.00 there"


def test_fast_node_that_is_too_far_says_what_the_way_takes_and_what_it_would_save() -> None:
    nodes = a_node("a"), a_node("b"), a_node("far", bandwidth_gb_s=200)
    _, explanation = explained(*nodes, links=linked(*nodes, far=500.0))
    far = verdict(explanation, "far")
    assert far.hop_ms == pytest.approx(500.0, rel=0.01)
    assert "going there and back takes 500.00 ms, the 6 layers it could hold would save at most 30.00 ms" in far.why


def test_way_by_an_estimated_rtt_is_marked() -> None:
    nodes = a_node("a"), a_node("b"), a_node("far", bandwidth_gb_s=200)
    measured = linked(*nodes, far=500.0).links
    links = LinkMatrix({pair: replace(link, estimated="far" in pair) for pair, link in measured.items()})
    _, explanation = explained(*nodes, links=links)
    marked = {each.node: each.hop_estimated for each in explanation.verdicts}
    assert marked == {"a": False, "b": False, "far": True}
    assert verdict(explanation, "far").to_dict()["hop_estimated"]


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (a_node("x", bandwidth_gb_s=None), "its memory bandwidth is unknown"),
        (a_node("x", willingness=Willingness.NEVER), "its operator keeps stages off it"),
        (a_node("x", willingness=Willingness.WHEN_NEEDED), "only for when it is needed"),
        (a_node("x", usable_gb=0.5), "not one layer fits on it"),
        (NodeSpec("x"), "has no device"),
    ],
)
def test_node_that_is_barred_says_by_what(node: NodeSpec, why: str) -> None:
    _, explanation = explained(a_node("a"), a_node("b"), node)
    assert why in verdict(explanation, "x").why


def test_node_of_unknown_rtt_is_told_so() -> None:
    a, b = a_node("a"), a_node("b")
    _, explanation = explained(a, b, a_node("x"), links=linked(a, b))
    assert "its RTT is unknown" in verdict(explanation, "x").why


def test_node_beyond_the_rtt_cap_is_told_the_cap() -> None:
    nodes = a_node("a"), a_node("b"), a_node("far", bandwidth_gb_s=500)
    limits = Constraints(coordinator="a", max_stage_rtt_ms=10)
    _, explanation = explained(*nodes, links=linked(*nodes, far=20.0), constraints=limits)
    assert "above 10 ms" in verdict(explanation, "far").why


def test_bottleneck_and_costliest_hop_are_the_plans_largest_figures() -> None:
    nodes = a_node("a"), a_node("b", bandwidth_gb_s=30)
    plan, explanation = explained(*nodes)
    assert explanation.bottleneck_stage is not None
    seconds = [stage.seconds or 0.0 for stage in plan.stages]
    assert seconds[explanation.bottleneck_stage] == max(seconds)
    costs = {(hop.source, hop.target): hop.seconds or 0.0 for hop in plan.hops}
    assert explanation.costliest_hop is not None
    assert costs[explanation.costliest_hop] == max(costs.values())
    assert sum(share for _, share in explanation.shares) == pytest.approx(1.0)


def test_coordinator_of_a_star_goes_nowhere() -> None:
    nodes = a_node("a"), a_node("b")
    _, explanation = explained(*nodes, engine="llama_cpp_rpc", constraints=Constraints(coordinator="a"))
    assert verdict(explanation, "a").hop_ms == 0.0
    assert (verdict(explanation, "b").hop_ms or 0.0) > 1.0


def test_capacity_only_plan_is_explained_without_times() -> None:
    nodes = a_node("a", bandwidth_gb_s=None), a_node("b", bandwidth_gb_s=None), a_node("c", 3, None)
    plan, explanation = explained(*nodes)
    assert plan.capacity_only
    assert (explanation.bottleneck_stage, explanation.costliest_hop, explanation.shares) == (None, None, ())
    assert "as few stages hold the model without it" in verdict(explanation, "c").why


def test_shortfall_stays_a_shortfall_when_an_explanation_is_asked() -> None:
    with pytest.raises(CapacityShortfall):
        explained(a_node("a"))


def test_explanation_is_part_of_the_json_only_when_asked() -> None:
    plan, _ = explained(a_node("a"), a_node("b"))
    assert set(plan.to_dict()["explanation"]) == {
        "nodes", "bottleneck_stage", "costliest_hop", "shares", "tightest_stage", "runner_up",
    }  # fmt: skip
    assert "explanation" not in replace(plan, explanation=None).to_dict()
