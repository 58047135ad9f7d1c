"""A split's life on its coordinator, and the fences and reservations of its workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from meshnode.events.event import Event, Level


@dataclass(frozen=True)
class SplitWaiting(Event):
    """A split waits for participants."""

    name: ClassVar[str] = "split.waiting"
    level: ClassVar[Level] = Level.INFO
    model: str
    quorum: int
    deadline_s: float
    waited_s: float
    participants: int
    pending: int
    excluded: int


@dataclass(frozen=True)
class SplitCandidates(Event):
    """The verdicts changed: who takes part, who may, who can't and why."""

    name: ClassVar[str] = "split.candidates"
    level: ClassVar[Level] = Level.INFO
    model: str
    participants: tuple[str, ...]
    pending: tuple[str, ...]
    excluded: tuple[str, ...]


@dataclass(frozen=True)
class SplitReady(Event):
    """The wait is over. `outcome`: the members have `settled`, the `deadline` came, or nobody was waited for
    (`immediate`)."""

    name: ClassVar[str] = "split.ready"
    level: ClassVar[Level] = Level.INFO
    model: str
    participants: tuple[str, ...]
    excluded: tuple[str, ...]
    outcome: str
    waited_s: float
    generation: int


@dataclass(frozen=True)
class SplitQuorumFailed(Event):
    """The deadline passed below the quorum."""

    name: ClassVar[str] = "split.quorum_failed"
    level: ClassVar[Level] = Level.ERROR
    model: str
    quorum: int
    participants: tuple[str, ...]
    excluded: tuple[str, ...]
    waited_s: float


@dataclass(frozen=True)
class SplitPlanned(Event):
    """A plan stands: each stage's node and layers. `missing_bytes` have to be fetched by its nodes before it runs, as
    far as it is known what they have."""

    name: ClassVar[str] = "split.planned"
    level: ClassVar[Level] = Level.INFO
    model: str
    objective: str
    stages: tuple[str, ...]
    generation: int
    coordinator: str
    missing_bytes: int
    method: str
    gap: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class SplitShortfall(Event):
    """No plan exists; the message says how short, who was counted, who was left out and what would help."""

    name: ClassVar[str] = "split.shortfall"
    level: ClassVar[Level] = Level.ERROR
    model: str
    kind: str
    required_bytes: int
    available_bytes: int
    short_by_bytes: int
    short_layers: int
    message: str
    remedies: tuple[str, ...]


@dataclass(frozen=True)
class SplitReplanned(Event):
    """A running split has a new plan: why, and which. Where a stage was lost, `node` is whose and `lost` which layers
    of the plan before were on it; without, a better plan was found."""

    name: ClassVar[str] = "split.replanned"
    level: ClassVar[Level] = Level.INFO
    model: str
    generation: int
    cause: str
    node: str | None
    lost: tuple[str, ...]
    stages: tuple[str, ...]
    moved_bytes: int


@dataclass(frozen=True)
class SplitWithdrawn(Event):
    """A split ended: why, and what it would need."""

    name: ClassVar[str] = "split.withdrawn"
    level: ClassVar[Level] = Level.WARNING
    model: str
    generation: int
    cause: str


@dataclass(frozen=True)
class SplitFenced(Event):
    """This worker refused an older plan's request."""

    name: ClassVar[str] = "split.fenced"
    level: ClassVar[Level] = Level.INFO
    model: str
    coordinator: str
    generation: int
    highest_generation: int


@dataclass(frozen=True)
class SplitReserved(Event):
    """This node holds bytes for a stage, or, without layers, for coordinating."""

    name: ClassVar[str] = "split.reserved"
    level: ClassVar[Level] = Level.INFO
    model: str
    coordinator: str
    generation: int
    layer_start: int
    layer_end: int
    reserved_bytes: int


@dataclass(frozen=True)
class SplitReleased(Event):
    """This worker gave a reservation back."""

    name: ClassVar[str] = "split.released"
    level: ClassVar[Level] = Level.INFO
    model: str
    generation: int
    reason: str
    reserved_bytes: int
