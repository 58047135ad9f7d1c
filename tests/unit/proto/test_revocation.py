"""Who can remove whom, and what a removal cuts."""

from __future__ import annotations

from itertools import permutations

import pytest
from making_members import MESH, NOW_UNIX_S, ROOT, Key, a_chain, a_credential

from proto.errors import WireError
from proto.ids import MeshId, NodeId
from proto.revocation import (
    MAX_PER_SIGNER,
    BadRevocation,
    CheckedRevocation,
    RevocationSet,
    check_revocation,
    sign_revocation,
)

A, B, C, D = (Key(name) for name in "abcd")
TOKEN = b"t" * 16


def a_revocation(
    signer: Key,
    node: Key | None,
    chain: tuple[bytes, ...] = (),
    *,
    token_ids: tuple[bytes, ...] = (),
    kept: tuple[bytes, ...] = (),
    made_at_unix_s: int = NOW_UNIX_S,
    mesh: MeshId = MESH,
) -> bytes:
    target = None if node is None else node.node
    return sign_revocation(
        signer, mesh, target, chain=chain, made_at_unix_s=made_at_unix_s, token_ids=token_ids, kept=kept
    )


def checked(encoded: bytes) -> CheckedRevocation:
    return check_revocation(encoded, MESH)


def a_set(*entries: bytes) -> RevocationSet:
    revoked = RevocationSet()
    for entry in entries:
        assert revoked.add(checked(entry))
    return revoked


def nodes(*keys: Key) -> tuple[NodeId, ...]:
    return tuple(key.node for key in keys)


def test_the_root_removes_anybody_without_evidence() -> None:
    revoked = a_set(a_revocation(ROOT, B))
    assert revoked.cut_in(nodes(A, B, C)) == B.node
    assert revoked.cut_in(nodes(B)) == B.node


def test_an_ancestor_removes_a_node_below_it() -> None:
    assert a_set(a_revocation(A, C, a_chain(A, B, C))).cut_in(nodes(A, B, C)) == C.node


def test_a_removal_cuts_every_chain_through_the_node() -> None:
    assert a_set(a_revocation(A, B, a_chain(A, B))).cut_in(nodes(A, B, C, D)) == B.node


def test_a_removal_leaves_the_node_s_ancestors_and_siblings_alone() -> None:
    revoked = a_set(a_revocation(A, B, a_chain(A, B)))
    assert revoked.cut_in(nodes(A)) is None
    assert revoked.cut_in(nodes(A, C)) is None


@pytest.mark.parametrize("signer", [B, C, D], ids=["itself", "its child", "a stranger"])
def test_nobody_but_the_root_and_those_above_can_remove_a_node(signer: Key) -> None:
    with pytest.raises(BadRevocation, match="above"):
        checked(a_revocation(signer, B, a_chain(A, B)))


def test_an_inviter_cannot_remove_a_stranger_by_vouching_for_its_key_first() -> None:
    """B vouches for the founder A, who never asked, and then removes A: A's own chain does not pass through B."""
    hijack = (a_credential(ROOT, B), a_credential(B, A))
    revoked = a_set(a_revocation(B, A, hijack))
    assert revoked.cut_in(nodes(A)) is None
    assert revoked.cut_in(nodes(A, C)) is None


def test_a_member_that_may_not_invite_removes_nobody() -> None:
    chain = (a_credential(ROOT, A, may_invite=False),)
    with pytest.raises(BadRevocation, match="may not invite"):
        checked(a_revocation(A, None, chain, token_ids=(TOKEN,)))


def test_a_changed_signature_is_noticed() -> None:
    entry = bytearray(a_revocation(ROOT, B))
    entry[-1] ^= 1
    with pytest.raises(BadRevocation, match="signature"):
        checked(bytes(entry))


def test_a_revocation_of_another_mesh_is_noticed() -> None:
    with pytest.raises(BadRevocation, match="mesh"):
        checked(a_revocation(ROOT, B, mesh=Key("another root").mesh))


def test_evidence_that_proves_nothing_is_noticed() -> None:
    with pytest.raises(BadRevocation, match="chain of this mesh"):
        checked(a_revocation(A, B, (a_credential(ROOT, A), a_credential(C, B))))


def test_the_effect_depends_on_no_order_of_arrival() -> None:
    entries = [
        a_revocation(A, B, a_chain(A, B)),
        a_revocation(B, C, a_chain(A, B, C)),
        a_revocation(ROOT, D),
    ]
    chains = [nodes(A), nodes(A, B), nodes(A, B, C), nodes(D), nodes(C)]
    effects = {tuple(a_set(*order).cut_in(chain) for chain in chains) for order in permutations(entries)}
    assert effects == {(None, B.node, B.node, D.node, None)}


