"""What every event is made from.

What lives here: `Event` and `Level`. What does not: the events themselves, by theme in the modules beside this one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar


class Level(StrEnum):
    """How loud an event is."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Event:
    """What every event is made from: a stable `name`, a `level`, and the subclass's fields."""

    name: ClassVar[str]
    level: ClassVar[Level]

    def fields(self) -> dict[str, Any]:
        """Field names to values, in the order declared; plain JSON types only."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
