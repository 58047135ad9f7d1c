"""Who is believed about whom: accusations, acquittals, verdicts and goodbyes at one node."""

from __future__ import annotations

from dataclasses import replace

from making_memberships import QUIET, Lone

from meshnode.events import (
    PeerDead,
    PeerIdentityConflict,
    PeerJoined,
    PeerLeft,
    PeerRefuted,
    PeerReturned,
    PeerSuspect,
    RecordRejected,
    SuspicionRefutedSelf,
)
from meshnode.membership.credit import FRESH_S
from meshnode.membership.effects import PersistIncarnation
from meshnode.membership.local import OfferDraft
from meshnode.membership.view import Status
from proto.messages import ClaimKind, Delta, Digest, Ping
from proto.parts import PartKind


def test_linked_judge_believes_its_own_eyes_and_not_its_neighbours() -> None:
    us = Lone()
    accused, *neighbours = [us.meets() for _ in range(5)]
    for neighbour in neighbours:
        for kind in (ClaimKind.SUSPECT, ClaimKind.DEAD):
            us.hears(neighbour, neighbour.claims(accused.node, 1, kind))
    us.passes(30.0, accused, *neighbours)
    assert us.events(PeerDead) == []
    assert us.machine.status_of(accused.node) is Status.ALIVE


def test_linked_judge_awaits_the_end_of_its_own_burst_however_many_accuse() -> None:
    """A node in doubt of itself waits long for answers; its neighbours' time would be over before its own."""
    us = Lone()
    accused, *neighbours = [us.meets() for _ in range(5)]
    us.passes(1.0, accused, *neighbours)
    us.machine.awareness.change(8)
    for neighbour in neighbours:
        us.hears(neighbour, neighbour.claims(accused.node, 1))
    us.passes(QUIET.suspicion_min_s + 0.2, *neighbours)
    assert us.events(PeerDead) == []
    us.receives(accused, Digest((), 0, 0, False))
    us.passes(5.0, accused, *neighbours)
    assert us.machine.status_of(accused.node) is Status.ALIVE


def test_suspect_that_says_goodbye_is_accused_no_more() -> None:
    us = Lone()
    gone, *others = [us.meets() for _ in range(4)]
    while not us.events(PeerSuspect):
        us.passes(0.05, *others)
    us.hears(others[0], gone.identity(left=True))
    us.forget_effects()
    us.passes(10.0, *others)
    assert {ping.accused_at for ping in us.sent(Ping, gone)} <= {0}
    assert us.machine.status_of(gone.node) is Status.LEFT


def test_silent_peer_is_suspect_and_then_dead_and_its_link_is_closed() -> None:
    us = Lone()
    silent, *others = [us.meets() for _ in range(4)]
    us.passes(30.0, *others)
    assert [event.peer for event in us.events(PeerSuspect)] == [silent.node]
    assert [event.peer for event in us.events(PeerDead)] == [silent.node]
    assert us.closed() == [silent.node]


def test_any_packet_newer_than_the_accusation_acquits() -> None:
    us = Lone()
    quiet, *others = [us.meets() for _ in range(4)]
    while not us.events(PeerSuspect):
        us.passes(0.05, *others)
    us.receives(quiet, Digest((), 0, 0, False))
    assert us.machine.status_of(quiet.node) is Status.ALIVE
    assert [event.peer for event in us.events(PeerRefuted)] == [quiet.node]


def test_one_accuser_never_convinces_a_judge_without_a_link_before_the_longest_time() -> None:
    us = Lone()
    first, second = us.meets(), us.meets()
    far = us.meets(linked=False, via=first)
    us.hears(first, first.claims(far.node, 1))
    us.passes(5.5, first, second)
    assert us.machine.status_of(far.node) is Status.SUSPECT
    us.hears(second, second.claims(far.node, 1))
    us.passes(1.0, first, second)
    assert us.machine.status_of(far.node) is Status.DEAD


def test_claim_that_its_accuser_did_not_sign_is_refused_by_name() -> None:
    us = Lone()
    accused, liar = us.meets(), us.meets()
    claim = liar.claims(accused.node, 1)
    forged = type(claim)(claim.kind, claim.subject, claim.incarnation, us.meets().node, 1, claim.signature)
    us.hears(liar, forged)
    assert [(event.subject, event.relayed_by) for event in us.events(RecordRejected)] == [(accused.node, liar.node)]


def test_claim_of_one_that_is_not_alive_accuses_nobody() -> None:
    """Its key may be in other hands, and a dead node's word is old in any case."""
    us = Lone()
    accused, gone, friend = us.meets(), us.meets(), us.meets()
    us.hears(gone, gone.identity(left=True))
    us.forget_effects()
    us.hears(friend, gone.claims(accused.node, 1))
    assert us.sent(Ping, accused) == [], "no burst"
    assert us.sent(Delta) == [], "and nobody is told"


