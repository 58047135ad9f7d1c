"""The planner gives the right answer on situations from public bug reports, and its message keeps its shape."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner import (
    CapacityShortfall,
    Constraints,
    Exclusion,
    InvalidPlanInput,
    LayerSpec,
    LinkMatrix,
    ModelSpec,
    NodeSpec,
    ShortfallReport,
    SplitPlan,
    Workload,
    plan_split,
)
from planner.files import parse_profile

TESTS = Path(__file__).parents[2]
CASES = json.loads((TESTS / "cases" / "planning.json").read_text())
PROFILE = TESTS.parent / "configs" / "models" / "qwen3-coder-480b-a35b-q4_k_xl.toml"


def a_model(case: dict[str, Any]) -> ModelSpec:
    kv = case["model"]["kv_bytes_per_token_per_layer"]
    layers = tuple(
        LayerSpec.with_f16_kv(count=1, weight_bytes=count, kv_bytes_per_token=kv)
        for count in case["model"]["layer_bytes"]
    )
    return ModelSpec(
        "m",
        layers,
        embedding_bytes=case["model"]["embedding_bytes"],
        output_bytes=case["model"]["output_bytes"],
    )


def outcome(case: dict[str, Any], objective: str = "fewest") -> SplitPlan | ShortfallReport:
    nodes = [NodeSpec.single(node["id"], usable_bytes=node["usable_bytes"]) for node in case["nodes"]]
    workload = Workload(context=case["workload"]["context"], lanes=case["workload"]["lanes"])
    try:
        return plan_split(
            a_model(case), nodes, LinkMatrix.all_free(), workload, objective=objective, engine=case["engine"]
        )
    except CapacityShortfall as shortfall:
        return shortfall.report


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case_has_its_right_answer(case: dict[str, Any]) -> None:
    expect, found = case["expect"], outcome(case)
    if expect["result"] == "shortfall":
        assert isinstance(found, ShortfallReport)
        shown = found.to_dict()
        figures = {key: value for key, value in expect.items() if key != "result"}
        assert {key: shown[key] for key in figures} == figures
        return
    assert isinstance(found, SplitPlan)
    assert len(found.stages) == expect["fewest_stages"]
    assert found.lower_bound == expect["fewest_stages"]
    if "first_node" in expect:
        assert found.stages[0].node == expect["first_node"]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_sufficient_remedy_adds_exactly_enough(case: dict[str, Any]) -> None:
    found = outcome(case)
    if isinstance(found, SplitPlan):
        return
    added = next(remedy for remedy in found.remedies if remedy.action == "add_node")
    needed = added.details["usable_bytes"]
    for usable_bytes, plans in ((needed, True), (needed - 1, False)):
        with_one_more = {**case, "nodes": [*case["nodes"], {"id": "new", "usable_bytes": usable_bytes}]}
        assert isinstance(outcome(with_one_more), SplitPlan) is plans


def the_seed(*usable_gb: float, context: int = 108_288) -> SplitPlan:
    model = parse_profile(tomllib.loads(PROFILE.read_text()))
    nodes = [NodeSpec.single(name, usable_bytes=round(gb * 1e9)) for name, gb in zip("abc", usable_gb, strict=False)]
    client = Exclusion("z", "client", advice="join it as a worker")
    workload = Workload(context=context)
    return plan_split(model, nodes, LinkMatrix(), workload, objective="fewest", excluded=[client])


def test_seed_shortfall_says_how_short_who_counted_and_who_was_left_out() -> None:
    with pytest.raises(CapacityShortfall) as caught:
        the_seed(80, 74.6)
    assert str(caught.value).startswith(
        "aggregate split capacity for Qwen3-Coder-480B-A35B-Instruct-UD-Q4_K_XL requires 302.1GB, mesh has 154.6GB"
        " across 2 participant(s), short by 147.5GB; participants [a:80.0GB cached=unknown missing=unknown rtt=unknown"
        " transfer=true, b:74.6GB cached=unknown missing=unknown rtt=unknown transfer=true]; excluded [z:client]"
    )


def test_seed_plans_once_a_third_node_brings_170_gb() -> None:
    plan = the_seed(80, 74.6, 170)
    assert [stage.layer_start for stage in plan.stages][1:] == [stage.layer_end for stage in plan.stages][:-1]
    assert plan.stages[-1].layer_end == 62
    assert all(stage.bytes.total <= stage.bytes.usable for stage in plan.stages)


def test_context_remedy_plans_and_one_step_more_does_not() -> None:
    with pytest.raises(CapacityShortfall) as caught:
        the_seed(80, 74.6, 140)
    (remedy,) = [each for each in caught.value.report.remedies if each.action == "shorten_context"]
    context = remedy.details["context"]
    assert the_seed(80, 74.6, 140, context=context).context == context
    with pytest.raises(CapacityShortfall):
        the_seed(80, 74.6, 140, context=context + 256)


def test_host_budget_too_small_for_the_embedding_is_a_constraint_shortfall() -> None:
    model = ModelSpec("m", (LayerSpec(count=2, weight_bytes=10),), embedding_bytes=1000)
    nodes = [NodeSpec.single("a", usable_bytes=10**9, host_usable_bytes=5)]
    with pytest.raises(CapacityShortfall) as caught:
        plan_split(model, nodes, LinkMatrix(), Workload(context=0), objective="fewest")
    assert (caught.value.report.kind, caught.value.report.binds) == ("constraint", "coordinator_host")


def test_stage_limit_that_alone_prevents_a_plan_is_named() -> None:
    case = next(case for case in CASES if case["id"] == "kv-shorter-context-fits")
    nodes = [NodeSpec.single(node["id"], usable_bytes=node["usable_bytes"]) for node in case["nodes"]]
    with pytest.raises(CapacityShortfall) as caught:
        plan_split(
            a_model(case), nodes, LinkMatrix.all_free(), Workload(context=4096), objective="fewest",
            constraints=Constraints(max_stages=2), engine="chain",
        )  # fmt: skip
    assert (caught.value.report.kind, caught.value.report.binds) == ("constraint", "max_stages")


def test_no_nodes_at_all_is_a_shortfall_of_everything() -> None:
    with pytest.raises(CapacityShortfall) as caught:
        plan_split(ModelSpec("m", (LayerSpec(count=1, weight_bytes=7),)), [], LinkMatrix(), Workload(context=0))
    assert caught.value.report.short_by_bytes == 7


def test_duplicate_ids_are_refused() -> None:
    node = NodeSpec.single("a", usable_bytes=10)
    with pytest.raises(InvalidPlanInput):
        plan_split(
            ModelSpec("m", (LayerSpec(count=1, weight_bytes=1),)), [node, replace(node)], LinkMatrix(), Workload()
        )


def timed_outcome(case: dict[str, Any], objective: str) -> SplitPlan:
    nodes = [
        NodeSpec.single(
            node["id"],
            usable_bytes=node["usable_bytes"],
            memory_bandwidth_bytes_per_s=node["memory_bandwidth_bytes_per_s"],
        )
        for node in case["nodes"]
    ]
    return plan_split(
        a_model(case), nodes, LinkMatrix.all_free(), Workload(context=0), objective=objective, engine="chain"
    )


def layers_by_node(plan: SplitPlan) -> dict[str, int]:
    return {stage.node: stage.layers for stage in plan.stages}


def a_case(name: str) -> dict[str, Any]:
    return next(case for case in CASES if case["id"] == name)


def test_one_fast_node_that_holds_the_model_is_not_joined_by_a_slow_one() -> None:
    assert layers_by_node(timed_outcome(a_case("one-is-enough"), "latency")) == {"fast": 20}


def test_big_slow_node_takes_only_what_the_fast_one_cannot_hold() -> None:
    case = a_case("cpu-box-with-more-memory")
    plan = timed_outcome(case, "latency")
    assert layers_by_node(plan) == case["expect"]["latency_layers_by_node"]
    assert plan.gap == 0


def test_five_uneven_macs_share_layers_so_that_none_is_waited_for() -> None:
    case = a_case("five-macs")
    plan = timed_outcome(case, "throughput")
    assert round(plan.value * 1000, 2) == case["expect"]["throughput_bottleneck_ms"]
    assert plan.gap == 0
