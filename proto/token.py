"""The invite token: one copy-paste string that lets a node into a mesh.

What lives here: `InviteToken`, `make_token`, `parse_token`. What does not: counting and redeeming
(`meshnode.admission`). Nothing here reads a clock or draws randomness.

    mesh1_ + base64url( signature, 64 bytes | payload, a msgpack array | checksum, 4 bytes )

The signature is the issuer's, over the payload (context `invite`). The checksum is the first 4 bytes of SHA-256 over
the prefix, the signature and the payload: a mangled paste fails it (`MangledToken`), a forged token passes it and fails
the signature (`ForgedToken`). A token is a bearer secret: neither error, and no text made here, repeats any of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct

from proto.errors import WireError
from proto.ids import MeshId, NodeId, mesh_id_of, node_id_of, public_key_of, short
from proto.packing import pack, unpack
from proto.parts import MAX_CHAIN, Role
from proto.shapes import WireAddress, WireKey, WireTokenId, WireUnixTime
from proto.signing import SIGNATURE_BYTES, Signer, signing_input, verify

PREFIX: Final = "mesh1_"
MAX_TOKEN_LENGTH: Final = 2048
TOKEN_FORMAT: Final = 1
TOKEN_ID_BYTES: Final = 16
MAX_PINNED: Final = 3
MAX_PINNED_ADDRESSES: Final = 4
MAX_USES: Final = 1000
UNLIMITED_LIFETIME_S: Final = 7 * 24 * 3600
"""A token that anybody may use any number of times must end within a week."""

MAX_MEMBERSHIP_S: Final = 100 * 366 * 24 * 3600

_CHECKSUM_BYTES = 4
_KIND = "invite"
_SHORTEST = SIGNATURE_BYTES + _CHECKSUM_BYTES + 1


class PinnedMember(Struct, frozen=True, array_like=True):
    """A member a joiner may turn to: its key, which TLS must prove, and where it answers."""

    key: WireKey
    addresses: Annotated[tuple[WireAddress, ...], Meta(min_length=1, max_length=MAX_PINNED_ADDRESSES)]

    @property
    def node(self) -> NodeId:
        """Its node id."""
        return node_id_of(self.key)


class InviteToken(Struct, frozen=True, array_like=True):
    """What a token says. On the wire an array in this order; later versions append.

    `members[0]` is the issuer. `uses` is None for an unlimited token, which carries the issuer's credential `chain`, so
    that another pinned member can judge it while the issuer is away. `member_for_s` is how long the memberships last
    that it gives, from the moment of redeeming; None for no end.
    """

    format: Annotated[int, Meta(ge=TOKEN_FORMAT, le=TOKEN_FORMAT)]
    mesh_key: WireKey
    members: Annotated[tuple[PinnedMember, ...], Meta(min_length=1, max_length=MAX_PINNED)]
    token_id: WireTokenId
    role: Role
    may_invite: bool
    expires_at_unix_s: WireUnixTime
    uses: Annotated[int, Meta(ge=1, le=MAX_USES)] | None
    nonce: WireTokenId
    chain: Annotated[tuple[Annotated[bytes, Meta(max_length=1024)], ...], Meta(max_length=MAX_CHAIN)] = ()
    member_for_s: Annotated[int, Meta(ge=1, le=MAX_MEMBERSHIP_S)] | None = None

    def __repr__(self) -> str:
        """Only the id: whatever prints this object must not print the secret."""
        return f"InviteToken({self.token_id.hex()})"

    @property
    def mesh(self) -> MeshId:
        """The mesh it lets into."""
        return mesh_id_of(self.mesh_key)

    @property
    def issuer(self) -> NodeId:
        """The member that made it, and the only one that redeems it unless it is unlimited."""
        return self.members[0].node


class MangledToken(WireError):
    """The text is no token as it was made: cut, mistyped, or something else altogether."""


class ForgedToken(WireError):
    """The text is whole, yet its issuer never signed it."""


def make_token(
    signer: Signer,
    mesh: MeshId,
    *,
    members: Sequence[tuple[NodeId, Sequence[str]]],
    token_id: bytes,
    nonce: bytes,
    role: Role,
    may_invite: bool,
    expires_at_unix_s: int,
    uses: int | None,
    chain: Sequence[bytes] = (),
    member_for_s: int | None = None,
) -> str:
    """The token's text, signed by `signer`, who must be the first of `members`.

    Raises `WireError` where a figure is out of its bounds or the text would be longer than 2,048 characters (fewer
    addresses fit it).
    """
    token = InviteToken(
        TOKEN_FORMAT,
        public_key_of(mesh),
        tuple(PinnedMember(public_key_of(node), tuple(addresses)) for node, addresses in members),
        token_id,
        role,
        may_invite,
        expires_at_unix_s,
        uses,
        nonce,
        tuple(chain),
        member_for_s,
    )
    payload = pack(token)
    unpack(payload, InviteToken, "invite token", MAX_TOKEN_LENGTH)
    signed = signer.sign(signing_input(_KIND, mesh, payload)) + payload
    text = PREFIX + base64.urlsafe_b64encode(signed + _checksum(signed)).rstrip(b"=").decode("ascii")
    if len(text) > MAX_TOKEN_LENGTH:
        raise WireError("invite token", "", f"{len(text)} characters", f"at most {MAX_TOKEN_LENGTH} characters")
    return text


def parse_token(text: str) -> InviteToken:
    """The token in `text`, its checksum and its issuer's signature verified.

    Spaces, line breaks and quotes that a terminal or a shell put around or into it are ignored. Raises `MangledToken`,
    `ForgedToken`, or `WireError` for a whole and signed token of a shape this version does not read.
    """
    signed = _checked(_without_wrapping(text))
    signature, payload = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
    token = unpack(payload, InviteToken, "invite token", MAX_TOKEN_LENGTH)
    if not verify(token.members[0].key, signature, signing_input(_KIND, token.mesh, payload)):
        raise ForgedToken("invite token", "signature", "one its issuer did not make", f"one by {short(token.issuer)}")
    return token


def looks_like_token(text: str) -> bool:
    """True for a text that must be treated as a secret: it holds the prefix of a token."""
    return PREFIX in text


def _without_wrapping(text: str) -> str:
    # A hostile megabyte must not be copied character by character; twice the limit leaves room for line breaks.
    if len(text) > 2 * MAX_TOKEN_LENGTH:
        raise MangledToken("invite token", "", f"{len(text)} characters", f"at most {MAX_TOKEN_LENGTH} characters")
    return "".join(text.split()).strip("\"'`")


def _checked(text: str) -> bytes:
    """Signature and payload of a text whose checksum is right."""
    if not text.startswith(PREFIX):
        found = f"a text of {len(text)} characters without it"
        raise MangledToken("invite token", "prefix", found, f"a token beginning with {PREFIX}")
    body = text.removeprefix(PREFIX)
    if len(text) > MAX_TOKEN_LENGTH:
        raise MangledToken("invite token", "", f"{len(text)} characters", f"at most {MAX_TOKEN_LENGTH} characters")
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        found = f"{len(body)} characters that are no base64"
        raise MangledToken("invite token", "", found, "the whole token, unchanged") from error
    signed, checksum = raw[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
    if len(raw) < _SHORTEST or _checksum(signed) != checksum or _differs(body, raw):
        raise MangledToken("invite token", "checksum", "another one", "the whole token, unchanged")
    return signed


def _differs(body: str, raw: bytes) -> bool:
    """Spare bits of the last base64 character must be zero: one token has one text."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") != body


def _checksum(signed: bytes) -> bytes:
    return hashlib.sha256(PREFIX.encode("ascii") + signed).digest()[:_CHECKSUM_BYTES]
