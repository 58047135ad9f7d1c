"""A staggered race over addresses, by plain calls."""

from __future__ import annotations

from making_members import Key

from meshnode.transport.dialler import NO_ANSWER, Abandon, DialRace, Exhausted, Lead, Start, Target

PEER = Key("peer").node
A, B, C = (Target(PEER, ("192.0.2.1", port)) for port in (1, 2, 3))
STAGGER_S = 0.25
ANSWER_S = 1.5
DEADLINE_S = 5.0


def a_race(*targets: Target) -> DialRace:
    return DialRace(targets, stagger_s=STAGGER_S, answer_timeout_s=ANSWER_S, connect_deadline_s=DEADLINE_S)


def test_first_address_starts_at_once_and_the_next_one_after_the_stagger() -> None:
    race = a_race(A, B, C)
    assert race.poll(10.0) == [Start(A)]
    assert race.next_wakeup_s() == 10.0 + STAGGER_S
    assert race.poll(10.0 + STAGGER_S / 2) == []
    assert race.poll(10.0 + STAGGER_S) == [Start(B)]
    assert race.poll(10.0 + 2 * STAGGER_S) == [Start(C)]


def test_failure_starts_the_next_address_at_once() -> None:
    race = a_race(A, B)
    race.poll(10.0)
    assert race.failed(A, "econnrefused", 10.01) == [Start(B)]


def test_first_to_connect_leads_and_stops_further_starts() -> None:
    race = a_race(A, B, C)
    race.poll(10.0)
    race.poll(10.0 + STAGGER_S)
    assert race.connected(B, 10.3) == [Lead(B)]
    assert race.connected(A, 10.4) == []
    assert race.leader == B
    assert race.poll(11.0) == [], "C is not tried while B leads"


def test_standby_leads_when_the_leader_fails() -> None:
    race = a_race(A, B)
    race.poll(10.0)
    race.poll(10.0 + STAGGER_S)
    race.connected(B, 10.3)
    race.connected(A, 10.4)
    assert race.failed(B, "protocol_error", 10.5) == [Lead(A)]


def test_leader_that_does_not_answer_is_abandoned_and_the_next_address_tried() -> None:
    race = a_race(A, B)
    race.poll(10.0)
    race.connected(A, 10.1)
    assert race.next_wakeup_s() == 10.1 + ANSWER_S
    assert race.poll(10.1 + ANSWER_S) == [Abandon(A), Start(B)]
    assert race.outcomes == {A: NO_ANSWER}


def test_leader_that_answers_gets_time_for_the_next_step() -> None:
    race = a_race(A, B)
    race.poll(10.0)
    race.connected(A, 10.1)
    race.progressed(A, 11.0)
    assert race.poll(10.1 + ANSWER_S) == []
    assert race.poll(11.0 + ANSWER_S) == [Abandon(A), Start(B)]


def test_connecting_address_is_given_up_at_its_deadline() -> None:
    race = a_race(A)
    race.poll(10.0)
    assert race.next_wakeup_s() == 10.0 + DEADLINE_S
    assert race.poll(10.0 + DEADLINE_S) == [Abandon(A), Exhausted()]


def test_race_without_any_answer_is_bounded_whatever_the_number_of_addresses() -> None:
    targets = [Target(PEER, ("192.0.2.1", port)) for port in range(16)]
    race, now_s, exhausted = a_race(*targets), 0.0, False
    while not exhausted:
        exhausted = Exhausted() in race.poll(now_s)
        now_s = max(race.next_wakeup_s(), now_s)
    assert now_s <= 15 * STAGGER_S + DEADLINE_S or exhausted
    assert len(race.outcomes) == 16


def test_end_of_the_last_address_is_told_once() -> None:
    race = a_race(A)
    race.poll(10.0)
    assert race.failed(A, "econnrefused", 10.1) == [Exhausted()]
    assert race.failed(A, "again", 10.2) == []
    assert race.poll(20.0) == []
    assert race.outcomes == {A: "econnrefused"}


def test_race_over_nothing_is_lost_at_once() -> None:
    assert a_race().poll(10.0) == [Exhausted()]
