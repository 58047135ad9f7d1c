"""What a scenario found: named figures with their targets, for people and for scripts.

What lives here: `Figure`, `Report`. What does not: how they are measured (the scenario files).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. `at_most` is its target, None where it is only shown; an infinite value never happened."""

    name: str
    value: float
    unit: str
    at_most: float | None = None

    @property
    def met(self) -> bool:
        """True where there is no target, or the value keeps to it."""
        return self.at_most is None or self.value <= self.at_most

    def line(self) -> str:
        """For people: `detected by all, p95: 2.41 s (target 3 s)`."""
        value = f"{_shown(self.value)} {self.unit}".rstrip()
        if self.at_most is None:
            return f"{self.name}: {value}"
        verdict = "" if self.met else "  MISSED"
        return f"{self.name}: {value} (target {self.at_most:g} {self.unit}".rstrip() + f"){verdict}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; an infinite value is null."""
        return {
            "name": self.name,
            "value": None if math.isinf(self.value) else self.value,
            "unit": self.unit,
            "at_most": self.at_most,
            "met": self.met,
        }


@dataclass
class Report:
    """One run of one scenario. `broken` is the invariant that did not hold; the seed replays it."""

    scenario: str
    seed: int
    nodes: int
    virtual_s: float = 0.0
    wall_s: float = 0.0
    steps: int = 0
    rules_checked: int = 0
    digest: str = ""
    """Of every event but updates, its moment and observer, in order: equal for two runs that went alike."""
    figures: list[Figure] = field(default_factory=list)
    broken: str | None = None

    def add(self, name: str, value: float, unit: str = "", at_most: float | None = None) -> None:
        self.figures.append(Figure(name, value, unit, at_most))

    def add_spread(self, name: str, values: Sequence[float], unit: str, p95_at_most: float | None = None) -> None:
        """Median, 95th percentile (which has the target) and maximum of `values`."""
        self.add(f"{name}, p50", percentile(values, 0.5), unit)
        self.add(f"{name}, p95", percentile(values, 0.95), unit, p95_at_most)
        self.add(f"{name}, maximum", max(values, default=math.inf), unit)

    def value(self, name: str) -> float:
        """The figure of that name. Raises `KeyError` where there is none."""
        for figure in self.figures:
            if figure.name == name:
                return figure.value
        raise KeyError(name)

    @property
    def passed(self) -> bool:
        """No rule broken, every target met."""
        return self.broken is None and all(figure.met for figure in self.figures)

    def lines(self) -> list[str]:
        """The report for people, one line per figure."""
        head = f"{self.scenario}: {self.nodes} nodes, {self.virtual_s:,.0f} virtual s in {self.wall_s:.1f} s; "
        head += f"{self.steps:,} steps, {self.rules_checked:,} times the rules held; "
        head += f"run {self.digest} of seed {self.seed}"
        replay = f"meshnode simulate {self.scenario} --seed {self.seed}"
        tail = [f"  BROKEN RULE: {self.broken}", f"  replay: {replay}"] if self.broken else []
        return [head, *(f"  {figure.line()}" for figure in self.figures), *tail]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "scenario": self.scenario,
            "seed": self.seed,
            "nodes": self.nodes,
            "virtual_s": self.virtual_s,
            "wall_s": self.wall_s,
            "steps": self.steps,
            "rules_checked": self.rules_checked,
            "digest": self.digest,
            "figures": [figure.to_dict() for figure in self.figures],
            "broken": self.broken,
            "passed": self.passed,
        }


def _shown(value: float) -> str:
    """Counts whole, measures with four digits, never with an exponent."""
    if math.isinf(value):
        return "never"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def or_never(took: float | None) -> float:
    """A time that was measured, infinite where what was waited for did not happen."""
    return math.inf if took is None else took


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed; infinite where there are none."""
    if not values:
        return math.inf
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
