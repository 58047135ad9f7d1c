"""The optimisers' values against full enumeration, which shares no code with them but the cost of a given placement."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import (
    CapacityShortfall,
    LayerSpec,
    Link,
    LinkMatrix,
    ModelSpec,
    NodeSpec,
    SplitPlan,
    Workload,
    plan_split,
    replan,
)

LAYERS = 6


@st.composite
def meshes(draw: st.DrawFn) -> tuple[ModelSpec, list[NodeSpec], LinkMatrix]:
    count = draw(st.integers(1, 4))
    weights = draw(st.lists(st.integers(1, 9), min_size=LAYERS, max_size=LAYERS))
    model = ModelSpec(
        "m",
        tuple(LayerSpec(count=1, weight_bytes=weight * 10**6) for weight in weights),
        embedding_bytes=draw(st.integers(0, 4)) * 10**6,
        output_bytes=draw(st.integers(0, 4)) * 10**6,
        hidden_size=8,
    )
    nodes = [
        NodeSpec.single(
            f"n{number}",
            usable_bytes=draw(st.integers(1, 40)) * 10**6,
            memory_bandwidth_bytes_per_s=draw(st.integers(1, 9)) * 10**9,
        )
        for number in range(count)
    ]
    links = {
        (a.id, b.id): Link(draw(st.integers(0, 8)) / 10, bandwidth_bytes_per_s=1e9)
        for a in nodes
        for b in nodes
        if a is not b
    }
    return model, nodes, LinkMatrix(links)


def held_bytes(model: ModelSpec, start: int, end: int) -> int:
    layers = sum(layer.weight_bytes for layer in model.each_layer[start:end])
    return layers + (model.embedding_bytes if start == 0 else 0) + (model.output_bytes if end == LAYERS else 0)


def all_placements(model: ModelSpec, nodes: list[NodeSpec]) -> Iterator[list[tuple[NodeSpec, int, int]]]:
    for count in range(1, min(len(nodes), LAYERS) + 1):
        for order in itertools.permutations(nodes, count):
            for cuts in itertools.combinations(range(1, LAYERS), count - 1):
                bounds = [0, *cuts, LAYERS]
                stages = list(zip(order, bounds, bounds[1:], strict=False))
                if all(held_bytes(model, start, end) <= node.usable_bytes for node, start, end in stages):
                    yield stages


def seconds(model: ModelSpec, node: NodeSpec, start: int, end: int) -> float:
    bandwidth = node.devices[0].memory_bandwidth_bytes_per_s
    assert bandwidth is not None
    read = sum(layer.weight_bytes for layer in model.each_layer[start:end])
    return (read + (model.output_bytes if end == LAYERS else 0)) / bandwidth


def latency_s(model: ModelSpec, links: LinkMatrix, stages: list[tuple[NodeSpec, int, int]]) -> float:
    order = [node.id for node, _, _ in stages]
    around = list(zip(order, [*order[1:], order[0]], strict=True)) if len(order) > 1 else []
    hops = 0.0
    for number, (source, target) in enumerate(around):
        link = links.get(source, target)
        assert link is not None
        payload = 4 if number == len(around) - 1 else 8 * 2
        hops += link.rtt_ms / 2000 + payload / 1e9
    return hops + sum(seconds(model, *stage) for stage in stages)


def planned(model: ModelSpec, nodes: list[NodeSpec], links: LinkMatrix, objective: str) -> SplitPlan | None:
    try:
        return plan_split(model, nodes, links, Workload(context=0), objective=objective, engine="chain")
    except CapacityShortfall:
        return None


@settings(max_examples=150, deadline=None)
@given(meshes())
def test_latency_equals_the_best_of_all_placements(mesh: tuple[ModelSpec, list[NodeSpec], LinkMatrix]) -> None:
    model, nodes, links = mesh
    plan = planned(model, nodes, links, "latency")
    best = min((latency_s(model, links, stages) for stages in all_placements(model, nodes)), default=None)
    assert (plan is None) == (best is None)
    if plan is not None and best is not None:
        assert abs(plan.value - best) < 1e-6
        assert plan.lower_bound is not None
        assert plan.lower_bound <= plan.value + 1e-12


@settings(max_examples=150, deadline=None)
@given(meshes())
def test_throughput_equals_the_least_bottleneck_over_free_links(
    mesh: tuple[ModelSpec, list[NodeSpec], LinkMatrix],
) -> None:
    model, nodes, _ = mesh
    plan = planned(model, nodes, LinkMatrix.all_free(), "throughput")
    slowest = (max(seconds(model, *stage) for stage in stages) for stages in all_placements(model, nodes))
    best = min(slowest, default=None)
    assert (plan is None) == (best is None)
    if plan is not None and best is not None:
        assert abs(plan.value - best) < 1e-6


@settings(max_examples=150, deadline=None)
@given(meshes())
def test_fewest_equals_the_fewest_of_all_placements(mesh: tuple[ModelSpec, list[NodeSpec], LinkMatrix]) -> None:
    model, nodes, links = mesh
    plan = planned(model, nodes, links, "fewest")
    fewest = min((len(stages) for stages in all_placements(model, nodes)), default=None)
    assert (None if plan is None else len(plan.stages)) == fewest


def moved_bytes(
    model: ModelSpec, running: SplitPlan, nodes: list[NodeSpec], stages: list[tuple[NodeSpec, int, int]]
) -> int:
    present = {node.id for node in nodes}
    lies = {
        layer: stage.node
        for stage in running.stages
        for layer in range(stage.layer_start, stage.layer_end)
        if stage.node in present
    }
    total = 0
    for node, start, end in stages:
        away = [layer for layer in range(start, end) if lies.get(layer) != node.id]
        total += sum(model.each_layer[layer].weight_bytes for layer in away)
        total += model.embedding_bytes if 0 in away else 0
        total += model.output_bytes if LAYERS - 1 in away else 0
    return total


Stages = list[tuple[NodeSpec, int, int]]


def worth_under(objective: str, model: ModelSpec, links: LinkMatrix) -> Callable[[Stages], float]:
    if objective == "latency":
        return lambda stages: latency_s(model, links, stages)
    if objective == "throughput":
        return lambda stages: max(seconds(model, *stage) for stage in stages)
    return len


@pytest.mark.parametrize("objective", ["latency", "throughput", "fewest"])
def test_replan_stays_within_its_margin_and_its_bound_on_moved_bytes_holds(objective: str) -> None:
    """Nothing as good moves fewer bytes than the bound; what is claimed to be moved is what lies elsewhere."""

    @settings(max_examples=100, deadline=None)
    @given(meshes(), st.integers(0, 3), st.sampled_from((0.0, 0.1, 0.3)))
    def check(mesh: tuple[ModelSpec, list[NodeSpec], LinkMatrix], lost: int, margin: float) -> None:
        model, nodes, links = mesh
        if objective == "throughput":
            links = LinkMatrix.all_free()
        running = planned(model, nodes, links, objective)
        rest = [node for number, node in enumerate(nodes) if number != lost]
        best = planned(model, rest, links, objective)
        if running is None or best is None:
            return
        new = replan(
            model, rest, links, Workload(context=0), running, margin=margin, objective=objective, engine="chain"
        )
        worth = worth_under(objective, model, links)
        assert new.plan.value <= best.value / (1 - margin) + 1e-6
        number = {node.id: node for node in rest}
        stages = [(number[stage.node], stage.layer_start, stage.layer_end) for stage in new.plan.stages]
        assert moved_bytes(model, running, rest, stages) == new.moved_bytes
        limit = best.value / (1 - margin)
        if new.running_value is not None and new.running_value > limit:
            limit = min(limit, new.running_value * (1 - margin))
        least = min(
            moved_bytes(model, running, rest, other)
            for other in all_placements(model, rest)
            if worth(other) <= limit - 1e-6 or worth(other) <= best.value + 1e-7
        )
        assert new.least_moved_bytes <= least
        if objective == "fewest":
            assert new.moved_bytes <= least + model.embedding_bytes

    check()
