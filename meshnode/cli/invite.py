"""`meshnode invite`: a token that lets others join."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Final

import click

from meshnode.cli.client import Json, client_of, json_option, node_options
from meshnode.cli.output import print_json
from meshnode.cli.values import DURATION, USES

QUIET_ZONE: Final = 2
"""Modules left blank around the code: half of what ISO/IEC 18004 asks, which cameras read and 80 columns hold."""


@click.command(short_help="Make a token that lets others join.")
@click.option("--role", type=click.Choice(("worker", "client")), default="worker", show_default=True,
              help="worker gives compute; client only uses the mesh.")  # fmt: skip
@click.option("--expires", type=DURATION, default="1h", show_default=True, metavar="TIME",
              help="How long it is good: 30m, 1h, 7d.")  # fmt: skip
@click.option("--uses", type=USES, default="1", show_default=True, metavar="N",
              help="How many nodes may join with it, or `unlimited` (then it must expire within 7 days).")  # fmt: skip
@click.option("--may-invite", is_flag=True, help="Nodes that join with it may invite others.")
@click.option("--qr", "as_qr", is_flag=True, help="Also show the token as a QR code (a camera can read it).")
@node_options
@json_option
def command(
    state_dir: Path | None, config_file: Path | None, as_json: bool,
    role: str, expires: int, uses: int | None, may_invite: bool, as_qr: bool,
) -> None:  # fmt: skip
    """Print a new invite token on stdout; what to do with it goes to stderr. On a terminal a line to copy follows, with
    which the other machine joins.

    Whoever has the token can join until it is used up, expires, or is revoked: treat it as a password. It is shown this
    once and stored nowhere.

    \b
    Examples:
      meshnode invite
      meshnode invite --qr
      meshnode invite --role client --expires 7d
      meshnode invite --uses 5 > token.txt
      meshnode invite | ssh study meshnode join
    """
    request = {"role": role, "expires_s": expires, "uses": uses, "may_invite": may_invite}
    invite = client_of(state_dir, config_file).post("/v1/invites", request)
    if as_json:
        print_json(invite)
    else:
        click.echo(invite["token"])
        _explain(invite, uses, role)
    if as_qr:
        _show_qr(invite["token"])


def _explain(invite: Json, uses: int | None, role: str) -> None:
    """How to use it. The token itself is repeated only where nothing but a screen takes it."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        # In the environment other users don't see it; the space keeps it out of the history of most shells.
        click.echo("\nTo join, copy this line to the other machine, with the space it begins with:\n", err=True)
        click.echo(f" MESHNODE_JOIN={invite['token']} meshnode run\n", err=True)
        click.echo("or there:  meshnode run --join -  (then paste the token)", err=True)
    else:
        click.echo("On the other machine:  meshnode run --join -  (then paste the token)", err=True)
    click.echo(f"Admits {_uses(uses)} as {role} until {invite['expires_at']}. Token id {invite['token_id']}.", err=True)


def _show_qr(token: str) -> None:
    import segno

    code = segno.make(token, error="l", micro=False)
    drawn = io.StringIO()
    code.terminal(drawn, border=QUIET_ZONE, compact=True)
    columns = code.symbol_size(border=QUIET_ZONE)[0]
    terminal = shutil.get_terminal_size().columns
    if columns > terminal:
        click.echo(f"(the QR code needs {columns} columns, this terminal has {terminal}: make it wider)", err=True)
        return
    # White on black by force: on a light terminal the code would come out inverted, which some cameras don't read.
    on, off = ("\x1b[40;97m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    click.echo("\n".join(f"{on}{line}{off}" for line in drawn.getvalue().splitlines()), err=True)


def _uses(uses: int | None) -> str:
    return "any number of nodes" if uses is None else "1 node" if uses == 1 else f"{uses} nodes"
