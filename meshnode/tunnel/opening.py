"""What a tunnel is asked for, and the ways it is refused.

What lives here: `Purpose`, `Carrier`, `Opening`, `TunnelRefused`, `TunnelUnavailable`. What does not: bytes. Used by
whoever opens or offers tunnels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from proto.ids import NodeId, short
from proto.messages import Fence


class Purpose(StrEnum):
    """What a tunnel carries; each has its own handler and rules on the accepting side."""

    ENGINE = "engine"
    """The engine's own protocol, between a split's coordinator and the worker of one stage."""
    WEIGHTS = "weights"
    """Tensors of a stage's layers, from the split's coordinator to a worker that lacks the model's files."""
    API = "api"
    """An HTTP request to the node that serves a model."""


class Carrier(StrEnum):
    """How a tunnel's bytes travel."""

    TCP = "tcp"
    """TLS 1.3 over TCP, straight to the peer."""
    QUIC = "quic"
    """A stream of the QUIC link to the peer."""
    RELAY = "relay"
    """TLS 1.3 inside messages that a common neighbour carries: slow (about 96 KiB/s), and for want of anything else."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What the opening side says of itself. `fence` is the running plan's; a tunnel for the engine has one, and
    generations are counted per `model`. `stage` is the stage's place in the plan, from 0."""

    purpose: Purpose
    model: str
    fence: Fence | None = None
    stage: int = 0


class TunnelRefusal(StrEnum):
    """Why there is no tunnel."""

    NOT_OFFERED = "not_offered"
    """It offers nothing for this purpose (no engine, no model served)."""
    NOT_ADMITTED = "not_admitted"
    """Its `admit` said no; the text says why. An old generation's fence is refused so."""
    TOO_MANY = "too_many"
    """The opener has as many tunnels to it as one peer may have, or opens them too fast."""
    NO_CARRIER = "no_carrier"
    """The one side will not have what the other side has."""
    BAD_TICKET = "bad_ticket"
    """Reported, and said to nobody: a stream or connection showed no good ticket."""
    NOT_THE_OWNER = "not_the_owner"
    """Reported, and said to nobody: another process than the owner connected to its port."""
    UNAVAILABLE = "unavailable"
    """Reported by the opener: the peer was not reached."""


class TunnelError(Exception):
    """No tunnel. `peer` is the node it was to lead to, `text` one sentence for people."""

    def __init__(self, peer: NodeId, text: str) -> None:
        self.peer = peer
        self.text = text
        super().__init__(f"tunnel to {short(peer)}: {text}")


class TunnelRefused(TunnelError):
    """The peer answered, and will not have this tunnel: asking again changes nothing until something else does. `code`
    is a `TunnelRefusal` value, or a newer peer's own word."""

    def __init__(self, peer: NodeId, code: str, text: str) -> None:
        self.code = code
        super().__init__(peer, text)


class TunnelUnavailable(TunnelError):
    """The peer could not be reached, or no carrier worked, in time: worth another try."""
