"""`meshnode top`: the mesh in a terminal, live.

What lives here: the verb, the terminal with its keys, and the thread that follows the node. What does not: what a frame
shows (`meshnode.cli.top_frame`).

The frame is drawn when something changed, a key was pressed or a second has passed. The terminal is put back as it was
however this ends, except by SIGKILL. A node that goes away is said, and asked again until it is back.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from meshnode.cli import output
from meshnode.cli.client import ControlClient, Json, client_of, json_option, node_options
from meshnode.cli.failures import Failure
from meshnode.cli.output import WIDE, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from meshnode.cli.top_frame import Picture

TICK_S: Final = 1.0
PAUSE_S: Final = 1.0
"""Between two tries to reach a node that is gone."""
SILENCE_S: Final = 10.0
"""A node that says nothing for so long does not answer: its stream carries something every 2 s."""
PACE_S: Final = 0.1
"""Least time between two frames: what a slow line to a far terminal bears."""
ONE_FRAME_EVENTS: Final = 50
ONE_FRAME_ROWS: Final = 60


@click.command(short_help="The mesh in this terminal, live.")
@click.option("--once", is_flag=True, help="Print one frame and end; so does a pipe in place of a terminal.")
@node_options
@json_option
def command(state_dir: Path | None, config_file: Path | None, as_json: bool, once: bool) -> None:
    """Nodes, memory, splits, who is not used and why, and what happens: in this terminal, live.

    Keys: `o` overview, `r` RTT between nodes, `e` events, `q` or Ctrl-C ends. A `*` marks this node; `~` an estimated
    RTT, `?` one that few samples back so far. --json prints the whole picture once.

    \b
    Examples:
      meshnode top
      ssh attic -t meshnode top
      meshnode top --once
    """
    client = client_of(state_dir, config_file)
    if as_json:
        print_json(client.get("/v1/overview"))
        return
    console = output.console()
    if once or not console.is_terminal or console.is_dumb_terminal or not sys.stdin.isatty():
        _print_once(client, console)
    else:
        client.get("/v1/status")  # a node that does not run is an error here, as for every other verb
        _watch(client, console)


def _print_once(client: ControlClient, console: Console) -> None:
    from meshnode.cli.top_frame import Picture, frame

    picture = Picture(parts=client.get("/v1/overview"))
    picture.events.extend(client.get("/v1/events?follow=0")["events"][-ONE_FRAME_EVENTS:])
    width = console.width if console.is_terminal else int(os.environ.get("COLUMNS") or WIDE)
    rows = console.height if console.is_terminal else ONE_FRAME_ROWS
    lines = frame(picture, width, rows, now=datetime.now(), ascii_only=_is_ascii(console))[:-1]
    while lines and not lines[-1].plain:
        lines.pop()
    for line in lines:
        console.print(line, soft_wrap=True)


def _watch(client: ControlClient, console: Console) -> None:
    from rich.live import Live
    from rich.text import Text

    from meshnode.cli.top_frame import VIEWS, frame

    follower = _Follower(client)
    view = "o"
    with _keys() as fileno, Live(console=console, screen=True, auto_refresh=False) as live:
        follower.start()
        while True:
            with follower.lock:
                lines = frame(
                    follower.picture, console.width, console.height,
                    view=view, now=datetime.now(), ascii_only=_is_ascii(console),
                )  # fmt: skip
            live.update(Text("\n").join(lines), refresh=True)
            time.sleep(PACE_S)
            key = follower.wait(fileno)
            if key in {"q", "Q"}:
                return
            view = key if key in VIEWS else view


def _is_ascii(console: Console) -> bool:
    return "utf" not in console.encoding.lower()


@contextlib.contextmanager
def _keys() -> Iterator[int]:
    """Keys as they are pressed, unseen; signals that end the program end it through here. Yields stdin's number."""
    import termios
    import tty

    fileno = sys.stdin.fileno()
    before = termios.tcgetattr(fileno)
    handlers = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    # A stopped program would leave its screen behind and the shell would draw over it.
    handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        tty.setcbreak(fileno)
        yield fileno
    finally:
        termios.tcsetattr(fileno, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _end(number: int, _frame: object) -> None:
    raise SystemExit(0 if number == signal.SIGINT else 128 + number)


class _Follower:
    """Follows the node in a thread; `picture` is what it knows, under `lock`."""

    def __init__(self, client: ControlClient) -> None:
        from meshnode.cli.top_frame import Picture

        self.picture: Picture = Picture()
        self.lock = threading.Lock()
        self._client = client
        self._heard_s = time.monotonic()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        """Begin. The thread ends with the process."""
        self._thread.start()

    def wait(self, keys: int) -> str:
        """Until something is new, a key is pressed or a second has passed; the key, or nothing."""
        ready, _, _ = select.select([keys, self._woken], [], [], TICK_S)
        if self._woken in ready:
            os.read(self._woken, 4096)
        if time.monotonic() - self._heard_s > SILENCE_S:
            self._lost()
        if keys not in ready:
            return ""
        # A terminal that is gone reads as its end: nobody looks any more.
        return os.read(keys, 32)[:1].decode("latin-1") or "q"

    def _follow(self) -> None:
        while True:
            with contextlib.suppress(Failure, OSError, ValueError, http.client.HTTPException):
                for content in self._client.events("/v1/live"):
                    self._take(content)
            self._lost()
            time.sleep(PAUSE_S)

    def _take(self, content: Json) -> None:
        with self.lock:
            if "newest" in content:
                self.picture.events.clear()
            self.picture.take(content)
            self.picture.lost_since = None
        self._heard_s = time.monotonic()
        self._ring()

    def _lost(self) -> None:
        with self.lock:
            is_news = self.picture.lost_since is None
            self.picture.lost_since = self.picture.lost_since or datetime.now()
        if is_news:
            self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._wake, b".")
