"""Where the control socket is, and how it is bound so that only its owner can talk to it.

What lives here: the path rule, shared by the daemon and its clients, and the binding. What does not: what is served on
it (`meshnode.control.app`).

The rule: `control_socket` of the config; else `$XDG_RUNTIME_DIR/meshnode/<hash>/control.sock`; else, where that
variable is not set or the path would be too long for a socket address, `/tmp/meshnode-<uid>/<hash>/control.sock`.
`<hash>` names the state directory. The daemon notes the path it took in the state directory, because the environment of
a service and that of a shell differ; clients read the note first.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from meshnode.durable import StateError

NOTE_NAME = "control-socket"
SOCKET_NAME = "control.sock"
MAX_PATH_BYTES = 103
"""`sun_path` holds 104 bytes with its final NUL on macOS and the BSDs, 108 on Linux: the smaller one everywhere."""


class SocketPlaceError(Exception):
    """The control socket can't be placed there: `path`, what is wrong, what to do."""

    def __init__(self, path: Path, problem: str, advice: str) -> None:
        self.path = path
        self.problem = problem
        self.advice = advice
        super().__init__(f"control socket {path}: {problem}; {advice}")


def socket_path(state_dir: Path, configured: Path | None, environment: Mapping[str, str] | None = None) -> Path:
    """Where the daemon of `state_dir` binds. Raises `SocketPlaceError` for a configured path that is too long."""
    if configured is not None:
        if len(os.fsencode(configured)) > MAX_PATH_BYTES:
            raise SocketPlaceError(configured, f"longer than {MAX_PATH_BYTES} bytes", "choose a shorter path")
        return configured
    variables = os.environ if environment is None else environment
    name = hashlib.sha256(os.fsencode(state_dir.expanduser().resolve())).hexdigest()[:16]
    runtime = variables.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        path = Path(runtime) / "meshnode" / name / SOCKET_NAME
        if len(os.fsencode(path)) <= MAX_PATH_BYTES:
            return path
    return Path(tempfile.gettempdir()) / f"meshnode-{os.getuid()}" / name / SOCKET_NAME


def noted_path(state_dir: Path) -> Path | None:
    """The path that the daemon of `state_dir` noted; None where it left no note that can be read."""
    try:
        note = (state_dir / NOTE_NAME).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return Path(note) if note.startswith("/") else None


def note_path(state_dir: Path, path: Path) -> None:
    """Leave the note for clients. Raises `StateError`."""
    note = state_dir / NOTE_NAME
    try:
        note.write_text(f"{path}\n", encoding="utf-8")
    except OSError as error:
        fix = "make room, or move away what stands there"
        raise StateError(note, f"can't be written: {error.strerror}", fix) from error


def bind(path: Path, *, configured: bool) -> socket.socket:
    """A listening socket at `path`, reachable by this user only.

    A socket that is already there and that nobody answers at belongs to a daemon that is gone, and is removed. The
    directory of a `configured` path is the operator's: it is made where it is missing and left as it is otherwise.
    Raises `SocketPlaceError`.
    """
    try:
        path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not configured:
            require_private(path.parent.parent)
            require_private(path.parent)
        return _bound(path)
    except OSError as error:
        advice = "set control_socket to a path you may write"
        raise SocketPlaceError(path, error.strerror or str(error), advice) from error


def _bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode of a socket file is what umask leaves at bind; a chmod afterwards would leave a moment for others.
    before = os.umask(0o077)
    try:
        if path.is_socket():
            if _is_answered(path):
                raise SocketPlaceError(path, "another process answers there", "give each node its own control_socket")
            path.unlink()
        listener.bind(str(path))
        listener.listen(128)
        listener.setblocking(False)
    except (OSError, SocketPlaceError):
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        # A queue that is full (EAGAIN) is somebody's, too.
        return caller.connect_ex(str(path)) not in (errno.ECONNREFUSED, errno.ENOENT)


def withdraw(path: Path, *, configured: bool) -> None:
    """Take away the socket that `bind` made, and its directory once nothing is left there. What can't be taken away
    stays: the next start removes it."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        if not configured:
            path.parent.rmdir()


def require_private(directory: Path) -> None:
    """`directory` is ours, no symlink, and closed to others: in /tmp a stranger may have made it before us. Raises
    `SocketPlaceError`, `OSError`."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise SocketPlaceError(directory, "belongs to somebody else", "remove it, or set control_socket elsewhere")
    if stat.S_IMODE(found.st_mode) != 0o700:
        directory.chmod(0o700)
