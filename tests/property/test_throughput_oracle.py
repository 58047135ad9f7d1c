"""Least bottlenecks against full enumeration: slow and unknown links, stage limits, forbidden cuts, and every bound."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import planner.covering
from planner import (
    CapacityShortfall,
    Constraints,
    LayerSpec,
    Link,
    LinkMatrix,
    ModelSpec,
    NodeSpec,
    SplitPlan,
    Workload,
    plan_split,
)

LAYERS = 6
MB = 10**6


@dataclass(frozen=True)
class Problem:
    model: ModelSpec
    nodes: tuple[NodeSpec, ...]
    links: LinkMatrix
    limits: Constraints

    def planned(self, **options: Any) -> SplitPlan | None:
        try:
            return plan_split(
                self.model, self.nodes, self.links, Workload(context=0), objective="throughput", engine="chain",
                constraints=self.limits, **options,
            )  # fmt: skip
        except CapacityShortfall:
            return None


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    count = draw(st.integers(1, 4))
    weights = draw(st.lists(st.integers(1, 9), min_size=LAYERS, max_size=LAYERS))
    model = ModelSpec(
        "m",
        tuple(LayerSpec(count=1, weight_bytes=weight * MB) for weight in weights),
        output_bytes=draw(st.integers(0, 6)) * MB,
        hidden_size=1000,
    )
    kinds = [(draw(st.integers(4, 40)) * MB, draw(st.integers(1, 4)) * 1e9) for _ in range(2)]
    specs = []
    for number in range(count):
        usable, speed = kinds[draw(st.integers(0, 1))]
        specs.append(NodeSpec.single(f"n{number}", usable_bytes=usable, memory_bandwidth_bytes_per_s=speed))
    holes = draw(st.booleans())
    links = {
        (a.id, b.id): Link(1.0, bandwidth_bytes_per_s=draw(st.sampled_from((1e5, 4e5, 1e9))))
        for a in specs
        for b in specs
        if a is not b and not (holes and draw(st.integers(0, 3)) == 0)
    }
    most = draw(st.sampled_from((None, None, 2, 3)))
    limits = Constraints(
        coordinator=draw(st.sampled_from((None, "n0"))),
        forbidden_boundaries=frozenset(draw(st.sets(st.integers(1, LAYERS - 1), max_size=2))),
        min_stages=draw(st.sampled_from((1, 1, 2))),
        max_stages=most,
    )
    return Problem(model, tuple(specs), LinkMatrix(links), limits)


def transfer_s(problem: Problem, source: str, target: str, payload: int) -> float | None:
    if source == target:
        return 0.0
    link = problem.links.get(source, target)
    if link is None:
        return None
    assert link.bandwidth_bytes_per_s is not None
    return payload / link.bandwidth_bytes_per_s


def bottleneck_s(problem: Problem, order: tuple[NodeSpec, ...], bounds: tuple[int, ...]) -> float | None:
    """The slowest stage or hop of one placement, or None where it is not allowed."""
    model, pinned = problem.model, problem.limits.coordinator
    times: list[float | None] = []
    for node, start, end in zip(order, bounds, bounds[1:], strict=False):
        read = sum(layer.weight_bytes for layer in model.each_layer[start:end])
        read += model.output_bytes if end == LAYERS else 0
        speed = node.devices[0].memory_bandwidth_bytes_per_s
        assert speed is not None
        times.append(read / speed if read <= node.usable_bytes else None)
    names = [node.id for node in order]
    times += [transfer_s(problem, a, b, 2 * model.hidden_size) for a, b in itertools.pairwise(names)]
    if pinned is not None:
        times += [transfer_s(problem, pinned, names[0], 4), transfer_s(problem, names[-1], pinned, 4)]
    known = [time for time in times if time is not None]
    return max(known) if len(known) == len(times) else None


def least_s(problem: Problem) -> float | None:
    limits = problem.limits
    best: float | None = None
    for count in range(limits.min_stages, min(len(problem.nodes), limits.max_stages or LAYERS) + 1):
        for order in itertools.permutations(problem.nodes, count):
            allowed = [p for p in range(1, LAYERS) if p not in limits.forbidden_boundaries]
            for cuts in itertools.combinations(allowed, count - 1):
                value = bottleneck_s(problem, order, (0, *cuts, LAYERS))
                if value is not None and (best is None or value < best):
                    best = value
    return best


@settings(max_examples=250, deadline=None)
@given(problems())
def test_throughput_equals_the_least_bottleneck_of_all_placements(problem: Problem) -> None:
    plan, best = problem.planned(), least_s(problem)
    if plan is None or plan.capacity_only:
        assert best is None
        return
    assert best is not None
    assert plan.lower_bound is not None
    assert plan.lower_bound <= best + 1e-8
    assert plan.value >= best - 1e-8
    assert plan.value == pytest.approx(best, abs=1e-8)
    assert plan.gap == 0.0


@settings(max_examples=250, deadline=None)
@given(problems(), st.sampled_from((1, 4000)))
def test_orders_alone_give_a_plan_above_and_a_bound_below_the_optimum(problem: Problem, effort: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner.covering, "MOST_STEPS", 0)
        plan = problem.planned(effort=effort)
    best = least_s(problem)
    if plan is None or plan.capacity_only:
        return
    assert best is not None
    assert plan.lower_bound is not None
    assert plan.lower_bound <= best + 1e-8
    assert plan.value >= best - 1e-8


def test_many_devices_of_few_kinds_are_planned_exactly() -> None:
    kinds = ((40, 1555), (24, 300), (16, 320))
    nodes = [
        NodeSpec.single(f"n{kind}-{number}", usable_bytes=size * 10**9, memory_bandwidth_bytes_per_s=speed * 1e9)
        for kind, (size, speed) in enumerate(kinds)
        for number in range(6)
    ]
    model = ModelSpec("m", (LayerSpec(count=80, weight_bytes=1_750_000_000),), hidden_size=8192)
    plan = plan_split(model, nodes, LinkMatrix.all_free(), Workload(context=0), objective="throughput", engine="chain")
    assert plan.gap == 0.0


def test_more_devices_than_can_be_enumerated_get_a_stated_gap() -> None:
    nodes = [
        NodeSpec.single(f"n{n:02}", usable_bytes=(20 + n) * 10**9, memory_bandwidth_bytes_per_s=(300 + 17 * n) * 1e9)
        for n in range(40)
    ]
    model = ModelSpec("m", tuple(LayerSpec(count=1, weight_bytes=2 * 10**9 + n * 10**6) for n in range(100)))
    plan = plan_split(model, nodes, LinkMatrix.all_free(), Workload(context=0), objective="throughput", engine="chain")
    assert plan.gap is not None
    assert plan.gap < 0.05
