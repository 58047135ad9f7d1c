"""Results of reading model files, kept on disk: reading takes a child process and seconds, a hit takes a millisecond.

An entry belongs to its files by path, size and modification time in nanoseconds, and to the version of this code: a
file that changed in any of them is read again. A damaged entry is as good as none. Written atomically, so that two
nodes of one user may share the directory.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

CACHE_VERSION = 1
"""Raise it when the same file would be read differently: other rules for KV, other fields."""

_MAX_ENTRY_BYTES = 64 * 2**20
ResultT = TypeVar("ResultT")


class FileStamp(msgspec.Struct, frozen=True, array_like=True):
    """A file as it was when it was read."""

    path: str
    size_bytes: int
    mtime_ns: int


class _Entry(msgspec.Struct, Generic[ResultT], frozen=True):
    version: int
    stamps: tuple[FileStamp, ...]
    result: ResultT


def stamp_files(paths: Sequence[Path]) -> tuple[FileStamp, ...]:
    """The stamps of files as they are now; a missing file has size -1, so that its coming is a change."""
    stamps = []
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            stamps.append(FileStamp(str(path.absolute()), -1, 0))
        else:
            stamps.append(FileStamp(str(path.absolute()), found.st_size, found.st_mtime_ns))
    return tuple(stamps)


class FileCache(Generic[ResultT]):
    """Results of one kind, in `directory` (made when first needed). `kind` keeps kinds apart in it."""

    def __init__(self, directory: Path, kind: str, result_type: type[ResultT]) -> None:
        self._directory = directory
        self._kind = kind
        self._decoder = msgspec.json.Decoder(_Entry[result_type])  # type: ignore[valid-type]

    def get(self, stamps: Sequence[FileStamp]) -> ResultT | None:
        """The result for these files as they are, or None."""
        path = self._path(stamps)
        try:
            if path.stat().st_size > _MAX_ENTRY_BYTES:
                return None
            entry: _Entry[ResultT] = self._decoder.decode(path.read_bytes())
        except (OSError, ValueError, RecursionError):  # ValueError: damaged, or written by other code
            return None
        if entry.version != CACHE_VERSION or entry.stamps != tuple(stamps):
            return None
        return entry.result

    def put(self, stamps: Sequence[FileStamp], result: ResultT) -> None:
        """Remember `result`. Raises `OSError` if it can't be written; callers may carry on without a cache."""
        self._directory.mkdir(parents=True, exist_ok=True)
        content = msgspec.json.encode(_Entry(CACHE_VERSION, tuple(stamps), result))
        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=self._directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(temporary, self._path(stamps))
        except BaseException:
            os.unlink(temporary)
            raise

    def _path(self, stamps: Sequence[FileStamp]) -> Path:
        """One entry per set of files: a changed file replaces its entry instead of leaving the old one behind."""
        names = "\n".join(stamp.path for stamp in stamps)
        digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return self._directory / f"{self._kind}-{digest}.json"
