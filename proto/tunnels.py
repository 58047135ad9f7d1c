"""Messages about tunnels: byte streams between two nodes, agreed on over their link or through a neighbour.

What lives here: the shapes. What does not: what goes through a tunnel (`proto.weights`, an engine's own protocol), what
follows from them (`meshnode.tunnel`).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from proto.messages import Fence, Message, WireProbeNonce
from proto.shapes import WireCounter, WireKey, WireNonce, WireText, WireWord


class TunnelRequest(Message, frozen=True, tag="tunnel_request"):
    """Asks the receiver for a tunnel. `purpose` and `carrier` are words, so that a newer node's can be refused instead
    of ending the link. `key` is a fresh X25519 public key, for a tunnel that neighbours carry."""

    nonce: WireProbeNonce
    purpose: WireWord
    model: WireText
    fence: Fence | None
    stage: WireCounter
    carrier: WireWord
    key: WireKey


class TunnelAnswer(Message, frozen=True, tag="tunnel_answer"):
    """Answer to a tunnel request. Refused: `refusal` is its code, `text` a sentence. Granted (`refusal` empty): by
    which carrier, with the one-time `ticket` to show on it, for `tcp` the port, and the answerer's X25519 `key`."""

    nonce: WireProbeNonce
    refusal: WireWord
    text: WireText = ""
    carrier: WireWord = ""
    ticket: WireNonce | None = None
    port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    key: WireKey | None = None


class TunnelBytes(Message, frozen=True, tag="tunnel_bytes"):
    """A piece of a tunnel that a neighbour carries, sealed: `tunnel` is the request's nonce, `to_opener` the direction,
    `sequence` counts from 0 in each. `end` marks a direction's last, which may hold no bytes."""

    tunnel: WireProbeNonce
    to_opener: bool
    sequence: WireCounter
    sealed: Annotated[bytes, Meta(min_length=16, max_length=8192 + 16)]
    end: bool


class TunnelCredit(Message, frozen=True, tag="tunnel_credit"):
    """The sender of this has taken `taken_bytes` of a relayed tunnel since its beginning: so many more may come. It has
    sent `sent_pieces` itself: a receiver that has fewer knows that some are lost. Also a sign of life."""

    tunnel: WireProbeNonce
    to_opener: bool
    taken_bytes: WireCounter
    sent_pieces: WireCounter


class TunnelCancel(Message, frozen=True, tag="tunnel_cancel"):
    """The sender is done with a relayed tunnel that had not ended in both directions, or knows of none."""

    tunnel: WireProbeNonce
    to_opener: bool
