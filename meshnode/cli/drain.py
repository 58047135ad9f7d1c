"""`meshnode drain`: this node takes no new stages, or takes them again."""

from __future__ import annotations

from pathlib import Path

import click

from meshnode.cli.client import client_of, json_option, node_options
from meshnode.cli.output import print_json


@click.command(short_help="Take no new stages on this node, before a restart or an update.")
@click.option("--cancel", is_flag=True, help="Take stages again.")
@node_options
@json_option
def command(state_dir: Path | None, config_file: Path | None, as_json: bool, cancel: bool) -> None:
    """Take no new stages on this node: other members leave it out of their plans as `draining`. What it holds stays.

    It ends with --cancel, or when the node starts anew.

    \b
    Examples:
      meshnode drain
      meshnode drain --cancel
    """
    answer = client_of(state_dir, config_file).post("/v1/drain", {"draining": not cancel})
    if as_json:
        print_json(answer)
    elif answer["draining"]:
        click.echo("this node takes no new stages; `meshnode drain --cancel` takes them again")
    else:
        click.echo("this node takes stages again")
