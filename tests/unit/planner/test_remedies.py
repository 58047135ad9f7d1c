"""Remedies are found by planning again: what is called sufficient plans, one step less does not."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import (
    CHAIN,
    LLAMA_CPP_RPC,
    CapacityShortfall,
    Constraints,
    DeviceSpec,
    Exclusion,
    LayerSpec,
    Link,
    LinkMatrix,
    ModelSpec,
    NodeSpec,
    Remedy,
    Willingness,
    Workload,
    plan_split,
)
from planner.changes import AddNode, ShortenContext, apply_changes, apply_remedy
from planner.dispatch import can_plan, settle
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
        settle(request)
    return caught.value.report.remedies


@pytest.mark.parametrize(("capacity_gb", "word"), [(12, "offer 2.0GB more on n0"), (20, "free 2.0GB on n0")])
def test_only_what_something_else_holds_is_to_be_freed(capacity_gb: int, word: str) -> None:
    device = DeviceSpec("d", capacity_bytes=capacity_gb * GB, declared_usable_bytes=12 * GB)
    request = replace(a_request(layers=7), nodes=(NodeSpec("n0", devices=(device,)),))
    asked = [remedy.asks for remedy in remedies(request) if remedy.action is RemedyAction.FREE_BYTES]
    assert asked == [word]


def test_two_peers_that_only_together_suffice_are_one_combination() -> None:
    request = a_request(8, kv_gb=0, layers=20, bring_gb=(6, 6, 1))
    combined = [each for each in remedies(request) if each.action is RemedyAction.COMBINE]
    assert [part["node"] for part in combined[0].details["parts"]] == ["p0", "p1"]
    assert combined[0].sufficient


def test_smallest_peer_that_suffices_together_with_a_cheaper_change_is_asked_for() -> None:
    """With the cache in q4_0 the peer of 4 GB is enough, the one of 5 GB need not be admitted; in q8_0 it must."""
    request = a_request(9, layers=8, kv_gb=1, bring_gb=(4, 5))
    combined = [[part.get("k_type", part.get("node")) for part in parts] for parts in combinations_of(request)]
    with_peers = {tuple(parts) for parts in combined if parts[-1] in ("p0", "p1")}
    assert with_peers == {("q4_0", "p0"), ("q8_0", "p1"), ("p1", "p0")}


def combinations_of(request: PlanRequest) -> list[list[dict[str, Any]]]:
    return [each.details["parts"] for each in remedies(request) if each.action is RemedyAction.COMBINE]


def test_no_more_peers_than_needed_are_admitted_beside_a_shorter_context() -> None:
    """Two peers of 5 GB suffice at 256 tokens, so the third must not be asked for."""
    parts = combinations_of(a_request(3, bring_gb=(1, 5, 5)))
    assert [[part.get("node", part.get("context")) for part in each] for each in parts] == [["p1", "p2", 256]]


def test_peer_and_a_shorter_context_are_combined_with_the_longest_context() -> None:
    """Five layers on each 7 GB leave 0.4 GB of cache for a layer, which takes 1 GB at 1024 tokens."""
    parts = combinations_of(a_request(7, bring_gb=(7,)))
    assert {"action": "admit_peer", "node": "p0", "reason": "client", "usable_bytes": 7 * GB} in parts[0]
    assert parts[0][-1] == {"action": "shorten_context", "context": 256}


def test_as_many_lanes_are_kept_in_a_combination_as_still_plan() -> None:
    """8 layers of 1 GB with 1 GB of cache for each of 4 lanes, on 24 GB: 2 lanes; one without the peer's 8 GB."""
    parts = combinations_of(a_request(6, layers=8, lanes=4, bring_gb=(18,)))
    assert [part["lanes"] for each in parts for part in each if part["action"] == "fewer_lanes"] == [2]


@st.composite
def short_requests(draw: st.DrawFn) -> PlanRequest:
    """Most of them have no plan: sums too small, whole layers that don't fit, restrictions that bind."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=10, max_size=10) | st.just([2] * 10))
    cache = draw(st.integers(0, 2)) * 976_562 // 2 * 2
    smaller = ModelSpec("small", (LayerSpec.with_f16_kv(count=10, weight_bytes=GB // 2, kv_bytes_per_token=976_562),))
    number = st.integers(2, 8)
    nodes = [
        NodeSpec(
            f"n{n}",
            devices=tuple(
                DeviceSpec(f"d{d}", capacity_bytes=9 * GB, declared_usable_bytes=size * GB)
                for d, size in enumerate(draw(st.lists(number, min_size=1, max_size=2)))
            ),
            willingness=draw(st.sampled_from(Willingness)),
        )
        for n in range(draw(st.integers(1, 3)))
    ]
    peers = [
        Exclusion(f"p{n}", "client", node=NodeSpec.single(f"p{n}", usable_bytes=size * GB))
        for n, size in enumerate(draw(st.lists(st.integers(1, 8), max_size=4)))
    ]
    names = [node.id for node in nodes] + [peer.node_id for peer in peers]
    far = draw(st.lists(st.sampled_from((1.0, 20.0)), min_size=len(names), max_size=len(names)))
    links = {
        (one, other): Link(max(away, away_too))
        for one, away in zip(names, far, strict=True)
        for other, away_too in zip(names, far, strict=True)
        if one != other
    }
    return PlanRequest(
        ModelSpec(
            "m",
            tuple(
                LayerSpec.with_f16_kv(count=1, weight_bytes=size * GB // 2, kv_bytes_per_token=cache) for size in sizes
            ),
            output_bytes=draw(st.sampled_from((0, GB))),
            vocabulary=1000,
            hidden_size=64,
        ),
        tuple(nodes),
        LinkMatrix(links),
        Workload(context=draw(st.sampled_from((1024, 600))), lanes=draw(st.integers(1, 3))),
        excluded=tuple(peers),
        engine=draw(st.sampled_from((CHAIN, LLAMA_CPP_RPC))),
        smaller_files=draw(st.sampled_from(((), (smaller,)))),
        constraints=Constraints(
            max_stages=draw(st.sampled_from((None, None, 2, 3))),
            max_stage_rtt_ms=draw(st.sampled_from((None, None, 5.0))),
            forbidden_boundaries=frozenset(draw(st.sampled_from(((), (), (5,), (2, 3, 7))))),
        ),
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
    """Among the single changes shown, and the shortest context, no subset that suffices is smaller than the smallest
    one shown.
    """
    found = found_remedies(request)
    levers = (RemedyAction.CACHE_TYPE, RemedyAction.FEWER_LANES, RemedyAction.ADMIT_PEER, RemedyAction.SMALLER_FILE)
    singles = [each.changes[0] for each in found if each.action in levers and not each.sufficient]
    if all(each.action is not RemedyAction.SHORTEN_CONTEXT for each in found):
        singles.append(ShortenContext(256, request.workload.context or 0))
    shown = [len(each.changes) for each in found if each.sufficient and each.action is RemedyAction.COMBINE]
    for size in range(2, min([4, *shown])):
        for some in combinations(singles, size):
            kinds = [change.action for change in some if change.action is not RemedyAction.ADMIT_PEER]
            if len(set(kinds)) == len(kinds) and any(not each.sufficient for each in found):
                assert not can_plan(apply_changes(request, some)), [change.asks for change in some]


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
