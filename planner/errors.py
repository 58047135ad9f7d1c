"""The two errors of planning: an input that cannot be right, and a mesh that cannot hold the model.

Lives here: the exception types and the checks of single figures that raise the first. Not here: what the figures mean
(each type checks its own), or how a shortfall is found (`planner.diagnosis`). Everything in `planner` raises only
these.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from planner.shortfall import ShortfallReport

MAX_BYTES: Final = 1 << 56
"""Largest byte figure believed: 72 petabytes. Above it a figure is a mistake or a lie, and sums could overflow int64.
"""


class InvalidPlanInput(ValueError):
    """An input that no plan can be made from: names the field, what was found, and what would be right."""

    def __init__(self, field: str, found: object, expected: str) -> None:
        self.field = field
        self.found = found
        self.expected = expected
        super().__init__(f"{field}: found {found!r}, expected {expected}")


class CapacityShortfall(Exception):
    """No plan exists for the request. `report` holds everything known about why, and what would help."""

    def __init__(self, report: ShortfallReport) -> None:
        self.report = report
        super().__init__(report.message)


def whole(field: str, value: object, *, minimum: int = 0, maximum: int = MAX_BYTES) -> int:
    """`value` as an integer in [minimum, maximum], or `InvalidPlanInput` naming `field`."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise InvalidPlanInput(field, value, f"a whole number from {minimum} to {maximum}")
    return value


def figure(field: str, value: object, *, minimum: float = 0.0, above: bool = False, maximum: float = 1e30) -> float:
    """`value` as a finite float, at least `minimum` (above it if `above`), or `InvalidPlanInput` naming `field`."""
    wanted = f"a finite number {'above' if above else 'of at least'} {minimum:g} and at most {maximum:g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidPlanInput(field, value, wanted)
    number = float(value) if abs(value) < 1e300 else math.inf
    if not math.isfinite(number) or number < minimum or number > maximum or (above and number == minimum):
        raise InvalidPlanInput(field, value, wanted)
    return number


def name(field: str, value: object, *, longest: int = 512) -> str:
    """`value` as a non-empty printable string, or `InvalidPlanInput` naming `field`."""
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise InvalidPlanInput(field, value, f"a printable string of 1 to {longest} characters")
    return value
