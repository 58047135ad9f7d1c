"""RTT figures of real daemons against the truth of the link emulator that carries every packet between them.

What counts as true: for the window minimum, the path's floor, which is the delay there plus the delay back that the
emulator was asked for (jitter only adds to it, and the least of a dozen samples lies above the floor by a third of one
way's jitter); for the smoothed value the mean round trip, which is the floor plus the mean of the jitter both ways. The
emulator keeps the delay it really made of each datagram: how late it was is printed beside, and is no error of the
daemon's. Errors are relative to the truth; the goal is under 5 % or 0.3 ms at the median.

- `paths`: nine daemons, 36 pairs: six RTTs, the same both ways or all of it one way, undisturbed, with 5 % of datagrams
  lost each way, and with a uniform jitter of up to a tenth of the RTT each way.
- `stalls`: seven daemons, one of which is stopped for 200 ms over and over, as by a busy event loop; its own figures of
  the six others, and theirs of it.
- `estimates`: eight daemons at three sites, six pairs of which are cut: what everybody else estimates of those pairs
  from coordinates, against the path that would be there. Larger meshes are judged in the simulator (`meshnode simulate
  rtt-estimated`).
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulated_mesh import EmulatedMesh
from emulation import LinkConditions, LinkEmulator
from making_nodes import Nodes, RunningNode

RTTS_MS = (1.0, 5.0, 10.0, 40.0, 100.0, 300.0)
KINDS = ("undisturbed", "5 % loss", "jitter")
JITTER = 0.1
MEASURED_S = float(os.environ.get("MESHNODE_BENCH_RTT_S", "60"))
STALL_S, STALLS_EVERY_S = 0.2, (0.3, 1.0)
GOAL, GOAL_MS = 0.05, 0.3

SITES_MS = {("a", "b"): 20.0, ("a", "c"): 60.0, ("b", "c"): 45.0}
PLACES = {"a1": 0.3, "a2": 1.0, "a3": 3.0, "b1": 0.3, "b2": 1.0, "b3": 3.0, "c1": 0.3, "c2": 1.0}
"""Nodes by site and number, with their own way to the site, in ms there and back."""
FOUNDER = "b1"
CUT = (("a1", "b2"), ("a2", "b3"), ("a1", "c1"), ("a3", "c2"), ("b2", "c1"), ("b3", "c2"))


@dataclass(frozen=True)
class Truth:
    """One pair's path: its floor, and its mean round trip, in ms."""

    one: str
    other: str
    floor_ms: float
    mean_ms: float
    what: str


@dataclass(frozen=True)
class Error:
    """One figure against its truth."""

    truth: Truth
    min_ms: float
    smoothed_ms: float

    @property
    def is_met(self) -> bool:
        """Within the goal, by its window minimum."""
        return abs(self.min_ms - self.truth.floor_ms) <= max(GOAL_MS, GOAL * self.truth.floor_ms)


def main() -> None:
    """Every mesh."""
    paths()
    stalls()
    estimates()


def paths() -> None:
    """All conditions at once, a pair for each."""
    names = [f"n{number}" for number in range(9)]
    cases = itertools.product(RTTS_MS, (False, True), KINDS)
    truths: list[Truth] = []
    with emulated() as mesh:
        for name in names:
            mesh.place(name)
        for (one, other), (rtt_ms, one_way, kind) in zip(itertools.combinations(names, 2), cases, strict=True):
            truths.append(shape(mesh, one, other, rtt_ms, one_way, kind))
        nodes = mesh.found(*names, options=("--network", "lan"))
        time.sleep(MEASURED_S)
        errors = compare(nodes, truths)
        print(f"   9 daemons, 36 pairs, {MEASURED_S:.0f} s after all were linked, load {os.getloadavg()[0]:.1f}")
        show("", errors)
        print_lateness(mesh, truths)
        print_reported(nodes, truths)
        for kind in KINDS:
            show(kind, [error for error in errors if error.truth.what == kind])