def test_claim_about_an_incarnation_that_cannot_be_is_refused_by_name() -> None:
    """It would become the incarnation held of the accused, who could never go above it."""
    us = Lone()
    accused, liar = us.meets(), us.meets()
    us.hears(liar, liar.claims(accused.node, 2**40))
    assert [(event.subject, event.relayed_by) for event in us.events(RecordRejected)] == [(accused.node, liar.node)]
    accused.incarnation += 1
    us.hears(accused, accused.identity())
    us.passes(1.0, accused, liar)
    assert us.machine.holds(accused.node, PartKind.IDENTITY) == (2, accused.version)
    assert us.machine.status_of(accused.node) is Status.ALIVE


def test_word_that_the_accused_lives_counts_from_the_witness_alone() -> None:
    us = Lone()
    silent, witness, messenger = us.meets(), us.meets(), us.meets()
    while not us.events(PeerSuspect):
        us.passes(0.05, witness, messenger)
    word = witness.claims(silent.node, 1, ClaimKind.ALIVE)
    us.hears(messenger, word)
    assert us.machine.status_of(silent.node) is Status.SUSPECT
    us.hears(witness, word)
    assert us.machine.status_of(silent.node) is Status.ALIVE
    assert [event.witness for event in us.events(PeerRefuted)] == [witness.node]


def test_accusation_heard_in_gossip_is_refuted_to_everybody() -> None:
    us = Lone()
    accuser, bystander = us.meets(), us.meets()
    us.forget_effects()
    us.hears(accuser, accuser.claims(us.node, 1))
    assert us.machine.incarnation == 2
    assert [one.incarnation for one in us.effects if isinstance(one, PersistIncarnation)] == [2]
    assert all(us.sent(Delta, peer) for peer in (accuser, bystander))


def test_accuser_that_is_wrong_over_and_over_is_told_so_without_another_look() -> None:
    us = Lone()
    accused, liar, honest = us.meets(), us.meets(), us.meets()
    for _ in range(6):
        us.forget_effects()
        us.hears(liar, liar.claims(accused.node, accused.incarnation))
        looked = bool(us.sent(Ping, accused))
        us.passes(1.0, accused, liar, honest)
        told = [claim for delta in us.sent(Delta, liar) for claim in delta.claims]
        assert [(claim.kind, claim.subject) for claim in told] == [(ClaimKind.ALIVE, accused.node)]
        accused.incarnation += 1
        us.hears(accused, accused.identity())
    assert not looked
    us.forget_effects()
    us.hears(honest, honest.claims(accused.node, accused.incarnation))
    assert us.sent(Ping, accused), "another accuser is heard"
    us.passes(10.0, liar, honest)
    us.forget_effects()
    us.hears(liar, liar.claims(accused.node, accused.incarnation))
    us.passes(20.0, liar, honest)
    assert us.machine.status_of(accused.node) is Status.DEAD, "and one that is silent is examined all the same"


def test_accuser_without_credit_has_one_looked_at_that_was_not_heard_lately() -> None:
    us = Lone(replace(QUIET, probe_interval_s=10_000.0, rtt_interval_s=10_000.0))
    accused, liar = us.meets(), us.meets()
    us.passes(10.0, accused, liar)
    for _ in range(4):
        us.forget_effects()
        us.hears(liar, liar.claims(accused.node, accused.incarnation))
        looked = bool(us.sent(Ping, accused))
        us.passes(1.0, accused, liar)
        accused.incarnation += 1
        us.hears(accused, accused.identity())
    assert not looked
    us.passes(FRESH_S + 0.1)
    us.forget_effects()
    us.hears(liar, liar.claims(accused.node, accused.incarnation))
    assert us.sent(Ping, accused)


def test_node_refutes_one_accuser_no_more_than_a_few_times_a_minute() -> None:
    us = Lone()
    liar = us.meets()
    for _ in range(50):
        us.hears(liar, liar.claims(us.node, us.machine.incarnation))
        us.passes(0.1, liar)
    assert us.machine.incarnation == 4
    us.passes(60.0, liar)
    us.hears(liar, liar.claims(us.node, us.machine.incarnation))
    assert us.machine.incarnation == 5


def test_accusation_of_this_node_that_nobody_signed_is_refused_by_name() -> None:
    us = Lone()
    liar, other = us.meets(), us.meets()
    claim = liar.claims(us.node, 1)
    us.hears(liar, type(claim)(claim.kind, claim.subject, claim.incarnation, other.node, 1, claim.signature))
    us.hears(liar, us.other().claims(us.node, 1))
    assert us.machine.incarnation == 1
    assert [(event.subject, event.relayed_by) for event in us.events(RecordRejected)] == [(us.node, liar.node)]


def test_accused_node_goes_above_the_accusation_and_nowhere_else() -> None:
    us = Lone()
    accuser = us.meets()
    us.receives(accuser, Ping(7, 1, False, 1))
    assert us.machine.incarnation == 2
    assert [event.accuser for event in us.events(SuspicionRefutedSelf)] == [accuser.node]
    us.receives(accuser, Ping(8, 1, False, 1))
    us.receives(accuser, Ping(9, 1, False, 2 + 2**40))
    assert us.machine.incarnation == 2


