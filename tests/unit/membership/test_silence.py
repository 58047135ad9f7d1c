"""A node whose probes go unanswered one after another: whom it looks at, what it says, and when it begins anew."""

from __future__ import annotations

from dataclasses import replace

import pytest
from making_memberships import QUIET, Lone, Other

from meshnode.events import CutOff, HeardAgain, PeerDead, PeerSuspect
from meshnode.membership.effects import Send
from meshnode.membership.view import Status
from proto.messages import ClaimKind, Delta, Ping

PROBES_ONLY = replace(QUIET, rtt_interval_s=10_000.0)


def settled(peers: int) -> tuple[Lone, list[Other]]:
    """A node and its linked peers, all of whom have answered."""
    us = Lone(PROBES_ONLY)
    others = [us.meets() for _ in range(peers)]
    us.passes(10.0, *others)
    us.forget_effects()
    return us, others


def examined(us: Lone) -> set[str]:
    """Whom it asked on the control stream: all that a probe or a burst at them gets no answer to."""
    return {one.peer for one in us.effects if isinstance(one, Send) and isinstance(one.message, Ping)}


def until(us: Lone, kind: type[PeerSuspect | CutOff], count: int, *answering: Other) -> None:
    deadline_s = us.now_s + 20.0
    while len(us.events(kind)) < count:
        assert us.now_s < deadline_s, f"no {count} {kind.__name__} in 20 s"
        us.passes(0.01, *answering)


def test_node_that_hears_nobody_holds_all_suspect_and_then_dead_in_seconds() -> None:
    """Though it doubts itself as much as it can: its periods are nine times as long."""
    us, others = settled(15)
    us.passes(7.0)
    assert {us.machine.status_of(other.node) for other in others} <= {Status.SUSPECT, Status.DEAD}
    us.passes(5.0)
    assert {us.machine.status_of(other.node) for other in others} == {Status.DEAD}
    assert us.machine.awareness.score == PROBES_ONLY.awareness_max


def test_one_death_has_nobody_else_examined() -> None:
    us, (dead, *others) = settled(8)
    us.passes(20.0, *others)
    assert [event.peer for event in us.events(PeerDead)] == [dead.node]
    assert examined(us) == {dead.node}


def test_answer_between_two_failed_probes_ends_the_silence() -> None:
    us, (dead, *others) = settled(12)
    until(us, PeerSuspect, 1, *others)
    us.passes(1.2, *others)
    us.forget_effects()
    until(us, PeerSuspect, 1)
    us.passes(0.1)
    assert len(examined(us) - {dead.node}) == 1


def test_peers_heard_meanwhile_are_not_examined_and_the_node_is_not_cut_off() -> None:
    us, (talker, *silent) = settled(10)
    for nonce in range(60):
        us.effects += us.machine.receive_datagram(talker.node, Ping(nonce, 1, False, 0), us.now_s, us.now_s)
        us.passes(0.2)
    assert examined(us) == {other.node for other in silent}
    assert us.events(CutOff) == []
    assert us.machine.status_of(talker.node) is Status.ALIVE
    assert {us.machine.status_of(other.node) for other in silent} == {Status.DEAD}


def test_what_is_found_silent_in_one_moment_is_said_in_one_message() -> None:
    us, (talker, *silent) = settled(10)
    for nonce in range(60):
        us.effects += us.machine.receive_datagram(talker.node, Ping(nonce, 1, False, 0), us.now_s, us.now_s)
        us.passes(0.2)
    told = [len(delta.claims) for delta in us.sent(Delta, talker)]
    assert told[:3] == [1, 1, len(silent) - 2], "the two whose probes failed, then the rest"
    assert told[-1] == len(silent) - 1, "their deaths, but that of the first"


def test_one_under_suspicion_already_is_not_examined_again() -> None:
    us, _ = settled(6)
    until(us, CutOff, 1)
    first = us.events(PeerSuspect)[0].peer
    asked = [one for one in us.effects if isinstance(one, Send) and isinstance(one.message, Ping) and one.peer == first]
    assert len(asked) == 2, "by its probe and by its burst"


