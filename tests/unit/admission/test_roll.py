"""The roll keeps the last good chain of each node, and no more nodes than a mesh may have."""

from __future__ import annotations

import pytest
from making_members import MESH, NOW_UNIX_S, ROOT, Key, a_chain, a_credential

from meshnode.admission import roll as room
from meshnode.admission.roll import MemberRoll
from proto.credential import BadCredential
from proto.revocation import RevocationSet, check_revocation, sign_revocation

A, B, C = (Key(name) for name in "abc")


def a_roll() -> MemberRoll:
    return MemberRoll(MESH, RevocationSet())


def test_a_bad_chain_does_not_replace_a_good_one() -> None:
    roll = a_roll()
    roll.admit(B.node, a_chain(A, B), NOW_UNIX_S)
    with pytest.raises(BadCredential):
        roll.admit(B.node, a_chain(C), NOW_UNIX_S)
    lineage = roll.lineage(B.node)
    assert lineage is not None
    assert lineage.nodes == (A.node, B.node)


def test_a_newer_good_chain_replaces_an_older_one() -> None:
    roll = a_roll()
    roll.admit(B.node, a_chain(A, B), NOW_UNIX_S)
    roll.admit(B.node, a_chain(B), NOW_UNIX_S)
    assert roll.descendants(A.node) == ()


def test_a_chain_read_once_is_judged_anew_each_time() -> None:
    roll = a_roll()
    chain = (a_credential(ROOT, A, expires_at_unix_s=NOW_UNIX_S),)
    roll.admit(A.node, chain, NOW_UNIX_S)
    assert roll.standing(A.node, NOW_UNIX_S + 3600) is None
    with pytest.raises(BadCredential):
        roll.admit(A.node, chain, NOW_UNIX_S + 3600)


def test_a_chain_read_for_one_node_proves_no_other() -> None:
    roll = a_roll()
    roll.admit(A.node, a_chain(A), NOW_UNIX_S)
    with pytest.raises(BadCredential):
        roll.admit(B.node, a_chain(A), NOW_UNIX_S)


def test_a_revocation_learned_later_cuts_who_was_admitted_before() -> None:
    roll = a_roll()
    roll.admit(B.node, a_chain(A, B), NOW_UNIX_S)
    entry = sign_revocation(ROOT, MESH, A.node, chain=(), made_at_unix_s=NOW_UNIX_S)
    roll.revoked.add(check_revocation(entry, MESH))
    assert roll.is_cut(B.node)
    assert roll.standing(B.node, NOW_UNIX_S) is None
    assert roll.members() == ()


def test_the_member_unseen_for_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_MEMBERS", 2)
    roll = a_roll()
    for key in (A, B, A, C):
        roll.admit(key.node, a_chain(key), NOW_UNIX_S)
    assert roll.members() == tuple(sorted((A.node, C.node)))


def test_chains_read_and_not_kept_take_bounded_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer may show a new valid chain of one node as often as it likes."""
    monkeypatch.setattr(room, "_MAX_READ", 3)
    roll = a_roll()
    for number in range(10):
        chain = (a_credential(ROOT, A, expires_at_unix_s=NOW_UNIX_S + number),)
        roll.admit(A.node, chain, NOW_UNIX_S)
    assert len(roll._read) == 3