def test_a_known_revocation_adds_nothing() -> None:
    entry = a_revocation(ROOT, B)
    revoked = a_set(entry)
    assert not revoked.add(checked(entry))
    assert len(revoked) == 1


@pytest.mark.parametrize("issuer", [A, D], ids=["of the remover", "of somebody else"])
def test_a_removal_voids_the_token_the_node_had_redeemed(issuer: Key) -> None:
    """An unlimited token may have been redeemed at another member than its issuer."""
    chain = a_chain(A, B, token_id=TOKEN)
    assert a_set(a_revocation(A, B, chain, token_ids=(TOKEN,))).voids(TOKEN, issuer.node)


def test_the_root_voids_anybody_s_token() -> None:
    assert a_set(a_revocation(ROOT, None, token_ids=(TOKEN,))).voids(TOKEN, D.node)


def test_a_removal_by_a_member_voids_no_token_of_somebody_else() -> None:
    with pytest.raises(BadRevocation, match="token"):
        checked(a_revocation(A, B, a_chain(A, B, token_id=TOKEN), token_ids=(b"o" * 16,)))


def test_an_issuer_voids_its_own_token_and_nobody_else_s_of_that_id() -> None:
    revoked = a_set(a_revocation(A, None, a_chain(A), token_ids=(TOKEN,)))
    assert revoked.voids(TOKEN, A.node)
    assert not revoked.voids(TOKEN, B.node)


def test_voiding_a_token_cuts_nobody() -> None:
    assert a_set(a_revocation(A, None, a_chain(A), token_ids=(TOKEN,))).cut_in(nodes(A, B)) is None


def test_a_kept_node_gets_its_new_chain_with_the_removal() -> None:
    entry = a_revocation(A, B, a_chain(A, B), kept=(a_credential(A, C),))
    (kept,) = a_set(entry).kept_chains(C.node)
    assert kept.nodes == nodes(A, C)


def test_the_root_keeps_a_node_directly_under_itself() -> None:
    (kept,) = a_set(a_revocation(ROOT, B, kept=(a_credential(ROOT, C),))).kept_chains(C.node)
    assert kept.nodes == nodes(C)


def test_the_newest_removal_s_chain_for_a_kept_node_comes_first() -> None:
    first = a_revocation(A, B, a_chain(A, B), kept=(a_credential(A, C),), made_at_unix_s=NOW_UNIX_S)
    second = a_revocation(ROOT, A, kept=(a_credential(ROOT, C),), made_at_unix_s=NOW_UNIX_S + 1)
    kept = a_set(first, second).kept_chains(C.node)
    assert [lineage.nodes for lineage in kept] == [nodes(C), nodes(A, C)]


def test_a_kept_credential_by_somebody_else_is_refused() -> None:
    with pytest.raises(BadRevocation, match="kept"):
        checked(a_revocation(A, B, a_chain(A, B), kept=(a_credential(B, C),)))


def test_a_kept_credential_with_more_rights_than_its_signer_is_refused() -> None:
    chain = (a_credential(ROOT, A, expires_at_unix_s=NOW_UNIX_S), a_credential(A, B, expires_at_unix_s=NOW_UNIX_S))
    with pytest.raises(BadRevocation, match="exceeds_parent"):
        checked(a_revocation(A, B, chain, kept=(a_credential(A, C, expires_at_unix_s=None),)))


def test_one_member_cannot_fill_the_set() -> None:
    revoked = RevocationSet()
    taken = [
        revoked.add(checked(a_revocation(A, None, a_chain(A), token_ids=(number.to_bytes(16, "big"),))))
        for number in range(MAX_PER_SIGNER + 1)
    ]
    assert taken == [True] * MAX_PER_SIGNER + [False]
    assert revoked.add(checked(a_revocation(ROOT, B)))


def test_more_tokens_than_peers_read_are_not_signed() -> None:
    with pytest.raises(WireError, match="token_ids"):
        a_revocation(ROOT, B, token_ids=tuple(bytes([number]) * 16 for number in range(65)))


def test_what_would_not_fit_the_wire_is_not_signed() -> None:
    kept = tuple(a_credential(A, Key(f"kept {number}")) + bytes(500) for number in range(6))
    with pytest.raises(WireError, match="at most 4096 bytes"):
        a_revocation(A, B, a_chain(A, B), kept=kept)