def test_stall_between_two_failed_probes_is_no_silence() -> None:
    us, _ = settled(6)
    until(us, PeerSuspect, 1)
    us.now_s += 0.3
    us.effects += us.machine.poll(us.now_s)
    score = us.machine.awareness.score
    for _ in range(1000):
        if us.machine.awareness.score != score:
            break
        us.passes(0.01)  # until a probe of after the stall has failed
    assert us.events(CutOff) == []
    us.passes(10.0)
    assert us.events(CutOff), "one more is enough"


def test_cut_off_node_says_so_once_and_what_to_look_at() -> None:
    us, (last, *_) = settled(6)
    us.effects += us.machine.receive_datagram(last.node, Ping(1, 1, False, 0), us.now_s, us.now_s)
    heard_s = us.now_s
    until(us, CutOff, 1)
    (event,) = us.events(CutOff)
    assert event.peers == 6
    assert event.silent_s == pytest.approx(us.now_s - heard_s, abs=0.02)
    assert "Wi-Fi" in event.advice
    us.passes(60.0)
    assert us.events(CutOff) == [event]


def test_packet_that_was_on_its_way_when_the_path_was_cut_hides_nothing_for_long() -> None:
    us, others = settled(15)
    while not us.sent(Ping):
        us.passes(0.01)
    last = next(other for other in others if not us.sent(Ping, other))
    us.effects += us.machine.receive_datagram(last.node, Ping(1, 1, False, 0), us.now_s, us.now_s)
    until(us, PeerSuspect, 2)
    assert last.node not in examined(us), "it was heard in the last two rounds"
    us.passes(10.0)
    assert {us.machine.status_of(other.node) for other in others} <= {Status.SUSPECT, Status.DEAD}
    assert us.events(CutOff)


def test_one_that_said_goodbye_is_missed_by_nobody() -> None:
    us, (gone, *_) = settled(6)
    us.hears(gone, gone.identity(left=True))
    us.passes(20.0)
    assert [event.peers for event in us.events(CutOff)] == [5]


def test_cut_off_node_keeps_its_accusations_to_itself() -> None:
    us, _ = settled(6)
    until(us, CutOff, 1)
    us.forget_effects()
    us.passes(20.0)
    assert len(us.events(PeerDead)) == 6
    assert [claim for delta in us.sent(Delta) for claim in delta.claims] == []


def test_cut_off_node_that_hears_one_begins_every_case_anew() -> None:
    us, (first, *others) = settled(6)
    us.effects += us.machine.receive_datagram(others[0].node, Ping(1, 1, False, 0), us.now_s, us.now_s)
    last_s = us.now_s
    until(us, PeerSuspect, 6)
    us.passes(1.5)
    assert us.events(PeerDead) == []
    us.forget_effects()
    us.effects += us.machine.receive_datagram(first.node, Ping(1, 1, False, 0), us.now_s, us.now_s)
    (event,) = us.events(HeardAgain)
    assert event.peer == first.node
    assert event.cut_off_s == pytest.approx(us.now_s - last_s, abs=0.02)
    assert examined(us) == {other.node for other in others}
    us.passes(5.5, first)
    assert us.events(PeerDead) == [], "the whole time from now on"
    us.passes(3.0, first)
    assert len(us.events(PeerDead)) == 5
    assert {claim.kind for delta in us.sent(Delta, first) for claim in delta.claims} >= {ClaimKind.DEAD}


def test_packet_of_before_the_silence_ends_no_cut_off() -> None:
    us, (first, *_) = settled(6)
    before_s = us.now_s
    until(us, CutOff, 1)
    us.effects += us.machine.receive_datagram(first.node, Ping(1, 1, False, 0), before_s, us.now_s)
    assert us.events(HeardAgain) == []
