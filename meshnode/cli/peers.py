"""`meshnode peers`: every node of the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from meshnode.cli.client import Json, client_of, json_option, node_options
from meshnode.cli.output import NOTHING, duration, gigabytes, print_json, print_table, rtt


@click.command(short_help="Every node of the mesh: role, liveness, memory, RTT.")
@click.option("--all", "show_all", is_flag=True, help="Also nodes that left or died and are still remembered.")
@node_options
@json_option
def command(state_dir: Path | None, config_file: Path | None, as_json: bool, show_all: bool) -> None:
    """Every node of the mesh as this node sees it.

    USABLE is what plans may fill (`declared`: stated by its operator, measured by nobody). RTT is the least one
    measured from here; `~` marks an estimate, `?` a figure that too few samples back so far.

    \b
    Examples:
      meshnode peers
      meshnode peers --all
      meshnode peers --json | jq -r '.peers[] | select(.status == "alive") | .node'
    """
    answer = client_of(state_dir, config_file).get("/v1/peers")
    if as_json:
        print_json(answer)
        return
    peers = [peer for peer in answer["peers"] if show_all or peer["status"] in {"alive", "suspect"}]
    columns = ("NODE", "NAME", "ROLE", "STATUS", "USABLE", "RTT", "PATH", "ADDRESS", "SINCE")
    spare = ("SINCE", "PATH", "ADDRESS", "ROLE")
    names = {peer["node"]: peer["name"] for peer in answer["peers"]}
    print_table(
        columns, [_row(peer, names) for peer in peers], right=frozenset({"USABLE", "RTT", "SINCE"}), spare=spare
    )
    hidden = len(answer["peers"]) - len(peers)
    if hidden:
        click.echo(f"{hidden} more that left or died; --all shows them")
    if len(answer["peers"]) == 1:
        click.echo("(nobody else is in this mesh: `meshnode invite` lets others in; each `meshnode run` without a token"
                   " founds a mesh of its own)")  # fmt: skip


def _row(peer: Json, names: Mapping[str, str]) -> tuple[str, ...]:
    link = peer["link"]
    is_self = peer["self"]
    return (
        peer["short"],
        (peer["name"] or NOTHING) + (" (this node)" if is_self else ""),
        peer["role"],
        "connecting" if peer["connecting"] and link is None and peer["status"] == "alive" else peer["status"],
        usable_of(peer),
        NOTHING if is_self else rtt(peer["rtt"]),
        NOTHING if link is None else link["path"],
        (peer["addresses"] or [NOTHING])[0] if link is None else _where(link, names),
        duration(peer["status_since_s"]),
    )


def _where(link: Json, names: Mapping[str, str]) -> str:
    """The address that a link leads to, or the neighbour that carries it."""
    carrier = link.get("carrier")
    return f"through {names.get(carrier) or carrier[:10]}" if carrier else link["address"]


def usable_of(peer: Json) -> str:
    """What a node's devices may take: a client's is nothing by role, an offer not yet received is unknown."""
    if peer["role"] == "client":
        return NOTHING
    offer = peer["offer"]
    if offer is None:
        return "unknown"
    return gigabytes(offer["usable_bytes"]) + (" declared" if offer["declared"] else "")
