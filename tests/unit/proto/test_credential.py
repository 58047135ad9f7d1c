"""The rules of a chain, one by one."""

from __future__ import annotations

import pytest
from making_members import MESH, NOW_UNIX_S, ROOT, Key, a_chain, a_credential

from proto.credential import BadCredential, BadCredentialReason, Standing, verify_chain
from proto.errors import WireError
from proto.ids import node_id_of
from proto.parts import Role
from proto.revocation import RevocationSet, check_revocation, sign_revocation
from proto.signing import signing_input
from proto.times import CLOCK_TOLERANCE_S

A, B, C, D, E = (Key(name) for name in "abcde")
NOBODY = RevocationSet()


def standing(chain: tuple[bytes, ...], node: Key, now_unix_s: int = NOW_UNIX_S) -> Standing:
    return verify_chain(chain, MESH, node.node, now_unix_s, NOBODY)


def refused(
    chain: tuple[bytes, ...], node: Key, now_unix_s: int = NOW_UNIX_S, revoked: RevocationSet = NOBODY
) -> BadCredential:
    with pytest.raises(BadCredential) as caught:
        verify_chain(chain, MESH, node.node, now_unix_s, revoked)
    return caught.value


def test_a_chain_down_from_the_root_proves_its_last_node() -> None:
    proved = standing(a_chain(A, B, C), C)
    assert proved.nodes == (A.node, B.node, C.node)
    assert (proved.role, proved.may_invite) == (Role.WORKER, True)


def test_four_credentials_are_the_most() -> None:
    assert standing(a_chain(A, B, C, D), D).depth == 4
    assert refused(a_chain(A, B, C, D, E), E).reason is BadCredentialReason.TOO_DEEP


def test_no_credential_proves_nothing() -> None:
    assert refused((), A).reason is BadCredentialReason.MALFORMED


def test_a_chain_of_another_mesh_is_named_with_both_meshes() -> None:
    other = Key("another root")
    error = refused(a_chain(A, root=other), A)
    assert error.reason is BadCredentialReason.WRONG_MESH
    assert (error.found, error.required) == (f"mesh {other.mesh[:10]}", f"mesh {MESH[:10]}")


def test_a_borrowed_chain_proves_nothing_of_the_borrower() -> None:
    assert refused(a_chain(A), B).reason is BadCredentialReason.WRONG_NODE


def test_a_link_missing_in_the_middle_is_noticed() -> None:
    a, _, c = a_chain(A, B, C)
    assert refused((a, c), C).reason is BadCredentialReason.NOT_LINKED


def test_a_chain_that_does_not_begin_at_the_root_is_noticed() -> None:
    assert refused((a_credential(A, B),), B).reason is BadCredentialReason.NOT_LINKED


def test_a_credential_whose_claimed_issuer_did_not_sign_it_is_noticed() -> None:
    class Impostor(Key):
        """Signs with its own key under the root's name."""

    impostor = Impostor("impostor")
    impostor.public_key = ROOT.public_key
    assert refused((a_credential(impostor, A),), A).reason is BadCredentialReason.BAD_SIGNATURE


def test_a_node_that_may_not_invite_has_no_children() -> None:
    chain = (a_credential(ROOT, A, may_invite=False), a_credential(A, B, may_invite=False))
    assert refused(chain, B).reason is BadCredentialReason.MAY_NOT_INVITE


def test_a_clients_child_is_no_worker() -> None:
    chain = (a_credential(ROOT, A, role=Role.CLIENT), a_credential(A, B, role=Role.WORKER))
    error = refused(chain, B)
    assert (error.reason, error.found) == (BadCredentialReason.EXCEEDS_PARENT, "role worker under a client")


def test_a_workers_child_may_be_a_client() -> None:
    chain = (a_credential(ROOT, A), a_credential(A, B, role=Role.CLIENT, may_invite=False))
    assert standing(chain, B).role is Role.CLIENT


@pytest.mark.parametrize("end", [None, NOW_UNIX_S + 1001])
def test_a_child_does_not_outlive_its_parent(end: int | None) -> None:
    chain = (a_credential(ROOT, A, expires_at_unix_s=NOW_UNIX_S + 1000), a_credential(A, B, expires_at_unix_s=end))
    assert refused(chain, B).reason is BadCredentialReason.EXCEEDS_PARENT


def test_a_credential_without_expiry_counts_whatever_the_clock_says() -> None:
    assert standing(a_chain(A, B), B, now_unix_s=0).depth == 2
    assert standing(a_chain(A, B), B, now_unix_s=200_000_000_000).depth == 2


def test_an_expiry_is_judged_with_five_minutes_of_tolerance() -> None:
    chain = (a_credential(ROOT, A, expires_at_unix_s=NOW_UNIX_S),)
    assert standing(chain, A, NOW_UNIX_S + CLOCK_TOLERANCE_S).expires_at_unix_s == NOW_UNIX_S
    error = refused(chain, A, NOW_UNIX_S + CLOCK_TOLERANCE_S + 1)
    assert error.reason is BadCredentialReason.EXPIRED
    assert (error.found, error.required) == (
        "this clock reads 2027-01-15 08:05:01 UTC",
        "at most 2027-01-15 08:00:00 UTC",
    )


def test_an_expired_ancestor_takes_its_descendants_along() -> None:
    end = NOW_UNIX_S
    chain = (a_credential(ROOT, A, expires_at_unix_s=end), a_credential(A, B, expires_at_unix_s=end))
    error = refused(chain, B, end + CLOCK_TOLERANCE_S + 1)
    assert (error.reason, error.at) == (BadCredentialReason.EXPIRED, 0)


def test_no_node_stands_twice_in_a_chain() -> None:
    assert refused(a_chain(A, B, A), A).reason is BadCredentialReason.REPEATED_NODE


def test_a_key_of_small_order_is_never_a_member() -> None:
    weak = Key("weak")
    weak.public_key = bytes([1]) + bytes(31)
    weak.node = node_id_of(weak.public_key)
    assert refused((a_credential(ROOT, weak),), weak).reason is BadCredentialReason.MALFORMED


def test_a_credential_signed_for_another_purpose_is_none() -> None:
    class WrongPurpose(Key):
        def sign(self, data: bytes) -> bytes:
            return super().sign(data.replace(b"credential", b"revocation"))

    assert signing_input("credential", MESH) != signing_input("revocation", MESH)
    assert refused((a_credential(WrongPurpose("root"), A),), A).reason is BadCredentialReason.BAD_SIGNATURE


def test_a_time_beyond_the_year_9999_is_never_signed() -> None:
    with pytest.raises(WireError, match="expires_at_unix_s"):
        a_credential(ROOT, A, expires_at_unix_s=253_402_300_800)


def test_a_removed_ancestor_is_named() -> None:
    revoked = RevocationSet()
    entry = sign_revocation(ROOT, MESH, A.node, chain=(), made_at_unix_s=NOW_UNIX_S)
    revoked.add(check_revocation(entry, MESH))
    error = refused(a_chain(A, B, C), C, revoked=revoked)
    assert (error.reason, error.at) == (BadCredentialReason.REVOKED, 0)
    assert A.node[:10] in error.found
