"""Quick bounds are bounds: the fill bound, layers with prices, one problem that stands for many coordinators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import planner.optimising
from planner import (
    CHAIN,
    CapacityShortfall,
    LayerSpec,
    Link,
    LinkMatrix,
    ModelSpec,
    NodeSpec,
    SplitPlan,
    Workload,
    plan_split,
)
from planner.compiling import compile_instance
from planner.fill_bound import Fill, FillBound
from planner.first_stages import alike
from planner.memory import memory_need
from planner.prefix import longest_prefix
from planner.priced_windows import priced_bound
from planner.request import PlanRequest

MB = 10**6
Mesh = tuple[ModelSpec, list[NodeSpec], LinkMatrix]


@st.composite
def meshes(draw: st.DrawFn, nodes: int = 7, layers: int = 10) -> Mesh:
    """Nodes in up to three sites, with links that differ a little within them."""
    count = draw(st.integers(3, nodes))
    weights = draw(st.lists(st.integers(5, 9), min_size=layers, max_size=layers))
    model = ModelSpec("m", tuple(LayerSpec(count=1, weight_bytes=w * MB) for w in weights), hidden_size=100)
    site = [draw(st.integers(0, 2)) for _ in range(count)]
    specs = [
        NodeSpec.single(
            f"n{number}",
            usable_bytes=draw(st.integers(8, 40)) * MB,
            memory_bandwidth_bytes_per_s=draw(st.integers(1, 9)) * 1e9,
        )
        for number in range(count)
    ]
    links = {
        (specs[a].id, specs[b].id): Link(
            draw(st.integers(1, 9)) / 100 + (0.0 if site[a] == site[b] else 5.0), bandwidth_bytes_per_s=1e9
        )
        for a in range(count)
        for b in range(count)
        if a != b
    }
    return model, specs, LinkMatrix(links)


def planned(mesh: Mesh, **options: Any) -> SplitPlan | None:
    model, nodes, links = mesh
    try:
        return plan_split(model, nodes, links, Workload(context=0), engine="chain", **options)
    except CapacityShortfall:
        return None


@settings(max_examples=60, deadline=None)
@given(meshes(), st.sampled_from((1, 1 << 20)))
def test_problem_that_stands_for_many_coordinators_bounds_all_of_them(mesh: Mesh, most_groups: int) -> None:
    exact = planned(mesh)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner.optimising, "_FEW_COORDINATORS", 1)
        patch.setattr(planner.optimising, "_MOST_GROUPS", most_groups)
        grouped = planned(mesh)
    assert (exact is None) == (grouped is None)
    if exact is None or grouped is None:
        return
    assert exact.gap == 0.0
    assert grouped.lower_bound is not None
    assert grouped.lower_bound <= exact.value + 1e-12
    assert grouped.value >= exact.value - 1e-12
    assert grouped.coordinator.node == grouped.stages[0].node
    assert grouped.prediction is not None
    assert grouped.prediction.latency_s == pytest.approx(grouped.value)


def test_nodes_are_alike_up_to_the_tolerance() -> None:
    back = np.array([[0.0, 1, 9], [2, 0, 10], [9, 10, 0]])
    assert alike(back, 1.0) == [[0, 1], [2]]
    assert alike(back, 0.5) == [[0], [1], [2]]


def test_all_nodes_are_in_one_group_each_even_where_ways_are_unknown() -> None:
    back = np.full((4, 4), np.inf)
    assert sorted(node for group in alike(back, 1.0) for node in group) == [0, 1, 2, 3]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 20)), min_size=1, max_size=7))
def test_fill_bound_is_the_least_over_all_choices_of_devices(devices: list[tuple[int, int, int]]) -> None:
    """Against enumeration of which devices are used, each choice filled cheapest first."""
    total = 20
    rate, width, charge = (np.array(column, dtype=np.float64) for column in zip(*devices, strict=True))
    fill = FillBound(Fill(rate, width, float(total)), charge, head_ns=5)
    first, exact = fill.bound, fill.tighten()
    values = []
    for chosen in range(1, 1 << len(devices)):
        used = sorted((rate[v], width[v]) for v in range(len(devices)) if chosen >> v & 1)
        left, cost = float(total), 5.0 + sum(charge[v] for v in range(len(devices)) if chosen >> v & 1)
        for per_unit, most in used:
            cost += per_unit * min(left, most)
            left -= min(left, most)
        if left == 0.0:
            values.append(cost)
    if not values:
        assert exact is None
        return
    assert first is not None
    assert exact is not None
    assert first <= exact <= min(values)
    assert exact >= min(values) - 1.0


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=14),
    st.lists(st.integers(1, 20), min_size=1, max_size=6),
    st.integers(0, 5),
    st.integers(0, 5),
    st.booleans(),
)
def test_layers_with_prices_bound_the_longest_prefix(
    sizes: list[int], usable: list[int], first: int, last: int, whole: bool
) -> None:
    model = ModelSpec(
        "m", tuple(LayerSpec(count=1, weight_bytes=size) for size in sizes), embedding_bytes=first, output_bytes=last
    )
    nodes = tuple(NodeSpec.single(f"n{number}", usable_bytes=size) for number, size in enumerate(usable))
    request = PlanRequest(model, nodes, LinkMatrix(), Workload(context=0), engine=CHAIN)
    instance = compile_instance(request, nodes, memory_need(model, request.workload, request.engine))
    devices = range(len(usable))
    exact = longest_prefix(instance, devices)
    assert exact.exact
    bound = priced_bound([instance.reach_row(device) for device in devices], [1] * len(usable), sizes, whole=whole)
    assert exact.layers <= bound <= len(sizes)
