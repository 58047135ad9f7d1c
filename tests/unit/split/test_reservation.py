"""A worker holds exact bytes for one fence per model, answers truly, and gives everything back in time."""

from __future__ import annotations

from typing import TypeVar

import pytest
from making_views import GB, MODEL, node_id

from meshnode.events import Event
from meshnode.membership.effects import Emit, Send
from meshnode.split import HOST_MEMORY, Fences, Reservations
from meshnode.split.reservation import (
    LEASE_S,
    WORKER_PATIENCE_S,
    ReservationEffect,
    ReservedChanged,
    StartStage,
    StopStage,
    StoreFences,
    is_for_worker,
)
from proto.ids import NodeId
from proto.messages import Commit, Fence, LeaseRenewal, Prepare, Prepared, Release

A, B, W = node_id("a"), node_id("b"), node_id("w")
T = TypeVar("T")


def a_worker(*, gb: float = 24, refuses: str | None = None) -> Reservations:
    worker = Reservations(W, Fences())
    worker.offer({"gpu0": round(gb * GB), "gpu1": 8 * GB, HOST_MEMORY: 4 * GB}, refuses)
    return worker


def a_prepare(
    *, fence: Fence | None = None, gb: float = 20, device: str = "gpu0", model: str = MODEL, nonce: int = 1
) -> Prepare:
    reserve = ((device, round(gb * GB)),)
    return Prepare(nonce, model, fence or Fence(1, A), 0, 4, reserve, ((device, 0, 4),))


def only(effects: list[ReservationEffect], kind: type[T]) -> T:
    (found,) = [effect for effect in effects if isinstance(effect, kind)]
    return found


def answer(effects: list[ReservationEffect]) -> Prepared:
    message = only(effects, Send).message
    assert isinstance(message, Prepared)
    return message


def events(effects: list[ReservationEffect]) -> list[Event]:
    return [effect.event for effect in effects if isinstance(effect, Emit)]


def committed(worker: Reservations, now: float = 0.0) -> Reservations:
    worker.receive(A, a_prepare(), now)
    worker.receive(A, Commit(MODEL, Fence(1, A)), now)
    return worker


# --- prepare ------------------------------------------------------------------------------------


def test_prepared_bytes_are_offered_no_more() -> None:
    worker = a_worker()
    effects = worker.receive(A, a_prepare(gb=20), 0.0)
    assert answer(effects).accepted
    assert only(effects, ReservedChanged).reserved == {"gpu0": 20 * GB}
    assert worker.reserved() == {"gpu0": 20 * GB}


@pytest.mark.parametrize("device", ["gpu9", "GPU-1\0"])
def test_stage_runs_only_on_devices_that_there_are(device: str) -> None:
    worker = a_worker()
    asked = Prepare(1, MODEL, Fence(1, A), 0, 4, (("gpu0", GB),), (("gpu0", 0, 2), (device, 2, 4)))
    reply = answer(worker.receive(A, asked, 0.0))
    assert not reply.accepted
    assert reply.reason == f"no_room: there is no device {device}"
    assert worker.reserved() == {}


def test_promise_is_stored_before_the_answer_is_sent() -> None:
    effects = a_worker().receive(A, a_prepare(), 0.0)
    kinds = [type(effect) for effect in effects]
    assert kinds.index(StoreFences) < kinds.index(Send)


def test_more_than_is_free_is_refused_with_both_figures() -> None:
    reply = answer(a_worker(gb=24).receive(A, a_prepare(gb=25), 0.0))
    assert not reply.accepted
    assert reply.reason == f"no_room: {25 * GB} bytes asked on gpu0, {24 * GB} free"


def test_refusal_for_room_promises_nothing() -> None:
    worker = a_worker(gb=24)
    worker.receive(A, a_prepare(gb=25, fence=Fence(9, A)), 0.0)
    assert answer(worker.receive(B, a_prepare(fence=Fence(1, B)), 0.0)).accepted


