"""Who coordinates, by every node's own view."""

from __future__ import annotations

from typing import Any

from making_views import GB, MODEL, a_model, a_node, a_view, an_offer, node_id
from msgspec import structs

from meshnode.membership.view import NodeView, Status
from meshnode.split import Chosen, NoSource, NotWanted, choose_coordinator
from meshnode.split.coordinator import advertised_generation, can_coordinate
from proto.parts import Role

A, B, C = node_id("a"), node_id("b"), node_id("c")


def holder(name: str, *, host_gb: float = 8, generation: int | None = None, **more: Any) -> NodeView:
    """A worker that wants the model and holds all of it."""
    models = (structs.replace(a_model(), generation=generation),)
    return a_node(name, offer=an_offer(node_id(name), host_usable_bytes=round(host_gb * GB), models=models), **more)


def lacking(name: str, *, cached_gb: float = 0, wanted: bool = True) -> NodeView:
    """A worker that wants the model and holds a part of it, or nothing."""
    cached = round(cached_gb * GB)
    model = a_model(complete=False, cached_bytes=cached, missing_bytes=270 * GB - cached, wanted=wanted)
    return a_node(name, offer=an_offer(node_id(name), models=(model,)))


def test_largest_host_budget_coordinates() -> None:
    view = a_view(holder("a", host_gb=8), holder("b", host_gb=16), holder("c", host_gb=4))
    assert choose_coordinator(view, MODEL) == Chosen(B, planning_only=False, runs_already=False)


def test_lowest_id_coordinates_among_equals() -> None:
    assert choose_coordinator(a_view(holder("c"), holder("b"), local="b"), MODEL) == Chosen(B, False, False)


def test_all_nodes_come_to_the_same_answer() -> None:
    nodes = (holder("a"), holder("b", host_gb=9), lacking("c"))
    assert len({choose_coordinator(a_view(*nodes, local=name), MODEL) for name in "abc"}) == 1


def test_only_complete_packages_coordinate() -> None:
    view = a_view(holder("a", host_gb=1), lacking("b", cached_gb=269))
    assert choose_coordinator(view, MODEL) == Chosen(A, False, False)


def test_dead_nodes_and_clients_coordinate_nothing() -> None:
    view = a_view(holder("a", host_gb=1), holder("b", status=Status.DEAD), holder("c", role=Role.CLIENT))
    assert choose_coordinator(view, MODEL) == Chosen(A, False, False)


def test_holder_that_does_not_want_the_model_coordinates_nothing() -> None:
    unwanting = a_node("b", offer=an_offer(B, host_usable_bytes=99 * GB, models=(a_model(wanted=False),)))
    assert choose_coordinator(a_view(holder("a"), unwanting), MODEL) == Chosen(A, False, False)


def test_without_a_complete_package_it_says_who_has_what_and_who_reports_it() -> None:
    view = a_view(lacking("a"), lacking("b", cached_gb=100), lacking("c", cached_gb=20, wanted=False))
    assert choose_coordinator(view, MODEL) == NoSource(A, ((B, 100 * GB), (C, 20 * GB)))


def test_model_that_nobody_wants_has_no_coordinator() -> None:
    assert choose_coordinator(a_view(lacking("a", wanted=False)), MODEL) == NotWanted()


def test_profile_is_planned_by_whoever_wants_it_and_only_planned() -> None:
    profile = a_model(complete=False, cached_bytes=None, missing_bytes=None, manifest=None, is_profile=True)
    view = a_view(a_node("a", offer=an_offer(A, models=(profile,))))
    assert choose_coordinator(view, MODEL) == Chosen(A, planning_only=True, runs_already=False)


def test_files_come_before_a_profile_of_the_same_name() -> None:
    profile = a_model(complete=False, cached_bytes=None, missing_bytes=None, is_profile=True)
    rich = a_node("a", offer=an_offer(A, host_usable_bytes=99 * GB, models=(profile,)))
    assert choose_coordinator(a_view(rich, holder("b")), MODEL) == Chosen(B, False, False)


def test_one_that_coordinates_already_stays_although_another_has_more() -> None:
    view = a_view(holder("a", host_gb=99), holder("b", generation=4))
    assert choose_coordinator(view, MODEL) == Chosen(B, False, runs_already=True)


def test_of_two_that_coordinate_the_newer_generation_stays() -> None:
    view = a_view(holder("a", host_gb=99, generation=4), holder("b", generation=5))
    assert choose_coordinator(view, MODEL) == Chosen(B, False, runs_already=True)
    assert advertised_generation(view, MODEL) == 5


def test_dead_coordinator_cannot_coordinate() -> None:
    view = a_view(holder("a"), holder("b", status=Status.DEAD))
    assert can_coordinate(view, MODEL, A)
    assert not can_coordinate(view, MODEL, B)
    assert not can_coordinate(view, MODEL, C)
