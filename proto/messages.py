"""The messages two nodes exchange, as bounded, frozen shapes.

What lives here: the shapes of the handshake, of membership, and of splits. What does not: those of tunnels
(`proto.tunnels`, `proto.weights`) and of paths under trial (`proto.reach`), the list of all with their limits
(`proto.registry`), bytes (`proto.codec`), meaning (`meshnode.transport.handshake`, `meshnode.membership`,
`meshnode.readiness`).

A message is a msgpack map whose `type` names it. Unknown types and unknown fields are skipped (forward compatibility);
a wrong type or an out-of-range value is a `WireError` that names the field.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from proto.parts import MAX_CHAIN, MAX_ROW, Role, RttEntry, SignedPart
from proto.shapes import (
    WireAddress,
    WireBootId,
    WireBytesFigure,
    WireCounter,
    WireMeshId,
    WireMicroseconds,
    WireNodeId,
    WireNonce,
    WireShortId,
    WireSignature,
    WireText,
    WireWord,
)

WireChain = Annotated[tuple[Annotated[bytes, Meta(max_length=1024)], ...], Meta(min_length=1, max_length=MAX_CHAIN)]
WireVersion = tuple[Annotated[int, Meta(ge=0, le=65_535)], Annotated[int, Meta(ge=0, le=65_535)]]
WireProbeNonce = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class Message(Struct, frozen=True, tag_field="type", forbid_unknown_fields=False):
    """What every message is made from; the subclass's tag is its name on the wire."""


# --- handshake: on the control stream, in this order, before anything else is read --------------------------------


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
    """Why a link or a token was refused. The first eight are the token's own (design, section 3)."""

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


# --- membership: gossip ---------------------------------------------------------------------------------------------


class Revocations(Message, frozen=True, tag="revocations"):
    """Signed revocations, exchanged before any record on every link and pushed when one is made. Each entry is as
    `proto.revocation` encodes it. `complete` ends the sender's opening list."""

    entries: Annotated[tuple[Annotated[bytes, Meta(max_length=4096)], ...], Meta(max_length=64)]
    complete: bool


class DigestEntry(Struct, frozen=True, array_like=True):
    """What the sender holds of one node: the newest (incarnation, version) of each part; zeros where it has none; and
    `status`, the rank of the liveness claim it holds for `status_incarnation`."""

    node: WireShortId
    identity: tuple[WireCounter, WireCounter]
    offer: tuple[WireCounter, WireCounter]
    network: tuple[WireCounter, WireCounter]
    status_incarnation: WireCounter
    status: Annotated[int, Meta(ge=0, le=3)]


class ViewHash(Message, frozen=True, tag="view_hash"):
    """Opens an anti-entropy round: a hash over all the sender's live digest entries. Equal hashes end the round. In a
    large mesh `buckets` adds 4 bytes for each bucket of short ids (a power of two of them), so that only those that
    differ are compared line by line."""

    value: Annotated[bytes, Meta(min_length=8, max_length=8)]
    nodes: WireCounter
    buckets: Annotated[bytes, Meta(max_length=1024)] = b""


class Digest(Message, frozen=True, tag="digest"):
    """One page of the sender's digest: the nodes whose short id's first byte is `page` modulo `pages`, all of them that
    the sender holds as living. `pages` 0 marks a list of single nodes instead. `answer_wanted` asks the receiver, after
    its delta, for its own lines of the nodes where the sender is ahead."""

    entries: Annotated[tuple[DigestEntry, ...], Meta(max_length=2048)]
    page: WireCounter
    pages: WireCounter
    answer_wanted: bool


class ClaimKind(StrEnum):
    """What one node says of another's liveness, in rising rank for the same incarnation."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


class Claim(Struct, frozen=True):
    """`accuser` says that `subject`, at `incarnation`, is `kind`. Signed by the accuser, so that it can be relayed and
    held against it. For `alive` the accuser is the witness that got an answer."""

    kind: ClaimKind
    subject: WireNodeId
    incarnation: WireCounter
    accuser: WireNodeId
    accuser_incarnation: WireCounter
    signature: WireSignature


class Delta(Message, frozen=True, tag="delta"):
    """Records and claims the receiver lacks, oldest first. `urgent` marks a push outside anti-entropy."""

    parts: Annotated[tuple[SignedPart, ...], Meta(max_length=512)]
    claims: Annotated[tuple[Claim, ...], Meta(max_length=512)]
    urgent: bool = False


class RowRequest(Message, frozen=True, tag="row_request"):
    """Asks the receiver for its full RTT row (above `max_links` nodes rows are not gossiped)."""

    nonce: WireProbeNonce


class Row(Message, frozen=True, tag="row"):
    """Answer to a row request: the sender's own RTT row, good for this link only and not signed."""

    nonce: WireProbeNonce
    entries: Annotated[tuple[RttEntry, ...], Meta(max_length=MAX_ROW)]


# --- probes: datagrams of at most 1,100 bytes, and the reliable ping on the control stream --------------------------


class Ping(Message, frozen=True, tag="ping"):
    """SWIM probe. `rtt` marks a timed RTT sample apart from failure detection."""

    nonce: WireProbeNonce
    incarnation: WireCounter
    rtt: bool = False
    accused_at: WireCounter = 0
    """Buddy notice (Lifeguard): the receiver's incarnation the sender holds as suspect; 0 where it holds none."""


