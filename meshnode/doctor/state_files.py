"""The state directory looked at from outside: rights, room, whose it is. Nothing in it is changed or locked.

What lives here: `look_at_state` and `check_state`. What does not: the files' meaning (`meshnode.state`), which refuses
at start what is an error here.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshnode.control.access import TOKEN_FILE
from meshnode.doctor.finding import Finding, Grade
from meshnode.machine import machine_fingerprint
from meshnode.state import FORMATS

MIN_FREE_BYTES: Final = 50_000_000
"""Less room than this, and a write of a state file of a large mesh may fail soon."""
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_MAX_JSON_BYTES: Final = 32 * 1024 * 1024
_CHECKED: Final = "rights, owner, room and files of the state directory"


@dataclass(frozen=True, slots=True)
class StateFile:
    """One file: its mode bits, its owner, and why it can't be read as what it must be (empty where it can)."""

    name: str
    mode: int
    uid: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class StateFacts:
    """`problem` says why the directory can't be used at all; `elsewhere` that it was last used on another machine."""

    path: Path
    exists: bool
    uid: int
    problem: str = ""
    mode: int = 0
    owner: int = 0
    files: tuple[StateFile, ...] = ()
    free_bytes: int | None = None
    elsewhere: bool = False


def look_at_state(path: Path) -> StateFacts:
    """Read rights and files. Raises nothing for what may be wrong there."""
    uid = os.geteuid()
    try:
        found = path.stat()
    except FileNotFoundError:
        return StateFacts(path, exists=False, uid=uid, problem=_uncreatable(path))
    except OSError as error:
        return StateFacts(path, exists=True, uid=uid, problem=error.strerror or str(error))
    if not stat.S_ISDIR(found.st_mode):
        return StateFacts(path, exists=True, uid=uid, problem="it is no directory")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        problem = f"user {uid} may not read and write it (mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid})"
        return StateFacts(path, exists=True, uid=uid, problem=problem)
    return StateFacts(
        path, exists=True, uid=uid, mode=stat.S_IMODE(found.st_mode), owner=found.st_uid, files=_files(path),
        free_bytes=shutil.disk_usage(path).free, elsewhere=_is_elsewhere(path),
    )  # fmt: skip


def check_state(facts: StateFacts) -> list[Finding]:
    """Judge what was read."""
    where = str(facts.path)
    if facts.problem:
        advice = "give it to the user the node runs as, or name another one with --state-dir"
        return [Finding("state_directory", Grade.ERROR, where, _CHECKED, facts.problem, advice)]
    if not facts.exists:
        found = "not there yet: the first `meshnode run` makes it, mode 0700"
        return [Finding("state_directory", Grade.OK, where, _CHECKED, found)]
    bad = [*_rights(facts), *_contents(facts)]
    if not bad:
        found = f"mode {facts.mode:04o}, {len(facts.files)} file(s), all private and readable"
        bad = [Finding("state_directory", Grade.OK, where, _CHECKED, found)]
    return bad


def _rights(facts: StateFacts) -> Iterator[Finding]:
    where = str(facts.path)
    if facts.mode & _OTHERS_WRITE:
        found = f"mode {facts.mode:04o}: other users can replace the node's key"
        yield Finding("state_directory", Grade.ERROR, where, _CHECKED, found, f"chmod 700 {facts.path}")
    for file in facts.files:
        path = facts.path / file.name
        if file.mode & _OTHERS and _is_secret(file.name):
            found = f"mode {file.mode:04o}: other users can read what must stay secret"
            yield Finding("state_directory", Grade.ERROR, str(path), _CHECKED, found, f"chmod 600 {path}")
        if file.uid != facts.owner:
            found = f"belongs to user {file.uid}, the directory to user {facts.owner}"
            advice = f"a verb was run as another user; chown {facts.owner} {path}"
            yield Finding("state_directory", Grade.WARNING, str(path), _CHECKED, found, advice)


def _contents(facts: StateFacts) -> Iterator[Finding]:
    for file in facts.files:
        if file.problem:
            path = str(facts.path / file.name)
            advice = "restore it from a backup, or see docs/troubleshooting.md for what its loss costs"
            if "newer" in file.problem:
                advice = "upgrade meshnode, or use another state directory"
            yield Finding("state_directory", Grade.ERROR, path, _CHECKED, file.problem, advice)
    where = str(facts.path)
    if facts.free_bytes is not None and facts.free_bytes < MIN_FREE_BYTES:
        found = f"{facts.free_bytes / 1e6:.0f}MB free on its file system"
        yield Finding("state_directory", Grade.WARNING, where, _CHECKED, found, "make room: writes will fail soon")
    if facts.elsewhere:
        found = "it was last used on another machine: two nodes with one key disturb each other"
        advice = (
            "if it was moved and the other machine is out of use, start once with --accept-moved-state; if it was "
            "copied, use an empty one and a new invite"
        )
        yield Finding("identity", Grade.ERROR, where, "whether this key is used on one machine only", found, advice)


def _uncreatable(path: Path) -> str:
    """Why the missing directory can't be made; empty where it can."""
    above = next((parent for parent in path.parents if parent.exists()), None)
    if above is None or not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        return f"not there, and user {os.geteuid()} can't make it in {above}"
    return ""


def _files(path: Path) -> tuple[StateFile, ...]:
    found: list[StateFile] = []
    for entry in sorted(path.iterdir()):
        try:
            state = entry.lstat()
        except OSError:
            # Gone since the directory was read: the node rewrites its files by renaming.
            continue
        if stat.S_ISREG(state.st_mode) and not entry.name.startswith("."):
            found.append(StateFile(entry.name, stat.S_IMODE(state.st_mode), state.st_uid, _problem_of(entry)))
    return tuple(found)


def _problem_of(path: Path) -> str:
    if path.suffix != ".json":
        return ""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_JSON_BYTES))
    except OSError as error:
        return f"can't be read: {error.strerror}"
    except (ValueError, RecursionError):
        return "damaged: no JSON"
    number = content.get("format") if isinstance(content, dict) else None
    if path.name in FORMATS and isinstance(number, int) and number > FORMATS[path.name]:
        return f"written by a newer meshnode (format {number}, this one reads up to {FORMATS[path.name]})"
    return ""


def _is_elsewhere(path: Path) -> bool:
    try:
        stored = json.loads((path / "node.json").read_text(encoding="utf-8"))["machine"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    here = machine_fingerprint()
    return isinstance(stored, str) and here is not None and stored != here


def _is_secret(name: str) -> bool:
    return name.endswith(".key") or name == TOKEN_FILE
