"""The control interface, and the log's own remarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from meshnode.events.event import Event, Level


@dataclass(frozen=True)
class ControlListening(Event):
    """The control socket answers."""

    name: ClassVar[str] = "control.listening"
    level: ClassVar[Level] = Level.INFO
    address: str


@dataclass(frozen=True)
class ControlRefused(Event):
    """A control request was refused."""

    name: ClassVar[str] = "control.refused"
    level: ClassVar[Level] = Level.WARNING
    route: str
    reason: str


@dataclass(frozen=True)
class LogFolded(Event):
    """Repeats of an event were folded into this line."""

    name: ClassVar[str] = "log.folded"
    level: ClassVar[Level] = Level.INFO
    folded_event: str
    subject: str
    count: int
    over_s: float


@dataclass(frozen=True)
class LibraryMessage(Event):
    """A warning of a library that this program is built on, in the library's own words."""

    name: ClassVar[str] = "log.library"
    level: ClassVar[Level] = Level.WARNING
    logger: str
    text: str
