"""`meshnode join`: become a member of a mesh without running the node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from meshnode.cli.client import json_option, node_options
from meshnode.cli.failures import Failure
from meshnode.cli.output import print_json
from meshnode.exit_codes import BAD_USAGE

if TYPE_CHECKING:
    from meshnode.config import NodeConfig
    from meshnode.joining.alone import Joined
    from meshnode.lan import FoundMesh

LOOK_S: Final = 3.0
"""Answers to a question by multicast come within a second; a sleeping Wi-Fi takes longer."""


@click.command(short_help="Become a member of a mesh without running the node.")
@click.option("--join-file", type=click.Path(path_type=Path), metavar="FILE", help="Read the token from this file.")
@click.option("--lan", is_flag=True, help="Look for meshes on the local network, and ask one to let this node in.")
@click.option("--mesh", "fingerprint", metavar="START", help="With --lan: the mesh whose fingerprint begins so.")
@click.option("--interface", "interfaces", multiple=True, metavar="ADDRESS",
              help="With --lan: look only on the interface with this address. May be repeated.")  # fmt: skip
@click.option("--client", is_flag=True, help="This node will use the mesh and give it no compute.")
@node_options
@json_option
def command(
    state_dir: Path | None, config_file: Path | None, as_json: bool,
    join_file: Path | None, lan: bool, fingerprint: str | None, interfaces: tuple[str, ...], client: bool,
) -> None:  # fmt: skip
    """Redeem an invite token and end: this node is a member then, and `meshnode run` or `meshnode service install` goes
    on without a token.

    The token comes from --join-file, from the environment's MESHNODE_JOIN, or from stdin; on a terminal it is asked
    for and not shown. It is no argument on purpose: those are seen by every user of the machine.

    Without a token: run `meshnode approve` on a member and `meshnode join --lan` here. Both screens show six words; if
    they are the same, nobody is in between, and both of you accept.

    \b
    Examples:
      meshnode join
      meshnode join --join-file token.txt
      ssh attic meshnode invite | meshnode join
      meshnode join --lan
    """
    from meshnode.config import ConfigError, load_config
    from meshnode.daemon import StartFailed

    try:
        config = load_config({"state_dir": state_dir, "client": client or None}, file=config_file)
    except ConfigError as error:
        raise Failure(str(error), exit_code=BAD_USAGE) from error
    if not lan and (fingerprint or interfaces):
        raise Failure("--mesh and --interface go with --lan", exit_code=BAD_USAGE)
    if lan and join_file is not None:
        raise Failure("--lan and --join-file are both given", "a token needs no --lan: it says where", BAD_USAGE)
    try:
        joined = _by_approval(config, fingerprint, interfaces) if lan else _by_token(config, join_file)
    except StartFailed as failure:
        raise Failure(failure.message, failure.advice) from failure
    if as_json:
        print_json({"mesh": joined.mesh, "node": joined.node, "role": joined.role, "already": joined.already})
        return
    was = "is a member already" if joined.already else f"is a member now, {joined.role}"
    click.echo(f"mesh {joined.mesh}\nnode {joined.node} {was}")
    click.echo("next: `meshnode run`, or `meshnode service install`; it needs the token no more", err=True)


def _by_token(config: NodeConfig, join_file: Path | None) -> Joined:
    from meshnode.cli.run import token_of
    from meshnode.joining.alone import join_alone

    token = token_of(None, join_file) or token_of("-", None)
    assert token is not None, "stdin gives one or fails"
    return join_alone(config, token, tell=_tell)


def _by_approval(config: NodeConfig, fingerprint: str | None, interfaces: tuple[str, ...]) -> Joined:
    from meshnode.joining.approval import seek_approval

    mesh = _chosen(_found(interfaces), fingerprint)
    member = mesh.members[0]
    return seek_approval(config, mesh.mesh, member.node, member.addresses, confirm=_confirmed, tell=_tell)


def _found(interfaces: tuple[str, ...]) -> list[FoundMesh]:
    from meshnode.lan import LanUnavailable, by_mesh, look_around

    _tell("looking for meshes on the local network ...")
    try:
        found = by_mesh(look_around(LOOK_S, interfaces))
    except LanUnavailable as error:
        raise Failure(error.message, error.advice) from error
    if not found:
        advice = "run `meshnode approve` on a member in the same network; guest Wi-Fi keeps machines apart"
        raise Failure("no mesh announces itself on the local network", advice)
    for number, mesh in enumerate(found, 1):
        _tell(f"  {number}  mesh {mesh.fingerprint}  announced by {mesh.called}")
    return found


def _chosen(found: list[FoundMesh], fingerprint: str | None) -> FoundMesh:
    if fingerprint is not None:
        fitting = [mesh for mesh in found if mesh.mesh.startswith(fingerprint)]
        if len(fitting) != 1:
            problem = "no mesh" if not fitting else f"{len(fitting)} meshes"
            raise Failure(f"--mesh: {problem} found whose fingerprint begins with {fingerprint!r}")
        return fitting[0]
    if len(found) == 1:
        return found[0]
    number: int = click.prompt("which one", type=click.IntRange(1, len(found)), err=True)
    return found[number - 1]


def _confirmed(words: tuple[str, ...]) -> bool:
    _tell("\nSix words:\n\n    " + "  ".join(words) + "\n")
    return click.confirm("Does the member's screen show the same six words?", default=False, err=True)


def _tell(line: str) -> None:
    click.echo(line, err=True)
