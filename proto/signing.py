"""What is signed, and how: one form for every signature of the mesh.

What lives here: `signing_input`, `verify`, and the signatures of parts, claims, relays, the dialler's proof and signs
of life. What does not: credentials, tokens and revocations (each beside its own shape, over the same `signing_input`)
and where a key is kept (`meshnode.identity`). Called by `meshnode.admission` and the transport.

Ed25519 (RFC 8032). Every signature covers, each piece preceded by its length as 4 bytes big-endian,

    "meshnode/v1/<kind>" | mesh id | pieces...

so that a signature made for one purpose, or for one mesh, never passes for another, and no two lists of pieces share
an encoding.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from typing import Final, Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from proto.codec import decode_part, encode_part, kind_of
from proto.ids import KEY_BYTES, MeshId, NodeId, public_key_of
from proto.messages import Claim, Relay
from proto.parts import Part, SignedPart
from proto.versions import ALPN

CONTEXT: Final = "meshnode/v1/"
SIGNATURE_BYTES: Final = 64
SALT_BYTES: Final = 16
"""Random bytes at the beginning of a nonce that is made of a boot id."""

_LENGTH = struct.Struct(">I")
_COUNTER_BYTES = 8

_FIELD_PRIME: Final = 2**255 - 19
_ORDER_8_Y: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER_Y: Final = frozenset(
    {0, 1, _FIELD_PRIME - 1, _FIELD_PRIME, _FIELD_PRIME + 1, _ORDER_8_Y, _FIELD_PRIME - _ORDER_8_Y}
)
"""y coordinates of the points of order 1, 2, 4 and 8: with such a key anybody can sign anything."""


class Signer(Protocol):
    """Whatever holds a private key."""

    @property
    def public_key(self) -> bytes:
        """The raw 32 bytes of the public key."""

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of an Ed25519 signature over `data`."""


class BadSignature(ValueError):
    """A signature does not belong to the key and the data. `kind` is what was signed, `signer` who should have."""

    def __init__(self, kind: str, signer: str) -> None:
        self.kind = kind
        self.signer = signer
        super().__init__(f"{kind}: the signature is not one of {signer}")


def signing_input(kind: str, mesh: MeshId, *pieces: bytes) -> bytes:
    """The bytes a signature of `kind` covers in `mesh` (see the module's text for the form)."""
    everything = ((CONTEXT + kind).encode("ascii"), mesh.encode("ascii"), *pieces)
    return b"".join(_LENGTH.pack(len(piece)) + piece for piece in everything)


def verify(public_key: bytes, signature: bytes, data: bytes) -> bool:
    """True where `signature` is `public_key`'s over `data`. False, never an error, for anything malformed."""
    key = _key_of(public_key)
    if key is None:
        return False
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def is_weak_key(public_key: bytes) -> bool:
    """True for a key of small order (RFC 8032 section 8 leaves them to the protocol): such a key proves nothing."""
    y = int.from_bytes(public_key, "little") & ~(1 << 255)
    return y in _SMALL_ORDER_Y


@lru_cache(maxsize=4096)
def _key_of(public_key: bytes) -> Ed25519PublicKey | None:
    if len(public_key) != KEY_BYTES or is_weak_key(public_key):
        return None
    return Ed25519PublicKey.from_public_bytes(public_key)


def sign_part(signer: Signer, mesh: MeshId, part: Part) -> SignedPart:
    """`part` in its envelope, signed by its owner. Raises `WireError` where its body is too large."""
    kind = kind_of(part)
    body = encode_part(part)
    return SignedPart(kind, body, signer.sign(signing_input(f"record.{kind.value}", mesh, body)))


def open_part(signed: SignedPart, mesh: MeshId) -> Part:
    """The part in `signed`, whose owner did sign it. Raises `WireError` for a body of another shape and `BadSignature`
    where the owner named inside did not sign. Says nothing about membership: that is the chain's business."""
    part = decode_part(signed.kind, signed.body)
    covered = signing_input(f"record.{signed.kind.value}", mesh, signed.body)
    if not verify(_key_bytes(part.node), signed.signature, covered):
        raise BadSignature(f"record.{signed.kind.value}", part.node)
    return part


def sign_claim(signer: Signer, mesh: MeshId, claim: Claim) -> Claim:
    """`claim` with the signature of `signer`, who must be its accuser."""
    return msgspec.structs.replace(claim, signature=signer.sign(_claim_input(mesh, claim)))


def claim_is_signed(mesh: MeshId, claim: Claim) -> bool:
    """True where the claim's accuser signed it."""
    return verify(_key_bytes(claim.accuser), claim.signature, _claim_input(mesh, claim))


def sign_relay(signer: Signer, mesh: MeshId, relay: Relay) -> Relay:
    """`relay` with the signature of `signer`, who must be its source."""
    return msgspec.structs.replace(relay, signature=signer.sign(_relay_input(mesh, relay)))


def relay_is_signed(mesh: MeshId, relay: Relay) -> bool:
    """True where the relay's source signed it."""
    return verify(_key_bytes(relay.source), relay.signature, _relay_input(mesh, relay))


def proof_input(mesh: MeshId, dialler: NodeId, acceptor: NodeId, nonce: bytes) -> bytes:
    """What the dialling side signs: naming the acceptor, whose key TLS proved, stops a relayed proof; the acceptor's
    fresh nonce stops a repeated one; the ALPN one of another protocol generation."""
    return signing_input("proof", mesh, dialler.encode("ascii"), acceptor.encode("ascii"), nonce, ALPN.encode("ascii"))


def life_input(mesh: MeshId, boot_id: bytes, newcomer: bytes) -> bytes:
    """What a running process signs for a newcomer with its own key: the newcomer's boot id is as good as a nonce, being
    drawn at its start, and the signer's own tells the two apart."""
    return signing_input("life", mesh, boot_id, newcomer)


def bound_nonce(mesh: MeshId, salt: bytes, boot_id: bytes) -> bytes:
    """A challenge's nonce that is made of a boot id: 16 random bytes `salt`, and the first 16 of SHA-256 over (context,
    mesh, salt, boot id). To whoever does not know the boot id it is as random as any."""
    return salt + hashlib.sha256(signing_input("nonce", mesh, salt, boot_id)).digest()[:SALT_BYTES]


def _claim_input(mesh: MeshId, claim: Claim) -> bytes:
    return signing_input(
        "claim",
        mesh,
        claim.kind.value.encode("ascii"),
        claim.subject.encode("ascii"),
        _counter(claim.incarnation),
        claim.accuser.encode("ascii"),
        _counter(claim.accuser_incarnation),
    )


def _relay_input(mesh: MeshId, relay: Relay) -> bytes:
    pieces = (relay.source.encode("ascii"), relay.target.encode("ascii"), _counter(relay.sequence), relay.payload)
    return signing_input("relay", mesh, *pieces)


def _counter(value: int) -> bytes:
    return value.to_bytes(_COUNTER_BYTES, "big")


def _key_bytes(node: str) -> bytes:
    return public_key_of(NodeId(node))
