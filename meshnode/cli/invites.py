"""`meshnode invites`: the tokens this node issued, and revoking one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from meshnode.cli.client import Json, client_of, json_option, node_options
from meshnode.cli.output import node_text, print_json, print_table

ID_LENGTH = 12
"""Enough of a token's id to name it; --json has the whole."""


@click.group(invoke_without_command=True, short_help="List the tokens this node issued, or revoke one.")
@node_options
@json_option
@click.pass_context
def command(ctx: click.Context, state_dir: Path | None, config_file: Path | None, as_json: bool) -> None:
    """The tokens this node issued: uses left, expiry, who joined with them. The tokens themselves are stored nowhere.

    \b
    Examples:
      meshnode invites
      meshnode invites revoke 3f9c
    """
    ctx.obj = (state_dir, config_file)
    if ctx.invoked_subcommand is not None:
        return
    client = client_of(state_dir, config_file)
    answer = client.get("/v1/invites")
    if as_json:
        print_json(answer)
        return
    if not answer["invites"]:
        click.echo("this node has issued no tokens; `meshnode invite` makes one")
        return
    columns = ("ID", "ROLE", "MAY INVITE", "USES LEFT", "EXPIRES", "STATE", "JOINED")
    names = client.names()
    rows = [_row(one, names) for one in answer["invites"]]
    print_table(columns, rows, spare=("MAY INVITE", "ROLE"), prose=frozenset({"JOINED"}))


@command.command(short_help="Make a token worthless.")
@click.argument("token_id")
@node_options
@click.pass_obj
def revoke(
    node: tuple[Path | None, Path | None], token_id: str, state_dir: Path | None, config_file: Path | None
) -> None:
    """Make the token with this id (or its unmistakable beginning) worthless. Nodes that joined with it stay;
    `meshnode remove` removes those.

    \b
    Examples:
      meshnode invites revoke 3f9c
      meshnode invites revoke 3f9c --state-dir /var/lib/meshnode
    """
    from urllib.parse import quote

    client = client_of(state_dir or node[0], config_file or node[1])
    answer = client.delete(f"/v1/invites/{quote(token_id, safe='')}")
    click.echo(f"token {answer['token_id']} is revoked")


def _row(invite: Json, names: Mapping[str, str]) -> tuple[str, ...]:
    uses = "unlimited" if invite["uses"] is None else f"{invite['uses_left']} of {invite['uses']}"
    joined = ", ".join(node_text(node, names) for node in invite["redeemed_by"]) or "-"
    may_invite = "yes" if invite["may_invite"] else "no"
    token_id = invite["token_id"][:ID_LENGTH]
    return (token_id, invite["role"], may_invite, uses, invite["expires_at"], invite["state"], joined)