def shape(mesh: EmulatedMesh, one: str, other: str, rtt_ms: float, one_way: bool, kind: str) -> Truth:
    """Lays the path and returns its truth."""
    jitter_ms = JITTER * rtt_ms if kind == "jitter" else 0.0
    loss = 0.05 if kind == "5 % loss" else 0.0
    there_ms = rtt_ms if one_way else rtt_ms / 2
    mesh.net.shape(one, other, LinkConditions(delay_ms=there_ms, jitter_ms=jitter_ms, loss=loss))
    mesh.net.shape(other, one, LinkConditions(delay_ms=rtt_ms - there_ms, jitter_ms=jitter_ms, loss=loss))
    return Truth(one, other, rtt_ms, rtt_ms + jitter_ms, kind)


def stalls() -> None:
    """One of the nodes does not run for 200 ms at a time."""
    names = [f"n{number}" for number in range(len(RTTS_MS))]
    with emulated() as mesh:
        for name in ("busy", *names):
            mesh.place(name)
        truths = [shape(mesh, "busy", name, rtt_ms, False, "") for name, rtt_ms in zip(names, RTTS_MS, strict=True)]
        busy, *others = mesh.found("busy", *names, options=("--network", "lan"))
        stopped_s = stall(busy, MEASURED_S)
        share = stopped_s / MEASURED_S
        print(f"   7 daemons, one stopped {share:.0%} of {MEASURED_S:.0f} s, load {os.getloadavg()[0]:.1f}")
        show("the busy node's own", compare([busy], truths))
        show("the others' of it", compare(others, truths))


def stall(node: RunningNode, for_s: float) -> float:
    """Stops the process again and again; for how long altogether, in s."""
    rng = random.Random(1)
    stopped_s, end_s = 0.0, time.monotonic() + for_s
    while time.monotonic() < end_s:
        time.sleep(rng.uniform(*STALLS_EVERY_S))
        os.kill(node.pid, signal.SIGSTOP)
        time.sleep(STALL_S)
        os.kill(node.pid, signal.SIGCONT)
        stopped_s += STALL_S
    return stopped_s


def estimates() -> None:
    """Pairs without any link between them, as the others see them."""
    with emulated() as mesh:
        for name in PLACES:
            mesh.place(name)
        for one, other in itertools.combinations(PLACES, 2):
            conditions = LinkConditions(delay_ms=site_rtt_ms(one, other) / 2, up=(one, other) not in CUT)
            mesh.net.shape_both(one, other, conditions)
        founder = mesh.start(FOUNDER, "--network", "lan")
        token = founder.invite("--uses", "100")
        nodes = [founder, *(mesh.start(name, "--network", "lan", token=token) for name in PLACES if name != FOUNDER)]
        time.sleep(MEASURED_S)
        found = {pair: estimates_of(nodes, *pair) for pair in CUT}
        print(f"   8 daemons, 3 sites, {len(CUT)} pairs cut, load {os.getloadavg()[0]:.1f}")
        off = []
        for pair, estimated in found.items():
            true_ms = site_rtt_ms(*pair)
            off += [abs(each["min_ms"] / true_ms - 1) for each in estimated]
            if estimated:
                middle_ms = statistics.median(each["min_ms"] for each in estimated)
                said = statistics.median(each["error"] for each in estimated)
                print(f"   {'-'.join(pair)}: {true_ms:.1f} ms, estimated {middle_ms:.1f} ms, said to be {said:.0%} off")
        middle = statistics.median(off)
        print(f"   estimates: {middle:.1%} off at the median of {len(off)} (goal 15 %), {max(off):.1%} at most")


def site_rtt_ms(one: str, other: str) -> float:
    """The true RTT between two places."""
    first, second = sorted((one, other))
    between_ms = 0.0 if first[0] == second[0] else SITES_MS[first[0], second[0]]
    return between_ms + PLACES[one] + PLACES[other]


def estimates_of(nodes: Iterable[RunningNode], one: str, other: str) -> list[dict[str, Any]]:
    """What nodes that are neither estimate of the pair, in either direction."""
    figures = []
    for node in nodes:
        if node.name in (one, other):
            continue
        names = {peer["node"]: peer["name"] for peer in node.control().get("/v1/peers")["peers"]}
        for pair in node.control().get("/v1/rtt")["pairs"]:
            if {names.get(pair["from"]), names.get(pair["to"])} == {one, other} and pair["estimated"]:
                figures.append(pair)
    return figures


