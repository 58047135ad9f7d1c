"""Lifeguard at one node: what makes it doubt itself, how long a suspect has, and what the suspect is told."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from making_memberships import QUIET, Lone, Other

from meshnode.events import HealthChanged, PeerDead, PeerRefuted, PeerSuspect
from meshnode.membership.effects import Send, SendDatagram
from meshnode.membership.records import head_of
from meshnode.membership.suspicion import Suspicion
from meshnode.membership.view import PathKind, Status
from proto.ids import node_id_of
from proto.messages import Ack, ClaimKind, Delta, IndirectAck, Ping, PingRequest

ACCUSERS = [node_id_of(bytes([number]) * 32) for number in range(5)]


def a_suspicion(confirmations_needed: int) -> Suspicion:
    return Suspicion(node_id_of(b"s" * 32), 1, ACCUSERS[0], confirmations_needed, 0.0)


def until_asked(us: Lone, silent: Other, *answering: Other) -> list[tuple[Other, PingRequest]]:
    """Time passes until the direct probe of `silent` has failed and relays were asked."""
    while not (asked := [(peer, one) for peer in answering for one in us.sent(PingRequest, peer)]):
        us.passes(0.05, *answering)
    assert all(request.target == silent.node for _, request in asked)
    return asked


def until_suspect(us: Lone, *answering: Other) -> None:
    while not us.events(PeerSuspect):
        us.passes(0.05, *answering)


# --- the time a suspect has ---


def test_time_shrinks_with_the_logarithm_of_confirmations() -> None:
    case = a_suspicion(confirmations_needed=3)
    times_s = [case.time_s(1.2, 6.0)]
    for accuser in ACCUSERS[1:4]:
        assert case.confirm(accuser)
        times_s.append(case.time_s(1.2, 6.0))
    expected_s = [6.0 - 4.8 * math.log(count + 1) / math.log(4) for count in range(4)]
    assert times_s == pytest.approx(expected_s)
    assert times_s[0] == 6.0
    assert times_s[-1] == pytest.approx(1.2)


def test_only_distinct_accusers_count_and_no_more_than_are_needed() -> None:
    case = a_suspicion(confirmations_needed=2)
    assert not case.confirm(ACCUSERS[0])
    assert case.confirm(ACCUSERS[1])
    assert not case.confirm(ACCUSERS[1])
    assert case.confirm(ACCUSERS[2])
    assert not case.confirm(ACCUSERS[3])
    assert case.confirmations == 2


def test_where_nobody_could_confirm_the_shortest_time_is_all_there_is() -> None:
    assert a_suspicion(confirmations_needed=0).time_s(1.2, 6.0) == 1.2


def test_suspect_of_one_accuser_has_the_longest_time_and_of_many_the_shortest() -> None:
    lasted_s = []
    for confirming in (0, 3):
        us = Lone()
        silent, *others = [us.meets() for _ in range(6)]
        until_suspect(us, *others)
        began_s = us.now_s
        for other in others[:confirming]:
            us.hears(other, other.claims(silent.node, 1))
        while not us.events(PeerDead):
            us.passes(0.05, *others)
        lasted_s.append(us.now_s - began_s)
    assert lasted_s[0] == pytest.approx(QUIET.suspicion_max_s, abs=1.0)
    assert lasted_s[1] == pytest.approx(QUIET.suspicion_min_s, abs=1.0)


def test_suspect_is_pinged_all_the_while_and_one_answer_saves_it() -> None:
    us = Lone()
    silent, *others = [us.meets() for _ in range(4)]
    until_suspect(us, *others)
    us.passes(2.5, *others)  # its burst is over
    us.forget_effects()
    us.passes(3 * QUIET.vigil_interval_s + 0.1, *others)
    pings = us.sent(Ping, silent)
    assert len(pings) >= 3
    ack = Ack(pings[-1].nonce, silent.incarnation, 0, False, None)
    us.effects += us.machine.receive_datagram(silent.node, ack, us.now_s, us.now_s)
    assert us.machine.status_of(silent.node) is Status.ALIVE


def test_packet_that_came_before_the_accusation_saves_nobody() -> None:
    us = Lone()
    silent, *others = [us.meets() for _ in range(4)]
    before_s = us.now_s
    until_suspect(us, *others)
    us.effects += us.machine.receive_datagram(silent.node, Ping(1, 1, False, 0), before_s, us.now_s)
    assert us.machine.status_of(silent.node) is Status.SUSPECT
    us.effects += us.machine.receive_datagram(silent.node, Ping(2, 1, False, 0), us.now_s, us.now_s)
    assert us.machine.status_of(silent.node) is Status.ALIVE


# --- what the suspect and its accusers are told ---


def test_suspect_and_dead_are_told_in_each_ping_at_which_incarnation() -> None:
    us = Lone()
    silent, *others = [us.meets() for _ in range(4)]
    us.passes(1.0, silent, *others)
    assert {ping.accused_at for ping in us.sent(Ping, silent)} == {0}
    until_suspect(us, *others)
    us.forget_effects()
    us.passes(1.0, *others)
    assert {ping.accused_at for ping in us.sent(Ping, silent)} == {silent.incarnation}


def test_accused_that_we_reach_is_asked_in_datagrams_and_on_the_stream_and_its_accuser_told() -> None:
    us = Lone()
    accused, accuser = us.meets(), us.meets()
    us.passes(10.0, accused, accuser)
    us.forget_effects()
    us.hears(accuser, accuser.claims(accused.node, 1))
    kinds = {type(one) for one in us.effects if isinstance(one, Send | SendDatagram) and isinstance(one.message, Ping)}
    assert kinds == {Send, SendDatagram}
    us.passes(1.0, accused, accuser)
    told = [claim for delta in us.sent(Delta, accuser) for claim in delta.claims]
    assert [(claim.kind, claim.subject, claim.accuser) for claim in told] == [(ClaimKind.ALIVE, accused.node, us.node)]
    us.forget_effects()
    us.hears(accuser, accuser.claims(accused.node, 1))
    assert us.sent(Ping, accused) == [], "a late copy opens nothing again"


def test_claim_at_an_old_incarnation_is_answered_with_the_owners_newer_word() -> None:
    us = Lone()
    accused, behind = us.meets(), us.meets()
    accused.incarnation = 2
    us.hears(accused, accused.identity())
    us.forget_effects()
    us.hears(behind, behind.claims(accused.node, 1))
    told = [head_of(part) for delta in us.sent(Delta, behind) for part in delta.parts]
    assert [(head.node, head.incarnation) for head in told if head is not None] == [(accused.node, 2)]
    assert us.sent(Ping, accused) == []


def test_claim_about_one_that_left_is_passed_on_to_nobody() -> None:
    us = Lone()
    gone, accuser, other = [us.meets() for _ in range(3)]
    us.hears(gone, gone.identity(left=True))
    us.forget_effects()
    us.hears(accuser, accuser.claims(gone.node, 1))
    us.passes(20.0, gone, accuser, other)
    assert us.machine.status_of(gone.node) is Status.LEFT
    assert [claim for delta in us.sent(Delta) for claim in delta.claims] == []


# --- relays ---


def test_relay_that_reaches_the_silent_one_clears_it() -> None:
    us = Lone()
    silent, *relays = [us.meets() for _ in range(4)]
    for relay, request in until_asked(us, silent, *relays)[:1]:
        us.receives(relay, IndirectAck(request.nonce, silent.node, 1, True))
    us.passes(QUIET.probe_timeout_max_s, *relays)
    assert us.events(PeerSuspect) == []


def test_single_accuser_far_away_is_checked_through_relays_before_a_verdict() -> None:
    us = Lone()
    first, second = us.meets(), us.meets()
    far = us.meets(linked=False, via=first)
    us.hears(first, first.claims(far.node, 1))
    us.forget_effects()
    us.passes(QUIET.suspicion_max_s + 0.2, first, second)
    assert us.events(PeerDead) == []
    asked = [(peer, one) for peer in (first, second) for one in us.sent(PingRequest, peer) if one.target == far.node]
    assert asked
    relay, request = asked[-1]
    us.receives(relay, IndirectAck(request.nonce, far.node, 1, True))
    link = us.machine.view(us.now_s).nodes[far.node].link
    assert link is not None
    assert (link.path, link.carrier) == (PathKind.RELAYED, relay.node)
    us.passes(20.0, first, second)
    assert us.machine.status_of(far.node) is Status.ALIVE
    assert us.events(PeerRefuted)


# --- local health ---


def test_relays_that_say_nothing_make_a_node_doubt_itself_and_those_that_say_no_do_not() -> None:
    scores = []
    for says_no in (False, True):
        us = Lone()
        silent, *relays = [us.meets() for _ in range(4)]
        for relay, request in until_asked(us, silent, *relays):
            if says_no:
                us.receives(relay, IndirectAck(request.nonce, silent.node, 0, False))
        before = us.machine.awareness.score
        while not us.events(PeerSuspect):
            us.passes(0.01)
        scores.append(us.machine.awareness.score - before)
    assert scores == [QUIET.indirect_probes, 0]


def test_node_that_is_suspected_doubts_itself_and_says_so() -> None:
    us = Lone()
    accuser = us.meets()
    us.receives(accuser, Ping(7, 1, False, 1))
    assert us.machine.awareness.score == 1
    assert [event.score for event in us.events(HealthChanged)] == [1]
    us.passes(5.0, accuser)
    assert us.machine.awareness.score == 0, "answers to its own probes restore it"


def test_node_whose_accusation_was_wrong_doubts_itself() -> None:
    us = Lone()
    silent, witness = us.meets(), us.meets()
    until_suspect(us, witness)
    before = us.machine.awareness.score
    us.hears(witness, witness.claims(silent.node, 1, ClaimKind.ALIVE))
    assert us.machine.status_of(silent.node) is Status.ALIVE
    assert us.machine.awareness.score == before + 1


def test_node_that_stood_still_doubts_itself() -> None:
    us = Lone()
    peer = us.meets()
    us.passes(5.0, peer)
    us.now_s += 3.0
    us.effects += us.machine.poll(us.now_s)
    assert us.machine.awareness.score == 1


def test_doubt_stretches_periods_and_time_outs() -> None:
    us = Lone(replace(QUIET, rtt_interval_s=10_000.0))
    peers = [us.meets() for _ in range(5)]
    us.passes(10.0, *peers)
    us.machine.awareness.change(3)
    us.forget_effects()
    us.passes(3 * QUIET.probe_interval_s)
    assert len({ping.nonce for ping in us.sent(Ping)}) <= 2, (
        "one period in four, and the same target asked on the stream"
    )
    assert us.events(PeerSuspect) == []
