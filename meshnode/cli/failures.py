"""How a verb fails: one line that says what, one that says what to do, and an exit code scripts can use.

What lives here: `Failure`; the exit codes are `meshnode.exit_codes`. Called by every verb.
"""

from __future__ import annotations

from typing import IO, Any

import click

from meshnode.cli.output import printable
from meshnode.exit_codes import REFUSED


class Failure(click.ClickException):
    """Ends the verb with `exit_code`, printing `message` and, indented, `advice`."""

    def __init__(self, message: str, advice: str = "", exit_code: int = REFUSED) -> None:
        super().__init__(message)
        self.advice = advice
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it on the class; here each failure has its own

    def show(self, file: IO[Any] | None = None) -> None:
        """Print to stderr. What a peer said may be part of it, and must not drive the terminal."""
        click.echo(f"error: {printable(self.message)}", err=True, file=file)
        if self.advice:
            click.echo(f"  {printable(self.advice)}", err=True, file=file)
