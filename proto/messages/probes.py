"""Probes: datagrams of at most 1,100 bytes, and the reliable ping on the control stream; and what relays carry.

What lives here: the shapes. What does not: when a node is probed and what silence means (`meshnode.membership`).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from proto.messages.message import Message, WireProbeNonce
from proto.shapes import (
    WireCounter,
    WireMicroseconds,
    WireNodeId,
    WireSignature,
)


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
