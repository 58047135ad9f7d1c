"""One process per state directory: a lock that names its holder.

What lives here: `StateLock`. Called by `meshnode.state` only. The lock is `flock(2)` on a file that stays: the kernel
releases it however the process ends, so that a crash never leaves a stale one. The file's content, the holder's pid,
only serves the error message.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from meshnode.durable import StateError

_MAX_PID_TEXT: Final = 32


class StateInUse(StateError):
    """Another process holds the state directory; `pid` is its, or None where it can't be told."""

    def __init__(self, directory: Path, pid: int | None) -> None:
        self.pid = pid
        holder = "another process" if pid is None else f"process {pid}"
        fix = "stop that one, or give this node its own with --state-dir"
        super().__init__(directory, f"this state directory is in use by {holder}", fix)


class StateLock:
    """The held lock of `directory`. Raises `StateInUse` where another process, or this one, holds it already."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "lock"
        self._descriptor = self._acquired()
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        except OSError as error:
            self.release()
            raise StateError(self._path, f"can't be written: {error.strerror}", "make room on its disk") from error

    def release(self) -> None:
        """Give it back; the file stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _acquired(self) -> int:
        while True:
            descriptor = self._opened()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = _pid_in(descriptor)
                os.close(descriptor)
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise StateInUse(self._directory, holder) from error
                advice = "put the state directory on a file system that has locks, such as a local disk"
                raise StateError(self._path, f"can't be locked: {error.strerror}", advice) from error
            if self._is_still_there(descriptor):
                return descriptor
            os.close(descriptor)

    def _opened(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            advice = "make the directory writable for this user, or name another with --state-dir"
            raise StateError(self._path, f"can't be opened: {error.strerror}", advice) from error

    def _is_still_there(self, descriptor: int) -> bool:
        """False where somebody deleted the file meanwhile: a lock on a deleted file excludes nobody."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        return False


def _pid_in(descriptor: int) -> int | None:
    text = os.pread(descriptor, _MAX_PID_TEXT, 0).strip()
    return int(text) if text.isdigit() else None
