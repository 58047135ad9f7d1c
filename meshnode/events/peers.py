"""The other nodes of the mesh: alive, suspect, dead, left, back, and who claims to be them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from meshnode.events.event import Event, Level


@dataclass(frozen=True)
class PeerJoined(Event):
    """A node is known and alive for the first time; `called` is what its owner calls the machine."""

    name: ClassVar[str] = "peer.joined"
    level: ClassVar[Level] = Level.INFO
    peer: str
    called: str
    role: str
    incarnation: int


@dataclass(frozen=True)
class PeerSuspect(Event):
    """A node does not answer; it has until the suspicion time is over to refute."""

    name: ClassVar[str] = "peer.suspect"
    level: ClassVar[Level] = Level.WARNING
    peer: str
    incarnation: int
    accuser: str
    suspicion_s: float


@dataclass(frozen=True)
class PeerRefuted(Event):
    """A suspicion proved wrong; `accuser` raised it."""

    name: ClassVar[str] = "peer.refuted"
    level: ClassVar[Level] = Level.INFO
    peer: str
    incarnation: int
    accuser: str
    witness: str


@dataclass(frozen=True)
class PeerDead(Event):
    """A node is dead to this node: nothing of it is counted any more."""

    name: ClassVar[str] = "peer.dead"
    level: ClassVar[Level] = Level.WARNING
    peer: str
    incarnation: int
    accusers: tuple[str, ...]
    silent_s: float


@dataclass(frozen=True)
class PeerLeft(Event):
    """A node said goodbye."""

    name: ClassVar[str] = "peer.left"
    level: ClassVar[Level] = Level.INFO
    peer: str
    incarnation: int


@dataclass(frozen=True)
class PeerReturned(Event):
    """A node that was dead or had left is back."""

    name: ClassVar[str] = "peer.returned"
    level: ClassVar[Level] = Level.INFO
    peer: str
    incarnation: int
    was: str
    away_s: float


@dataclass(frozen=True)
class PeerUpdated(Event):
    """A newer part of a peer's record was accepted."""

    name: ClassVar[str] = "peer.updated"
    level: ClassVar[Level] = Level.DEBUG
    peer: str
    part: str
    incarnation: int
    version: int


@dataclass(frozen=True)
class LanCalled(Event):
    """Members are missing, and none of their addresses answers: this node called for them on its local networks."""

    name: ClassVar[str] = "lan.called"
    level: ClassVar[Level] = Level.DEBUG
    missing: int
    networks: tuple[str, ...]
    ports: tuple[int, ...]


@dataclass(frozen=True)
class PeerCalled(Event):
    """A member without a link called on the local network; it is dialled where it called from."""

    name: ClassVar[str] = "peer.called"
    level: ClassVar[Level] = Level.INFO
    peer: str
    address: str


@dataclass(frozen=True)
class PeerIdentityConflict(Event):
    """Two processes run with one key; the newcomer is refused."""

    name: ClassVar[str] = "peer.identity_conflict"
    level: ClassVar[Level] = Level.ERROR
    peer: str
    address: str
    other_address: str
    advice: str


@dataclass(frozen=True)
class IdentityClaimRejected(Event):
    """A member said that another process runs with this node's key, and gave no proof by that key: not believed."""

    name: ClassVar[str] = "identity.claim_rejected"
    level: ClassVar[Level] = Level.WARNING
    peer: str
    address: str
    advice: str


@dataclass(frozen=True)
class SuspicionRefutedSelf(Event):
    """This node was suspected and answered with a higher incarnation."""

    name: ClassVar[str] = "self.refuted"
    level: ClassVar[Level] = Level.WARNING
    accuser: str
    incarnation: int
    health: int


@dataclass(frozen=True)
class HealthChanged(Event):
    """Lifeguard's local health score changed; a higher score slows this node's own accusations."""

    name: ClassVar[str] = "self.health"
    level: ClassVar[Level] = Level.INFO
    score: int
    reason: str


@dataclass(frozen=True)
class CutOff(Event):
    """This process runs, and nothing comes from any of the `peers` members it has links to: all are examined."""

    name: ClassVar[str] = "self.cut_off"
    level: ClassVar[Level] = Level.WARNING
    peers: int
    silent_s: float
    advice: str


@dataclass(frozen=True)
class HeardAgain(Event):
    """This node was cut off, and `peer` is the first member that it hears again."""

    name: ClassVar[str] = "self.heard_again"
    level: ClassVar[Level] = Level.INFO
    peer: str
    cut_off_s: float


@dataclass(frozen=True)
class ViewConverged(Event):
    """This node's view equals a peer's."""

    name: ClassVar[str] = "view.converged"
    level: ClassVar[Level] = Level.DEBUG
    peer: str
    nodes: int