def test_two_models_share_what_is_free() -> None:
    worker = a_worker(gb=24)
    worker.receive(A, a_prepare(gb=20), 0.0)
    assert not answer(worker.receive(A, a_prepare(gb=5, model="another"), 0.0)).accepted
    assert answer(worker.receive(A, a_prepare(gb=4, model="another"), 0.0)).accepted
    assert worker.reserved() == {"gpu0": 24 * GB}


def test_host_memory_of_a_coordinator_is_reserved_by_its_own_name() -> None:
    worker = a_worker()
    assert answer(worker.receive(A, a_prepare(gb=3, device=HOST_MEMORY), 0.0)).accepted
    assert not answer(worker.receive(A, a_prepare(gb=3, device=HOST_MEMORY, model="x"), 0.0)).accepted


@pytest.mark.parametrize(
    ("reserve", "layers", "reason"),
    [
        ((("gpu9", 1),), (0, 4), "no_room: there is no device gpu9"),
        ((("gpu0", 1), ("gpu0", 1)), (0, 4), "malformed: a device is named twice"),
        ((("gpu0", 1),), (4, 0), "malformed: layers 4 to 0"),
    ],
)
def test_bad_prepare_is_refused_by_name(
    reserve: tuple[tuple[str, int], ...], layers: tuple[int, int], reason: str
) -> None:
    reply = answer(a_worker().receive(A, Prepare(1, MODEL, Fence(1, A), *layers, reserve), 0.0))
    assert (reply.accepted, reply.reason) == (False, reason)


def test_draining_worker_takes_nothing_new_and_keeps_what_it_holds() -> None:
    worker = committed(a_worker())
    worker.offer({"gpu0": 24 * GB}, "draining")
    assert answer(worker.receive(A, a_prepare(model="another", gb=1), 0.0)).reason == "refused: draining"
    assert len(worker.held()) == 1


def test_worker_refuses_until_its_memory_was_looked_at() -> None:
    assert not answer(Reservations(W, Fences()).receive(A, a_prepare(), 0.0)).accepted


def test_prepare_repeated_after_a_lost_answer_is_accepted_again_without_reserving_twice() -> None:
    worker = a_worker()
    worker.receive(A, a_prepare(nonce=1), 0.0)
    again = worker.receive(A, a_prepare(nonce=2), 1.0)
    assert (answer(again).accepted, answer(again).nonce) == (True, 2)
    assert worker.reserved() == {"gpu0": 20 * GB}


def test_used_fence_cannot_name_another_stage() -> None:
    worker = a_worker()
    worker.receive(A, a_prepare(gb=20), 0.0)
    assert answer(worker.receive(A, a_prepare(gb=10), 0.0)).reason.startswith("malformed")
    assert worker.reserved() == {"gpu0": 20 * GB}


# --- fences ---------------------------------------------------------------------------------------


def test_older_plan_is_fenced_off_with_the_highest_promise() -> None:
    worker = a_worker()
    worker.receive(A, a_prepare(fence=Fence(3, A)), 0.0)
    effects = worker.receive(B, a_prepare(fence=Fence(2, B)), 0.0)
    assert (answer(effects).accepted, answer(effects).highest) == (False, Fence(3, A))
    assert [event.name for event in events(effects)] == ["split.fenced"]


def test_newer_plan_takes_over_and_the_running_stage_stops_first() -> None:
    worker = committed(a_worker())
    effects = worker.receive(B, a_prepare(fence=Fence(2, B), gb=22), 1.0)
    kinds = [type(effect) for effect in effects]
    assert answer(effects).accepted
    assert kinds.index(StopStage) < kinds.index(Send)
    assert [held.fence for held in worker.held()] == [Fence(2, B)]


def test_newer_plan_without_room_leaves_the_older_one_standing() -> None:
    worker = committed(a_worker())
    assert not answer(worker.receive(B, a_prepare(fence=Fence(2, B), gb=99), 1.0)).accepted
    assert [held.fence for held in worker.held()] == [Fence(1, A)]


