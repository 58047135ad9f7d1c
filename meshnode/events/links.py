"""Links to peers: made, lost, refused, moved, and what was wrong with what came over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from meshnode.events.event import Event, Level


@dataclass(frozen=True)
class LinkUp(Event):
    """An authenticated link stands."""

    name: ClassVar[str] = "link.up"
    level: ClassVar[Level] = Level.INFO
    peer: str
    address: str
    dialled_by_us: bool
    protocol: str
    path: str


@dataclass(frozen=True)
class LinkDown(Event):
    """A link ended, and why."""

    name: ClassVar[str] = "link.down"
    level: ClassVar[Level] = Level.INFO
    peer: str
    address: str
    code: str
    reason: str
    by_peer: bool
    after_s: float


@dataclass(frozen=True)
class LinkRelayed(Event):
    """No packet passes directly to `peer`; what is said between the two goes through the neighbour `through`. Stages
    take no such path unless `allow_relayed` is set."""

    name: ClassVar[str] = "link.relayed"
    level: ClassVar[Level] = Level.INFO
    peer: str
    through: str


@dataclass(frozen=True)
class LinkRelayLost(Event):
    """A path through a neighbour is gone, and no link of its own has come in its place."""

    name: ClassVar[str] = "link.relay_lost"
    level: ClassVar[Level] = Level.INFO
    peer: str
    through: str


@dataclass(frozen=True)
class LinkRefused(Event):
    """A link was refused, by us or by them: the code, both facts, who has to act."""

    name: ClassVar[str] = "link.refused"
    level: ClassVar[Level] = Level.WARNING
    peer: str | None
    address: str
    by_us: bool
    code: str
    text: str
    found: str
    required: str


@dataclass(frozen=True)
class LinkReplaced(Event):
    """Of two links to one node one was kept."""

    name: ClassVar[str] = "link.replaced"
    level: ClassVar[Level] = Level.DEBUG
    peer: str
    kept: str
    reason: str


@dataclass(frozen=True)
class LinkMigrated(Event):
    """A peer's address changed under a living link."""

    name: ClassVar[str] = "link.migrated"
    level: ClassVar[Level] = Level.INFO
    peer: str
    old_address: str
    new_address: str


@dataclass(frozen=True)
class DialFailed(Event):
    """No address of a peer answered."""

    name: ClassVar[str] = "dial.failed"
    level: ClassVar[Level] = Level.INFO
    peer: str
    addresses: tuple[str, ...]
    reason: str
    retry_in_s: float


@dataclass(frozen=True)
class AddressDropped(Event):
    """An address answered as another node: it is dropped for this peer."""

    name: ClassVar[str] = "address.dropped"
    level: ClassVar[Level] = Level.WARNING
    peer: str
    address: str
    answered_as: str


@dataclass(frozen=True)
class WireRejected(Event):
    """Something from a peer broke a rule: the field, what was found, what would be right."""

    name: ClassVar[str] = "wire.rejected"
    level: ClassVar[Level] = Level.WARNING
    peer: str | None
    address: str
    message: str
    field: str
    found: str
    expected: str


@dataclass(frozen=True)
class RecordRejected(Event):
    """A relayed record or claim was no good; charged to whoever relayed it."""

    name: ClassVar[str] = "record.rejected"
    level: ClassVar[Level] = Level.WARNING
    subject: str
    relayed_by: str
    part: str
    reason: str


@dataclass(frozen=True)
class HandshakesShed(Event):
    """Half-open links passed the threshold: address validation is on, the oldest are dropped."""

    name: ClassVar[str] = "handshake.shed"
    level: ClassVar[Level] = Level.WARNING
    half_open: int
    dropped: int
    retry_on: bool


@dataclass(frozen=True)
class PeerThrottled(Event):
    """A peer sends more than its budget."""

    name: ClassVar[str] = "peer.throttled"
    level: ClassVar[Level] = Level.WARNING
    peer: str
    frames_per_s: float
    bytes_per_s: float
