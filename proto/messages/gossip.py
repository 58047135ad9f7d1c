"""Membership's gossip: revocations, digests, and the records and claims that a peer lacks.

What lives here: the shapes. What does not: records themselves (`proto.parts`), revocations' bytes
(`proto.revocation`), meaning (`meshnode.membership`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from proto.messages.message import Message, WireProbeNonce
from proto.parts import MAX_ROW, RttEntry, SignedPart
from proto.shapes import (
    WireCounter,
    WireNodeId,
    WireShortId,
    WireSignature,
)


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
