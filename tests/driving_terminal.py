"""A terminal of a given size with a verb running in it: what it shows, keys, and the state it is left in."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from types import TracebackType

import pyte
from making_nodes import DEADLINE_S, MESHNODE, RunningNode, environment

_WITH_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal the session's own, so that Ctrl-C is a signal there."""


class Terminal:
    """Runs `meshnode WORDS` for `node` in a terminal; use in a `with` statement."""

    def __init__(self, node: RunningNode, words: Sequence[str], *, columns: int = 80, rows: int = 24) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(self._slave)
        command = [*MESHNODE, *words, "--state-dir", str(node.state)]
        variables = environment(TERM="xterm-256color", PYTHONUTF8="1")
        variables = {name: value for name, value in variables.items() if name not in {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WITH_TERMINAL, *command], env=variables, start_new_session=True,
            stdin=self._slave, stdout=self._slave, stderr=self._slave,
        )  # fmt: skip

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
        os.close(self._master)
        os.close(self._slave)

    @property
    def text(self) -> str:
        """What stands on the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def shows(self, *texts: str) -> None:
        """Return once all `texts` stand on the screen."""
        self.until(lambda: all(text in self.text for text in texts), f"{texts}")

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Read what the verb writes until something is true."""
        deadline = time.monotonic() + DEADLINE_S
        while not true():
            assert time.monotonic() < deadline, f"no {what} within {DEADLINE_S:g} s:\n{self.text}"
            self._read(0.05)

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._master, keys)

    def ended(self) -> int:
        """The verb's exit code once it has ended."""
        self.until(lambda: self.process.poll() is not None, "end")
        self._read(0.1)
        return int(self.process.returncode)

    def is_as_before(self) -> bool:
        """Whether modes, screen and cursor are as they were found."""
        left, cursor_shown = b"\x1b[?1049l" in self.raw, self.raw.rindex(b"\x1b[?25h") > self.raw.rindex(b"\x1b[?25l")
        return termios.tcgetattr(self._slave) == self.before and left and cursor_shown

    def signal(self, number: int) -> None:
        """Send the verb a signal."""
        os.kill(self.process.pid, number)

    def resize(self, columns: int, rows: int) -> None:
        """Another size, as when a window is dragged."""
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)
        os.kill(self.process.pid, signal.SIGWINCH)

    def _read(self, within_s: float) -> None:
        while select.select([self._master], [], [], within_s)[0]:
            try:
                piece = os.read(self._master, 65_536)
            except OSError:
                return
            if not piece:
                return
            self.raw += piece
            self._stream.feed(piece)
            within_s = 0.0
