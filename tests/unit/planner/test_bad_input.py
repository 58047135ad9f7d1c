"""Figures that can't be right are refused by name; figures at the edge give a sound plan or a shortfall."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import (
    CapacityShortfall,
    Constraints,
    DeviceSpec,
    Exclusion,
    InvalidPlanInput,
    LayerSpec,
    Link,
    LinkMatrix,
    ModelSpec,
    NodeSpec,
    SplitPlan,
    Workload,
    plan_split,
)

GB = 10**9
ONE = ModelSpec("m", (LayerSpec(count=4, weight_bytes=GB),))


def a_device(**figures: Any) -> DeviceSpec:
    return DeviceSpec("0", **{"capacity_bytes": GB, **figures})


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: a_device(capacity_bytes=-1), "capacity_bytes"),
        (lambda: a_device(capacity_bytes=1.5), "capacity_bytes"),
        (lambda: a_device(capacity_bytes=True), "capacity_bytes"),
        (lambda: a_device(capacity_bytes=1 << 60), "capacity_bytes"),
        (lambda: a_device(headroom=math.nan), "headroom"),
        (lambda: a_device(headroom=1.5), "headroom"),
        (lambda: a_device(declared_usable_bytes=-5), "usable_bytes"),
        (lambda: a_device(memory_bandwidth_bytes_per_s=math.nan), "memory_bandwidth"),
        (lambda: a_device(memory_bandwidth_bytes_per_s=math.inf), "memory_bandwidth"),
        (lambda: a_device(memory_bandwidth_bytes_per_s=0.0), "memory_bandwidth"),
        (lambda: a_device(memory_bandwidth_bytes_per_s=-1.0), "memory_bandwidth"),
        (lambda: a_device(memory_bandwidth_bytes_per_s=1e-300), "memory_bandwidth"),
        (lambda: a_device(compute_flops=math.nan), "compute_flops"),
        (lambda: a_device(compute_flops=0.5), "compute_flops"),
        (lambda: NodeSpec("", devices=()), "node.id"),
        (lambda: NodeSpec("a\x1b[2J"), "node.id"),
        (lambda: NodeSpec("a", devices=(a_device(), a_device())), "devices"),
        (lambda: NodeSpec("a", rtt_ms=math.nan), "rtt_ms"),
        (lambda: NodeSpec.single("a"), "node a"),
        (lambda: Link(math.nan), "rtt_ms"),
        (lambda: Link(-1.0), "rtt_ms"),
        (lambda: Link(1.0, bandwidth_bytes_per_s=0.0), "bandwidth"),
        (lambda: Link(1.0, bandwidth_bytes_per_s=1e-300), "bandwidth"),
        (lambda: LinkMatrix({("a", "a"): Link(1.0)}), "link"),
        (lambda: LayerSpec(count=0, weight_bytes=1), "count"),
        (lambda: LayerSpec(count=1, weight_bytes=-1), "weight_bytes"),
        (lambda: LayerSpec(count=1, weight_bytes=1, active_weight_bytes=2), "active_weight_bytes"),
        (lambda: LayerSpec.with_f16_kv(count=1, weight_bytes=1, kv_bytes_per_token=3), "kv_bytes_per_token"),
        (lambda: ModelSpec("m", ()), "layers"),
        (lambda: ModelSpec("m", (LayerSpec(count=4096, weight_bytes=1), LayerSpec(count=1, weight_bytes=1))), "layers"),
        (lambda: ModelSpec("m", (LayerSpec(count=2, weight_bytes=1 << 56),)), "model"),
        (lambda: Workload(context=-1), "context"),
        (lambda: Workload(lanes=0), "lanes"),
        (lambda: Constraints(min_stages=3, max_stages=2), "max_stages"),
        (lambda: Constraints(min_tokens_per_s=0.0), "min_tokens_per_s"),
        (lambda: Constraints(max_stage_rtt_ms=math.nan), "max_stage_rtt_ms"),
        (lambda: Constraints(forbidden_boundaries=frozenset({0})), "forbidden_boundaries"),
    ],
)
def test_figure_that_cannot_be_right_is_refused_by_name(make: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidPlanInput) as caught:
        make()
    assert field in caught.value.field


A = NodeSpec.single("a", usable_bytes=10 * GB)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"objective": "speed"}, "objective"),
        ({"engine": "vllm"}, "engine"),
        ({"constraints": Constraints(coordinator="nobody")}, "constraints.coordinator"),
        ({"constraints": Constraints(forbidden_boundaries=frozenset({9}))}, "constraints.forbidden_boundaries"),
        ({"excluded": [Exclusion("a", "client")]}, "excluded"),
    ],
)
def test_request_that_contradicts_itself_is_refused_by_name(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidPlanInput) as caught:
        plan_split(ONE, [A], LinkMatrix(), Workload(context=0), **options)
    assert caught.value.field == field


@pytest.mark.parametrize("objective", ["latency", "throughput", "fewest", "proportional"])
@pytest.mark.parametrize("engine", ["chain", "llama_cpp_rpc"])
def test_one_node_is_enough_where_it_holds_the_model(objective: str, engine: str) -> None:
    node = NodeSpec.single("a", usable_bytes=10 * GB, memory_bandwidth_bytes_per_s=1e11)
    plan = plan_split(ONE, [node], LinkMatrix(), Workload(context=0), objective=objective, engine=engine)
    assert [(stage.layer_start, stage.layer_end) for stage in plan.stages] == [(0, 4)]


def test_nodes_smaller_than_one_layer_are_a_placement_shortfall_however_many() -> None:
    nodes = [NodeSpec.single(f"n{n}", usable_bytes=GB - 1) for n in range(50)]
    with pytest.raises(CapacityShortfall) as caught:
        plan_split(ONE, nodes, LinkMatrix(), Workload(context=0), engine="chain")
    report = caught.value.report
    assert (report.kind, report.placeable_layers, report.short_layers) == ("placement", 0, 4)


def planned(nodes: list[NodeSpec], links: LinkMatrix, engine: str, objective: str) -> SplitPlan | None:
    try:
        return plan_split(ONE, nodes, links, Workload(context=0), engine=engine, objective=objective)
    except CapacityShortfall:
        return None


SPEEDS = st.one_of(st.none(), st.floats(min_value=1.0, max_value=1e30), st.sampled_from((1.0, 1e9, 1e12, 1e30)))
RTTS = st.one_of(st.floats(min_value=0, max_value=1e7), st.sampled_from((0.0, 1.0, 1e7)))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5 * GB), SPEEDS), max_size=4),
    st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 3)), st.tuples(RTTS, SPEEDS)),
    st.sampled_from(("chain", "llama_cpp_rpc")),
    st.sampled_from(("latency", "throughput", "fewest", "proportional")),
)
def test_any_figures_that_are_accepted_give_a_sound_plan_or_a_shortfall(
    sizes: list[tuple[int, float | None]],
    pairs: dict[tuple[int, int], tuple[float, float | None]],
    engine: str,
    objective: str,
) -> None:
    nodes = [
        NodeSpec.single(f"n{n}", usable_bytes=size, memory_bandwidth_bytes_per_s=speed)
        for n, (size, speed) in enumerate(sizes)
    ]
    links = LinkMatrix(
        {(f"n{a}", f"n{b}"): Link(rtt, bandwidth_bytes_per_s=speed) for (a, b), (rtt, speed) in pairs.items() if a != b}
    )
    plan = planned(nodes, links, engine, objective)
    if plan is None:
        return
    assert [stage.layer_start for stage in plan.stages] == [0, *(stage.layer_end for stage in plan.stages[:-1])]
    assert plan.stages[-1].layer_end == 4
    assert all(stage.bytes.total <= stage.bytes.usable for stage in plan.stages)
    assert len({(stage.node, stage.device) for stage in plan.stages}) == len(plan.stages)
    assert math.isfinite(plan.value)
    assert plan.lower_bound is None or plan.lower_bound <= plan.value