def test_held_stage_is_safe_from_lower_fences_even_if_the_promise_was_forgotten() -> None:
    fences = Fences()
    worker = Reservations(W, fences)
    worker.offer({"gpu0": 24 * GB}, None)
    worker.receive(A, a_prepare(fence=Fence(7, A)), 0.0)
    for number in range(2000):
        fences.promise(f"model {number}", Fence(1, A))
    assert fences.highest(MODEL) is None
    assert not answer(worker.receive(B, a_prepare(fence=Fence(6, B)), 0.0)).accepted


def test_message_for_another_nodes_fence_is_dropped_and_reported() -> None:
    worker = committed(a_worker())
    for message in (a_prepare(fence=Fence(9, A)), Commit(MODEL, Fence(1, A)), Release(MODEL, Fence(1, A), "x")):
        effects = worker.receive(B, message, 0.0)
        assert [event.name for event in events(effects)] == ["wire.rejected"]
        assert len(effects) == 1
    assert len(worker.held()) == 1


# --- commit, lease, release ---------------------------------------------------------------------------


def test_commit_starts_the_stage_once() -> None:
    worker = a_worker()
    worker.receive(A, a_prepare(), 0.0)
    first = worker.receive(A, Commit(MODEL, Fence(1, A)), 1.0)
    assert only(first, StartStage).held.ranges == (("gpu0", 0, 4),)
    assert worker.receive(A, Commit(MODEL, Fence(1, A)), 2.0) == []


def test_commit_of_a_fence_that_is_not_held_starts_nothing() -> None:
    assert a_worker().receive(A, Commit(MODEL, Fence(1, A)), 0.0) == []


def test_renewal_is_echoed_with_whether_it_is_held() -> None:
    worker = committed(a_worker())
    for fence, held in ((Fence(1, A), True), (Fence(2, A), False)):
        (effect,) = worker.receive(A, LeaseRenewal(7, MODEL, fence, held=True), 1.0)
        assert effect == Send(A, LeaseRenewal(7, MODEL, fence, held=held))


def test_uncommitted_reservation_lapses_after_the_lease() -> None:
    worker = a_worker()
    worker.receive(A, a_prepare(), 0.0)
    assert worker.next_wakeup() == LEASE_S
    assert worker.poll(LEASE_S - 0.1) == []
    effects = worker.poll(LEASE_S)
    assert only(effects, ReservedChanged).reserved == {}
    assert worker.next_wakeup() == float("inf")


def test_committed_stage_stops_15_seconds_after_the_last_renewal() -> None:
    worker = committed(a_worker())
    worker.receive(A, LeaseRenewal(1, MODEL, Fence(1, A), held=True), 5.0)
    assert worker.poll(5.0 + WORKER_PATIENCE_S - 0.1) == []
    assert only(worker.poll(5.0 + WORKER_PATIENCE_S), StopStage).reason == "lease lapsed"


def test_release_gives_back_its_own_fence_only() -> None:
    worker = committed(a_worker())
    assert worker.receive(A, Release(MODEL, Fence(2, A), "withdrawn"), 0.0) == []
    effects = worker.receive(A, Release(MODEL, Fence(1, A), "withdrawn"), 0.0)
    assert only(effects, StopStage).reason == "withdrawn"
    assert worker.reserved() == {}


def test_removed_coordinator_loses_its_stages_at_once() -> None:
    worker = committed(a_worker())
    assert worker.removed([B]) == []
    assert only(worker.removed([A]), StopStage).reason == "removed"


def test_stopping_node_gives_everything_back() -> None:
    worker = committed(a_worker())
    worker.receive(A, a_prepare(model="another", gb=1), 0.0)
    worker.stop("node stops")
    assert worker.held() == ()


@pytest.mark.parametrize(
    ("peer", "message", "for_worker"),
    [
        (A, Commit(MODEL, Fence(1, A)), True),
        (A, LeaseRenewal(1, MODEL, Fence(1, A), held=True), True),
        (W, LeaseRenewal(1, MODEL, Fence(1, A), held=True), False),
        (W, Prepared(1, True, "", Fence(1, A)), False),
    ],
)
def test_messages_find_worker_or_coordinator(peer: NodeId, message: Commit | Prepared, for_worker: bool) -> None:
    assert is_for_worker(peer, message) is for_worker