def test_tombstone_holds_against_every_record_at_its_incarnation() -> None:
    us = Lone()
    dead, friend = us.meets(), us.meets()
    old = dead.identity()
    us.passes(30.0, friend)
    assert us.machine.status_of(dead.node) is Status.DEAD
    us.hears(friend, old, dead.identity())
    assert us.machine.status_of(dead.node) is Status.DEAD
    dead.incarnation += 1
    us.hears(friend, dead.identity())
    assert [event.was for event in us.events(PeerReturned)] == ["dead"]
    assert us.machine.status_of(dead.node) is Status.ALIVE


def test_forgotten_node_is_brought_back_by_nobodys_old_record_and_by_its_own_new_one() -> None:
    """Weeks later: the tombstone is gone, and some third party still keeps what the node said in its last life."""
    us = Lone()
    gone, friend = us.meets(), us.meets()
    gone.incarnation = 7
    us.hears(gone, gone.identity())
    last_words = gone.identity()
    us.hears(gone, gone.identity(left=True))
    us.effects += us.machine.link_down(gone.node, "leaving", "the node stops", us.now_s)
    us.now_s += QUIET.tombstone_s + 120.0
    us.effects += us.machine.poll(us.now_s)
    us.passes(120.0, friend)
    assert us.machine.status_of(gone.node) is None, "forgotten"
    us.forget_effects()
    us.hears(friend, last_words)
    assert us.machine.status_of(gone.node) is None
    assert us.machine.floor_of(gone.node) == 7, "told to it when it links"
    gone.incarnation = 8
    us.hears(friend, gone.identity())
    assert [event.was for event in us.events(PeerReturned)] == ["left"]
    assert us.events(PeerJoined) == []


def test_goodbye_that_comes_after_the_verdict_is_taken() -> None:
    us = Lone()
    gone, friend = us.meets(), us.meets()
    us.passes(30.0, friend)
    us.hears(friend, gone.identity(left=True))
    assert us.machine.status_of(gone.node) is Status.LEFT
    assert [event.peer for event in us.events(PeerLeft)] == [gone.node]


def test_peers_are_asked_about_the_dead_and_answer_with_a_goodbye_that_was_missed() -> None:
    us = Lone()
    gone, friend = us.meets(), us.meets()
    us.passes(30.0, friend)
    asked = us.sent(Digest, friend)[-1]
    there = Lone(seed=2, oracle=us.oracle)
    asker = there.meets()
    there.hears(asker, gone.identity())
    there.hears(asker, gone.identity(left=True))
    there.forget_effects()
    there.receives(asker, asked)
    goodbye = next(delta for delta in there.sent(Delta, asker) if delta.parts)
    us.receives(friend, goodbye)
    assert us.machine.status_of(gone.node) is Status.LEFT
    us.forget_effects()
    us.passes(60.0, friend)
    assert us.dialled() == [], "nobody looks for one that left"


def test_node_that_holds_the_dead_as_dead_says_nothing_about_it() -> None:
    us = Lone()
    gone, friend = us.meets(), us.meets()
    us.passes(30.0, friend)
    asked = us.sent(Digest, friend)[-1]
    assert len(asked.entries) == 1
    us.forget_effects()
    us.receives(friend, asked)
    assert us.sent(Delta, friend) == []
    assert us.machine.status_of(gone.node) is Status.DEAD


def test_what_an_earlier_life_said_is_no_second_process() -> None:
    us = Lone()
    friend = us.meets()
    earlier = us.itself()
    us.link(friend, floor=4)
    assert us.machine.incarnation == 5
    us.hears(friend, *(earlier.network() for _ in range(5)))
    assert us.events(PeerIdentityConflict) == []
    assert us.machine.incarnation == 5


def test_node_that_lost_its_incarnation_says_everything_anew_above_its_earlier_life() -> None:
    """Else what it offers now would be older than what it offered then: peers would keep to that."""
    us = Lone()
    friend = us.meets()
    us.effects += us.machine.publish_offer(OfferDraft(host_usable_bytes=10**9), us.now_s)
    us.passes(5.0, friend)
    us.link(us.other(), floor=4)
    us.passes(2 * QUIET.network_interval_s, friend)
    assert us.machine.incarnation == 5
    for kind in PartKind:
        held = us.machine.holds(us.node, kind)
        assert held is not None
        assert held[0] == 5, kind


def test_node_that_refutes_says_only_that() -> None:
    us = Lone()
    accuser = us.meets()
    us.effects += us.machine.publish_offer(OfferDraft(host_usable_bytes=10**9), us.now_s)
    us.receives(accuser, Ping(7, 1, False, 1))
    assert us.machine.holds(us.node, PartKind.IDENTITY) == (2, 2)
    assert us.machine.holds(us.node, PartKind.OFFER) == (1, 1)


def test_parts_of_this_life_that_another_process_wrote_are_a_conflict() -> None:
    us = Lone()
    friend, copy = us.meets(), us.itself()
    for _ in range(3):
        copy.incarnation = us.machine.incarnation + 1
        us.hears(friend, copy.identity())
    assert [event.peer for event in us.events(PeerIdentityConflict)] == [us.node]
    assert us.machine.incarnation > copy.incarnation
