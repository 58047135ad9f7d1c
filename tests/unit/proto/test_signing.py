"""A signature belongs to one key, one purpose, one mesh and one list of pieces."""

from __future__ import annotations

import msgspec
import pytest
from making_members import MESH, Key

from proto.ids import BootId, short_id_of
from proto.messages import Claim, ClaimKind, Relay
from proto.parts import IdentityPart, NetworkPart, PartKind, RttEntry, SignedPart
from proto.signing import (
    BadSignature,
    claim_is_signed,
    is_weak_key,
    open_part,
    proof_input,
    relay_is_signed,
    sign_claim,
    sign_part,
    sign_relay,
    signing_input,
    verify,
)

A, B = Key("a"), Key("b")
OTHER_MESH = Key("another root").mesh
UNSIGNED = bytes(64)


def an_identity(owner: Key) -> IdentityPart:
    return IdentityPart(owner.node, 1, 1, BootId(bytes(16)), (b"chain",), (), (), 1, "meshnode 0")


def a_claim(accuser: Key = A) -> Claim:
    return Claim(ClaimKind.SUSPECT, B.node, 4, accuser.node, 9, UNSIGNED)


def a_relay(source: Key = A) -> Relay:
    return Relay(source.node, B.node, 1, b"payload", UNSIGNED)


def test_a_part_signed_by_its_owner_opens() -> None:
    part = an_identity(A)
    assert open_part(sign_part(A, MESH, part), MESH) == part


def test_a_part_signed_by_somebody_else_does_not_open() -> None:
    with pytest.raises(BadSignature) as caught:
        open_part(sign_part(B, MESH, an_identity(A)), MESH)
    assert caught.value.signer == A.node


def test_a_part_of_one_mesh_does_not_open_in_another() -> None:
    with pytest.raises(BadSignature):
        open_part(sign_part(A, MESH, an_identity(A)), OTHER_MESH)


def test_a_part_shown_as_another_kind_does_not_open() -> None:
    """Both shapes have the fields that a network part needs, so that only the signature can tell."""
    row = NetworkPart(A.node, 1, 1, (RttEntry(short_id_of(B.node), 1, 1, 1, False),), None)
    signed = sign_part(A, MESH, row)
    relabelled = SignedPart(PartKind.NETWORK, signed.body, A.sign(signing_input("record.identity", MESH, signed.body)))
    with pytest.raises(BadSignature):
        open_part(relabelled, MESH)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": ClaimKind.DEAD},
        {"subject": A.node},
        {"incarnation": 5},
        {"accuser": B.node},
        {"accuser_incarnation": 10},
    ],
    ids=lambda change: next(iter(change)),
)
def test_no_field_of_a_signed_claim_can_be_changed(change: dict[str, object]) -> None:
    signed = sign_claim(A, MESH, a_claim())
    assert claim_is_signed(MESH, signed)
    assert not claim_is_signed(MESH, msgspec.structs.replace(signed, **change))


@pytest.mark.parametrize(
    "change",
    [{"source": B.node}, {"target": A.node}, {"sequence": 2}, {"payload": b"other"}],
    ids=lambda change: next(iter(change)),
)
def test_no_field_of_a_signed_relay_can_be_changed(change: dict[str, object]) -> None:
    signed = sign_relay(A, MESH, a_relay())
    assert relay_is_signed(MESH, signed)
    assert not relay_is_signed(MESH, msgspec.structs.replace(signed, **change))


def test_a_claim_of_one_mesh_counts_in_no_other() -> None:
    assert not claim_is_signed(OTHER_MESH, sign_claim(A, MESH, a_claim()))


@pytest.mark.parametrize(
    "other",
    [
        proof_input(MESH, A.node, A.node, bytes(32)),
        proof_input(MESH, B.node, B.node, bytes(32)),
        proof_input(MESH, A.node, B.node, bytes(31) + b"\x01"),
        proof_input(OTHER_MESH, A.node, B.node, bytes(32)),
        signing_input("claim", MESH, A.node.encode(), B.node.encode(), bytes(32), b"meshnode/1"),
    ],
    ids=["another acceptor", "another dialler", "another nonce", "another mesh", "another purpose"],
)
def test_a_proof_counts_only_for_what_it_was_made_for(other: bytes) -> None:
    proof = A.sign(proof_input(MESH, A.node, B.node, bytes(32)))
    assert verify(A.public_key, proof, proof_input(MESH, A.node, B.node, bytes(32)))
    assert not verify(A.public_key, proof, other)


def test_pieces_can_not_slide_into_one_another() -> None:
    assert signing_input("claim", MESH, b"ab", b"c") != signing_input("claim", MESH, b"a", b"bc")
    assert signing_input("claim", MESH, b"ab") != signing_input("claim", MESH, b"ab", b"")


def test_a_key_of_small_order_signs_nothing() -> None:
    """For the neutral element as key, R = identity and S = 0 satisfy the equation for every text (RFC 8032, 5.1.7)."""
    neutral = bytes([1]) + bytes(31)
    assert not verify(neutral, neutral + bytes(32), b"anything")


def test_every_point_of_small_order_is_known_as_weak() -> None:
    assert all(is_weak_key(point) for point in small_order_points())
    assert len(set(small_order_points())) == 8


@pytest.mark.parametrize("key", [b"", b"\x05" * 31, b"\x05" * 33, b"\xff" * 32])
def test_what_is_no_key_verifies_nothing(key: bytes) -> None:
    assert not verify(key, bytes(64), b"data")


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_of_another_length_verifies_nothing(length: int) -> None:
    assert not verify(A.public_key, A.sign(b"data").ljust(65, b"\x00")[:length], b"data")


def small_order_points() -> list[bytes]:
    """The eight points whose order divides 8, from the curve's own equation (RFC 8032, section 5.1)."""
    prime = 2**255 - 19
    order = 2**252 + 27742317777372353535851937790883648493
    d = -121665 * pow(121666, -1, prime) % prime

    def added(p: tuple[int, int], q: tuple[int, int]) -> tuple[int, int]:
        product = d * p[0] * q[0] * p[1] * q[1] % prime
        x = (p[0] * q[1] + q[0] * p[1]) * pow(1 + product, -1, prime) % prime
        y = (p[1] * q[1] + p[0] * q[0]) * pow(1 - product, -1, prime) % prime
        return x, y

    def times(scalar: int, point: tuple[int, int]) -> tuple[int, int]:
        total = (0, 1)
        for bit in bin(scalar)[2:]:
            total = added(total, total)
            total = added(total, point) if bit == "1" else total
        return total

    def on_curve(y: int) -> tuple[int, int] | None:
        square = (y * y - 1) * pow(d * y * y + 1, -1, prime) % prime
        root = pow(square, (prime + 3) // 8, prime)
        root = root if root * root % prime == square else root * pow(2, (prime - 1) // 4, prime) % prime
        return (root, y) if root * root % prime == square else None

    def encoded(point: tuple[int, int]) -> bytes:
        return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")

    candidates = (times(order, point) for y in range(2, 60) if (point := on_curve(y)) is not None)
    generator = next(point for point in candidates if times(4, point) != (0, 1))
    return [encoded(times(scalar, generator)) for scalar in range(8)]
