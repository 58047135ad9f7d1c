"""How much work a search may do, counted and not timed, so that the same input always gives the same plan.

Lives here: `Effort`, the meter that the optimisers share. Not here: what they do with it. A unit is about a million
array elements touched, calibrated by `tests/bench/bench_planner.py` to roughly a millisecond of one core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

ELEMENTS_PER_UNIT: Final = 1_000_000
_CALL_ELEMENTS: Final = 4_000
"""What one small array operation costs beside its elements: a few microseconds of interpreter."""

DEFAULT_EFFORT: Final = 4_000
"""Units: a few seconds where a search is needed at all; small problems are exact long before."""


class Effort:
    """A budget of work units, with an optional `should_stop` that is asked at the same points.

    Nothing is raised: searches ask `spent` between steps and hand back what they have. `stopped` says that somebody
    else, not the budget, ended it.
    """

    def __init__(self, limit_units: int, should_stop: Callable[[], bool] | None = None) -> None:
        self._limit = limit_units * ELEMENTS_PER_UNIT
        self._should_stop = should_stop
        self._elements = 0
        self._stopped = False
        self._ran_out = False

    def charge(self, elements: int, calls: int = 1) -> None:
        """Account for `calls` array operations over `elements` elements in all."""
        self._elements += elements + calls * _CALL_ELEMENTS

    @property
    def spent(self) -> bool:
        """Whether to end now. Once true, always true."""
        if not self._stopped and self._should_stop is not None:
            self._stopped = self._should_stop()
        self._ran_out = self._ran_out or self._elements >= self._limit
        return self._stopped or self._ran_out

    @property
    def cut_short(self) -> bool:
        """Whether any search was told to end before it was done."""
        return self._stopped or self._ran_out

    @property
    def used_units(self) -> int:
        """Units used, rounded up."""
        return -(-self._elements // ELEMENTS_PER_UNIT)
