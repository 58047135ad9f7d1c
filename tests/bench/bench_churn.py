"""Does an idle daemon's memory grow while others come and go? Real daemons on loopback, killed and stopped in turns.

`MESHNODE_BENCH_CHURN_S` is how long, an hour unless set. What is watched is the founder, which only looks on.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time

import psutil
from bench.bench_mesh import Daemon, mesh, start

from meshnode.cli.client import ControlClient

DURATION_S = float(os.environ.get("MESHNODE_BENCH_CHURN_S", "3600"))
NODES = 5
PAUSE_S = 1.0
PATIENCE_S = 60.0
COLUMNS, ROWS = 60, 8


def main() -> None:
    """Samples the watched daemon's resident memory after each death and return, and draws it."""
    rng = random.Random(1)
    samples: list[tuple[float, float]] = []
    deaths = 0
    with mesh(NODES) as daemons:
        watched = daemons[0]
        watched.wait_event("peer.joined", NODES - 1)
        process = psutil.Process(watched.process.pid)
        started = time.monotonic()
        while (elapsed_s := time.monotonic() - started) < DURATION_S:
            samples.append((elapsed_s, process.memory_info().rss / 1e6))
            _one_goes_and_returns(daemons, rng)
            deaths += 1
            time.sleep(PAUSE_S)
    quarter = len(samples) // 4
    if not quarter:
        print(f"{len(samples)} samples in {DURATION_S:.0f} s: too few to tell")
        return
    megabytes = [size for _, size in samples]
    early, late = statistics.mean(megabytes[quarter : 2 * quarter]), statistics.mean(megabytes[-quarter:])
    print(
        f"{deaths} deaths and leaves in {samples[-1][0] / 60:.0f} min: {megabytes[0]:.1f} MB at the start,"
        f" {early:.1f} in the second quarter, {late:.1f} in the last (goal: no growth)"
    )
    for line in plot(samples):
        print(line)


def plot(samples: list[tuple[float, float]]) -> list[str]:
    """Megabytes over time, as text; an axis that begins near the smallest, so that growth can be seen."""
    low, high = min(size for _, size in samples) - 1, max(size for _, size in samples) + 1
    end_s = samples[-1][0] or 1.0
    columns: list[list[float]] = [[] for _ in range(COLUMNS)]
    for at_s, size in samples:
        columns[min(COLUMNS - 1, int(COLUMNS * at_s / end_s))].append(size)
    heights = [round((statistics.mean(sizes) - low) / (high - low) * ROWS) if sizes else 0 for sizes in columns]
    lines = []
    for row in range(ROWS, 0, -1):
        label = f"{low + (high - low) * row / ROWS:6.1f} MB"
        lines.append(f"   {label} |" + "".join("#" if height >= row else " " for height in heights))
    return [*lines, f"             0 min{f'{end_s / 60:.0f} min':>{COLUMNS - 4}}"]


def _one_goes_and_returns(daemons: list[Daemon], rng: random.Random) -> None:
    watched, number = daemons[0], rng.randrange(1, NODES)
    killed = rng.random() < 0.5
    node = str(daemons[number].wait_event("node.started")["node"])
    daemons[number].process.send_signal(signal.SIGKILL if killed else signal.SIGTERM)
    daemons[number].process.wait()
    _wait_status(watched, node, "dead" if killed else "left")
    daemons[number].log.unlink(missing_ok=True)
    daemons[number] = start(daemons[number].state.parent, number, None)
    _wait_status(watched, node, "alive")


def _wait_status(watched: Daemon, node: str, status: str) -> None:
    """Asked for, not read in the log: repeats about one node are folded there."""
    client = ControlClient(watched.state.parent / "c0" / "s", watched.state)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if any(peer["node"] == node and peer["status"] == status for peer in client.get("/v1/peers")["peers"]):
            return
        time.sleep(0.1)
    raise TimeoutError(f"{node} is not {status} within {PATIENCE_S} s")
