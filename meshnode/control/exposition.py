"""Prometheus' text format, version 0.0.4.

What lives here: `exposition`. What does not: which figures there are (`meshnode.control.metrics`). A label may hold a
peer's own words, so control characters are taken out besides what the format asks to be escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

Kind = Literal["counter", "gauge"]
Sample = tuple[Mapping[str, str], float]
"""Labels and value."""


def exposition(metrics: Iterable[tuple[str, Kind, str, Iterable[Sample]]]) -> str:
    """The text of `(name, kind, help, samples)`."""
    lines: list[str] = []
    for name, kind, meaning, samples in metrics:
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _number(value: float) -> str:
    """Whole numbers to the last digit: a capacity in bytes has twelve."""
    return str(value) if isinstance(value, int) else f"{value:.9g}"


def _escaped(value: str) -> str:
    shown = "".join(character if character.isprintable() else "?" for character in value)
    return shown.replace("\\", r"\\").replace('"', r"\"")
