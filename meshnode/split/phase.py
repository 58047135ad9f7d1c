"""Where a pursuit is, and what its operator set.

What lives here: `Phase` and `PursuitSettings`. What does not: how phases follow each other (`meshnode.split.pursuit`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """Where a pursuit is."""

    WATCHING = "watching"
    NO_SOURCE = "no_source"
    WAITING = "waiting"
    PLANNING = "planning"
    PLANNED = "planned"
    SHORT = "short"
    BELOW_QUORUM = "below_quorum"
    RESERVING = "reserving"
    RUNNING = "running"
    REPLANNING = "replanning"
    FAILED = "failed"
    """A plan stood and the engine could not run it, again and again; something has to change first."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class PursuitSettings:
    """`carry_out`: reserve and run plans (else only plan). `force_split`: don't try the local node alone first.
    `improve_margin`: the gain in predicted speed, as a share, above which a running split moves to a better plan."""

    carry_out: bool = False
    force_split: bool = False
    improve_margin: float = 0.15


DEFAULTS: Final = PursuitSettings()
