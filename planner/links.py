"""Links between nodes: RTT and bandwidth, directed, measured or estimated or explicitly free.

Lives here: `LinkMatrix` and `Link`. Not here: what a hop costs (`planner.timing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from planner.errors import InvalidPlanInput, figure

ASSUMED_BANDWIDTH_BYTES_PER_S: Final = 125_000_000.0
"""A link whose RTT is known and whose bandwidth is not is taken to be gigabit Ethernet, and the plan says so."""

LEAST_ESTIMATE_MS: Final = 5.0
"""Network coordinates tell no smaller RTTs apart."""


def rtt_text(rtt_ms: float | None, *, estimated: bool) -> str:
    """An RTT as people read it: `~` marks an estimate, which below 5 ms says no more than that."""
    if rtt_ms is None:
        return "unknown"
    if not estimated:
        return f"{rtt_ms:.1f}ms"
    return f"~<{LEAST_ESTIMATE_MS:g}ms" if rtt_ms < LEAST_ESTIMATE_MS else f"~{rtt_ms:.1f}ms"


@dataclass(frozen=True, slots=True)
class Link:
    """One direction of a path between two nodes. `estimated`: the RTT comes from coordinates, not measured."""

    rtt_ms: float
    bandwidth_bytes_per_s: float | None = None
    estimated: bool = False

    def __post_init__(self) -> None:
        figure("link.rtt_ms", self.rtt_ms, maximum=1e7)
        if self.bandwidth_bytes_per_s is not None:
            figure("link.bandwidth", self.bandwidth_bytes_per_s, minimum=1.0)

    def one_way_ns(self, payload_bytes: int) -> int:
        """Half the RTT plus `payload_bytes` at the bandwidth, in nanoseconds, rounded up."""
        return -int(-(self.rtt_ms * 500_000.0) // 1) + self.transfer_ns(payload_bytes)

    def transfer_ns(self, payload_bytes: int) -> int:
        """Time `payload_bytes` occupy the link, in nanoseconds, rounded up."""
        bandwidth = self.bandwidth_bytes_per_s or ASSUMED_BANDWIDTH_BYTES_PER_S
        return -int(-(payload_bytes * 1e9 / bandwidth) // 1)


@dataclass(frozen=True)
class LinkMatrix:
    """Directed links by (from node id, to node id). A missing pair is unknown: never free, never zero.

    `free`: every hop costs nothing (only ever said explicitly: a test bed, a what-if).
    """

    links: Mapping[tuple[str, str], Link] = field(default_factory=lambda: MappingProxyType({}))
    free: bool = False

    @classmethod
    def all_free(cls) -> LinkMatrix:
        """Hops cost nothing, by declaration."""
        return cls(free=True)

    @classmethod
    def symmetric(cls, pairs: Mapping[tuple[str, str], Link]) -> LinkMatrix:
        """Each given pair holds in both directions, unless the other direction is given too."""
        both = {(b, a): link for (a, b), link in pairs.items()}
        both.update(pairs)
        return cls(MappingProxyType(both))

    def __post_init__(self) -> None:
        for (source, target), _ in self.links.items():
            if source == target:
                raise InvalidPlanInput("link", source, "two different nodes")

    def get(self, source: str, target: str) -> Link | None:
        """The link from `source` to `target`, or None if nothing is known of it."""
        return self.links.get((source, target))
