"""`meshnode events`: the recent past, and with `--follow` what happens from now on."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import click

from meshnode.cli.client import Json, client_of, json_option, node_options
from meshnode.cli.output import printable

_COLOURS = {"debug": "bright_black", "info": "green", "warning": "yellow", "error": "red"}
_LEVELS = ("debug", "info", "warning", "error")
_HEAD = ("id", "timestamp", "level", "event")
_ID = re.compile(r"\b([a-z2-7]{10})[a-z2-7]{42}\b")


@click.command(short_help="What happened, and with --follow what happens.")
@click.option("--follow", "-f", is_flag=True, help="Go on with events as they come, until Ctrl-C.")
@click.option("--name", default="", metavar="PREFIX", help="Only events whose name begins so, such as `peer.`.")
@click.option("--level", type=click.Choice(_LEVELS), default="info", show_default=True, help="Leave out quieter ones.")
@node_options
@json_option
def command(
    state_dir: Path | None, config_file: Path | None, as_json: bool, follow: bool, name: str, level: str
) -> None:
    """What happened lately on this node; docs/events.md explains each event.

    \b
    Examples:
      meshnode events
      meshnode events --follow --name split.
      meshnode events --follow --json | jq -r .event
    """
    from urllib.parse import urlencode

    client = client_of(state_dir, config_file)
    quietest = _LEVELS.index(level)
    if follow:
        found = client.events("/v1/events?" + urlencode({"name": name}))
    else:
        found = iter(client.get("/v1/events?" + urlencode({"name": name, "follow": "0"}))["events"])
    try:
        for event in found:
            if _LEVELS.index(event["level"]) >= quietest:
                click.echo(json.dumps(event, ensure_ascii=False) if as_json else line_of(event))
    except KeyboardInterrupt:
        click.echo()


def line_of(event: Json) -> str:
    """One event as people read it: local time, level, name, then its fields."""
    stamp = event.get("timestamp")
    time = datetime.fromisoformat(stamp).astimezone().strftime("%H:%M:%S") if stamp else " " * 8
    level = click.style(f"{event['level']:<7}", fg=_COLOURS[event["level"]])
    fields = " ".join(f"{name}={_value(name, value)}" for name, value in event.items() if _is_shown(name, value))
    return f"{time} {level} {event['event']:<20} {printable(fields)}"


def _is_shown(name: str, value: object) -> bool:
    return name not in _HEAD and value not in (None, "", [])


def _value(name: str, value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_value(name, entry) for entry in value) + "]"
    if name.endswith("_bytes") and isinstance(value, int):
        return f"{value / 1e9:.1f}GB"
    return _ID.sub(r"\1", str(value))
