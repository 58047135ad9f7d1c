"""The invariants that every simulation is held to do notice what must not happen."""

from __future__ import annotations

import pytest

from meshnode.events import Event, PeerDead, PeerJoined, PeerLeft, PeerReturned, PeerSuspect, PeerUpdated
from meshnode.membership.local import OfferDraft
from meshnode.membership.records import NodeEntry
from meshnode.membership.view import Status
from meshnode.simulation.oracle import Oracle
from meshnode.simulation.rules import RuleBroken, Rules
from proto.ids import NodeId, node_id_of
from proto.parts import OfferPart, PartKind, Role, SignedPart

OBSERVER, PEER = node_id_of(b"o" * 32), node_id_of(b"p" * 32)


def an_offer_of(node: NodeId, version: int) -> OfferPart:
    return OfferDraft().as_part(node, 1, version)


@pytest.fixture
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture
def rules(oracle: Oracle) -> Rules:
    trust = oracle.trust_of(PEER, Role.WORKER)
    for version in (1, 2):
        trust.sign_part(an_offer_of(PEER, version))
    rules = Rules(oracle.issued, {OBSERVER: 0, PEER: 1})
    rules.started(OBSERVER)
    rules.check(OBSERVER, PeerJoined(PEER, "peer", "worker", 1), 0.0)
    return rules


def updated(version: int, incarnation: int = 1) -> PeerUpdated:
    return PeerUpdated(PEER, "offer", incarnation, version)


def test_newer_parts_their_owner_signed_are_fine(rules: Rules) -> None:
    rules.check(OBSERVER, updated(1), 1.0)
    rules.check(OBSERVER, updated(2), 2.0)
    assert rules.checked == 3


@pytest.mark.parametrize(
    ("before", "event", "what"),
    [
        ((updated(2),), updated(1), "aged"),
        ((updated(2),), updated(2), "aged"),
        ((), updated(3), "forged"),
        ((), updated(1, incarnation=2), "forged"),
        ((), PeerJoined(PEER, "peer", "worker", 1), "joined again"),
        ((), PeerSuspect(PEER, 0, OBSERVER, 1.0), "incarnation fell"),
        ((PeerDead(PEER, 3, (OBSERVER,), 1.0),), PeerReturned(PEER, 3, "dead", 1.0), "tombstone"),
        ((PeerLeft(PEER, 3),), PeerDead(PEER, 3, (OBSERVER,), 1.0), "left or died was examined"),
    ],
)
def test_what_must_not_happen_is_noticed(rules: Rules, before: tuple[Event, ...], event: Event, what: str) -> None:
    for each in before:
        rules.check(OBSERVER, each, 1.0)
    with pytest.raises(RuleBroken, match=what):
        rules.check(OBSERVER, event, 2.0)


def held(status: Status = Status.ALIVE, incarnation: int = 1, offer: int | None = None) -> NodeEntry:
    """`PEER` as an observer holds it, with its offer of that version."""
    entry = NodeEntry(PEER, Role.WORKER, incarnation, 0.0)
    entry.status = status
    if offer is not None:
        entry.offer, entry.offer_signed = an_offer_of(PEER, offer), SignedPart(PartKind.OFFER, b"", bytes(64))
    return entry


def test_what_was_reported_and_signed_may_be_held(rules: Rules) -> None:
    rules.audit(OBSERVER, [held(offer=1)], 1.0)
    rules.audit(OBSERVER, [held(offer=2)], 1.0)
    rules.check(OBSERVER, PeerDead(PEER, 1, (OBSERVER,), 1.0), 2.0)
    rules.audit(OBSERVER, [held(Status.DEAD, offer=2)], 2.0)
    rules.check(OBSERVER, PeerLeft(PEER, 1), 3.0)
    rules.audit(OBSERVER, [held(Status.LEFT, offer=2)], 3.0)


@pytest.mark.parametrize(
    ("reported", "before", "now", "what"),
    [
        ((), held(incarnation=3), held(incarnation=2), "at incarnation 2, after 3"),
        ((), held(offer=2), held(offer=1), "aged part"),
        ((), held(), held(offer=3), "nobody signed"),
        ((), held(), held(Status.DEAD), "never said so"),
        ((PeerDead(PEER, 1, (OBSERVER,), 1.0),), held(Status.DEAD), held(), "alive, after dead"),
        ((PeerLeft(PEER, 1),), held(Status.LEFT), held(Status.SUSPECT), "suspect, after left"),
    ],
)
def test_what_must_not_be_held_is_noticed(
    rules: Rules, reported: tuple[Event, ...], before: NodeEntry, now: NodeEntry, what: str
) -> None:
    for event in reported:
        rules.check(OBSERVER, event, 1.0)
    rules.audit(OBSERVER, [before], 1.0)
    with pytest.raises(RuleBroken, match=what):
        rules.audit(OBSERVER, [now], 2.0)
