"""What one node holds at most, and for how long: a flood of records, floors or links fills no memory."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from making_memberships import QUIET, Lone

from meshnode.events import PeerIdentityConflict, PeerJoined, PeerReturned, RecordRejected
from meshnode.membership.local import OfferDraft
from meshnode.membership.records import MAX_PART_BYTES, RecordStore
from meshnode.membership.view import Status
from proto.ids import BootId, node_id_of
from proto.messages import Delta, Digest, ViewHash
from proto.parts import PartKind, Role, SignedPart


def passes_at_once(us: Lone, duration_s: float) -> None:
    """Long times in one step, as over a suspend, and the two minutes after it."""
    us.now_s += duration_s
    us.effects += us.machine.poll(us.now_s)
    us.passes(120.0)


def test_mesh_of_too_many_nodes_takes_no_more_and_says_so() -> None:
    us = Lone(replace(QUIET, max_nodes=4))
    friend = us.meets()
    for _ in range(5):
        us.meets(linked=False, via=friend)
    assert len(us.machine.alive()) == 4
    refused = us.events(RecordRejected)
    assert [event.relayed_by for event in refused] == [friend.node] * 3
    assert "all the nodes it may" in refused[0].reason


def test_part_longer_than_its_kind_may_be_is_refused_unread() -> None:
    us = Lone()
    friend = us.meets()
    part = friend.trust.sign_part(OfferDraft().as_part(friend.node, 1, 9))
    padded = msgspec.msgpack.encode({**msgspec.msgpack.decode(part.body), "x": bytes(MAX_PART_BYTES[PartKind.OFFER])})
    us.hears(friend, SignedPart(PartKind.OFFER, padded, part.signature))
    assert [(event.subject, event.reason) for event in us.events(RecordRejected)] == [(friend.node, "too large")]
    assert us.machine.holds(friend.node, PartKind.OFFER) is None


def test_floors_are_bounded_and_forgotten_in_their_time() -> None:
    settings = replace(QUIET, max_floors=3, tombstone_s=10.0, floor_s=100.0)
    store = RecordStore(settings)
    nodes = [node_id_of(bytes([number]) * 32) for number in range(5)]
    for node in nodes:
        entry = store.add(node, Role.WORKER, 7, 0.0)
        assert entry is not None
        store.set_status(entry, Status.DEAD, 0.0)
    store.expire(10.0)
    assert [store.floor_of(node) for node in nodes] == [0, 0, 7, 7, 7], "the oldest go first"
    store.expire(109.0)
    assert store.floor_of(nodes[-1]) == 7
    store.expire(110.0)
    assert store.floor_of(nodes[-1]) == 0


def test_node_returns_after_its_tombstone_and_even_its_floor_were_forgotten() -> None:
    us = Lone()
    gone, friend = us.meets(), us.meets()
    us.hears(gone, gone.identity(left=True))
    us.effects += us.machine.link_down(gone.node, "leaving", "the node stops", us.now_s)
    passes_at_once(us, QUIET.tombstone_s)
    passes_at_once(us, QUIET.floor_s)
    us.forget_effects()
    gone.incarnation += 1
    us.hears(friend, gone.identity())
    assert [event.peer for event in us.events(PeerJoined)] == [gone.node]
    assert us.events(PeerReturned) == []


def test_boot_ids_that_take_turns_are_reported_as_two_processes() -> None:
    us = Lone()
    friend, double = us.meets(), us.meets()
    boots = (double.boot_id, BootId(b"another process!"))
    for number in range(4):
        double.incarnation += 1
        double.boot_id = boots[number % 2]
        us.hears(friend, double.identity())
    assert [event.peer for event in us.events(PeerIdentityConflict)] == [double.node]


def test_restarts_in_a_row_are_no_conflict() -> None:
    us = Lone()
    friend, restless = us.meets(), us.meets()
    for number in range(6):
        restless.incarnation += 1
        restless.boot_id = BootId(bytes([number]) * 16)
        us.hears(friend, restless.identity())
    assert us.events(PeerIdentityConflict) == []


def test_links_beyond_the_limit_are_closed_one_by_one_and_every_record_is_kept() -> None:
    us = Lone(replace(QUIET, max_links=6))
    peers = []
    for _ in range(12):
        peers.append(us.meets())
        for closed in us.closed():
            us.effects += us.machine.link_down(closed, "link_limit", "one link more", us.now_s)
        us.forget_effects()
        us.passes(1.5, *peers)
    view = us.machine.view(us.now_s)
    assert len([node for node in view.nodes.values() if node.link is not None]) == 6
    assert len(view.alive()) == 13


@pytest.mark.parametrize(("known", "told_at_once"), [(8, 8), (12, 0)])
def test_news_is_pushed_down_every_link_up_to_the_limit_and_announced_beyond(known: int, told_at_once: int) -> None:
    us = Lone(replace(QUIET, max_links=10, fanout=3))
    peers = [us.meets() for _ in range(8)]
    for _ in range(known - 8):
        us.meets(linked=False, via=peers[0])
    us.passes(20.0, *peers)
    us.forget_effects()
    us.effects += us.machine.publish_offer(OfferDraft(host_usable_bytes=10**9), us.now_s)
    assert len([peer for peer in peers if us.sent(Delta, peer)]) == told_at_once
    if told_at_once == 0:
        us.passes(2 * QUIET.announce_interval_s, *peers)
        announced = [peer for peer in peers for digest in us.sent(Digest, peer) if digest.answer_wanted]
        assert len(announced) == 3


def test_rounds_go_on_with_random_peers_and_a_view_that_differs_is_told_what_it_lacks() -> None:
    us = Lone()
    peers = [us.meets() for _ in range(4)]
    us.passes(2.0, *peers)
    us.forget_effects()
    us.passes(20 * QUIET.sync_interval_s, *peers)
    rounds = [peer for peer in peers if us.sent(ViewHash, peer)]
    assert len(us.sent(ViewHash)) >= 15
    assert len(rounds) == len(peers)


def test_what_a_peer_lacks_is_sent_in_pieces_of_bounded_size() -> None:
    us = Lone(replace(QUIET, delta_bytes=2000))
    friend = us.meets()
    for _ in range(40):
        us.meets(linked=False, via=friend)
    newcomer = us.other()
    us.link(newcomer)
    us.forget_effects()
    us.receives(newcomer, Digest((), 0, 1, True))  # the whole of its view: it holds nobody
    deltas = us.sent(Delta, newcomer)
    sizes = [sum(len(part.body) for part in delta.parts) for delta in deltas]
    assert len(deltas) > 1
    assert max(sizes) <= 2000