class Ack(Message, frozen=True, tag="ack"):
    """Answer to a ping: echoes its nonce, tells how long the responder held it, and its coordinate."""

    nonce: WireProbeNonce
    incarnation: WireCounter
    hold_us: WireMicroseconds
    overloaded: bool = False
    """True where the responder's event loop lagged, so that the sample must not count as RTT."""
    coordinate: Annotated[tuple[Annotated[float, Meta(ge=-1e9, le=1e9)], ...], Meta(max_length=6)] | None = None


class PingRequest(Message, frozen=True, tag="ping_request"):
    """Asks the receiver to probe `target` on the sender's behalf (SWIM indirect probe)."""

    nonce: WireProbeNonce
    target: WireNodeId


class IndirectAck(Message, frozen=True, tag="indirect_ack"):
    """Answer to a ping request: `answered` False is Lifeguard's nack, which says that the relay itself is well."""

    nonce: WireProbeNonce
    target: WireNodeId
    incarnation: WireCounter
    answered: bool


# --- relaying: a control frame or datagram carried through a common neighbour ---------------------------------------


class Relay(Message, frozen=True, tag="relay"):
    """Carries `payload`, one encoded message of `source`, towards `target` through the receiver. Signed by the source
    over (context, mesh, source, target, sequence, payload), so that the carrier can neither forge nor repeat it.

    A receiver reads a source's pings and acks only, until it has answered a ping of the receiver's: what was sent
    before the receiver started is not taken for new."""

    source: WireNodeId
    target: WireNodeId
    sequence: WireCounter
    payload: Annotated[bytes, Meta(max_length=65_536)]
    signature: WireSignature


# --- readiness and splits: asked directly over the link, never gossiped ---------------------------------------------


class ConfirmRequest(Message, frozen=True, tag="confirm_request"):
    """A waiting split asks a candidate to confirm its figures for one model; this reserves nothing."""

    nonce: WireProbeNonce
    model: WireText


class DeviceFigure(Struct, frozen=True, array_like=True):
    """One device's figures at the moment of asking."""

    id: WireWord
    usable_bytes: WireBytesFigure
    reserved_bytes: WireBytesFigure


class Confirm(Message, frozen=True, tag="confirm"):
    """The candidate's answer: what it offers now, whether it can serve a stage, and its willingness to do so."""

    nonce: WireProbeNonce
    devices: Annotated[tuple[DeviceFigure, ...], Meta(max_length=32)]
    host_usable_bytes: WireBytesFigure
    draining: bool
    stage_control: bool
    cached_bytes: WireBytesFigure | None
    missing_bytes: WireBytesFigure | None
    manifest: Annotated[str, Meta(max_length=128)] | None


class Fence(Struct, frozen=True, array_like=True, order=True):
    """Orders plans of one model: (generation, coordinator). A worker rejects anything below the highest it promised."""

    generation: WireCounter
    coordinator: WireNodeId


class Prepare(Message, frozen=True, tag="prepare"):
    """The coordinator asks a worker to reserve exact bytes on its devices for its stage: the layers from `layer_start`
    to `layer_end`. `ranges` are (device, layer start, layer end), for a stage that lies on several devices."""

    nonce: WireProbeNonce
    model: WireText
    fence: Fence
    layer_start: WireCounter
    layer_end: WireCounter
    reserve: Annotated[tuple[tuple[WireWord, WireBytesFigure], ...], Meta(max_length=32)]
    ranges: Annotated[tuple[tuple[WireWord, WireCounter, WireCounter], ...], Meta(max_length=32)] = ()


class Prepared(Message, frozen=True, tag="prepared"):
    """The worker's answer: reserved, or why not, with the highest fence it holds for the model."""

    nonce: WireProbeNonce
    accepted: bool
    reason: WireText
    highest: Fence


class Commit(Message, frozen=True, tag="commit"):
    """All stages are reserved: the plan of this fence stands. Also renews the lease."""

    model: WireText
    fence: Fence


class Release(Message, frozen=True, tag="release"):
    """Gives the reservation of this fence back (abort before commit, withdraw after it)."""

    model: WireText
    fence: Fence
    reason: WireText


class LeaseRenewal(Message, frozen=True, tag="lease_renewal"):
    """Coordinator to worker, and its echo back (`held` tells whether the worker still holds the fence)."""

    nonce: WireProbeNonce
    model: WireText
    fence: Fence
    held: bool


class StageState(StrEnum):
    """How far a worker's stage is: its weights cache is filled, its engine process runs, or it can't run any more."""

    FILLING = "filling"
    READY = "ready"
    FAILED = "failed"


class StageReport(Message, frozen=True, tag="stage_report"):
    """A worker tells the coordinator of `fence` how its stage is. `text` says why it failed: the engine process's end
    and its last words. `fetching`: what fills its weights cache comes from another node, not from files of its own. The
    bytes of a `ready` one are those of tensors that it need not be sent."""

    model: WireText
    fence: Fence
    state: StageState
    done_bytes: WireBytesFigure = 0
    total_bytes: WireBytesFigure = 0
    text: WireText = ""
    fetching: bool = False
