"""`meshnode version`: versions of the program and of what it speaks."""

from __future__ import annotations

import platform

import click

from meshnode.cli.client import json_option
from meshnode.cli.output import print_json


@click.command(short_help="Versions of the program and its protocols.")
@json_option
def command(as_json: bool) -> None:
    """Versions of the program, of the protocol it speaks, and of Python.

    \b
    Examples:
      meshnode version
      meshnode version --json | jq -r .meshnode
    """
    from meshnode import __version__
    from proto.versions import OURS, STAGE_PROTOCOL_GENERATION

    if as_json:
        print_json(
            {
                "meshnode": __version__,
                "protocol": {"lowest": str(OURS.lowest), "highest": str(OURS.highest)},
                "stage_protocol_generation": STAGE_PROTOCOL_GENERATION,
                "python": platform.python_version(),
            }
        )
        return
    click.echo(f"meshnode {__version__}")
    click.echo(f"protocol {OURS}, stage protocol generation {STAGE_PROTOCOL_GENERATION}")
    click.echo(f"Python {platform.python_version()}")
