"""Files that must survive a crash: written whole or not at all, read back checked, each with a format number.

What lives here: `write_atomically`, `read_bounded`, `VersionedFile`, and the errors of state on disk. What does not:
which files there are (`meshnode.state`), keys (`meshnode.identity`). Called by these two and by `meshnode.admission`.

A write goes to a temporary file of mode 0600 in the same directory, is synced, renamed over the old one, and the
directory is synced: after a crash at any point the old content or the new one is there. What a reader finds is
either right or one `StateError` that names the file, what is wrong, and what to do about it. A file of an older format
is migrated in memory when it is read and stored anew at its next write, which first keeps the old content beside it
(`peers.json.format1`), for a way back; one of a newer format is left alone.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)
Plain = dict[str, Any]
Migration = Callable[[Plain], Plain]

TEMPORARY_SUFFIX: Final = ".tmp"
MAX_STATE_FILE_BYTES: Final = 32 * 1024 * 1024
_PRIVATE_FILE = 0o600


class StateError(Exception):
    """Something in the state directory is not as it must be. `path` names it, `found` says what is wrong, `fix` what
    the operator can do."""

    def __init__(self, path: Path, found: str, fix: str) -> None:
        self.path = path
        self.found = found
        self.fix = fix
        super().__init__(f"{path}: {found}; {fix}")


class DamagedState(StateError):
    """A file's content can't be what was written."""


class NewerState(StateError):
    """A file was written by a newer meshnode; it is left untouched."""


def unreadable(path: Path, error: OSError, fix: str) -> StateError:
    """What is wrong with a file that can't be opened; `fix` is the advice where it is a file at all."""
    if isinstance(error, IsADirectoryError):
        return StateError(path, "is a directory, where a file of meshnode's must be", "move the directory away")
    return StateError(path, f"can't be read: {error.strerror}", fix)


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path`, mode 0600, durably, whole or not at all. Raises `StateError`, the old content kept."""
    writer = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.name}.{writer}{TEMPORARY_SUFFIX}")
    try:
        # In a container every start may have the same pid: the leftover of a crashed one is in nobody's way.
        temporary.unlink(missing_ok=True)
        _write_synced(temporary, content)
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        fix = "make room or make the directory writable; nothing was changed"
        raise StateError(path, f"can't be written: {error.strerror}", fix) from error


def create_exclusively(path: Path, content: bytes) -> None:
    """Create `path`, mode 0600, durably. Raises `StateError` where anything is there already."""
    try:
        _write_synced(path, content)
        _sync_directory(path.parent)
    except FileExistsError as error:
        raise StateError(path, "exists already and is never overwritten", "name a file that does not exist") from error
    except OSError as error:
        fix = "name a place that can be written"
        raise StateError(path, f"can't be written: {error.strerror}", fix) from error


def read_bounded(path: Path, max_bytes: int = MAX_STATE_FILE_BYTES) -> bytes | None:
    """The file's content; None where there is none. Raises `StateError` where it is unreadable or larger."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error, f"make it a file this user can read (ls -l {path})") from error
    if len(content) > max_bytes:
        raise DamagedState(path, f"larger than {max_bytes} bytes", "it was not written by meshnode: move it away")
    return content


def remove_durably(path: Path) -> None:
    """Delete `path` if it is there."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        _sync_directory(path.parent)


def remove_temporaries(directory: Path) -> None:
    """Delete what writes that a crash cut short left behind. The caller holds the directory's lock."""
    for leftover in directory.glob(f".*{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError):
            leftover.unlink()


class VersionedFile(Generic[S]):
    """One JSON state file, `{"format": n, ...fields of shape...}`.

    `fix` is what to do where it is damaged. `migrations[n]` turns the fields of format n into those of n + 1; all
    formats from the oldest key up to the current one are readable.
    """

    def __init__(
        self,
        path: Path,
        shape: type[S],
        *,
        fix: str,
        current_format: int = 1,
        migrations: Mapping[int, Migration] | None = None,
    ) -> None:
        self.path = path
        self._shape = shape
        self._fix = fix
        self._format = current_format
        self._migrations = dict(migrations or {})

    def load(self) -> S | None:
        """The stored value; None where nothing was ever stored. Raises `StateError`."""
        content = read_bounded(self.path)
        if content is None:
            return None
        fields = self._migrated(self._fields(content))
        try:
            return msgspec.convert(fields, self._shape, strict=True)
        except msgspec.ValidationError as error:
            raise DamagedState(self.path, f"damaged ({error})", self._fix) from error

    def check_format(self) -> None:
        """Raises `NewerState` where the file was written by a newer meshnode; says nothing of a damaged one."""
        content = read_bounded(self.path)
        if content is not None and (found := _format_of(content)) is not None and found > self._format:
            raise self._newer(found)

    def save(self, value: S) -> None:
        """Store `value` durably. Raises `StateError`, the old value kept."""
        if self._format > 1:
            self._keep_older()
        fields = {"format": self._format, **msgspec.to_builtins(value)}
        write_atomically(self.path, msgspec.json.format(msgspec.json.encode(fields), indent=1) + b"\n")

    def _keep_older(self) -> None:
        """Before the first write of this format: the old file as it is, once. Also where nobody has read it."""
        content = read_bounded(self.path)
        found = None if content is None else _format_of(content)
        if content is not None and found is not None and found < self._format:
            backup = self._backup(found)
            if not backup.exists():
                write_atomically(backup, content)

    def _backup(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.format{number}")

    def _newer(self, found: int) -> NewerState:
        what = f"written by a newer meshnode (format {found}, this one reads up to {self._format})"
        fix = "upgrade meshnode, or use another state directory"
        if (backup := self._backup(self._format)).exists():
            fix += f"; or go back to what was known before the upgrade: mv {backup} {self.path}"
        return NewerState(self.path, what, fix)

    def _fields(self, content: bytes) -> Plain:
        try:
            fields = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DamagedState(self.path, f"damaged ({error})", self._fix) from error
        if not isinstance(fields, dict):
            raise DamagedState(self.path, "damaged (no JSON object)", self._fix)
        return fields

    def _migrated(self, fields: Plain) -> Plain:
        found = fields.pop("format", None)
        if type(found) is not int or found < 1:
            raise DamagedState(self.path, f"damaged (format {found!r})", self._fix)
        if found > self._format:
            raise self._newer(found)
        for step in range(found, self._format):
            if step not in self._migrations:
                what = f"of format {found}, which this meshnode reads no more"
                raise StateError(self.path, what, "start it once with an older meshnode that does")
            fields = self._migrations[step](fields)
        return fields


def _format_of(content: bytes) -> int | None:
    """The format number of a state file; None where it has none that can be read."""
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    number = found.get("format") if isinstance(found, dict) else None
    return number if type(number) is int and number >= 1 else None


def _write_synced(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
