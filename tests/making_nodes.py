"""Makers of real node processes on loopback, for the integration tests of the daemon and whoever needs one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meshnode.cli.client import ControlClient
from meshnode.control.place import socket_path

DEADLINE_S = 60.0
MESHNODE = (sys.executable, "-m", "meshnode")
"""How a node is started; tests put their own words before or in place of it."""
PATIENT = ("--network", "wan")
"""For tests in which nobody may be given up. A test's nodes share few cores with each other and with other work: with
the presets for near machines, one that is kept waiting for a second and a half is dead, and rightly so."""


def a_free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        return int(udp.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """This environment without anything that a developer's own node would read."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MESHNODE_")}
    return clean | {"MESHNODE_CONFIG": os.devnull} | more


@dataclass
class _LogRead:
    """A log as far as it was read; a file that took its place is read from its beginning."""

    inode: int = 0
    offset: int = 0
    seen: list[dict[str, Any]] = field(default_factory=list)

    def lines(self, log: Path) -> list[dict[str, Any]]:
        """Every whole line so far."""
        if not log.exists():
            return []
        with log.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self.inode:
                self.inode, self.offset, self.seen = inode, 0, []
            file.seek(self.offset)
            fresh = file.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self.offset += len(whole)
        self.seen += [json.loads(line) for line in whole.splitlines()]
        return self.seen


@dataclass
class RunningNode:
    """One node process with its state directory and JSON log."""

    name: str
    state: Path
    log: Path
    process: subprocess.Popen[str]
    _socket_home: Path = field(repr=False)
    _read: _LogRead = field(default_factory=_LogRead, repr=False)

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Its events of that name so far, or all."""
        return [line for line in self._read.lines(self.log) if line["event"].startswith(name)]

    def wait_event(
        self,
        name: str,
        matching: Callable[[dict[str, Any]], bool] = lambda _: True,
        after: int = 0,
        within_s: float = DEADLINE_S,
    ) -> dict[str, Any]:
        """The first event of that name, past the first `after`, that `matching` accepts, once it is there."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for event in self.events(name)[after:]:
                if matching(event):
                    return event
            if self.process.poll() is not None and not any(matching(e) for e in self.events(name)[after:]):
                raise AssertionError(f"{self.name} ended with {self.process.returncode}: {self.tail()}")
            time.sleep(0.03)
        raise AssertionError(f"{self.name}: no {name} within {within_s} s: {self.tail()}")

    def control(self) -> ControlClient:
        """Its control interface, without the start of a process for each question."""
        return ControlClient(self._socket_home / self.name, self.state)

    @property
    def node(self) -> str:
        """Its node id."""
        return str(self.wait_event("node.started")["node"])

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self.process.pid

    def verb(self, *words: str, code: int = 0, **variables: str) -> str:
        """What a verb prints for this node; its exit code must be `code`."""
        done = self.ask(*words, **variables)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def ask(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A verb for this node, whatever comes of it."""
        command = [*MESHNODE, *words, "--state-dir", str(self.state)]
        return subprocess.run(command, capture_output=True, text=True, env=environment(**variables), check=False)

    def background(self, *words: str) -> subprocess.Popen[bytes]:
        """A verb for this node that goes on while the test does."""
        command = [*MESHNODE, *words, "--state-dir", str(self.state)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())

    def json(self, *words: str, code: int = 0) -> Any:
        """A verb's JSON."""
        return json.loads(self.verb(*words, "--json", code=code))

    def invite(self, *options: str) -> str:
        """A new token."""
        return str(self.json("invite", *options)["token"])

    def peer(self, node: str) -> dict[str, Any] | None:
        """What it shows of another node."""
        found = [peer for peer in self.json("peers")["peers"] if peer["node"] == node]
        return found[0] if found else None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def tail(self) -> str:
        """The end of its log and stderr, for a failing test's message."""
        text = self.log.read_text(encoding="utf-8")[-2000:] if self.log.exists() else "(no log)"
        errors = self.process.stderr.read() if self.process.poll() is not None and self.process.stderr else ""
        return f"\n{text}\n{errors}"


class Nodes:
    """Starts nodes under one temporary directory."""

    def __init__(self, root: Path, sockets: Path) -> None:
        self._root = root
        self._sockets = sockets
        self._running: list[RunningNode] = []

    def start(
        self,
        name: str,
        *options: str,
        token: str | None = None,
        wait: bool = True,
        program: Sequence[str] = MESHNODE,
    ) -> RunningNode:
        """Run a node; with `wait` until it has started. A second start of the same name goes on with its state."""
        state, log = self._root / name, self._root / f"{name}-{len(self._running)}.log"
        command = [
            *program, "run", "--state-dir", str(state), "--name", name, "--network", "local",
            "--log-format", "json", "--log-file", str(log), "--log-level", "debug",
            "--control-socket", str(self._sockets / name), "--stop-on-eof",
            *(() if "--listen" in options else ("--listen", "127.0.0.1:0")), "--api-port", "0", *options,
        ]  # fmt: skip
        variables = {"MESHNODE_JOIN": token} if token else {}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=environment(**variables), start_new_session=True,
        )  # fmt: skip
        node = RunningNode(name, state, log, process, self._sockets)
        self._running.append(node)
        if wait:
            node.wait_event("node.started")
        return node

    def mesh(self, *names: str, options: tuple[str, ...] = ()) -> list[RunningNode]:
        """A mesh of as many nodes, each knowing each."""
        founder = self.start(names[0], *options)
        token = founder.invite("--uses", "100")
        others = [self.start(name, *options, token=token, wait=False) for name in names[1:]]
        nodes = [founder, *others]
        self.all_know_all(nodes)
        return nodes

    def all_know_all(self, nodes: list[RunningNode]) -> None:
        """Return once each of `nodes` has met each other."""
        for node in nodes:
            for other in nodes:
                if other is not node:
                    wanted = other.node
                    node.wait_event("peer.joined", lambda event, wanted=wanted: event["peer"] == wanted)  # type: ignore[misc]

    def end(self) -> None:
        """No process outlives its test, nor what one that was killed leaves outside its state directory."""
        for node in self._running:
            if node.process.poll() is None:
                node.process.kill()
        for node in self._running:
            node.process.wait(DEADLINE_S)
            shutil.rmtree(socket_path(node.state, None).parent, ignore_errors=True)
            for stream in (node.process.stdin, node.process.stderr):
                if stream is not None:
                    stream.close()
