"""What was measured or read: RTT, the machine's capacity, the models at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from meshnode.events.event import Event, Level


@dataclass(frozen=True)
class RttChanged(Event):
    """A link's RTT changed by more than 20 % and 1 ms."""

    name: ClassVar[str] = "rtt.changed"
    level: ClassVar[Level] = Level.INFO
    peer: str
    old_ms: float | None
    new_ms: float
    samples: int
    path: str


@dataclass(frozen=True)
class CapacityChanged(Event):
    """What this machine has to offer, on its devices or as a coordinator's host, changed by more than 5 %."""

    name: ClassVar[str] = "capacity.changed"
    level: ClassVar[Level] = Level.INFO
    usable_bytes: int
    old_usable_bytes: int
    host_usable_bytes: int
    old_host_usable_bytes: int
    devices: int
    source: str


@dataclass(frozen=True)
class CapacityNone(Event):
    """This machine can give nothing, and why."""

    name: ClassVar[str] = "capacity.none"
    level: ClassVar[Level] = Level.WARNING
    reason: str
    advice: str


@dataclass(frozen=True)
class CapacityWarning(Event):
    """Something costs this machine memory that it could give, or promises memory that it has not. `device` is the
    device, or the setting, that it is about."""

    name: ClassVar[str] = "capacity.warning"
    level: ClassVar[Level] = Level.WARNING
    device: str
    finding: str


@dataclass(frozen=True)
class CapacityFinding(Event):
    """Something learnt while looking at this machine's memory; nothing is wrong. `device` is the device, or the
    setting, that it is about."""

    name: ClassVar[str] = "capacity.finding"
    level: ClassVar[Level] = Level.INFO
    device: str
    finding: str


@dataclass(frozen=True)
class ModelIndexed(Event):
    """A model at hand was read."""

    name: ClassVar[str] = "model.indexed"
    level: ClassVar[Level] = Level.INFO
    model: str
    layers: int
    weight_bytes: int
    complete: bool
    manifest: str | None


@dataclass(frozen=True)
class ModelUnreadable(Event):
    """A model file could not be read: the field, what was found, what would be right."""

    name: ClassVar[str] = "model.unreadable"
    level: ClassVar[Level] = Level.ERROR
    model: str
    path: str
    field: str
    found: str
    expected: str
