"""What a solver hands back.

Lives here: `Placement` and `Solution`, shared by every solver (`planner.fewest`, `planner.proportional`,
`planner.latency`, `planner.throughput`). Not here: the plan people see (`planner.plan`), which is made from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from planner.instance import Instance


@dataclass(frozen=True, slots=True)
class Placement:
    """Layers [layer_start, layer_end) on device number `device` of an `Instance`; never empty."""

    device: int
    layer_start: int
    layer_end: int


@dataclass(frozen=True, slots=True)
class Solution:
    """The outcome of one solver on one `Instance`.

    `placements`: in layer order, covering [0, L) without gaps, each device at most once; empty if none was found.
    `value`: the objective of `placements` (ns for latency and throughput, stages for fewest), None if there are none.
    `lower_bound`: nothing on this instance can be below it (same unit); equal to `value` when optimal; None if unknown.
    `infeasible`: proved that no placement exists; then `placements` is empty. Empty placements without it mean that the
    search gave up (budget, `should_stop`) or that `cutoff_ns` made it pointless (`lower_bound >= cutoff_ns`).
    `method`: how it was found, in words for people, for example `subset dynamic programme` or `local search`.
    `work_units`: effort spent. `interrupted`: `should_stop` or the budget cut it short.
    """

    placements: tuple[Placement, ...]
    value: int | None
    lower_bound: int | None
    method: str
    infeasible: bool = False
    interrupted: bool = False
    work_units: int = 0


class TimedSolver(Protocol):
    """What `planner.latency.solve_latency` and `planner.throughput.solve_throughput` are.

    Called on timed instances with at least one device, once per coordinator that is tried. `effort`: work units it may
    spend (`planner.effort`). `cutoff_ns`: a plan of this value is known from another coordinator; nothing that is not
    below it is of use.
    """

    def __call__(
        self,
        instance: Instance,
        *,
        effort: int,
        should_stop: Callable[[], bool] | None = None,
        cutoff_ns: int | None = None,
    ) -> Solution:
        """The best placements found, their value in ns, and a lower bound on this instance."""
        ...
