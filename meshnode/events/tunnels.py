"""Tunnels between nodes, which carry an engine's bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from meshnode.events.event import Event, Level


@dataclass(frozen=True)
class TunnelsListening(Event):
    """Where tunnels over TCP are taken; `problem` says why nowhere, and the links carry them then."""

    name: ClassVar[str] = "tunnel.listening"
    level: ClassVar[Level] = Level.INFO
    address: str | None
    problem: str | None


@dataclass(frozen=True)
class TunnelCarrier(Event):
    """What carries the tunnels to and from a peer (`tcp`, `quic`: the link, `relay`: a neighbour), told with the first
    of each split generation, and of requests; again when it changes."""

    name: ClassVar[str] = "tunnel.carrier"
    level: ClassVar[Level] = Level.INFO
    peer: str
    purpose: str
    carrier: str
    model: str
    generation: int | None


@dataclass(frozen=True)
class TunnelOpened(Event):
    """A tunnel stands: to whom, what for, and what carries it (`tcp`, `quic`: the link, `relay`: a neighbour)."""

    name: ClassVar[str] = "tunnel.opened"
    level: ClassVar[Level] = Level.DEBUG
    peer: str
    purpose: str
    carrier: str
    opened_here: bool
    model: str
    generation: int | None
    stage: int


@dataclass(frozen=True)
class TunnelClosed(Event):
    """A tunnel is over, with the bytes it carried."""

    name: ClassVar[str] = "tunnel.closed"
    level: ClassVar[Level] = Level.DEBUG
    peer: str
    purpose: str
    carrier: str
    reason: str
    sent_bytes: int
    received_bytes: int
    after_s: float


@dataclass(frozen=True)
class TunnelDenied(Event):
    """A tunnel was refused, by this node (`by_us`) or by the peer. `peer` is not known where a TCP connection showed a
    ticket that is worth nothing (`bad_ticket`)."""

    name: ClassVar[str] = "tunnel.refused"
    level: ClassVar[Level] = Level.WARNING
    peer: str | None
    purpose: str
    model: str
    code: str
    reason: str
    by_us: bool


@dataclass(frozen=True)
class TunnelTcpFailed(Event):
    """TCP to a peer did not come about, so that its link carries tunnels to it for now."""

    name: ClassVar[str] = "tunnel.tcp_failed"
    level: ClassVar[Level] = Level.WARNING
    peer: str
    problem: str
    retry_after_s: float
