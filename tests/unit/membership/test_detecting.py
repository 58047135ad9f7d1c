"""Probes and bursts of one node: whom it pings, whom it asks, and when its silence is its own."""

from __future__ import annotations

from dataclasses import replace

from making_memberships import QUIET, Lone

from meshnode.events import NodeStalled, PeerSuspect
from meshnode.membership.awareness import Awareness
from meshnode.membership.view import Status
from proto.messages import IndirectAck, Ping, PingRequest


def test_every_peer_is_probed_within_a_bounded_time() -> None:
    us = Lone()
    peers = [us.meets() for _ in range(12)]
    us.passes(10.0, *peers)
    us.forget_effects()
    us.passes(2 * len(peers) * QUIET.probe_interval_s, *peers)
    assert all(us.sent(Ping, peer) for peer in peers)


def test_peer_that_pings_us_needs_no_probe_while_others_are_silent() -> None:
    us = Lone(replace(QUIET, rtt_interval_s=10_000.0))
    talker, *others = [us.meets() for _ in range(6)]
    us.passes(10.0, talker, *others)
    us.forget_effects()
    for nonce in range(40):
        us.effects += us.machine.receive_datagram(talker.node, Ping(nonce, 1, False, 0), us.now_s, us.now_s)
        us.passes(0.25, talker, *others)
    assert us.sent(Ping, talker) == []
    assert all(us.sent(Ping, other) for other in others)


def test_relays_are_asked_before_anybody_is_accused_and_an_ack_through_one_clears() -> None:
    us = Lone()
    silent, *relays = [us.meets() for _ in range(4)]
    while not (asked := us.sent(PingRequest, relays[0])):
        us.passes(0.05, *relays)
        assert us.events(PeerSuspect) == []
    us.receives(relays[0], IndirectAck(asked[0].nonce, silent.node, 1, True))
    us.passes(0.2, *relays)
    assert us.events(PeerSuspect) == []


def test_answer_about_another_node_than_was_asked_for_clears_nobody() -> None:
    us = Lone()
    silent, *relays = [us.meets() for _ in range(4)]
    while not (asked := us.sent(PingRequest, relays[0])):
        us.passes(0.05, *relays)
    us.receives(relays[0], IndirectAck(asked[0].nonce, relays[1].node, 1, True))
    us.passes(QUIET.probe_timeout_max_s, *relays)
    assert [event.peer for event in us.events(PeerSuspect)] == [silent.node]


def test_request_for_a_node_without_a_link_is_nacked_at_once() -> None:
    us = Lone()
    asker, stranger = us.meets(), us.other()
    us.receives(asker, PingRequest(5, stranger.node))
    assert us.sent(IndirectAck, asker) == [IndirectAck(5, stranger.node, 0, False)]


def test_process_that_did_not_run_accuses_nobody_for_a_while() -> None:
    us = Lone()
    peers = [us.meets() for _ in range(3)]
    us.passes(5.0, *peers)
    us.now_s += 60.0
    us.effects += us.machine.poll(us.now_s)
    assert [event.cause for event in us.events(NodeStalled)] == ["suspend"]
    us.passes(QUIET.grace_after_stall_s - 0.1)
    assert us.events(PeerSuspect) == []
    us.passes(5.0)
    assert us.events(PeerSuspect), "it is not blind for ever"


def test_packet_that_came_before_a_probe_does_not_answer_it() -> None:
    us = Lone()
    silent, *relays = [us.meets() for _ in range(4)]
    us.passes(5.0, silent, *relays)
    us.forget_effects()
    while not us.sent(Ping, silent):
        us.passes(0.01, *relays)
    before_s = us.now_s - 1.0
    us.effects += us.machine.receive_datagram(silent.node, Ping(1, 1, False, 0), before_s, us.now_s)
    us.passes(QUIET.probe_timeout_max_s, *relays)
    assert {request.target for request in us.sent(PingRequest)} == {silent.node}


