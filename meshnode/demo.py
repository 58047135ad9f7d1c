"""The demo: real nodes on this machine, a model too large for them, then one more node and a plan.

What lives here: the script of the demo and the nodes it starts. What does not: anything a user could not type: every
step runs a verb of the command line and shows it. Called by `meshnode demo`, which `make run` calls.

Nothing is left behind: nodes end when the demo ends, however it ends. On the way out they get SIGTERM and leave the
mesh cleanly; if the demo itself is killed, their stdin closes, which they take as the same sign (`run --stop-on-eof`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from meshnode.exit_codes import DONE, SHORTFALL

MODEL = "qwen3-coder-480b-a35b-q4_k_xl"
CONTEXT = "108288"
START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 5.0
PACE = ("--network", "local", "--dwell-s", "1.5", "--first-quorum-window-s", "1.5", "--deadline-s", "25")
"""Shorter waits than a home's: all nodes are on this machine and known to come."""


class DemoFailed(Exception):
    """A step did not do what it must; the text says which, and where to look."""


@dataclass
class DemoNode:
    """One node process with its own state directory and log."""

    name: str
    state: Path
    control: Path
    log: Path
    process: subprocess.Popen[bytes]

    def wait_for(self, event: str, matching: Callable[[dict[str, object]], bool] = lambda _: True) -> dict[str, object]:
        """The first event of that name in the node's log that `matching` accepts."""
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            for line in self.lines():
                if line.get("event") == event and matching(line):
                    return line
            if (code := self.process.poll()) is not None:
                raise DemoFailed(f"node {self.name} ended with exit code {code}; its log: {self.log}")
            time.sleep(0.05)
        raise DemoFailed(f"node {self.name} reported no {event} within {START_DEADLINE_S:g} s; its log: {self.log}")

    def lines(self) -> list[dict[str, object]]:
        """All complete lines of its log so far."""
        if not self.log.exists():
            return []
        text = self.log.read_text(encoding="utf-8")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line.startswith("{")]


