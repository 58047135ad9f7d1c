"""`meshnode approve`: let a node in that asks without a token."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

import click

from meshnode.cli.client import ControlClient, Json, client_of, json_option, node_options
from meshnode.cli.failures import Failure
from meshnode.cli.output import print_json
from meshnode.cli.values import DURATION
from meshnode.exit_codes import BAD_USAGE

LOOK_EVERY_S: Final = 1.0
ROUTE: Final = "/v1/approvals"


@click.command(short_help="Let a node in that asks, after comparing six words.")
@click.argument("words", nargs=-1)
@click.option("--for", "open_s", type=DURATION, default="10m", show_default=True, metavar="TIME",
              help="How long to wait for one, at most 1h.")  # fmt: skip
@click.option("--role", type=click.Choice(("worker", "client")), default="worker", show_default=True,
              help="What it may be at most.")  # fmt: skip
@click.option("--interface", "interfaces", multiple=True, metavar="ADDRESS",
              help="Announce only on the interface with this address. May be repeated.")  # fmt: skip
@node_options
@json_option
def command(
    state_dir: Path | None, config_file: Path | None, as_json: bool,
    words: tuple[str, ...], open_s: int, role: str, interfaces: tuple[str, ...],
) -> None:  # fmt: skip
    """Announce this mesh on the local network and let one node in that asks with `meshnode join --lan`. Both screens
    show six words; accept only if they are the same: then nobody is in between.

    With the six words of the other screen as arguments, the node that has exactly these is accepted without a
    question; another `meshnode approve` must be waiting meanwhile.

    \b
    Examples:
      meshnode approve
      meshnode approve --role client --for 2m
      meshnode approve coral otter lemon sandal piano igloo
    """
    client = client_of(state_dir, config_file)
    if words:
        spelled = [word.lower() for argument in words for word in argument.split()]
        decided = client.post(ROUTE, {"words": spelled, "accept": True})
    else:
        decided = _attended(client, open_s, role, interfaces)
    if as_json:
        print_json(decided)
        return
    click.echo(f"node {decided['node']} may join as {decided['role']}; it fetches its membership now")


def _attended(client: ControlClient, open_s: int, role: str, interfaces: tuple[str, ...]) -> Json:
    """Wait until one request was accepted."""
    if open_s > 3600:
        raise Failure(f"--for: found {open_s} s, expected at most 1h", exit_code=BAD_USAGE)
    status = client.get("/v1/status")
    client.post(ROUTE, {"open_s": open_s, "role": role})
    try:
        with contextlib.ExitStack() as stack:
            _announce(stack, status, interfaces)
            click.echo("On the other machine:  meshnode join --lan", err=True)
            return _first_accepted(client, time.monotonic() + open_s)
    finally:
        _close_later(client)


def _announce(stack: contextlib.ExitStack, status: Json, interfaces: tuple[str, ...]) -> None:
    from meshnode.lan import FoundMember, LanUnavailable, announced
    from proto.ids import MeshId, NodeId

    member = FoundMember(
        MeshId(status["mesh"]["mesh"]), NodeId(status["node"]), status["name"], tuple(status["addresses"])
    )
    if not member.addresses:
        raise Failure("this node knows no address of its own yet", "connect a network, or name one with --advertise")
    try:
        stack.enter_context(announced(member, interfaces))
    except LanUnavailable as error:
        raise Failure(error.message, error.advice) from error
    click.echo(f"mesh {member.mesh[:10]} is announced on the local network as {member.name}", err=True)


def _first_accepted(client: ControlClient, until_s: float) -> Json:
    refused: set[tuple[str, ...]] = set()
    while time.monotonic() < until_s:
        shown = client.get(ROUTE)
        for request in shown["requests"]:
            if request["accepted"]:
                return dict(request)
            if request["accepted"] is None and tuple(request["words"]) not in refused:
                if _asked(request):
                    return client.post(ROUTE, {"words": request["words"], "accept": True})
                refused.add(tuple(request["words"]))
                client.post(ROUTE, {"words": request["words"], "accept": False})
        time.sleep(LOOK_EVERY_S)
    raise Failure("nobody was let in", "run `meshnode approve` again when the other machine is ready")


def _asked(request: Json) -> bool:
    click.echo(f"\n{request['address']} asks to join as {request['role']}. Six words:\n", err=True)
    click.echo("    " + "  ".join(request["words"]) + "\n", err=True)
    return click.confirm("Does its screen show the same six words?", default=False, err=True)


def _close_later(client: ControlClient) -> None:
    """Whoever was accepted must still be able to fetch its membership; then the desk closes by itself."""
    with contextlib.suppress(Failure):
        accepted = any(request["accepted"] for request in client.get(ROUTE)["requests"])
        client.post(ROUTE, {"open_s": 30 if accepted else 0})