@contextmanager
def emulated() -> Iterator[EmulatedMesh]:
    """A place for daemons behind an emulator of their own."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-rtt-") as root,
        tempfile.TemporaryDirectory() as sockets,
        LinkEmulator(seed=1) as net,
    ):
        nodes = Nodes(Path(root), Path(sockets))
        try:
            yield EmulatedMesh(nodes, net)
        finally:
            nodes.end()


def compare(nodes: Iterable[RunningNode], truths: Iterable[Truth]) -> list[Error]:
    """What each of `nodes` shows of each pair it is in."""
    figures = {
        node.name: {peer["name"]: peer["rtt"] for peer in node.control().get("/v1/peers")["peers"]} for node in nodes
    }
    errors = []
    for truth in truths:
        for here, there in ((truth.one, truth.other), (truth.other, truth.one)):
            figure = figures.get(here, {}).get(there)
            if figure is not None:
                errors.append(Error(truth, figure["min_ms"], figure["smoothed_ms"]))
    return errors


def print_lateness(mesh: EmulatedMesh, truths: Iterable[Truth]) -> None:
    """How much later than asked the emulator itself delivered."""
    directions = [way for truth in truths for way in ((truth.one, truth.other), (truth.other, truth.one))]
    late_ms = sorted(delay.made_ms - delay.asked_ms for way in directions for delay in mesh.net.delays(*way))
    p50, p95 = (late_ms[int(share * len(late_ms))] for share in (0.5, 0.95))
    print(f"   the emulator was late by {p50:.3f} ms at the median, {p95:.3f} ms at p95, {late_ms[-1]:.1f} ms at most")


def print_reported(nodes: list[RunningNode], truths: Iterable[Truth]) -> None:
    """What a third node is told of each undisturbed pair by the pair's own rows."""
    off_ms: list[tuple[float, float]] = []
    for truth in truths:
        third = next(node for node in nodes if node.name not in (truth.one, truth.other))
        names = {peer["node"]: peer["name"] for peer in third.control().get("/v1/peers")["peers"]}
        for pair in third.control().get("/v1/rtt")["pairs"]:
            ends = {names.get(pair["from"]), names.get(pair["to"])}
            if truth.what != "jitter" and ends == {truth.one, truth.other} and pair["source"] == "reported":
                off_ms.append((abs(pair["min_ms"] - truth.floor_ms), truth.floor_ms))
    shares = sorted(off / true_ms for off, true_ms in off_ms)
    met = sum(off <= max(GOAL_MS, GOAL * true_ms) for off, true_ms in off_ms)
    middle_ms = statistics.median(off for off, _ in off_ms)
    print(
        f"   reported to others: {middle_ms:.2f} ms and {shares[len(shares) // 2]:.1%} off at the median,"
        f" {met} of {len(off_ms)} within 5 % or 0.3 ms"
    )


def show(what: str, errors: list[Error]) -> None:
    """Medians by RTT."""
    if what:
        print(f"   {what}")
    met = sum(error.is_met for error in errors)
    print(f"   {'true':>8} {'least':>9} {'error':>8} {'median':>7} {'worst':>7} {'smoothed':>9} {'median':>7}")
    for rtt_ms in RTTS_MS:
        found = [error for error in errors if error.truth.floor_ms == rtt_ms]
        if not found:
            print(f"   {rtt_ms:6.1f}ms  no figure")
            continue
        off_ms = [abs(error.min_ms - rtt_ms) for error in found]
        smoothed = [abs(error.smoothed_ms / error.truth.mean_ms - 1) for error in found]
        print(
            f"   {rtt_ms:6.1f}ms {statistics.median(e.min_ms for e in found):7.2f}ms {statistics.median(off_ms):6.2f}ms"
            f" {statistics.median(off_ms) / rtt_ms:7.1%} {max(off_ms) / rtt_ms:7.1%}"
            f" {statistics.median(e.smoothed_ms for e in found):7.2f}ms {statistics.median(smoothed):7.1%}"
        )
    print(f"   within 5 % or 0.3 ms: {met} of {len(errors)} figures (goal: at the median)")
