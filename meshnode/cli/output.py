"""How verbs print: tables for people, JSON for scripts, one place for units.

What lives here: `print_json`, `print_table` and the wordings of single figures. rich is imported only when a table is
printed. An unknown figure is a dash or the word `unknown`, never 0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from rich.console import Console

NOTHING = "-"
ID_LENGTH = 52
SHORT_LENGTH = 10
LEAST_ESTIMATE_MS = 5.0
LEAST_SHOWN_MS = 0.05
"""What rounds to 0.0 with one digit: no path takes nothing."""
WIDE = 200
"""Columns where no terminal tells how wide it is: a pipe must not cut words off."""
MIN_PROSE = 16
"""Columns that a text broken into lines needs at least to be read."""


def print_json(value: object) -> None:
    """One JSON document, indented, on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def console() -> Console:
    """rich's console for stdout: colours on a terminal, plain and wide in a pipe."""
    import sys

    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            """rich would end the process with 1 here; how a verb without a reader ends is decided in one place."""
            raise BrokenPipeError

    # Under NO_COLOR rich itself still writes bold and dim, which the other verbs' lines then lack.
    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    width = None if sys.stdout.isatty() else WIDE
    return Plain(highlight=False, soft_wrap=False, width=width, color_system=colours)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: frozenset[str] = frozenset(),
    spare: Sequence[str] = (),
    prose: frozenset[str] = frozenset(),
) -> None:
    """A table without lines around it. Columns named in `right` are aligned right, as figures are.

    Where the terminal is too narrow, columns of `spare` go, empty ones first, then in their order, and a line says
    which. Only columns of `prose` are meant to be broken into lines; an id or a figure in pieces can't be read.
    """
    from rich.table import Table
    from rich.text import Text

    out = console()
    left_out = _too_many(columns, rows, spare, prose, out.width)
    kept = [column for column in columns if column not in left_out]
    whole = _width(kept, columns, rows, prose) <= out.width
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for column in kept:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        # Unbroken only where all fits: otherwise rich would cut the rest of a cell off.
        table.add_column(column, justify=justify, overflow="fold", no_wrap=whole and column not in prose)
    for row in rows:
        # Texts of peers are data: as `Text` they can't carry markup.
        cells = (Text(printable(cell)) for column, cell in zip(columns, row, strict=True) if column in kept)
        table.add_row(*cells)
    out.print(table)
    if left_out:
        click.echo(f"(left out, the terminal is too narrow: {', '.join(left_out)})")


def _too_many(
    columns: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str], prose: frozenset[str], width: int
) -> list[str]:
    """The columns of `spare` that have to go so that the rest fits into `width` cells."""
    empty = {column for at, column in enumerate(columns) if all(row[at] == NOTHING for row in rows)}
    left_out: list[str] = []
    for column in sorted(spare, key=lambda column: column not in empty):
        if _width([each for each in columns if each not in left_out], columns, rows, prose) <= width:
            break
        left_out.append(column)
    return left_out


def _width(kept: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence[str]], prose: frozenset[str]) -> int:
    """Cells that a table of the columns `kept` needs at least."""
    from rich.cells import cell_len

    widest = {
        column: max(map(cell_len, (column, *(printable(row[at]) for row in rows)))) for at, column in enumerate(columns)
    }
    return sum(min(widest[each], MIN_PROSE) if each in prose else widest[each] for each in kept) + 2 * (len(kept) - 1)


def printable(text: str) -> str:
    """`text` without control characters: a peer's name must not move the cursor or colour the terminal."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def node_text(node: str, names: Mapping[str, str]) -> str:
    """`mfrggzdfmz (attic)`; a node of a nodes file keeps its whole id."""
    shown = node[:SHORT_LENGTH] if len(node) == ID_LENGTH else node
    name = names.get(node, "")
    return printable(f"{shown} ({name})" if name else shown)


def gigabytes(count: int | None) -> str:
    """Bytes as people read them: decimal GB, one digit."""
    return NOTHING if count is None else f"{count / 1e9:.1f}GB"


def duration(seconds: float | None) -> str:
    """A length of time in its largest two units."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 48 else f"{hours // 24}d{hours % 24}h"


def rtt(figure: dict[str, Any] | None) -> str:
    """An RTT with a mark for what kind of figure it is: `~` an estimate, `?` not yet corroborated."""
    if figure is None:
        return "unknown"
    if figure["estimated"]:
        return estimate(figure["min_ms"])
    value = f"{figure['min_ms']:.1f}" if figure["min_ms"] >= LEAST_SHOWN_MS else "<0.1"
    return f"{'' if figure['corroborated'] else '?'}{value}ms"


def estimate(rtt_ms: float) -> str:
    """An RTT estimated from coordinates, which tell nothing apart below 5 ms."""
    return "~<5ms" if rtt_ms < LEAST_ESTIMATE_MS else f"~{rtt_ms:.1f}ms"
