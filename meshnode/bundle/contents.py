"""What goes into a support bundle, gathered from a running node or, where none runs, from what it left.

What lives here: `Piece`, `gathered`. What does not: redaction (`redactor`, to which everything goes before it is
written) and the zip (`archive`). Called by `meshnode bundle`.

Never gathered at all: the contents of the state directory (only names, sizes and modes), tokens, model files.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from meshnode import __version__
from meshnode.config import NodeConfig
from meshnode.config.as_json import config_json
from meshnode.config.keys import ENVIRONMENT_PREFIX
from proto.versions import OURS, STAGE_PROTOCOL_GENERATION

Json = dict[str, Any]
MAX_LOG_BYTES: Final = 1024 * 1024
ROUTES: Final = ("status", "config", "peers", "rtt", "capacity", "models", "splits", "invites")
"""Routes below /v1/ that are asked, each a file of its own."""

_README: Final = """\
A support bundle of a meshnode node, made by `meshnode bundle` {version}.

versions.json    the program, its libraries, the system
state-files.json names, sizes and modes of the state directory's files, none of their contents
doctor.json      what `meshnode doctor` found
config.json      the configuration as it is in force
log-tail.jsonl   the end of the log file, where there is one
{running}
Private keys, tokens, credentials and passwords are replaced by [redacted]{addresses}.
It does name: node ids, node names, model names and paths below ~. Look it through before you hand it on.
"""
_RUNNING: Final = """\
status.json, peers.json, rtt.json, capacity.json, models.json, splits.json, invites.json (without tokens)
                 the running node's own words
events.jsonl     its recent events
metrics.txt      its figures, as Prometheus reads them
"""


@dataclass(frozen=True, slots=True)
class Piece:
    """One file of the bundle: a JSON value or a text; `is_lines` where its end is of use without its beginning."""

    name: str
    value: Any
    is_lines: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """How a running node is asked: `get` gives a route's JSON, `text` a route's text; both may raise, with one line
    that says why. None of it where no node runs."""

    get: Callable[[str], Json]
    text: Callable[[str], str]


def gathered(config: NodeConfig, doctor: Json, source: Source | None, *, hides_addresses: bool) -> list[Piece]:
    """Every piece, the most telling first: where the bundle's room ends, the last ones are left out."""
    pieces = [
        Piece("README.txt", _readme(source is not None, hides_addresses)),
        Piece("versions.json", versions()),
        Piece("doctor.json", doctor),
        Piece("state-files.json", state_files(config.state_dir)),
    ]
    log_file = config.log_file
    if source is None:
        pieces.append(Piece("config.json", config_json(config)))
    else:
        answers = {route: _asked(partial(source.get, f"/v1/{route}")) for route in ROUTES}
        pieces += [Piece(f"{route}.json", answer) for route, answer in answers.items()]
        events = _asked(partial(source.get, "/v1/events?follow=0"))
        pieces.append(Piece("events.jsonl", _lines(events.get("events", [events])), is_lines=True))
        pieces.append(Piece("metrics.txt", _asked_text(partial(source.text, "/metrics"))))
        # The node may have been given its log file as a flag, which this process knows nothing of.
        told = answers["config"].get("log_file")
        log_file = Path(told) if isinstance(told, str) else log_file
    if log_file is not None:
        pieces.append(Piece("log-tail.jsonl", _tail(log_file), is_lines=True))
    return pieces


def versions(environment: Mapping[str, str] = os.environ) -> Json:
    """Versions of everything that may matter, and which variables of ours are set (not to what)."""
    return {
        "meshnode": __version__,
        "protocol": {"lowest": str(OURS.lowest), "highest": str(OURS.highest)},
        "stage_protocol_generation": STAGE_PROTOCOL_GENERATION,
        "python": sys.version,
        "system": platform.platform(),
        "libraries": dict(_libraries()),
        "variables_set": sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX)),
    }


def state_files(state_dir: Path) -> list[Json]:
    """The state directory from outside."""
    found: list[Json] = []
    try:
        entries = sorted(state_dir.iterdir())
    except OSError as error:
        return [{"directory": str(state_dir), "problem": error.strerror}]
    for entry in entries:
        try:
            state = entry.lstat()
        except OSError:
            continue
        found.append({"name": entry.name, "bytes": state.st_size, "mode": f"{state.st_mode:o}", "user": state.st_uid})
    return found


def _libraries() -> Iterable[tuple[str, str]]:
    for requirement in metadata.requires("meshnode") or ():
        requirement, _, marker = requirement.partition(";")
        if "extra" in marker:
            continue
        name = re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0]
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "not installed"


def _asked(question: Callable[[], Json]) -> Json:
    try:
        return question()
    except Exception as error:  # noqa: BLE001  a bundle is made when things are wrong: what can't be had is said
        return {"problem": str(error)}


def _asked_text(question: Callable[[], str]) -> str:
    try:
        return question()
    except Exception as error:  # noqa: BLE001  as above
        return f"{error}\n"


def _lines(events: Iterable[Json]) -> str:
    return "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_LOG_BYTES))
            text = file.read(MAX_LOG_BYTES).decode("utf-8", errors="replace")
    except OSError as error:
        return f"{path}: {error.strerror}\n"
    # A first line that is cut could be the end of a secret, whose beginning is what it is known by.
    return text.partition("\n")[2] if size > MAX_LOG_BYTES else text


def _readme(running: bool, hides_addresses: bool) -> str:
    addresses = ", addresses by [address N]" if hides_addresses else "; addresses stand in it"
    more = _RUNNING if running else "(No node ran, so there is nothing from one.)\n"
    return _README.format(version=__version__, running=more, addresses=addresses)
