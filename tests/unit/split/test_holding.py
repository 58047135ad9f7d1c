"""The coordinator's side of a plan's reservations, message by message."""

from __future__ import annotations

import random

from making_views import MODEL, node_id

from meshnode.membership.effects import Send
from meshnode.split.holding import (
    PREPARE_S,
    PREPARE_TRIES,
    RENEWAL_S,
    Committed,
    Holding,
    HoldingEffect,
    Phase,
    PrepareFailed,
    StageLost,
    StageOrder,
)
from meshnode.split.reservation import LEASE_S
from proto.ids import NodeId
from proto.messages import Commit, Fence, LeaseRenewal, Message, Prepare, Prepared, Release

A, B, C = node_id("a"), node_id("b"), node_id("c")
FENCE = Fence(3, A)


def an_order(node: NodeId) -> StageOrder:
    return StageOrder(node, 0, 4, (("gpu0", 0, 4),), (("gpu0", 10),))


def a_holding(*nodes: NodeId) -> Holding:
    return Holding(MODEL, FENCE, tuple(an_order(node) for node in nodes), random.Random(1))


def sent(effects: list[HoldingEffect], kind: type[Message]) -> list[NodeId]:
    return [each.peer for each in effects if isinstance(each, Send) and isinstance(each.message, kind)]


def message_of(effects: list[HoldingEffect]) -> Message:
    (found,) = [each.message for each in effects if isinstance(each, Send)]
    return found


def accept(holding: Holding, effects: list[HoldingEffect], now: float) -> list[HoldingEffect]:
    """The asked worker accepts."""
    (send,) = [each for each in effects if isinstance(each, Send)]
    assert isinstance(send.message, Prepare)
    return holding.prepared(send.peer, Prepared(send.message.nonce, True, "", FENCE), now)


def held(*nodes: NodeId) -> Holding:
    holding = a_holding(*nodes)
    effects = holding.begin(0.0)
    while holding.phase is Phase.PREPARING:
        effects = accept(holding, effects, 0.0)
    return holding


def test_workers_are_asked_one_after_the_other_in_node_id_order() -> None:
    holding = a_holding(C, A, B)
    effects = holding.begin(0.0)
    asked = []
    while prepares := sent(effects, Prepare):
        asked += prepares
        effects = accept(holding, effects, 0.0)
    assert asked == [A, B, C]


def test_all_are_committed_once_the_last_has_prepared() -> None:
    holding = a_holding(A, B)
    effects = accept(holding, accept(holding, holding.begin(0.0), 0.0), 0.0)
    assert sent(effects, Commit) == [A, B]
    assert Committed() in effects
    assert holding.reserved() == {A: {"gpu0": 10}, B: {"gpu0": 10}}


def test_refusal_releases_what_was_prepared_and_says_who_and_why() -> None:
    holding = a_holding(A, B)
    second = accept(holding, holding.begin(0.0), 0.0)
    prepare = message_of(second)
    assert isinstance(prepare, Prepare)
    effects = holding.prepared(B, Prepared(prepare.nonce, False, "no_room: 5 free", Fence(0, B)), 1.0)
    assert sent(effects, Release) == [A, B]
    assert effects[-1] == PrepareFailed(B, "no_room: 5 free", Fence(0, B), fenced=False)
    assert holding.phase is Phase.OVER


def test_higher_promise_of_a_worker_is_told_apart_as_fenced() -> None:
    holding = a_holding(A)
    prepare = message_of(holding.begin(0.0))
    assert isinstance(prepare, Prepare)
    effects = holding.prepared(A, Prepared(prepare.nonce, False, "fenced", Fence(9, B)), 0.0)
    assert effects[-1] == PrepareFailed(A, "fenced", Fence(9, B), fenced=True)


def test_answers_of_others_and_to_earlier_tries_say_nothing() -> None:
    holding = a_holding(A, B)
    prepare = message_of(holding.begin(0.0))
    assert isinstance(prepare, Prepare)
    assert holding.prepared(B, Prepared(prepare.nonce, True, "", FENCE), 0.0) == []
    assert holding.prepared(A, Prepared(prepare.nonce + 1, True, "", FENCE), 0.0) == []


def test_silent_worker_is_asked_three_times_and_then_given_up() -> None:
    holding = a_holding(A)
    asked, now = len(sent(holding.begin(0.0), Prepare)), 0.0
    failed: list[HoldingEffect] = []
    while holding.phase is Phase.PREPARING:
        now = holding.next_wakeup()
        effects = holding.poll(now)
        asked += len(sent(effects, Prepare))
        failed += [each for each in effects if isinstance(each, PrepareFailed)]
    assert asked == PREPARE_TRIES
    assert failed == [PrepareFailed(A, "no answer to 3 requests", None, fenced=False)]
    assert PREPARE_TRIES * PREPARE_S <= now <= PREPARE_TRIES * (PREPARE_S + 0.5)


def test_prepared_workers_are_renewed_while_another_is_still_asked() -> None:
    holding = a_holding(A, B)
    accept(holding, holding.begin(0.0), 0.0)
    renewed: list[NodeId] = []
    while (now := holding.next_wakeup()) <= RENEWAL_S * 1.1:
        renewed += sent(holding.poll(now), LeaseRenewal)
    assert renewed == [A]


def renewals(effects: list[HoldingEffect]) -> list[tuple[NodeId, LeaseRenewal]]:
    return [
        (each.peer, each.message)
        for each in effects
        if isinstance(each, Send) and isinstance(each.message, LeaseRenewal)
    ]


def test_each_round_repeats_the_commit_so_that_a_lost_one_is_made_good() -> None:
    holding = held(A, B)
    effects = holding.poll(holding.next_wakeup())
    assert sent(effects, Commit) == [A, B]
    assert [peer for peer, _ in renewals(effects)] == [A, B]


def test_lease_counts_from_when_the_echoed_renewal_was_sent() -> None:
    holding = held(A)
    sent_s = holding.next_wakeup()
    ((peer, renewal),) = renewals(holding.poll(sent_s))
    holding.renewed(peer, renewal, sent_s + 6.0)
    lost: list[HoldingEffect] = []
    now = sent_s
    while not lost:
        now = holding.next_wakeup()
        lost = [each for each in holding.poll(now) if isinstance(each, StageLost)]
    assert now == sent_s + LEASE_S


def test_worker_that_says_it_holds_no_more_is_lost_at_once() -> None:
    holding = held(A, B)
    ((_, first), _) = renewals(holding.poll(holding.next_wakeup()))
    effects = holding.renewed(A, LeaseRenewal(first.nonce, MODEL, FENCE, held=False), 4.0)
    assert effects == [StageLost(A, "the worker holds the reservation no more")]


def test_echo_of_another_fence_or_nonce_says_nothing() -> None:
    holding = held(A)
    ((_, renewal),) = renewals(holding.poll(holding.next_wakeup()))
    assert holding.renewed(A, LeaseRenewal(renewal.nonce, MODEL, Fence(2, A), held=False), 4.0) == []
    assert holding.renewed(A, LeaseRenewal(renewal.nonce + 1, MODEL, FENCE, held=False), 4.0) == []


def test_newer_plan_releases_only_the_workers_it_does_not_use() -> None:
    assert sent(held(A, B, C).abandon((A, B), "superseded"), Release) == [C]


def test_release_says_goodbye_to_all_and_ends_it() -> None:
    holding = held(A, B)
    assert sent(holding.release("withdrawn"), Release) == [A, B]
    assert holding.next_wakeup() == float("inf")
    assert holding.release("again") == []
