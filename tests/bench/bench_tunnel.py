"""Tunnels between two node processes on loopback: how much they carry, how fast they answer and open, by carrier.

The way measured is the engine's own: a program's socket, the loopback listener of node one, the tunnel, node two, a
socket of the program behind it. Beside it stand the same two processes without tunnels (plain TCP from relay to relay),
and loopback TCP alone.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import psutil
from making_links import ALab
from making_tunnels import TunnelLab, TunnelNode

from meshnode.identity import SigningKey
from meshnode.tunnel import LoopbackStream, Opening, Purpose, Tunnel, TunnelSettings, listen_for_owner, splice
from meshnode.tunnel.ready_socket import accepted
from proto.ids import NodeId

MIB = 2**20
BULK_MIB = {"plain": 1024, "tcp": 1024, "quic": 32}
RUNS = 2
ANSWERS = 300
ANSWER_BYTES = 24 * 1024
"""What a stage takes in, and gives out, for one token of a model with a hidden size of 6144 in f32."""
OPENS = 50
GOAL_MIB_S = 300


def main() -> None:
    """Print one line for each way."""
    context = multiprocessing.get_context("fork")
    _print_line("loopback TCP alone", _bulk(lambda sink: sink, BULK_MIB["plain"]))
    with _relays(context) as through:
        _print_line("plain TCP, two relays", _bulk(through, BULK_MIB["plain"]))
    for carrier, goal in (("tcp", f" (goal {GOAL_MIB_S})"), ("quic", "")):
        with _nodes(context, carrier) as nodes:
            bulk = _bulk(nodes.bulk_port, BULK_MIB[carrier])
            answer = f"{ANSWER_BYTES // 1024} KiB there and back in {nodes.answer_ms():.2f} ms"
            _print_line(f"tunnel over {carrier}", bulk, f", {answer}, opens in {nodes.open_ms():.1f} ms", goal)


@dataclass(frozen=True)
class _Bulk:
    """The best run's rate, and what all runs together cost the processes between source and sink: on a machine that
    has other work, the second figure is the one to compare."""

    mib_s: float
    cpu_s_per_gib: float


def _print_line(way: str, bulk: _Bulk, more: str = "", goal: str = "") -> None:
    cost = f", {bulk.cpu_s_per_gib:.2f} CPU s/GiB between" if bulk.cpu_s_per_gib else ""
    print(f"{way:<22} {bulk.mib_s:6.0f} MiB/s{goal}{cost}{more}")


def _bulk(port_to: Callable[[int], int], mib: int) -> _Bulk:
    """From this process to a sink in this process; `port_to(sink)` is where to connect to reach the sink."""
    rates, cpu_s = [], 0.0
    for _ in range(RUNS):
        with socket.create_server(("127.0.0.1", 0)) as sink:
            ended: list[float] = []
            reading = threading.Thread(target=_drain, args=(sink, ended))
            reading.start()
            with socket.create_connection(("127.0.0.1", port_to(sink.getsockname()[1]))) as source:
                began, spent_s = time.perf_counter(), _children_cpu_s()
                for _ in range(mib):
                    source.sendall(bytes(MIB))
                source.shutdown(socket.SHUT_WR)
                reading.join()
                cpu_s += _children_cpu_s() - spent_s
            rates.append(mib / (ended[0] - began))
    return _Bulk(max(rates), cpu_s * 1024 / (mib * RUNS))


def _children_cpu_s() -> float:
    total = 0.0
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # a relay that is done
            total += sum(child.cpu_times()[:2])
    return total


def _drain(sink: socket.socket, ended: list[float]) -> None:
    connection, _ = sink.accept()
    with connection:
        room = bytearray(MIB)
        while connection.recv_into(room):
            pass
        ended.append(time.perf_counter())


# --- two nodes -------------------------------------------------------------------------------------------------------


class _Nodes:
    """The two node processes, as seen from here."""

    def __init__(self, control: Connection) -> None:
        self._control = control

    def bulk_port(self, sink: int) -> int:
        """A port of node one; what goes in there comes out at `sink`, behind node two."""
        return self._ask(("bulk", sink))

    def answer_ms(self) -> float:
        """Median time of `ANSWER_BYTES` to node two and back."""
        times = []
        with socket.create_connection(("127.0.0.1", self._ask(("echo", 0)))) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(ANSWERS):
                began = time.perf_counter()
                connection.sendall(bytes(ANSWER_BYTES))
                connection.recv(ANSWER_BYTES, socket.MSG_WAITALL)
                times.append(time.perf_counter() - began)
        return 1000 * statistics.median(times)

    def open_ms(self) -> float:
        """Median time to open a tunnel and hear the other end through it."""
        self._control.send(("open", 0))
        taken: float = self._control.recv()
        return taken

    def _ask(self, question: tuple[str, int]) -> int:
        self._control.send(question)
        port: int = self._control.recv()
        return port


@contextmanager
def _nodes(context: multiprocessing.context.ForkContext, carrier: str) -> Iterator[_Nodes]:
    root = SigningKey.generate()
    control, inner = context.Pipe()
    one_end, two_end = context.Pipe()
    with tempfile.TemporaryDirectory() as directory:
        processes = [
            context.Process(target=anyio.run, args=(_node_one, Path(directory), root, carrier, inner, one_end)),
            context.Process(target=anyio.run, args=(_node_two, Path(directory), root, carrier, two_end)),
        ]
        for process in processes:
            process.start()
        try:
            assert control.recv() == "ready"
            yield _Nodes(control)
        finally:
            for process in processes:
                process.terminate()
                process.join()


async def _node_one(directory: Path, root: SigningKey, carrier: str, control: Connection, other: Connection) -> None:
    owner = os.getppid()
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        lab = TunnelLab(ALab(directory / "one", stack, root), directory, tasks)
        node = await lab.node(TunnelSettings(carrier=carrier))
        peer, address = await anyio.to_thread.run_sync(other.recv)
        node.mesh.know({peer: (address,)})
        while node.mesh.view().nodes.get(peer) is None or node.mesh.view().nodes[peer].link is None:
            await node.mesh.newer_view(node.mesh.view())
        control.send("ready")
        while True:
            what, sink = await anyio.to_thread.run_sync(control.recv)
            if what == "open":
                control.send(await _opening_ms(node, peer))
                continue
            # The stage's number tells node two where the bytes go; 0 is back.
            opening = Opening(Purpose.API, "bench", None, sink)
            control.send(await tasks.start(listen_for_owner, node.tunnels, peer, opening, lambda: owner))


async def _opening_ms(node: TunnelNode, peer: NodeId) -> float:
    times = []
    for _ in range(OPENS):
        began = time.perf_counter()
        async with await node.tunnels.open(peer, Opening(Purpose.API, "bench")) as tunnel:
            await tunnel.send(b"?")
            await tunnel.receive()
            times.append(time.perf_counter() - began)
        await anyio.sleep(0.06)  # below the rate of openings that a peer may have
    return 1000 * statistics.median(times)


async def _node_two(directory: Path, root: SigningKey, carrier: str, other: Connection) -> None:
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        lab = TunnelLab(ALab(directory / "two", stack, root), directory, tasks)
        node = await lab.node(TunnelSettings(carrier=carrier))
        node.tunnels.offer(Purpose.API, _serve, lambda peer, opening: None)
        other.send((node.node, node.address))
        await anyio.sleep_forever()


async def _serve(tunnel: Tunnel) -> None:
    if tunnel.stage:
        await splice(LoopbackStream(socket.create_connection(("127.0.0.1", tunnel.stage))), tunnel)
    else:
        async for piece in tunnel:
            await tunnel.send(piece)


# --- two relays ------------------------------------------------------------------------------------------------------


@contextmanager
def _relays(context: multiprocessing.context.ForkContext) -> Iterator[Callable[[int], int]]:
    """`through(sink)` is the port of a chain of two processes that pass bytes on by plain TCP."""
    processes: list[multiprocessing.process.BaseProcess] = []

    def through(sink: int) -> int:
        port = sink
        for _ in range(2):
            listener = socket.create_server(("127.0.0.1", 0))
            process = context.Process(target=anyio.run, args=(_relay, listener, port), daemon=True)
            process.start()
            processes.append(process)
            with listener:
                port = listener.getsockname()[1]
        return port

    try:
        yield through
    finally:
        for process in processes:
            process.terminate()
            process.join()


async def _relay(listener: socket.socket, port: int) -> None:
    listener.setblocking(False)
    plain = await accepted(listener)
    assert plain is not None
    await splice(LoopbackStream(plain), LoopbackStream(socket.create_connection(("127.0.0.1", port))))