def test_question_that_was_open_when_the_process_stopped_proves_nothing() -> None:
    us = Lone()
    silent, *relays = [us.meets() for _ in range(4)]
    us.passes(5.0, silent, *relays)
    us.forget_effects()
    while not us.sent(Ping, silent):
        us.passes(0.05, *relays)
    us.now_s += 60.0
    us.effects += us.machine.poll(us.now_s)
    assert us.sent(PingRequest) == []


def test_suspect_has_its_whole_time_again_after_the_judge_stood_still() -> None:
    us = Lone()
    silent, *others = [us.meets() for _ in range(4)]
    while not us.events(PeerSuspect):
        us.passes(0.05, *others)
    us.passes(3.0, *others)
    us.now_s += 10.0
    us.effects += us.machine.poll(us.now_s)
    us.passes(QUIET.grace_after_stall_s + 1.0, *others)
    assert us.machine.status_of(silent.node) is Status.SUSPECT
    us.passes(20.0, *others)
    assert us.machine.status_of(silent.node) is Status.DEAD


def test_one_stall_that_driver_and_timers_both_notice_is_told_and_counted_once() -> None:
    us = Lone()
    us.passes(5.0, us.meets())
    us.now_s += 36.0
    us.effects += us.machine.stalled(35.9, us.now_s)
    us.now_s += 0.01
    us.effects += us.machine.poll(us.now_s)
    assert [event.stalled_s for event in us.events(NodeStalled)] == [35.9]
    assert us.machine.awareness.score == 1
    us.now_s += 1.0
    us.effects += us.machine.stalled(0.9, us.now_s)
    assert [event.stalled_s for event in us.events(NodeStalled)] == [35.9, 0.9], "the next one is another"


def test_driver_that_begins_late_is_no_stall() -> None:
    us = Lone()
    peer = us.meets()
    us.now_s += 3.0
    us.effects += us.machine.begin(us.now_s)
    us.passes(1.0, peer)
    assert us.events(NodeStalled) == []
    assert us.machine.awareness.score == 0


def test_lost_link_starts_an_examination_and_is_no_verdict() -> None:
    us = Lone()
    peer, other = us.meets(), us.meets()
    us.effects += us.machine.link_down(peer.node, "connection_lost", "no answer", us.now_s)
    assert us.machine.status_of(peer.node) is Status.ALIVE
    assert peer.node in us.dialled()
    us.link(peer)
    us.passes(10.0, peer, other)
    assert us.events(PeerSuspect) == []


def test_peer_that_says_why_it_closes_the_link_lives() -> None:
    """A node that slept is told so by everybody at once; on a busy machine its dials may take their time."""
    us = Lone()
    peers = [us.meets() for _ in range(2)]
    for peer in peers:
        us.effects += us.machine.link_down(peer.node, "unreachable", "no answer to probes: held dead", us.now_s)
    us.passes(8.0)
    assert set(us.dialled()) == {peer.node for peer in peers}
    assert us.events(PeerSuspect) == []


def test_suspect_without_a_link_has_its_time_after_the_dial_that_failed() -> None:
    us = Lone()
    peer, other = us.meets(), us.meets()
    us.effects += us.machine.link_down(peer.node, "connection_lost", "no answer", us.now_s)
    while not us.events(PeerSuspect):
        us.passes(0.1, other)
    us.passes(QUIET.suspicion_min_s - 0.2, other)
    assert us.machine.status_of(peer.node) is Status.SUSPECT


def test_new_link_in_the_place_of_an_old_one_is_timed_once() -> None:
    us = Lone(replace(QUIET, probe_interval_s=10_000.0))
    peer = us.meets()
    us.link(peer)
    us.forget_effects()
    us.passes(6.0, peer)
    assert len(us.sent(Ping, peer)) == 2, "after 1 s and after 5.5 s"


def test_health_stays_within_its_bounds_and_stretches_time() -> None:
    health = Awareness(3)
    assert not health.change(-5)
    assert health.change(9)
    assert not health.change(1)
    assert (health.score, health.scale(0.5)) == (3, 2.0)
