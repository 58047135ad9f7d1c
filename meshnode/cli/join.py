"""`meshnode join`: become a member of a mesh without running the node."""

from __future__ import annotations

from pathlib import Path

import click

from meshnode.cli.client import json_option, node_options
from meshnode.cli.failures import Failure
from meshnode.cli.output import print_json
from meshnode.exit_codes import BAD_USAGE


@click.command(short_help="Become a member of a mesh without running the node.")
@click.option("--join-file", type=click.Path(path_type=Path), metavar="FILE", help="Read the token from this file.")
@click.option("--client", is_flag=True, help="This node will use the mesh and give it no compute.")
@node_options
@json_option
def command(
    state_dir: Path | None, config_file: Path | None, as_json: bool, join_file: Path | None, client: bool
) -> None:
    """Redeem an invite token and end: this node is a member then, and `meshnode run` or `meshnode service install` goes
    on without a token.

    The token comes from --join-file, from the environment's MESHNODE_JOIN, or from stdin; on a terminal it is asked
    for and not shown. It is no argument on purpose: those are seen by every user of the machine.

    \b
    Examples:
      meshnode join
      meshnode join --join-file token.txt
      ssh attic meshnode invite | meshnode join
    """
    from meshnode.cli.run import token_of
    from meshnode.config import ConfigError, load_config

    try:
        config = load_config({"state_dir": state_dir, "client": client or None}, file=config_file)
    except ConfigError as error:
        raise Failure(str(error), exit_code=BAD_USAGE) from error
    token = token_of(None, join_file) or token_of("-", None)
    assert token is not None, "stdin gives one or fails"
    from meshnode.daemon import StartFailed
    from meshnode.joining_alone import join_alone

    try:
        joined = join_alone(config, token, tell=lambda line: click.echo(line, err=True))
    except StartFailed as failure:
        raise Failure(failure.message, failure.advice) from failure
    if as_json:
        print_json({"mesh": joined.mesh, "node": joined.node, "role": joined.role, "already": joined.already})
        return
    was = "is a member already" if joined.already else f"is a member now, {joined.role}"
    click.echo(f"mesh {joined.mesh}\nnode {joined.node} {was}")
    click.echo("next: `meshnode run`, or `meshnode service install`; it needs the token no more", err=True)
