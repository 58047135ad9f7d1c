"""Remedies are found by planning again: what is called sufficient plans, one step less does not."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import (
    CHAIN,
    CapacityShortfall,
    Constraints,
    DeviceSpec,
    Exclusion,
    LayerSpec,
    LinkMatrix,
    ModelSpec,
    NodeSpec,
    Remedy,
    Workload,
    plan_split,
)
from planner.changes import AddNode, ShortenContext, apply_changes, apply_remedy
from planner.dispatch import best_of, can_plan
from planner.request import PlanRequest
from planner.shortfall import RemedyAction


def test_equal_devices_of_one_node_can_be_compared_where_what_to_free_is_searched() -> None:
    devices = tuple(DeviceSpec(f"d{n}", capacity_bytes=10**9, declared_usable_bytes=4 * 10**6) for n in range(2))
    nodes = [NodeSpec(f"n{number}", devices=devices) for number in range(8)]
    model = ModelSpec("m", tuple(LayerSpec(count=1, weight_bytes=size * 10**6) for size in (7, 3) * 12))
    with pytest.raises(CapacityShortfall):
        plan_split(
            model, nodes, LinkMatrix.all_free(), Workload(context=0), engine="chain",
            constraints=Constraints(coordinator="n0", max_stage_rtt_ms=5),
        )  # fmt: skip


# --- every remedy was planned again ----------------------------------------------------------------

GB = 10**9


def a_request(
    *usable_gb: int, layers: int = 10, kv_gb: int = 1, lanes: int = 1, bring_gb: tuple[int, ...] = (), **more: Any
) -> PlanRequest:
    """Layers of 1 GB with `kv_gb` of f16 cache each at 1024 tokens and lane; peers of `bring_gb` are excluded."""
    model = ModelSpec(
        "m",
        (LayerSpec.with_f16_kv(count=layers, weight_bytes=GB, kv_bytes_per_token=kv_gb * 976_562 // 2 * 2),),
    )
    nodes = tuple(NodeSpec.single(f"n{n}", usable_bytes=size * GB) for n, size in enumerate(usable_gb))
    peers = tuple(
        Exclusion(f"p{n}", "client", node=NodeSpec.single(f"p{n}", usable_bytes=size * GB))
        for n, size in enumerate(bring_gb)
    )
    workload = Workload(context=1024, lanes=lanes)
    return PlanRequest(model, nodes, LinkMatrix(), workload, excluded=peers, engine=CHAIN, **more)


def remedies(request: PlanRequest) -> tuple[Remedy, ...]:
    with pytest.raises(CapacityShortfall) as caught:
        best_of(request)
    return caught.value.report.remedies


def test_two_peers_that_only_together_suffice_are_one_combination() -> None:
    request = a_request(8, kv_gb=0, layers=20, bring_gb=(6, 6, 1))
    combined = [each for each in remedies(request) if each.action is RemedyAction.COMBINE]
    assert [part["node"] for part in combined[0].details["parts"]] == ["p0", "p1"]
    assert combined[0].sufficient


def test_smallest_peer_that_suffices_together_with_a_cheaper_change_is_asked_for() -> None:
    """With the cache in q4_0 the peer of 4 GB is enough, the one of 5 GB need not be admitted; in q8_0 it must."""
    request = a_request(9, layers=8, kv_gb=1, bring_gb=(4, 5))
    combined = [each.details["parts"] for each in remedies(request) if each.action is RemedyAction.COMBINE]
    with_peers = {(parts[0]["k_type"], parts[1]["node"]) for parts in combined if parts[0]["action"] == "cache_type"
                  and parts[1]["action"] == "admit_peer"}  # fmt: skip
    assert with_peers == {("q4_0", "p0"), ("q8_0", "p1")}


@st.composite
def short_requests(draw: st.DrawFn) -> PlanRequest:
    """Most of them have no plan."""
    usable = draw(st.lists(st.integers(2, 8), min_size=1, max_size=3))
    bring = draw(st.lists(st.integers(1, 8), max_size=3))
    smaller = ModelSpec("small", (LayerSpec.with_f16_kv(count=10, weight_bytes=GB // 2, kv_bytes_per_token=976_562),))
    return a_request(
        *usable,
        kv_gb=draw(st.integers(0, 2)),
        lanes=draw(st.integers(1, 3)),
        bring_gb=tuple(bring),
        smaller_files=draw(st.sampled_from(((), (smaller,)))),
        constraints=draw(st.sampled_from((Constraints(), Constraints(max_stages=2)))),
    )


def found_remedies(request: PlanRequest) -> tuple[Remedy, ...]:
    """Empty where there is a plan."""
    return () if can_plan(request) else remedies(request)


@settings(max_examples=60, deadline=None)
@given(short_requests())
def test_what_is_called_sufficient_plans_and_what_is_not_does_not(request: PlanRequest) -> None:
    for remedy in found_remedies(request):
        assert can_plan(apply_remedy(request, remedy)) is remedy.sufficient, remedy.asks


@settings(max_examples=60, deadline=None)
@given(short_requests())
def test_no_part_of_a_combination_suffices(request: PlanRequest) -> None:
    for remedy in found_remedies(request):
        parts = remedy.changes
        for size in range(1, len(parts)):
            for some in combinations(parts, size):
                assert not can_plan(apply_changes(request, some)), remedy.asks


@settings(max_examples=60, deadline=None)
@given(short_requests())
def test_no_smaller_combination_was_missed(request: PlanRequest) -> None:
    """Among the single changes shown, no subset that suffices is smaller than the smallest one shown."""
    found = found_remedies(request)
    levers = (RemedyAction.CACHE_TYPE, RemedyAction.FEWER_LANES, RemedyAction.ADMIT_PEER, RemedyAction.SMALLER_FILE)
    singles = [each.changes[0] for each in found if each.action in levers and not each.sufficient]
    shown = [len(each.changes) for each in found if each.sufficient and each.action is RemedyAction.COMBINE]
    for size in (2, 3):
        for some in combinations(singles, size):
            if len({change.action for change in some if change.action is not RemedyAction.ADMIT_PEER}) < sum(
                change.action is not RemedyAction.ADMIT_PEER for change in some
            ):
                continue
            if can_plan(apply_changes(request, some)):
                assert shown, [change.asks for change in some]
                assert min(shown) <= size
                return


@settings(max_examples=60, deadline=None)
@given(short_requests())
def test_context_and_added_node_are_exact(request: PlanRequest) -> None:
    for remedy in found_remedies(request):
        change = remedy.changes[0]
        if len(remedy.changes) > 1 or not remedy.sufficient:
            continue
        if isinstance(change, ShortenContext) and change.context + 256 < change.before:
            assert not can_plan(request.at_context(change.context + 256))
        if isinstance(change, AddNode):
            assert not can_plan(AddNode(change.usable_bytes - 1).applied(request))


@settings(max_examples=60, deadline=None)
@given(short_requests())
def test_sufficient_remedies_come_first(request: PlanRequest) -> None:
    order = [remedy.sufficient for remedy in found_remedies(request)]
    assert order == sorted(order, reverse=True)
