"""What the transport's signs and the timed pings make one node think of a peer: hints, samples, moves and farewells."""

from __future__ import annotations

from dataclasses import replace

import pytest
from making_memberships import QUIET, Lone, Other

from meshnode.events import PeerDead, PeerSuspect
from meshnode.membership.effects import Send, SendDatagram
from meshnode.membership.view import RttFigure, Status
from proto.messages import Ack, Delta, IndirectAck, Ping, PingRequest

NO_PROBES = replace(QUIET, probe_interval_s=10_000.0)


def answered(us: Lone, peer: Other, after_s: float, hold_us: int = 0, overloaded: bool = False) -> RttFigure | None:
    """What `us` shows for `peer` once its last ping was answered so."""
    us.now_s += after_s
    ack = Ack(us.sent(Ping, peer)[-1].nonce, peer.incarnation, hold_us, overloaded, None)
    us.effects += us.machine.receive_datagram(peer.node, ack, us.now_s, us.now_s)
    return us.machine.view(us.now_s).nodes[peer.node].rtt


def test_time_for_which_the_peer_held_the_ping_is_no_part_of_the_path() -> None:
    us = Lone(NO_PROBES)
    figure = answered(us, us.meets(), after_s=0.030, hold_us=20_000)
    assert figure is not None
    assert figure.min_ms == pytest.approx(10.0)


@pytest.mark.parametrize(("hold_us", "overloaded"), [(0, True), (40_000, False), (600_000_000, False)])
def test_sample_of_an_overloaded_peer_or_one_that_claims_to_have_held_it_longer_than_it_took_is_none(
    hold_us: int, overloaded: bool
) -> None:
    us = Lone(NO_PROBES)
    assert answered(us, us.meets(), after_s=0.030, hold_us=hold_us, overloaded=overloaded) is None


def test_sample_taken_while_our_own_loop_lagged_is_none() -> None:
    us = Lone(NO_PROBES)
    peer = us.meets()
    us.now_s += 1.5  # the ping of the first second is late by half of one
    us.effects += us.machine.poll(us.now_s)
    assert answered(us, peer, after_s=0.010) is None
    us.passes(6.0)
    assert answered(us, peer, after_s=0.010) is not None


def test_answer_to_a_question_that_was_never_asked_is_no_sample() -> None:
    us = Lone(NO_PROBES)
    peer, other = us.meets(), us.meets()
    nonce = us.sent(Ping, other)[-1].nonce
    us.now_s += 0.01
    us.effects += us.machine.receive_datagram(peer.node, Ack(nonce, 1, 0, False, None), us.now_s, us.now_s)
    view = us.machine.view(us.now_s)
    assert (view.nodes[peer.node].rtt, view.nodes[other.node].rtt) == (None, None)


def test_peer_that_moved_is_measured_anew_and_loses_nothing_else() -> None:
    us = Lone(NO_PROBES)
    peer = us.meets()
    assert answered(us, peer, after_s=0.010) is not None
    us.forget_effects()
    us.effects += us.machine.migrated(peer.node, "10.9.9.9:4411", us.now_s)
    view = us.machine.view(us.now_s).nodes[peer.node]
    assert view.link is not None
    assert (view.link.address, view.rtt, view.status) == ("10.9.9.9:4411", None, Status.ALIVE)
    figure = answered(us, peer, after_s=0.050)
    assert figure is not None
    assert figure.min_ms == pytest.approx(50.0)


def test_refusal_by_a_peers_host_is_looked_into_at_once_and_is_no_verdict() -> None:
    us = Lone(NO_PROBES)
    peer, other = us.meets(), us.meets()
    us.passes(10.0, peer, other)
    us.forget_effects()
    us.effects += us.machine.path_trouble(peer.node, "refused", us.now_s)
    kinds = {type(one) for one in us.effects if isinstance(one, Send | SendDatagram) and one.peer == peer.node}
    assert kinds == {Send, SendDatagram}
    assert us.events(PeerSuspect) == []
    us.passes(5.0, peer, other)
    assert us.events(PeerSuspect) == [], "it answered"


def test_refusals_by_a_peers_host_make_its_death_known_sooner() -> None:
    took_s = []
    for refuses in (False, True):
        us = Lone()
        dead, *others = [us.meets() for _ in range(6)]
        us.passes(10.0, dead, *others)
        died_at_s = us.now_s
        while not us.events(PeerSuspect):
            if refuses:
                us.effects += us.machine.path_trouble(dead.node, "refused", us.now_s)
            us.passes(0.1, *others)
        took_s.append(us.now_s - died_at_s)
    assert took_s[1] < took_s[0]
    assert took_s[1] < 1.0


def test_link_that_went_silent_has_its_peer_looked_into() -> None:
    us = Lone(NO_PROBES)
    lost, *others = [us.meets() for _ in range(4)]
    us.passes(10.0, lost, *others)
    us.forget_effects()
    us.effects += us.machine.link_down(lost.node, "idle_timeout", "nothing heard", us.now_s)
    assert us.dialled() == [lost.node]
    assert [request.target for request in us.sent(PingRequest)] == [lost.node] * QUIET.indirect_probes
    us.passes(20.0, *others)
    assert [event.peer for event in us.events(PeerDead)] == [lost.node]


def test_ping_for_another_is_answered_by_what_its_target_said() -> None:
    us = Lone(NO_PROBES)
    asker, alive, silent = us.meets(), us.meets(), us.meets()
    us.passes(10.0, asker, alive, silent)
    us.forget_effects()
    us.receives(asker, PingRequest(5, alive.node))
    us.receives(asker, PingRequest(6, silent.node))
    answered(us, alive, after_s=0.001)
    us.passes(1.0, asker)
    answers = {answer.nonce: answer for answer in us.sent(IndirectAck, asker)}
    assert answers == {5: IndirectAck(5, alive.node, 1, True), 6: IndirectAck(6, silent.node, 0, False)}


def test_farewell_is_said_to_every_peer_at_once_and_is_final() -> None:
    us = Lone()
    peers = [us.meets() for _ in range(5)]
    us.passes(2.0, *peers)
    us.forget_effects()
    us.effects += us.machine.leave(us.now_s)
    assert all(delta.urgent for peer in peers for delta in us.sent(Delta, peer))
    assert all(us.sent(Delta, peer) for peer in peers)
    incarnation = us.machine.incarnation
    us.receives(peers[0], Ping(7, 1, False, incarnation))
    assert us.machine.incarnation == incarnation, "nobody that left comes back to refute"
