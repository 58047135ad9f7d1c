"""`meshnode invite`: a token that lets others join."""

from __future__ import annotations

from pathlib import Path

import click

from meshnode.cli.client import client_of, json_option, node_options
from meshnode.cli.output import print_json
from meshnode.cli.values import DURATION, USES


@click.command(short_help="Make a token that lets others join.")
@click.option("--role", type=click.Choice(("worker", "client")), default="worker", show_default=True,
              help="worker gives compute; client only uses the mesh.")  # fmt: skip
@click.option("--expires", type=DURATION, default="1h", show_default=True, metavar="TIME",
              help="How long it is good: 30m, 1h, 7d.")  # fmt: skip
@click.option("--uses", type=USES, default="1", show_default=True, metavar="N",
              help="How many nodes may join with it, or `unlimited` (then it must expire within 7 days).")  # fmt: skip
@click.option("--may-invite", is_flag=True, help="Nodes that join with it may invite others.")
@node_options
@json_option
def command(
    state_dir: Path | None, config_file: Path | None, as_json: bool,
    role: str, expires: int, uses: int | None, may_invite: bool,
) -> None:  # fmt: skip
    """Print a new invite token on stdout; what to do with it goes to stderr.

    Whoever has the token can join until it is used up, expires, or is revoked: treat it as a password. It is shown this
    once and stored nowhere.

    \b
    Examples:
      meshnode invite
      meshnode invite --role client --expires 7d
      meshnode invite --uses 5 > token.txt
    """
    request = {"role": role, "expires_s": expires, "uses": uses, "may_invite": may_invite}
    invite = client_of(state_dir, config_file).post("/v1/invites", request)
    if as_json:
        print_json(invite)
        return
    click.echo(invite["token"])
    click.echo("\nOn the other machine:  meshnode run --join TOKEN", err=True)
    click.echo("or, to keep it out of the shell's history:  meshnode run --join -  (then paste it)", err=True)
    click.echo(f"Admits {_uses(uses)} as {role} until {invite['expires_at']}. Token id {invite['token_id']}.", err=True)


def _uses(uses: int | None) -> str:
    return "any number of nodes" if uses is None else "1 node" if uses == 1 else f"{uses} nodes"
