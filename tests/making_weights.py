"""Model files with several large tensors, stages of them, and a source and a worker without a network between."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import numpy as np
from gguf import GGUFWriter

from meshnode.engine.confinement.reach import Reach
from meshnode.engine.weights.cache import WeightsCache
from meshnode.engine.weights.fnv import fnv1a_64
from meshnode.engine.weights.source import StageWeights, WeightsSource
from meshnode.engine.weights.talk import Talk
from meshnode.events import Event
from meshnode.models import load_model_blocking, sampled_manifest
from meshnode.split import Held
from meshnode.tunnel import Carrier, LoopbackStream, Opening, Tunnel, TunnelRefusal, TunnelRefused
from proto.ids import NodeId
from proto.messages import Fence

E = TypeVar("E", bound=Event)
LARGE = (2600, 2048)
"""10.65 MB in f16: just above the 10 MiB from which the engine asks by hash."""
SMALL = (64, 64)
LAYERS = 3


def write_model(path: Path, seed: int, *, tied: bool) -> dict[str, bytes]:
    """A file with one large and one small tensor in each layer; its tensors' bytes by name."""
    writer = GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", LAYERS)
    writer.add_uint32("llama.embedding_length", 64)
    writer.add_uint32("llama.attention.head_count", 4)
    writer.add_uint32("llama.context_length", 4096)
    random = np.random.default_rng(seed)
    shapes = {"token_embd.weight": LARGE, **({} if tied else {"output.weight": LARGE})}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.ffn_up.weight": LARGE, f"blk.{layer}.attn_q.weight": SMALL}
    written = {}
    for name, shape in shapes.items():
        tensor = random.integers(0, 2**16, shape, dtype=np.uint16).view(np.float16)
        writer.add_tensor(name, tensor)
        written[name] = tensor.tobytes()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


LARGE_BYTES = LARGE[0] * LARGE[1] * 2
COORDINATOR = NodeId("c" * 51 + "a")
OTHER_COORDINATOR = NodeId("d" * 51 + "a")
WORKER = NodeId("w" * 51 + "a")


def a_stage(
    model: str,
    layer_start: int,
    layer_end: int,
    generation: int = 1,
    *,
    coordinator: NodeId = COORDINATOR,
    reserved_bytes: int = 10 * LARGE_BYTES,
) -> Held:
    """A committed stage on one device."""
    ranges = (("cpu", layer_start, layer_end),)
    reserved = (("cpu", reserved_bytes),)
    return Held(model, Fence(generation, coordinator), layer_start, layer_end, ranges, reserved, True, 0.0)


def by_hash(tensors: dict[str, bytes], *names: str) -> dict[str, bytes]:
    """What the engine finds of these tensors: their bytes by file name."""
    return {f"{fnv1a_64(tensors[name]):016x}": tensors[name] for name in names}


def found_in(folder: Path) -> dict[str, bytes]:
    """What the engine finds in a folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if len(file.name) == 16}


class Tasks:
    """What goes on beside a test, until its end."""

    def __init__(self) -> None:
        self._running: list[asyncio.Task[None]] = []

    def start_soon(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        self._running.append(asyncio.create_task(work(*arguments)))

    async def end(self) -> None:
        for task in self._running:
            task.cancel()
        for outcome in await asyncio.gather(*self._running, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


class Source:
    """A coordinator with a model's file that gives any worker what a stage of layers [start, end) is made of."""

    def __init__(self, place: Path, layer_start: int, layer_end: int, seed: int = 1) -> None:
        self.path = place / "one.gguf"
        self.tensors = write_model(self.path, seed, tied=False)
        package = load_model_blocking(str(self.path), cache_dir=place / "known")
        manifest = sampled_manifest(package)
        assert manifest is not None
        self.tunnels: list[Tunnel] = []
        self.stage = StageWeights((str(self.path),), manifest, ((layer_start, layer_end),), layer_end == LAYERS)
        self.side = WeightsSource(place / "known", lambda _peer, _opening: self.stage, Reach())

    async def serve(self, end: socket.socket, opening: Opening, peer: NodeId = WORKER) -> None:
        """One tunnel to its end."""
        async with a_tunnel(end, peer, opening) as tunnel:
            self.tunnels.append(tunnel)
            await self.side.serve(tunnel)


class Worker:
    """A node without the model's files. `to` serves the other end of each tunnel it opens; `refusals` are what its next
    ones meet, `nearest` is the member that it fetches from, `cuts` after how many bytes those that follow break."""

    def __init__(self, place: Path, tasks: Tasks, to: Callable[..., Any], most_bytes: int | None) -> None:
        self.events: list[Event] = []
        self._news = asyncio.Event()
        self.root = place / "weights"
        self.cuts: list[int] = []
        self.refusals: list[TunnelRefusal] = []
        self.nearest: NodeId | None = None
        self.members: dict[NodeId, Callable[..., Any]] = {}
        self.tunnels: list[Tunnel] = []
        self.told: list[tuple[int, int, bool]] = []
        self._tasks = tasks
        self._to = to
        self.cache = WeightsCache(
            self.root, most_bytes, lambda _: None, self._open, self._emit, Reach(), lambda *_: self.nearest, keep_s=0
        )

    async def fetch(self, held: Held) -> Path | None:
        """The folder for the stage's server."""
        found = await self.cache.prepare(held, lambda *figures: self.told.append(figures))
        return None if found is None else Path(found)

    def of(self, kind: type[E]) -> list[E]:
        """Its events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type[Event]) -> None:
        """Returns once it has told such an event."""
        while not self.of(kind):
            self._news.clear()
            await self._news.wait()

    def _emit(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    @property
    def received_bytes(self) -> int:
        """What came through all its tunnels."""
        return sum(tunnel.received_bytes for tunnel in self.tunnels)

    async def _open(self, peer: NodeId, opening: Opening) -> Tunnel:
        if self.refusals:
            raise TunnelRefused(peer, self.refusals.pop(0), "refused")
        here, there = socket.socketpair()
        self._tasks.start_soon(self.members.get(peer, self._to), there, opening)
        stream = Cut(here, self.cuts.pop(0)) if self.cuts else LoopbackStream(here)
        tunnel = Tunnel(stream, peer, opening, Carrier.TCP, opened_here=True, ended=_ended)
        self.tunnels.append(tunnel)
        return tunnel


class Cut(LoopbackStream):
    """A stream that breaks after so many bytes."""

    def __init__(self, plain: socket.socket, after_bytes: int) -> None:
        super().__init__(plain)
        self._left_bytes = after_bytes

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        if self._left_bytes <= 0:
            self.abandon()
            raise anyio.BrokenResourceError
        data = await super().receive(min(max_bytes, self._left_bytes))
        self._left_bytes -= len(data)
        return data


@asynccontextmanager
async def a_tunnel(end: socket.socket, peer: NodeId, opening: Opening) -> AsyncIterator[Tunnel]:
    """The tunnel that the other side of `end` opened."""
    stream = LoopbackStream(end)
    async with Tunnel(stream, peer, opening, Carrier.TCP, opened_here=False, ended=_ended) as tunnel:
        yield tunnel


def _ended(_tunnel: Tunnel, _reason: str) -> None:
    """A tunnel without a ledger."""


def scripted(script: Callable[[Talk], None]) -> Callable[..., Any]:
    """A source that says what `script` says, right or wrong; for `Worker`'s `to`."""

    async def serve(end: socket.socket, _opening: Opening) -> None:
        await anyio.to_thread.run_sync(run, end)

    def run(end: socket.socket) -> None:
        with end:
            script(Talk(end))

    return serve
