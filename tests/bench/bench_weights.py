"""Fetching a stage's tensors between two node processes on loopback: how fast, and what it costs whom.

The way measured is a load's own: the source's child hashes and reads a model file, a tunnel between the two nodes, the
worker's child writes and hashes what comes. Each carrier fetches twice: the second time all is there.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import anyio
import anyio.to_thread
import numpy as np
from gguf import GGUFWriter
from making_links import ALab
from making_tunnels import TunnelLab
from making_weights import a_stage

from meshnode.engine.confinement.reach import Reach
from meshnode.engine.weights.cache import WeightsCache
from meshnode.engine.weights.source import StageWeights, WeightsSource
from meshnode.events import Event, WeightsFetched
from meshnode.identity import SigningKey
from meshnode.models import load_model_blocking, sampled_manifest
from meshnode.tunnel import Purpose, TunnelSettings

MIB = 2**20
SIDE = 4096
TENSOR_MIB = SIDE * SIDE * 2 // MIB
LAYERS = {"tcp": 32, "quic": 4}


def main() -> None:
    """Print one line for each carrier."""
    context = multiprocessing.get_context("fork")
    for carrier, layers in LAYERS.items():
        root = SigningKey.generate()
        ours, inner = context.Pipe()
        one_end, two_end = context.Pipe()
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory)
            write_model(place / "bench.gguf", layers)
            source = context.Process(target=anyio.run, args=(_source, place, root, carrier, layers, one_end))
            worker = context.Process(target=anyio.run, args=(_worker, place, root, carrier, layers, two_end, inner))
            source.start()
            worker.start()
            try:
                print(ours.recv())
            finally:
                for process in (worker, source):
                    process.terminate()
                    process.join()
                for folder in place.rglob("rpc"):
                    folder.chmod(0o700)


def write_model(path: Path, layers: int) -> None:
    """A file with one tensor of 32 MiB in each layer."""
    writer = GGUFWriter(path, "llama")
    for key, value in (("block_count", layers), ("embedding_length", 64), ("attention.head_count", 4)):
        writer.add_uint32(f"llama.{key}", value)
    random = np.random.default_rng(1)
    for name, side in (("token_embd.weight", 64), *((f"blk.{layer}.ffn_up.weight", SIDE) for layer in range(layers))):
        content = random.integers(0, 2**16, (side, side), dtype=np.uint16)
        writer.add_tensor(name, content.view(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


async def _source(place: Path, root: SigningKey, carrier: str, layers: int, other: Connection) -> None:
    package = load_model_blocking(str(place / "bench.gguf"), cache_dir=place / "known")
    stage = StageWeights((str(place / "bench.gguf"),), str(sampled_manifest(package)), ((0, layers),), False)
    side = WeightsSource(place / "known", lambda _peer, _opening: stage, Reach())
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        node = await TunnelLab(ALab(place / "one", stack, root), place, tasks).node(TunnelSettings(carrier=carrier))
        node.tunnels.offer(Purpose.WEIGHTS, side.serve, side.admit)
        other.send((node.node, node.address))
        while True:
            await anyio.to_thread.run_sync(other.recv)
            other.send(_cpu_s())


async def _worker(
    place: Path, root: SigningKey, carrier: str, layers: int, other: Connection, told: Connection
) -> None:  # fmt: skip
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        node = await TunnelLab(ALab(place / "two", stack, root), place, tasks).node(TunnelSettings(carrier=carrier))
        source, address = await anyio.to_thread.run_sync(other.recv)
        node.mesh.know({source: (address,)})
        while node.mesh.view().nodes.get(source) is None or node.mesh.view().nodes[source].link is None:
            await node.mesh.newer_view(node.mesh.view())
        events: list[Event] = []
        cache = WeightsCache(
            place / "weights", None, lambda _: None, node.tunnels.open, events.append, Reach(), lambda *_: None
        )
        times = []
        for generation in (1, 2):
            began = time.perf_counter()
            held = a_stage("bench", 0, layers, generation, coordinator=source, reserved_bytes=2**40)
            await cache.prepare(held, lambda _done, _total, _fetching: None)
            times.append(time.perf_counter() - began)
        fetched = [event.received_bytes for event in events if isinstance(event, WeightsFetched)]
        assert fetched == [layers * TENSOR_MIB * MIB, 0], events
        other.send("how much")
        costs = zip(("source", "its child", "worker", "its child"), (*other.recv(), *_cpu_s()), strict=True)
        shown = ", ".join(f"{whose} {spent_s * 1024 / (layers * TENSOR_MIB):.1f}" for whose, spent_s in costs)
        peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        told.send(
            f"fetching over {carrier:<5} {layers * TENSOR_MIB / times[0]:6.0f} MiB/s ({layers * TENSOR_MIB} MiB in"
            f" {times[0]:.1f} s), again in {times[1]:.1f} s; CPU s/GiB: {shown}; the worker's child has"
            f" {peak_mib:.0f} MiB at most"
        )


def _cpu_s() -> tuple[float, float]:
    """Of this process, and of its children that have ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime
