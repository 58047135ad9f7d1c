"""What is known of one peer when its paths are judged.

What lives here: `PeerFacts`. What does not: gathering (`meshnode.doctor.examining`), judging (`mesh`, `paths`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """`path` is `direct`, `relayed` or None; `answered` tells whether it took part in the trial. The lists are those of
    `meshnode.reaching.Reached`."""

    node: str
    name: str
    status: str
    addresses: tuple[str, ...] = ()
    software: str = ""
    engine: str | None = None
    path: str | None = None
    link_address: str | None = None
    dialled_by_us: bool = False
    answered: bool = False
    tried: tuple[str, ...] = ()
    arrived: tuple[str, ...] = ()
    tried_here: tuple[str, ...] = ()
    arrived_here: tuple[str, ...] = ()
    largest_bytes: int = 0
    clock_ahead_s: float | None = None
    clock_error_s: float = 0.0

    @property
    def called(self) -> str:
        """What people call it: its name and the beginning of its id."""
        return f"{self.name} ({self.node[:10]})" if self.name else self.node[:10]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)
