"""Real daemons on loopback: how fast they converge, notice a death, and what they cost while idle."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

NODES = 16
REST_S = 40.0
"""A mesh that has just been made measures its RTTs and tells of them; idle is what comes after."""
IDLE_S = 20.0
KILLS = int(os.environ.get("MESHNODE_BENCH_KILLS", "50"))
MESHNODE = Path(sys.executable).with_name("meshnode")


@dataclass
class Daemon:
    """One node process, its state directory and its JSON log."""

    state: Path
    log: Path
    process: subprocess.Popen[bytes]

    def events(self, name: str, peer: object = None) -> list[dict[str, object]]:
        """All its events of that name so far, of one peer where one is named."""
        if not self.log.exists():
            return []
        whole, _, _ = self.log.read_text().rpartition("\n")
        lines = (json.loads(line) for line in whole.splitlines() if line.startswith("{"))
        return [line for line in lines if line.get("event") == name and peer in (None, line.get("peer"))]

    def wait_event(self, name: str, count: int = 1, peer: object = None, timeout_s: float = 120.0) -> dict[str, object]:
        """The count-th event of that name (and peer), once it is there."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if len(found := self.events(name, peer)) >= count:
                return found[count - 1]
            if self.process.poll() is not None:
                raise RuntimeError(f"node ended with {self.process.returncode}; see {self.log}")
            time.sleep(0.02)
        raise TimeoutError(f"no {name} within {timeout_s} s in {self.log}")

    def verb(self, *words: str) -> str:
        """What a command-line verb prints for this node."""
        command = [str(MESHNODE), *words, "--state-dir", str(self.state)]
        finished = subprocess.run(command, check=True, capture_output=True, text=True)
        return finished.stdout


def start(root: Path, number: int, token: str | None) -> Daemon:
    """Start node `number`, joining by `token` unless it founds the mesh."""
    state, log = root / f"n{number}", root / f"n{number}.log"
    command = [
        str(MESHNODE), "run", "--state-dir", str(state), "--listen", "127.0.0.1:0", "--log-file", str(log),
        "--log-format", "json", "--declare-usable", "10GB", "--control-socket", str(root / f"c{number}" / "s"),
    ]  # fmt: skip
    environment = {**os.environ, **({"MESHNODE_JOIN": token} if token else {})}
    return Daemon(state, log, subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))


@contextmanager
def mesh(nodes: int) -> Iterator[list[Daemon]]:
    """A mesh of real processes, all stopped and their directory removed at the end."""
    root = Path(tempfile.mkdtemp(prefix="mesh-bench-"))
    daemons: list[Daemon] = []
    try:
        daemons.append(start(root, 0, None))
        daemons[0].wait_event("node.started")
        token = json.loads(daemons[0].verb("invite", "--uses", str(nodes + KILLS + 2), "--json"))["token"]
        daemons += [start(root, number, token) for number in range(1, nodes)]
        yield daemons
    finally:
        for daemon in daemons:
            daemon.process.terminate()
        for daemon in daemons:
            try:
                daemon.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.process.kill()
                daemon.process.wait()
        shutil.rmtree(root, ignore_errors=True)


def main() -> None:
    """Convergence, idle cost and the speed of verbs."""
    with mesh(NODES) as daemons:
        started = [_moment(daemon.wait_event("node.started")) for daemon in daemons]
        known = [_moment(daemon.wait_event("peer.joined", NODES - 1)) for daemon in daemons]
        print(f"{NODES} nodes: all know all {max(known) - max(started):.2f} s after the last node.started (goal 1.0 s)")
        time.sleep(REST_S)
        _print_idle_cost(daemons)
        for verb in ("status", "peers", "capacity", "version"):
            print(f"meshnode {verb}: {_verb_seconds(daemons[3], verb):.2f} s (goal 0.4 s)")


def detection() -> None:
    """Kill -9 of one of 16 nodes, over and over: when do all the others know?"""
    rng = random.Random(1)
    delays: list[float] = []
    with mesh(NODES) as daemons:
        for daemon in daemons:
            daemon.wait_event("peer.joined", NODES - 1)
        for _ in range(KILLS):
            delays.append(_kill_and_restart(daemons, rng.randrange(1, NODES)))
    ordered = sorted(delays)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    print(
        f"kill -9 noticed by all of {NODES} over {len(ordered)} kills: p50 {statistics.median(ordered):.2f} s,"
        f" p95 {p95:.2f} s (goal 3 s), maximum {ordered[-1]:.2f} s"
    )


def _kill_and_restart(daemons: list[Daemon], victim: int) -> float:
    others = [daemon for number, daemon in enumerate(daemons) if number != victim]
    node = daemons[victim].wait_event("node.started")["node"]
    deaths = [len(daemon.events("peer.dead", node)) for daemon in others]
    returns = [len(daemon.events("peer.returned", node)) for daemon in others]
    killed_at = time.time()
    daemons[victim].process.send_signal(signal.SIGKILL)
    daemons[victim].process.wait()
    seen = [
        _moment(daemon.wait_event("peer.dead", count + 1, node)) for daemon, count in zip(others, deaths, strict=True)
    ]
    daemons[victim].log.unlink(missing_ok=True)
    daemons[victim] = start(daemons[victim].state.parent, victim, None)
    for daemon, count in zip(others, returns, strict=True):
        daemon.wait_event("peer.returned", count + 1, node)
    return max(seen) - killed_at


def _print_idle_cost(daemons: list[Daemon]) -> None:
    processes = [psutil.Process(daemon.process.pid) for daemon in daemons]
    before = [sum(process.cpu_times()[:2]) for process in processes]
    started = time.perf_counter()
    time.sleep(IDLE_S)
    span_s = time.perf_counter() - started
    shares = [
        100 * (sum(process.cpu_times()[:2]) - spent) / span_s for process, spent in zip(processes, before, strict=True)
    ]
    resident_mb = [process.memory_info().rss / 1e6 for process in processes]
    print(
        f"idle for {span_s:.0f} s: {statistics.mean(shares):.2f} % of a core a node, highest {max(shares):.2f} (goal 1)"
    )
    print(f"resident: {statistics.mean(resident_mb):.1f} MB a node, highest {max(resident_mb):.1f} (goal 70)")


def _verb_seconds(daemon: Daemon, verb: str) -> float:
    timings = []
    for _ in range(5):
        started = time.perf_counter()
        daemon.verb(verb) if verb != "version" else subprocess.run([MESHNODE, verb], check=True, capture_output=True)
        timings.append(time.perf_counter() - started)
    return statistics.median(timings)


def _moment(event: dict[str, object]) -> float:
    return datetime.fromisoformat(str(event["timestamp"])).timestamp()
