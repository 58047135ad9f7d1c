"""Rates, budgets, the half-open guard and the send queue, by plain calls."""

from __future__ import annotations

import pytest

from meshnode.transport.half_open import Admit, HalfOpenGuard
from meshnode.transport.rate_limit import Budget, SourceRates, TokenBucket
from meshnode.transport.send_queue import SendQueue
from meshnode.transport.settings import TransportSettings

# --- token buckets --------------------------------------------------------------------------------------------------


def test_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(rate_per_s=10, burst=5, now_s=0.0)
    assert [bucket.take(1, 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert bucket.take(1, 0.1)
    assert not bucket.take(1, 0.1)


def test_bucket_never_holds_more_than_its_burst() -> None:
    bucket = TokenBucket(rate_per_s=10, burst=5, now_s=0.0)
    assert [bucket.take(1, 1000.0) for _ in range(6)] == [True] * 5 + [False]


def test_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(rate_per_s=10, burst=1, now_s=100.0)
    assert bucket.take(1, 100.0)
    assert not bucket.take(1, 50.0)


def test_debt_is_paid_off_at_the_rate() -> None:
    bucket = TokenBucket(rate_per_s=10, burst=5, now_s=0.0)
    bucket.spend(25, 0.0)
    assert bucket.ready_in_s(0.0) == pytest.approx(2.0)
    assert bucket.ready_in_s(2.0) == pytest.approx(0.0)


def test_sources_have_rates_of_their_own() -> None:
    rates = SourceRates(rate_per_s=1, burst=2, tracked=10)
    assert [rates.take("a", 0.0) for _ in range(3)] == [True, True, False]
    assert rates.take("b", 0.0)


def test_number_of_sources_remembered_is_bounded() -> None:
    rates = SourceRates(rate_per_s=1, burst=1, tracked=10)
    for number in range(1000):
        rates.take(str(number), 0.0)
    assert len(rates) == 10


# --- budgets --------------------------------------------------------------------------------------------------------


def a_budget() -> Budget:
    return Budget(frames_per_s=10, frames_burst=20, bytes_per_s=1000, bytes_burst=2000, now_s=0.0)


def test_budget_lets_its_burst_through_and_then_makes_wait() -> None:
    budget = a_budget()
    for _ in range(21):
        assert budget.wait_s(0.0) == 0.0
        budget.charge(1, 0.0)
    assert budget.wait_s(0.0) == pytest.approx(0.1)


def test_bytes_count_as_well_as_frames() -> None:
    budget = a_budget()
    budget.charge(5000, 0.0)
    assert budget.wait_s(0.0) == pytest.approx(3.0)


def test_overrun_is_told_once_per_spell_with_its_figures() -> None:
    budget = a_budget()
    budget.charge(4000, 2.0)
    overrun = budget.hold_back(2.0)
    assert overrun is not None
    assert (overrun.frames_per_s, overrun.bytes_per_s) == (0.5, 2000.0)
    assert budget.hold_back(3.0) is None
    budget.caught_up(4.0)
    budget.charge(4000, 5.0)
    assert budget.hold_back(5.0) is not None


def test_peer_floods_when_it_never_catches_up() -> None:
    budget = a_budget()
    budget.hold_back(2.0)
    assert not budget.floods(10.0, 11.9)
    assert budget.floods(10.0, 12.0)
    budget.caught_up(12.0)
    assert not budget.floods(10.0, 100.0)


# --- half-open links ------------------------------------------------------------------------------------------------

SETTINGS = TransportSettings(
    half_open_retry_above=4,
    half_open_cap=8,
    new_links_per_source_per_s=5,
    new_links_per_source_burst=10,
    new_links_per_s=100,
    retries_per_s=50,
)


def filled(guard: HalfOpenGuard, count: int, *, validated: bool = False) -> HalfOpenGuard:
    for link in range(count):
        guard.opened(link, validated=validated)
    return guard


def test_quiet_node_accepts_without_a_round_trip() -> None:
    guard = HalfOpenGuard(SETTINGS, 0.0)
    assert guard.judge("a", validated=False, now_s=0.0).admit is Admit.ACCEPT


def test_above_the_threshold_addresses_are_validated_and_validated_ones_get_in() -> None:
    guard = filled(HalfOpenGuard(SETTINGS, 0.0), 4)
    assert guard.judge("a", validated=False, now_s=0.0).admit is Admit.VALIDATE
    assert guard.judge("a", validated=True, now_s=0.0).admit is Admit.ACCEPT


def test_validation_goes_off_only_well_below_the_threshold() -> None:
    guard = filled(HalfOpenGuard(SETTINGS, 0.0), 4)
    guard.judge("a", validated=False, now_s=0.0)
    guard.settled(0)
    assert guard.judge("a", validated=False, now_s=0.0).admit is Admit.VALIDATE
    guard.settled(1)
    assert guard.judge("a", validated=False, now_s=0.0).admit is Admit.ACCEPT


def test_at_the_cap_the_oldest_unvalidated_link_goes_first() -> None:
    guard = HalfOpenGuard(SETTINGS, 0.0)
    guard.opened(1, validated=True)
    for link in range(2, 9):
        guard.opened(link, validated=False)
    assert guard.judge("a", validated=True, now_s=0.0).evict == 2


def test_at_the_cap_the_oldest_goes_where_all_are_validated() -> None:
    guard = filled(HalfOpenGuard(SETTINGS, 0.0), 8, validated=True)
    assert guard.judge("a", validated=True, now_s=0.0).evict == 0


def test_forged_packets_cannot_use_up_the_rate_of_the_network_they_name() -> None:
    guard = HalfOpenGuard(SETTINGS, 0.0)
    verdicts = [guard.judge("victim", validated=False, now_s=0.0).admit for _ in range(20)]
    assert verdicts == [Admit.ACCEPT] * 10 + [Admit.VALIDATE] * 10
    assert guard.judge("victim", validated=True, now_s=0.0).admit is Admit.ACCEPT


def test_source_that_proved_its_address_is_held_to_its_rate() -> None:
    guard = HalfOpenGuard(SETTINGS, 0.0)
    verdicts = [guard.judge("a", validated=True, now_s=0.0).admit for _ in range(12)]
    assert verdicts == [Admit.ACCEPT] * 10 + [Admit.DROP] * 2
    assert guard.judge("b", validated=True, now_s=0.0).admit is Admit.ACCEPT
    assert guard.judge("a", validated=True, now_s=1.0).admit is Admit.ACCEPT


def test_validations_answered_are_limited_too() -> None:
    guard = filled(HalfOpenGuard(SETTINGS, 0.0), 4)
    verdicts = [guard.judge(str(number), validated=False, now_s=0.0).admit for number in range(60)]
    assert verdicts.count(Admit.VALIDATE) == 50
    assert verdicts.count(Admit.DROP) == guard.dropped == 10


# --- the send queue -------------------------------------------------------------------------------------------------


def drained(queue: SendQueue) -> list[bytes]:
    found = []
    while (frame := queue.pop()) is not None:
        found.append(frame)
    return found


def test_frames_leave_in_the_order_they_came() -> None:
    queue = SendQueue(10, 100)
    for frame in (b"1", b"2", b"3"):
        assert queue.push(frame, None, 0.0)
    assert drained(queue) == [b"1", b"2", b"3"]
    assert queue.queued_bytes == 0


def test_newer_frame_takes_the_place_of_the_older_one_in_its_slot() -> None:
    queue = SendQueue(10, 100)
    for frame, slot in ((b"old", "view"), (b"a", None), (b"b", "row"), (b"newer", "view")):
        queue.push(frame, slot, 0.0)
    assert queue.queued_bytes == len(b"newer" + b"a" + b"b")
    assert drained(queue) == [b"newer", b"a", b"b"]


def test_frames_without_a_slot_are_all_kept() -> None:
    queue = SendQueue(10, 100)
    queue.push(b"same", None, 0.0)
    queue.push(b"same", None, 0.0)
    assert len(queue) == 2


@pytest.mark.parametrize(("max_frames", "max_bytes"), [(2, 100), (10, 2)])
def test_full_queue_takes_no_more_and_stays_as_it_was(max_frames: int, max_bytes: int) -> None:
    queue = SendQueue(max_frames, max_bytes)
    queue.push(b"1", None, 0.0)
    queue.push(b"2", "slot", 0.0)
    assert not queue.push(b"3", None, 0.0)
    assert queue.push(b"4", "slot", 0.0), "replacing takes no room"
    assert drained(queue) == [b"1", b"4"]


def test_replacing_with_a_larger_frame_counts_against_the_bytes() -> None:
    queue = SendQueue(10, 5)
    queue.push(b"1", None, 0.0)
    queue.push(b"2", "slot", 0.0)
    assert not queue.push(b"22222", "slot", 0.0)
    assert drained(queue) == [b"1", b"2"]


def test_age_is_that_of_the_place_and_not_of_its_newest_frame() -> None:
    queue = SendQueue(10, 100)
    assert queue.oldest_at_s() is None
    queue.push(b"1", "slot", 3.0)
    queue.push(b"2", "slot", 9.0)
    assert queue.oldest_at_s() == 3.0
