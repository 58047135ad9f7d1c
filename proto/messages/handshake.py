"""The handshake: on the control stream, in this order, before anything else is read; and a link's last word.

What lives here: the shapes, the codes of a refusal, and what two processes with one key say to have it noticed. What
does not: their order and meaning (`meshnode.transport.handshake`, `meshnode.transport.doubles`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from proto.messages.message import Message
from proto.parts import MAX_CHAIN, Role
from proto.shapes import (
    WireAddress,
    WireBootId,
    WireCounter,
    WireMeshId,
    WireNodeId,
    WireNonce,
    WireSignature,
    WireText,
    WireWord,
)

WireChain = Annotated[tuple[Annotated[bytes, Meta(max_length=1024)], ...], Meta(min_length=1, max_length=MAX_CHAIN)]
WireVersion = tuple[Annotated[int, Meta(ge=0, le=65_535)], Annotated[int, Meta(ge=0, le=65_535)]]


class Hello(Message, frozen=True, tag="hello"):
    """Dialler's first frame: the versions it speaks and who it says it is."""

    lowest: WireVersion
    highest: WireVersion
    mesh: WireMeshId
    node: WireNodeId
    boot_id: WireBootId
    software: WireWord
    redeeming: bool
    """True where the dialler has no credential yet and will send a token."""


class Challenge(Message, frozen=True, tag="challenge"):
    """Acceptor's answer: the version it chose and a fresh nonce for the dialler to sign."""

    version: WireVersion
    nonce: WireNonce
    boot_id: WireBootId


class Proof(Message, frozen=True, tag="proof"):
    """Dialler's proof of its key over (context, mesh, both node ids, nonce, ALPN), its credential chain, and the
    incarnation it last saw of the acceptor (who goes above); a redeeming dialler sends no chain but the invite token's
    text."""

    signature: WireSignature
    chain: WireChain | None
    token: Annotated[str, Meta(max_length=2048)] | None = None
    incarnation_floor: WireCounter = 0
    role: Role | None = None
    """The role a redeeming dialler asks for, at most the token's; None asks for the token's own."""


class Welcome(Message, frozen=True, tag="welcome"):
    """Acceptor lets the dialler in: its own chain, the address it sees the dialler at, the incarnation it last saw of
    it (the dialler goes above), and the issued chain where a token was redeemed."""

    chain: WireChain
    observed_address: WireAddress
    incarnation_floor: WireCounter
    issued_chain: WireChain | None = None


class RefusalCode(StrEnum):
    """Why a link or a token was refused. The first eight are the token's own."""

    EXPIRED = "expired"
    USED_UP = "used_up"
    REVOKED = "revoked"
    WRONG_MESH = "wrong_mesh"
    MALFORMED = "malformed"
    INVITER_UNREACHABLE = "inviter_unreachable"
    ROLE_NOT_ALLOWED = "role_not_allowed"
    NAMES_SELF = "names_self"
    NO_COMMON_VERSION = "no_common_version"
    BAD_PROOF = "bad_proof"
    BAD_CREDENTIAL = "bad_credential"
    IDENTITY_IN_USE = "identity_in_use"
    NOT_THE_ISSUER = "not_the_issuer"
    TOO_MANY_FAILURES = "too_many_failures"
    BUSY = "busy"
    PROTOCOL_ERROR = "protocol_error"
    DUPLICATE_LINK = "duplicate_link"
    SLOW_READER = "slow_reader"
    FLOODING = "flooding"
    LEAVING = "leaving"
    REMOVED = "removed"
    LINK_LIMIT = "link_limit"
    APPROVAL_PENDING = "approval_pending"
    APPROVAL_DENIED = "approval_denied"
    APPROVAL_CLOSED = "approval_closed"
    UNREACHABLE = "unreachable"
    """The sender's probes went unanswered for the whole suspicion time: it holds the receiver dead."""


class LifeProof(Struct, frozen=True):
    """Proves to a newcomer that a process with its own key runs elsewhere: that key's signature over (context, mesh,
    the process's boot id, the newcomer's). The newcomer drew its boot id at its start, so the signature is younger than
    that; nobody without the key can make one, and the newcomer makes none for itself."""

    boot_id: WireBootId
    signature: WireSignature


class Refusal(Message, frozen=True, tag="refusal"):
    """Last frame of a link that ends for a reason: the code, one sentence, and the two facts that differ. `life` goes
    with `identity_in_use`, which is not believed without it."""

    code: RefusalCode
    text: WireText
    found: WireText = ""
    required: WireText = ""
    life: LifeProof | None = None


class SignedChallenge(Struct, frozen=True):
    """What a dialler signed to get in: the acceptor's nonce, and the signature of its proof."""

    nonce: WireNonce
    signature: WireSignature


class IdentityConflict(Message, frozen=True, tag="identity_conflict"):
    """To a node whose key a second process used: the address it answers at itself, and the one that was refused.

    Not believed without `challenge`, which the second process signed for the sender. Its nonce is 16 random bytes, then
    the first 16 of SHA-256 over ("meshnode/v1/nonce", mesh, the random bytes, the receiver's boot id), in the form of
    what is signed: so it is no older than the receiver, which signs none that is made of its own boot id."""

    address: WireAddress
    other_address: WireAddress
    challenge: SignedChallenge | None = None


class LifeRequest(Message, frozen=True, tag="life_request"):
    """To a node whose key a second process uses, which started with the boot id `newcomer`: prove that you live."""

    newcomer: WireBootId


class LifeSign(Message, frozen=True, tag="life_sign"):
    """Answer to a life request. The asker hands `proof` to the newcomer in its refusal."""

    newcomer: WireBootId
    proof: LifeProof
