"""The parts of the latency search, each by itself: relaxed sweeps, prices, routes, local search, sets of devices."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planner import (
    CHAIN,
    LLAMA_CPP_RPC,
    Constraints,
    DeviceSpec,
    LayerSpec,
    Link,
    LinkMatrix,
    ModelSpec,
    NodeSpec,
    Workload,
)
from planner.classes import Classes, classes_of
from planner.compiling import TimedFamily
from planner.effort import Effort
from planner.fill_bound import Fill, FillBound, charges, nearest_hops
from planner.hops import INFINITE
from planner.instance import Instance
from planner.least_cost import LeastCost
from planner.local_search import LocalSearch
from planner.memory import memory_need
from planner.relaxation import PriceAscent, Prices, no_prices, opening_prices, relaxed_path, sweep, through_costs
from planner.request import PlanRequest
from planner.route_relaxation import RouteRelaxation, hop_matrix, worthwhile
from planner.subset_dp import Completion, SubsetSearch

MB = 10**6
PLENTY = 100_000


@st.composite
def instances(draw: st.DrawFn, nodes: int = 6, layers: int = 9) -> Instance:
    """Timed instances under a pinned coordinator, some devices alike, some nodes with two."""
    kinds = [(draw(st.integers(5, 40)) * MB, draw(st.integers(1, 5)) * 1e9) for _ in range(3)]
    weights = draw(st.lists(st.integers(1, 9), min_size=layers, max_size=layers))
    model = ModelSpec("m", tuple(LayerSpec(count=1, weight_bytes=w * MB) for w in weights), output_bytes=2 * MB)
    specs = []
    for number in range(draw(st.integers(2, nodes))):
        chosen = [kinds[draw(st.integers(0, 2))] for _ in range(draw(st.sampled_from((1, 1, 2))))]
        devices = tuple(
            DeviceSpec(f"d{n}", 100 * MB, declared_usable_bytes=usable, memory_bandwidth_bytes_per_s=speed)
            for n, (usable, speed) in enumerate(chosen)
        )
        specs.append(NodeSpec(f"n{number}", devices=devices))
    even = draw(st.booleans())
    links = {
        (a.id, b.id): Link(1.0 if even else draw(st.integers(0, 30)) / 10, bandwidth_bytes_per_s=1e9)
        for a in specs
        for b in specs
        if a is not b
    }
    limits = Constraints(
        coordinator="n0",
        min_stages=draw(st.sampled_from((1, 1, 2))),
        max_stages=draw(st.sampled_from((None, 3, 5))),
        forbidden_boundaries=frozenset(draw(st.sets(st.integers(1, layers - 1), max_size=2))),
    )
    engine = draw(st.sampled_from((CHAIN, LLAMA_CPP_RPC)))
    request = PlanRequest(
        model, tuple(specs), LinkMatrix(links), Workload(context=0), constraints=limits, engine=engine
    )
    need = memory_need(model, request.workload, engine)
    return TimedFamily.of(request, request.workers, need, batch=1).under("n0")


def optimum(classes: Classes) -> int | None:
    found = LeastCost(classes, Effort(PLENTY)).run()
    assert found.path is None or found.bound == found.cost
    return None if found.path is None else found.cost


def drawn_prices(data: st.DataObject, classes: Classes, optimum_cost: int) -> Prices:
    most = max(1, optimum_cost // 4)
    use = data.draw(st.lists(st.integers(0, most), min_size=classes.class_count, max_size=classes.class_count))
    return Prices(np.array(use, dtype=np.int64), data.draw(st.integers(-most, most)))


@settings(max_examples=80, deadline=None)
@given(instances())
def test_a_least_path_is_a_legal_placement_of_its_cost(instance: Instance) -> None:
    classes = classes_of(instance, 0)
    found = LeastCost(classes, Effort(PLENTY)).run()
    assume(found.path is not None)
    assert found.path is not None
    placements = classes.placements(found.path)
    assert instance.defect(placements) is None
    assert instance.timing is not None
    assert instance.timing.latency_ns(placements) == classes.value_ns(found.cost)
    assert classes.path_cost(found.path) == found.cost


@settings(max_examples=80, deadline=None)
@given(instances(), st.data())
def test_a_relaxed_sweep_is_a_bound_at_any_prices(instance: Instance, data: st.DataObject) -> None:
    classes = classes_of(instance, 0)
    best = optimum(classes)
    assume(best is not None)
    assert best is not None
    prices = drawn_prices(data, classes, best)
    forward = sweep(classes, prices, Effort(PLENTY))
    assert forward.total - prices.returned(classes) <= best
    mirrored = sweep(classes.reversed(), prices, Effort(PLENTY))
    assert mirrored.total == forward.total


@settings(max_examples=60, deadline=None)
@given(instances())
def test_raised_prices_stay_bounds_and_the_best_is_kept(instance: Instance) -> None:
    classes = classes_of(instance, 0)
    best = optimum(classes)
    assume(best is not None)
    assert best is not None
    ascent = PriceAscent(classes, opening_prices(classes))
    bounds = []
    for _ in range(12):
        forward = sweep(classes, ascent.prices, Effort(PLENTY))
        bounds.append(ascent.step(forward.total, relaxed_path(classes, ascent.prices, forward), best))
    assert max(bounds) <= best
    assert ascent.best == max(bounds)


@settings(max_examples=60, deadline=None)
@given(instances())
def test_classes_on_a_best_path_are_never_eliminated(instance: Instance) -> None:
    classes = classes_of(instance, 0)
    found = LeastCost(classes, Effort(PLENTY)).run()
    assume(found.path is not None)
    assert found.path is not None
    prices = opening_prices(classes)
    back = sweep(classes.reversed(), prices, Effort(PLENTY))
    through = through_costs(sweep(classes, prices, Effort(PLENTY)).reached, back.onward[::-1])
    assert all(through[chosen] <= found.cost + prices.returned(classes) for chosen, _ in found.path)


@settings(max_examples=60, deadline=None)
@given(instances(), st.integers(1, 4), st.data())
def test_routes_that_remember_are_a_bound_and_no_weaker_than_plain_ones(
    instance: Instance, size: int, data: st.DataObject
) -> None:
    classes = classes_of(instance, 0)
    best = optimum(classes)
    assume(best is not None)
    assert best is not None
    prices = drawn_prices(data, classes, best)
    matrix = hop_matrix(classes)
    memory = worthwhile(matrix, np.where(classes.limit == 1, 1.0, 0.0), 1, size)
    routed = RouteRelaxation(classes, matrix, memory).sweep(prices, Effort(PLENTY))
    assert sweep(classes, prices, Effort(PLENTY)).total <= routed
    assert routed - prices.returned(classes) <= best


@settings(max_examples=80, deadline=None)
@given(instances(), st.data())
def test_local_search_ends_on_a_legal_plan_and_is_never_below_the_optimum(
    instance: Instance, data: st.DataObject
) -> None:
    classes = classes_of(instance, 0)
    assume(classes.class_count > 0)
    order = data.draw(st.lists(st.integers(0, classes.class_count - 1), max_size=6))
    improved = LocalSearch(classes, Effort(PLENTY)).improve(order)
    if improved is None:
        return
    cost, path = improved
    assert classes.path_cost(path) == cost
    assert instance.defect(classes.placements(path)) is None
    best = optimum(classes)
    assert best is not None
    assert cost >= best
    again = LocalSearch(classes, Effort(PLENTY)).improve([chosen for chosen, _ in path])
    assert again is not None
    assert again[0] <= cost


@settings(max_examples=80, deadline=None)
@given(instances(), st.sampled_from((1, 3, 10, 10_000)), st.sampled_from((1, PLENTY)))
def test_narrow_search_over_sets_certifies_what_it_did_not_look_at(instance: Instance, width: int, effort: int) -> None:
    classes = classes_of(instance, 0)
    best = optimum(classes)
    assume(best is not None)
    assert best is not None
    prices = no_prices(classes)
    back = sweep(classes.reversed(), prices, Effort(PLENTY))
    ahead = Completion(np.ascontiguousarray(back.onward[::-1]), np.ascontiguousarray(back.reached[::-1]))
    found = SubsetSearch(classes, prices, ahead, INFINITE, width, Effort(effort)).run()
    assert found.bound <= best
    if found.path is not None:
        assert found.cost >= best
        assert instance.defect(classes.placements(found.path)) is None
    if width == 10_000 and effort == PLENTY:
        assert (found.cost, found.bound) == (best, best)


@settings(max_examples=80, deadline=None)
@given(instances())
def test_fill_bound_is_a_bound_on_latency(instance: Instance) -> None:
    classes = classes_of(instance, 0)
    best = optimum(classes)
    assume(best is not None)
    assert best is not None
    timing = instance.timing
    assert timing is not None
    nearest = None if timing.hop_ns is None else nearest_hops(timing)
    charge, spared = charges(instance, timing, nearest)
    fill = FillBound(Fill.of(instance, timing), charge, min(timing.head_ns) - spared)
    for cutoff in (classes.value_ns(best) + 1, float("inf")):
        bound = fill.tighten(cutoff)
        assert bound is not None
        assert bound <= classes.value_ns(best) + 1
    only = FillBound(Fill.of(instance, timing), charge, min(timing.head_ns) - spared).tighten()
    assert only is not None
    assert only <= classes.value_ns(best)
