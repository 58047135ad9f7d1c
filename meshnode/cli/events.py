"""`meshnode events`: the recent past, and with `--follow` what happens from now on."""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from meshnode.cli.client import ControlClient, Json, client_of, json_option, node_options
from meshnode.cli.failures import Failure
from meshnode.cli.output import node_text, printable
from meshnode.resources.sizes import amount

_COLOURS = {"debug": "bright_black", "info": "green", "warning": "yellow", "error": "red"}
_LEVELS = ("debug", "info", "warning", "error")
ASK_AGAIN_S: Final = 1.0
_HEAD = ("id", "timestamp", "level", "event")
_ID = re.compile(r"\b[a-z2-7]{52}\b")


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
    names = _Names(client)
    quietest = _LEVELS.index(level)
    if follow:
        found = client.events("/v1/events?" + urlencode({"name": name}))
    else:
        found = iter(client.get("/v1/events?" + urlencode({"name": name, "follow": "0"}))["events"])
    try:
        for event in found:
            if _LEVELS.index(event["level"]) >= quietest:
                click.echo(json.dumps(event, ensure_ascii=False) if as_json else line_of(event, names))
    except KeyboardInterrupt:
        click.echo()


class _Names:
    """What people call the nodes; asked for anew, not too often, when an id appears whose name is not known."""

    def __init__(self, client: ControlClient) -> None:
        self._client = client
        self._known: dict[str, str] = {}
        self._asked_s = -math.inf

    def __call__(self, node: str) -> str:
        if node not in self._known and time.monotonic() > self._asked_s + ASK_AGAIN_S:
            self._asked_s = time.monotonic()
            with contextlib.suppress(Failure):  # the node stops: its last events are still worth a line
                self._known.update(self._client.names())
        return self._known.get(node, "")


def line_of(event: Json, name_of: Callable[[str], str] = lambda node: "") -> str:
    """One event as people read it: local time, level, name, then its fields; a node with its name."""
    stamp = event.get("timestamp")
    at = datetime.fromisoformat(stamp).astimezone().strftime("%H:%M:%S") if stamp else " " * 8
    level = click.style(f"{event['level']:<7}", fg=_COLOURS[event["level"]])
    shown = {name: value for name, value in event.items() if _is_shown(name, value)}
    fields = " ".join(f"{name}={_value(name, value, name_of)}" for name, value in shown.items())
    return f"{at} {level} {event['event']:<20} {printable(fields)}"


def _is_shown(name: str, value: object) -> bool:
    return name not in _HEAD and value not in (None, "", [])


def _value(name: str, value: object, name_of: Callable[[str], str]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_value(name, entry, name_of) for entry in value) + "]"
    if name.endswith("_bytes") and isinstance(value, int):
        return amount(value)
    return _ID.sub(lambda found: node_text(found[0], {found[0]: name_of(found[0])}), str(value))
