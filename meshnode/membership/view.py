"""The immutable picture of the mesh that membership hands on: to readiness, control and the planner's input.

What lives here: `MeshView` and what it is made of. What does not: how it came about (the state machines beside this
file). Data flows one way: nobody reaches back from a view; it asks for a newer one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from proto.ids import BootId, MeshId, NodeId
from proto.parts import IdentityPart, NetworkPart, OfferPart, Role


class Status(StrEnum):
    """A node's liveness as this node sees it."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


class PathKind(StrEnum):
    """How this node reaches another: over an own link, or carried by a common neighbour."""

    DIRECT = "direct"
    RELAYED = "relayed"


class RttSource(StrEnum):
    """Where an RTT figure comes from; an estimate is marked wherever it is shown or used."""

    MEASURED = "measured"
    REPORTED = "reported"
    """Measured by the pair itself and gossiped in its row."""
    ESTIMATED = "estimated"
    """Computed from network coordinates."""


LEAST_ESTIMATE_MS = 5.0
"""Network coordinates tell no smaller RTTs apart: such an estimate is shown as `<5ms`."""


@dataclass(frozen=True, slots=True)
class RttFigure:
    """One RTT: window minimum and smoothed value in ms, variation in ms (None in reports and estimates, which lack it),
    number of samples, age in s of the last (of a report: of its row).

    `corroborated` (`meshnode.membership.rtt`): at least 2 samples spread over at least 5 s, the last fresher than 30 s.
    """

    min_ms: float
    smoothed_ms: float
    variation_ms: float | None
    samples: int
    age_s: float
    corroborated: bool
    source: RttSource
    error: float | None = None
    """Relative error of an estimate, of `LEAST_ESTIMATE_MS` where that is more; None for a measurement."""

    def __str__(self) -> str:
        """The least one, as people read it; `~` marks an estimate."""
        if self.source is not RttSource.ESTIMATED:
            return f"{self.min_ms:.1f}ms"
        return f"~<{LEAST_ESTIMATE_MS:g}ms" if self.min_ms < LEAST_ESTIMATE_MS else f"~{self.min_ms:.1f}ms"


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """The local node's link to a node: its path, the address in use, who dialled, and since when (monotonic s)."""

    path: PathKind
    address: str
    dialled_by_us: bool
    up_since_s: float
    carrier: NodeId | None = None
    """The neighbour that carries a relayed path."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as the local node sees it now. A part that was never received is None: unknown, not absent."""

    node: NodeId
    role: Role
    status: Status
    incarnation: int
    boot_id: BootId | None
    status_since_s: float
    identity: IdentityPart | None
    offer: OfferPart | None
    network: NetworkPart | None
    link: LinkFacts | None
    rtt: RttFigure | None
    """From the local node; None where nothing is known (never 0). The local node's own is None too."""
    last_contact_age_s: float | None
    """Age of the last authenticated packet received directly from it; None where there was none."""
    record_age_s: float
    """Age of the newest part received."""
    connecting: bool = False
    """A dial is under way or due; it may become reachable."""


@dataclass(frozen=True)
class MeshView:
    """The whole mesh at one moment. `generation` grows with every change of membership, liveness or offers."""

    mesh: MeshId
    local: NodeId
    generation: int
    at_s: float
    nodes: Mapping[NodeId, NodeView]
    """Every node known, the local one included, dead and left ones while their tombstones are kept."""
    rtt: Mapping[tuple[NodeId, NodeId], RttFigure]
    """Directed pairs (from, to) for which a figure exists; a missing pair is unknown."""

    def alive(self) -> tuple[NodeView, ...]:
        """Nodes that are alive, in node-id order."""
        return tuple(view for _, view in sorted(self.nodes.items()) if view.status is Status.ALIVE)
