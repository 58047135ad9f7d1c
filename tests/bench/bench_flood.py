"""What a flood costs a daemon and those whom it serves: three daemons on loopback, one of which is flooded.

Each flood comes from a process of its own and is one of

- `half-open`: first packets of handshakes that nobody finishes, each of another connection, `INITIALS_PER_S` a second;
- `strangers`: `STRANGERS` connections at once that prove their address, finish TLS and say nothing more, each opened
  anew when it is dropped or has stood for a second;
- `junk`: datagrams that look like QUIC's first packets and are none, `JUNK_PER_S` a second;
- `member`: a member with a good key that sends gossip as fast as its link takes it, and comes back when it is cut off;
- `replay`: that member's own first packets, recorded, `JUNK_PER_S` a second: whoever taps the wire can do that.

Measured meanwhile, and before any: what a member's probe (a ping datagram) to the flooded daemon and to another one
takes until its ack is back, how long the operator of the flooded one waits for `status`, and its CPU and memory. Then
what became of the links and opinions of the honest ones.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
from hostile_peer import RawPeer, an_initial
from making_nodes import MESHNODE, Nodes, RunningNode, environment

from meshnode.state import StateDirectory
from proto.codec import encode_datagram, encode_frame
from proto.ids import MeshId, NodeId
from proto.messages import Ack, Ping, Revocations, ViewHash

MEASURED_S = float(os.environ.get("MESHNODE_BENCH_FLOOD_S", "15"))
INITIALS_PER_S = 400
JUNK_PER_S = 5000
STRANGERS = 200
FLOODS = ("half-open", "strangers", "junk", "member", "replay")
PROBE_EVERY_S = 0.02
STATUS_EVERY_S = 0.1
PROBE_LOST_S = 5.0
TICK_S = 0.01
READY = "ready"


def main() -> None:
    """Measure at rest, then under each flood."""
    with tempfile.TemporaryDirectory(prefix="mesh-flood-") as root, running(Path(root)) as (nodes, members):
        victim, _, other = nodes
        probes = [Prober(members[0], node) for node in (victim, other)]
        anyio.run(measure, "at rest", victim, probes, nodes)
        for kind in FLOODS:
            with flooding(kind, victim, members[1]):
                anyio.run(measure, kind, victim, probes, nodes)


@contextmanager
def running(root: Path) -> Iterator[tuple[list[RunningNode], list[Path]]]:
    """Three daemons of one mesh, and the state directories of two more members that do not run."""
    (root / "c").mkdir()
    nodes = Nodes(root, root / "c")
    try:
        mesh = nodes.mesh("attic", "study", "loft", options=("--network", "lan"))
        members = [root / name for name in ("prober", "flooder")]
        for state in members:
            token = mesh[0].invite()
            command = [*MESHNODE, "join", "--state-dir", str(state)]
            subprocess.run(command, check=True, env=environment(MESHNODE_JOIN=token), capture_output=True)
        yield mesh, members
    finally:
        nodes.end()


def address_of(node: RunningNode) -> str:
    return str(node.wait_event("node.started")["listen"])


async def a_member(state: Path, address: str, node: NodeId) -> RawPeer:
    """A link of the member that `state` holds to `node`."""
    with StateDirectory.open(state) as directory:
        credential, identity = directory.credential(), directory.identity()
    assert credential is not None, "it joined"
    peer = await RawPeer(address).open()
    await peer.authenticate(identity, MeshId(credential.mesh), credential.chain, node)
    peer.say(Revocations(entries=(), complete=True))
    return peer


# --- measuring ---


@dataclass
class Prober:
    """A member that pings `node` over its own link."""

    state: Path
    node: RunningNode
    took_ms: list[float] = field(default_factory=list)
    lost: int = 0

    async def run(self) -> None:
        """Ping for ever, one at a time."""
        self.took_ms, self.lost = [], 0
        peer = await a_member(self.state, address_of(self.node), NodeId(self.node.node))
        try:
            for nonce in itertools.count(1):
                started_s = time.perf_counter()
                peer.write_datagram(encode_datagram(Ping(nonce, 1)))
                with anyio.move_on_after(PROBE_LOST_S) as waiting:
                    await peer.until(lambda nonce=nonce: _answered(peer, nonce), "the ack", PROBE_LOST_S + 1)  # type: ignore[misc]
                if waiting.cancelled_caught:
                    self.lost += 1
                else:
                    self.took_ms.append(1000 * (time.perf_counter() - started_s))
                peer.datagrams.clear()
                await anyio.sleep(PROBE_EVERY_S)
        finally:
            peer.shut()


def _answered(peer: RawPeer, nonce: int) -> bool:
    return any(isinstance(message, Ack) and message.nonce == nonce for message in peer.datagrams)


async def measure(what: str, victim: RunningNode, probers: list[Prober], nodes: list[RunningNode]) -> None:
    """One line of figures for `MEASURED_S`."""
    process = psutil.Process(victim.pid)
    before = {node.name: len(_troubles(node, nodes)) for node in nodes}
    rss_mb, answers_ms = [process.memory_info().rss / 1e6], []
    async with anyio.create_task_group() as tasks:
        for prober in probers:
            tasks.start_soon(prober.run)
        spent_s, started_s = sum(process.cpu_times()[:2]), time.monotonic()
        while time.monotonic() - started_s < MEASURED_S:
            answers_ms.append(await anyio.to_thread.run_sync(_status_ms, victim))
            rss_mb.append(process.memory_info().rss / 1e6)
            await anyio.sleep(STATUS_EVERY_S)
        cpu = (sum(process.cpu_times()[:2]) - spent_s) / (time.monotonic() - started_s)
        tasks.cancel_scope.cancel()
    print(f"{what}: the flooded daemon uses {cpu:.0%} of a core; {rss_mb[0]:.1f} MB before, {max(rss_mb):.1f} at most")
    print(f"   its status: {_figures(answers_ms)}")
    for prober in probers:
        name = "the flooded one" if prober.node is victim else "another one"
        print(f"   probe of {name}: {_figures(prober.took_ms)}, {prober.lost} lost")
    troubles = [line for node in nodes for line in _troubles(node, nodes)[before[node.name] :]]
    print(f"   suspicions, deaths and lost links between honest daemons: {', '.join(troubles) or 'none'}")
    named = sorted({line["event"] for line in victim.events() if line["event"] in NAMED})
    print(f"   named by the flooded one so far: {', '.join(named) or 'nothing'}")


NAMED = frozenset({"handshake.shed", "peer.throttled", "wire.rejected", "link.refused"})


def _status_ms(node: RunningNode) -> float:
    started_s = time.perf_counter()
    node.control().get("/v1/status")
    return 1000 * (time.perf_counter() - started_s)


def _figures(values_ms: list[float]) -> str:
    ordered = sorted(values_ms)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"p50 {statistics.median(ordered):.2f} ms, p99 {p99:.1f}, most {ordered[-1]:.1f} of {len(ordered)}"


def _troubles(node: RunningNode, nodes: list[RunningNode]) -> list[str]:
    honest = {other.node for other in nodes}
    bad = ("peer.suspect", "peer.dead", "link.down")
    return [line["event"] for line in node.events() if line["event"] in bad and line["peer"] in honest]


# --- flooding ---


@contextmanager
def flooding(kind: str, victim: RunningNode, member: Path) -> Iterator[None]:
    """A process that floods `victim` until the block ends."""
    command = [sys.executable, "-m", "bench.bench_flood", kind, address_of(victim), victim.node, str(member)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == READY, "the flood can begin"
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def flood(kind: str, address: str, node: str, member: str) -> None:
    """Runs in the process that floods, for ever."""
    if kind == "member":
        asyncio.run(_flood_as_member(address, NodeId(node), Path(member)))
    if kind == "strangers":
        anyio.run(_flood_with_strangers, address)
    rng = random.Random(1)
    if kind == "half-open":
        packets, rate = [an_initial() for _ in range(int(INITIALS_PER_S * (MEASURED_S + 2)))], INITIALS_PER_S
    elif kind == "junk":
        packets, rate = [_junk(rng) for _ in range(JUNK_PER_S)], JUNK_PER_S
    else:
        packets, rate = asyncio.run(_recorded(address, NodeId(node), Path(member))), JUNK_PER_S
    host, _, port = address.rpartition(":")
    print(READY, flush=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        started_s = time.monotonic()
        for sent, packet in enumerate(itertools.cycle(packets)):
            while sent > rate * (time.monotonic() - started_s):
                time.sleep(TICK_S)
            sender.sendto(packet, (host, int(port)))


def _junk(rng: random.Random) -> bytes:
    """The form of a first packet (RFC 9000, section 17.2.2), and nothing right in it."""
    return b"\xc0\x00\x00\x00\x01\x08" + rng.randbytes(8) + b"\x08" + rng.randbytes(1183)


async def _recorded(address: str, node: NodeId, member: Path) -> list[bytes]:
    """Every datagram of a link that was opened, authenticated and used."""
    peer = await a_member(member, address, node)
    for number in range(100):
        peer.say(ViewHash(value=number.to_bytes(8, "big"), nodes=number))
    await asyncio.sleep(1.0)
    peer.shut()
    return peer.sent


async def _flood_with_strangers(address: str) -> None:
    print(READY, flush=True)
    async with anyio.create_task_group() as tasks:
        for _ in range(STRANGERS):
            tasks.start_soon(_strange, address)


async def _strange(address: str) -> None:
    while True:
        peer = RawPeer(address)
        with anyio.move_on_after(1.0):
            await peer.open()
            await peer.until(lambda: peer.closed is not None, "the close")  # noqa: B023
        peer.shut()


async def _flood_as_member(address: str, node: NodeId, member: Path) -> None:
    frames = b"".join(encode_frame(ViewHash(value=number.to_bytes(8, "big"), nodes=number)) for number in range(500))
    print(READY, flush=True)
    while True:
        peer = await a_member(member, address, node)
        while peer.closed is None:
            sender = peer.connection._streams[0].sender
            if sender._buffer_stop - sender._buffer_start < 1_000_000:
                peer.write(frames)
            await asyncio.sleep(TICK_S)
        peer.shut()


if __name__ == "__main__":
    flood(*sys.argv[1:5])
