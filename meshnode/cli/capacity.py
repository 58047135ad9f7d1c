"""`meshnode capacity`: what this machine gives, device by device."""

from __future__ import annotations

from pathlib import Path

import click

from meshnode.cli.client import Json, client_of, json_option, node_options
from meshnode.cli.failures import Failure
from meshnode.cli.output import NOTHING, gigabytes, print_json, print_table, printable
from meshnode.exit_codes import UNREACHABLE


@click.command(short_help="What this machine gives, device by device.")
@node_options
@json_option
def command(state_dir: Path | None, config_file: Path | None, as_json: bool) -> None:
    """What this machine gives to the mesh, device by device, and what limits it.

    Asks the running node; where none runs, looks at the machine itself with the same config.

    \b
    Examples:
      meshnode capacity
      meshnode capacity --json | jq .usable_bytes
    """
    try:
        capacity = client_of(state_dir, config_file).get("/v1/capacity")
    except Failure as failure:
        if failure.exit_code != UNREACHABLE:
            raise
        capacity = _surveyed(state_dir, config_file)
    if as_json:
        print_json(capacity)
        return
    _print(capacity)


def _surveyed(state_dir: Path | None, config_file: Path | None) -> Json:
    from meshnode.config import load_config
    from meshnode.offers import capacity_json, survey

    config = load_config({"state_dir": state_dir}, file=config_file)
    return capacity_json(survey(config), reserved={}, client=config.client)


def _print(capacity: Json) -> None:
    columns = ("DEVICE", "KIND", "NAME", "TOTAL", "OFFERED", "USABLE", "RESERVED", "BANDWIDTH", "FIGURE")
    rows = [_row(device) for device in capacity["devices"]]
    print_table(
        columns, rows, right=frozenset(columns[3:8]), spare=("RESERVED", "KIND", "TOTAL"), prose=frozenset({"NAME"})
    )
    source = "declared" if capacity["host_declared"] else "measured"
    host = f"{gigabytes(capacity['host_usable_bytes'])} ({source})"
    click.echo(f"\nusable in all {gigabytes(capacity['usable_bytes'])}; as a coordinator's host {host}")
    if capacity["client"]:
        click.echo("this node is a client: it offers none of it")
    for finding in capacity["findings"]:
        click.echo(f"{finding['severity']}: {printable(finding['message'])}")


def _row(device: Json) -> tuple[str, ...]:
    bandwidth = device["memory_bandwidth_bytes_per_s"]
    speed = "unknown" if bandwidth is None else f"{bandwidth / 1e9:.0f}GB/s {device['bandwidth_source']}"
    return (
        device["id"][:24],
        device["kind"],
        device["name"] or NOTHING,
        gigabytes(device["total_bytes"]),
        gigabytes(device["capacity_bytes"]),
        gigabytes(device["usable_bytes"]),
        gigabytes(device["reserved_bytes"]),
        speed,
        "declared" if device["declared"] else "measured",
    )
