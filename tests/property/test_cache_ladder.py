"""The law of `auto`: what it takes is what asking for each type by itself would have shown to be first."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from planner import (
    CacheType,
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

LADDER = (CacheType.F16, CacheType.Q8_0, CacheType.Q4_0)
Mesh = tuple[ModelSpec, list[NodeSpec], LinkMatrix]


@st.composite
def meshes(draw: st.DrawFn) -> Mesh:
    """Up to three nodes and layers of unlike caches: some of a width where the smaller types are no smaller."""
    width = st.sampled_from((0, 1, 64, 128, 256))
    layers = draw(
        st.lists(st.tuples(st.integers(1, 9), width, width, st.sampled_from((0, 512))), min_size=1, max_size=5)
    )
    model = ModelSpec(
        "m",
        tuple(
            LayerSpec(count=1, weight_bytes=weight * 10**6, k_width=k_width, v_width=v_width, window=window)
            for weight, k_width, v_width, window in layers
        ),
        native_context=draw(st.sampled_from((2048, 6000, 16_384))),
        hidden_size=8,
    )
    nodes = [
        NodeSpec.single(
            f"n{number}",
            usable_bytes=draw(st.integers(1, 30)) * 10**6,
            memory_bandwidth_bytes_per_s=draw(st.integers(1, 9)) * 10**9,
        )
        for number in range(draw(st.integers(1, 3)))
    ]
    links = {(a.id, b.id): Link(draw(st.integers(0, 8)) / 10) for a in nodes for b in nodes if a is not b}
    return model, nodes, LinkMatrix(links)


def outcome(mesh: Mesh, workload: Workload) -> SplitPlan | CapacityShortfall:
    try:
        return plan_split(*mesh, workload, engine="chain")
    except CapacityShortfall as shortfall:
        return shortfall


def best_by_hand(explicit: list[SplitPlan | CapacityShortfall]) -> SplitPlan | None:
    """The longest context; among equals the first."""
    plans = [each for each in explicit if isinstance(each, SplitPlan)]
    return max(plans, key=lambda plan: plan.context, default=None)


@settings(max_examples=150, deadline=None)
@given(meshes(), st.sampled_from((None, 1024, 4096, 9000)), st.booleans())
def test_auto_equals_the_first_type_that_plans(mesh: Mesh, context: int | None, flash: bool) -> None:
    at = Workload(context=context, flash_attention=flash)
    explicit = [outcome(mesh, replace(at, k_type=kind, v_type=kind if flash else CacheType.F16)) for kind in LADDER]
    taken = outcome(mesh, replace(at, k_auto=True, v_auto=True))
    expected = best_by_hand(explicit)
    if expected is None:
        assert isinstance(taken, CapacityShortfall)
        required = [each.report.required_bytes for each in explicit if isinstance(each, CapacityShortfall)]
        assert taken.report.required_bytes == min(required)
        return
    assert isinstance(taken, SplitPlan)
    assert taken.cache is not None
    assert replace(taken, cache=None, warnings=expected.warnings) == expected
    assert [warning for warning in taken.warnings if warning != taken.cache.warning] == list(expected.warnings)