class Demo:
    """Holds the nodes and shows the steps. `say` prints one line."""

    def __init__(self, root: Path, say: Callable[[str], None]) -> None:
        self._root = root
        self._say = say
        self._nodes: list[DemoNode] = []
        self._logs = root / "logs"
        self._logs.mkdir()

    # --- the script ---

    def play(self) -> None:
        """Run the whole script. Raises `DemoFailed`."""
        self._heading("1. A mesh of two workers and a client")
        founder = self._start("attic", "--declare-usable", "80GB")
        token = self._invite(founder, "--uses", "2")
        self._start("study", "--declare-usable", "74.6GB", token=token)
        self._start("sofa", token=self._invite(founder, "--role", "client"))
        self._all_know_all()
        self._say("")
        self._show(founder, "peers")
        self._heading("2. A model of 302.1GB is asked for; two workers give 154.6GB")
        self._ask(founder, SHORTFALL)
        self._heading("3. A third worker joins by the same token")
        self._start("workshop", "--declare-usable", "170GB", token=token)
        self._all_know_all()
        self._heading("4. The same request again")
        self._ask(founder, DONE)

    def _start(self, name: str, *options: str, token: str | None = None) -> DemoNode:
        state, control, log = self._root / name, self._root / f"{name}-control", self._logs / f"{name}.log"
        shown = [*options, "--name", name]
        how = ["--join", "TOKEN"] if token else []
        self._say(f"$ meshnode run {' '.join([*how, *shown])} &")
        process = subprocess.Popen(
            [
                *_meshnode("run", *shown, *PACE),
                "--state-dir", str(state), "--listen", "127.0.0.1:0", "--api-port", "0",
                "--log-format", "json", "--log-file", str(log),
                "--control-socket", str(control / "c"), "--stop-on-eof",
            ],
            env=_environment(token), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        node = DemoNode(name, state, control, log, process)
        self._nodes.append(node)
        started = node.wait_for("node.started")
        self._say(f"  {name} runs: node {str(started['node'])[:10]}, {started['role']}, at {started['listen']}")
        return node

    def _invite(self, node: DemoNode, *options: str) -> str:
        self._say(f"$ meshnode invite {' '.join(options)}")
        done = self._run(node, "invite", *options, "--json")
        invite = json.loads(done.stdout) if done.returncode == DONE else None
        if invite is None:
            raise DemoFailed(f"meshnode invite failed: {done.stderr.strip()}")
        token = str(invite["token"])
        self._say(f"  {token[:14]}...  (a secret of {len(token)} characters; expires {invite['expires_at']})")
        return token

    def _all_know_all(self) -> None:
        """Wait until every node has met every other, so that what is shown next is the whole mesh."""
        ids = {node.name: str(node.wait_for("node.started")["node"]) for node in self._nodes}
        for node in self._nodes:
            for name, peer in ids.items():
                if name != node.name:
                    node.wait_for("peer.joined", lambda line, peer=peer: line["peer"] == peer)  # type: ignore[misc]

    def _show(self, node: DemoNode, *words: str) -> int:
        """Run a verb at `node` and show what it prints, as it prints it."""
        self._say(f"$ meshnode {' '.join(words)}")
        sys.stdout.flush()
        command = [*_meshnode(*words), "--state-dir", str(node.state)]
        return subprocess.run(command, env=_environment(), check=False).returncode

    def _ask(self, node: DemoNode, expected: int) -> None:
        code = self._show(node, "split", MODEL, "--context", CONTEXT)
        if code != expected:
            raise DemoFailed(f"meshnode split ended with exit code {code}, expected {expected}; see {node.log}")
        self._say(f"  (exit code {code}, for scripts)")

    def _run(self, node: DemoNode, *words: str) -> subprocess.CompletedProcess[str]:
        command = [*_meshnode(*words), "--state-dir", str(node.state)]
        return subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)

    def _heading(self, text: str) -> None:
        self._say(f"\n=== {text} ===\n")

    # --- the end ---

    def stop(self) -> None:
        """End every node: ask, wait, then insist. Newest first, so that the founder sees the others leave."""
        for node in reversed(self._nodes):
            node.process.terminate()
        deadline = time.monotonic() + STOP_DEADLINE_S
        for node in self._nodes:
            try:
                node.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                node.process.kill()
                node.process.wait()
            if node.process.stdin is not None:
                node.process.stdin.close()
            shutil.rmtree(node.state, ignore_errors=True)
            shutil.rmtree(node.control, ignore_errors=True)

    def summary(self) -> Iterator[str]:
        """What was shown, and where the logs lie."""
        yield "\n=== What you saw ==="
        yield "  Four nodes, each a process of its own, joined one mesh by invite tokens and measured each other."
        yield "  Their memory was declared (--declare-usable), not measured; that is marked wherever it stands."
        yield "  First the model did not fit: how much is short, who was counted, who was left out and why, and what"
        yield "  would help. Then a third worker joined, and the same request became a plan of whole layers."
        yield "  All nodes have left the mesh and ended. Their logs (JSON, one event a line):"
        for node in self._nodes:
            yield f"    {node.log}"
        yield f"  Remove them with: rm -r {self._root}"


@contextmanager
def running(say: Callable[[str], None]) -> Iterator[Demo]:
    """A demo whose nodes are gone when the block is left, on SIGTERM and Ctrl-C too."""
    root = Path(tempfile.mkdtemp(prefix="meshnode-demo-"))
    demo = Demo(root, say)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield demo
    finally:
        # A second Ctrl-C must not cut the clean-up short.
        held = signal.signal(signal.SIGINT, signal.SIG_IGN)
        demo.stop()
        signal.signal(signal.SIGINT, held)
        signal.signal(signal.SIGTERM, before)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _meshnode(*words: str) -> list[str]:
    return [sys.executable, "-m", "meshnode", *words]


def _environment(token: str | None = None) -> dict[str, str]:
    """This environment without the operator's own node's settings; a token travels here, never in argv."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MESHNODE_")}
    clean |= {"PYTHONPATH": _package_path(clean.get("PYTHONPATH", "")), "MESHNODE_CONFIG": os.devnull}
    return clean | ({"MESHNODE_JOIN": token} if token else {})


def _package_path(inherited: str) -> str:
    """Children find this very package, wherever the demo was started."""
    own = str(Path(__file__).resolve().parent.parent)
    paths: Sequence[str] = [own, *filter(None, [inherited])]
    return os.pathsep.join(paths)
