"""The planner's speed at the sizes the issues name, and its figures beside the proportional rule's on test beds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from planner import (
    CapacityShortfall,
    Exclusion,
    LayerSpec,
    Link,
    LinkMatrix,
    ModelSpec,
    NodeSpec,
    SplitPlan,
    Workload,
    plan_split,
    replan,
)

GB = 10**9
# usable GB, memory bandwidth GB/s: device classes by their makers' data sheets
CLASSES = (
    (80, 2039),
    (40, 1555),
    (32, 1792),
    (24, 1008),
    (24, 936),
    (24, 300),
    (16, 320),
    (64, 800),
    (96, 819),
    (36, 546),
)


def a_mesh(nodes: int, seed: int, *, regions: int = 3) -> tuple[list[NodeSpec], LinkMatrix]:
    """Random machines of known classes in a few places: 0.3 ms within, 10 to 60 ms between."""
    rng = random.Random(seed)
    where = [rng.randrange(regions) for _ in range(nodes)]
    specs = []
    for number in range(nodes):
        usable, bandwidth = rng.choice(CLASSES)
        specs.append(
            NodeSpec.single(
                f"n{number:04}",
                usable_bytes=round(usable * GB * rng.uniform(0.6, 0.95)),
                memory_bandwidth_bytes_per_s=bandwidth * 1e9,
                host_usable_bytes=8 * GB,
            )
        )
    far = [[0.3 if a == b else rng.uniform(10, 60) for b in range(regions)] for a in range(regions)]
    links = {
        (specs[a].id, specs[b].id): Link(far[where[a]][where[b]] + rng.uniform(0, 0.2), bandwidth_bytes_per_s=1.25e8)
        for a in range(nodes)
        for b in range(nodes)
        if a != b
    }
    return specs, LinkMatrix(links)


def a_model(layers: int, total_gb: float, seed: int = 1) -> ModelSpec:
    """Layers that differ by a tenth, with their KV cache."""
    rng = random.Random(seed)
    each = total_gb * GB / layers
    runs = tuple(
        LayerSpec.with_f16_kv(count=1, weight_bytes=round(each * rng.uniform(0.95, 1.05)), kv_bytes_per_token=4096)
        for _ in range(layers)
    )
    return ModelSpec("bench", runs, embedding_bytes=GB // 2, output_bytes=GB // 2, hidden_size=8192, vocabulary=128_256)


@contextmanager
def _timed(what: str) -> Iterator[list[str]]:
    """Prints `what` with the wall and CPU seconds of the block, then what the block appends."""
    found: list[str] = []
    started, worked = time.perf_counter(), time.process_time()
    yield found
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    print(f"{what}: {seconds:.2f} s (CPU {cpu:.2f} s)", *found, sep=", ", flush=True)


def _gap(plan: SplitPlan) -> str:
    gap = "unknown" if plan.gap is None else f"{100 * plan.gap:.2f} %"
    return f"gap {gap}, {len(plan.stages)} stages, {plan.method}"


def _speed(nodes: int, total_gb: float, goal: str) -> None:
    model = a_model(128, total_gb)
    for engine in ("llama_cpp_rpc", "chain"):
        for seed in (1, 2, 3):
            specs, links = a_mesh(nodes, seed)
            with _timed(f"latency, {engine}, {nodes} nodes x 128 layers, seed {seed}") as found:
                plan = plan_split(model, specs, links, Workload(context=8192), engine=engine)
                found += [_gap(plan), goal]


def _throughput() -> None:
    for nodes, total_gb in ((12, 180), (64, 400), (1000, 4000)):
        specs, links = a_mesh(nodes, 1)
        model = a_model(128, total_gb)
        with _timed(f"throughput, chain, {nodes} nodes x 128 layers") as found:
            plan = plan_split(model, specs, links, Workload(context=8192), objective="throughput", engine="chain")
            found.append(_gap(plan))


def _replan() -> None:
    """A node of the running plan is lost."""
    for engine in ("llama_cpp_rpc", "chain"):
        for nodes, total_gb in ((12, 180), (64, 400)):
            specs, links = a_mesh(nodes, 1)
            model = a_model(128, total_gb)
            running = plan_split(model, specs, links, Workload(context=8192), engine=engine)
            rest = [node for node in specs if node.id != running.nodes[-1]]
            with _timed(f"replan, {engine}, {nodes} nodes less one") as found:
                new = replan(model, rest, links, Workload(context=8192), running, engine=engine)
                worse = 100 * (new.plan.value / new.best_value - 1)
                found += [
                    f"{new.moved_bytes / GB:.1f}GB moved (at least {new.least_moved_bytes / GB:.1f}GB)",
                    f"{new.kept_layers} of 128 layers kept",
                    f"{worse:.1f} % above the best",
                ]


def _shortfall() -> None:
    """Far too little, a cache that is too large, and layers that don't fit as they are whole; 16 peers left out."""
    specs, links = a_mesh(64, 5)
    held_gb = sum(node.usable_bytes for node in specs) / GB
    peers = [Exclusion(f"z{n:02}", "client", node=replace(node, id=f"z{n:02}")) for n, node in enumerate(specs[:16])]
    smaller = a_model(128, held_gb / 2)
    for what, total_gb, workload in (
        ("far too little", 2 * held_gb, Workload(context=8192)),
        ("cache too large", 0.8 * held_gb, Workload(context=131072, lanes=8)),
        ("whole layers", 0.95 * held_gb, Workload(context=8192, lanes=2)),
    ):
        with _timed(f"shortfall, 64 nodes, {what}") as found:
            try:
                plan_split(a_model(128, total_gb), specs, links, workload, excluded=peers, smaller_files=(smaller,))
            except CapacityShortfall as shortfall:
                report = shortfall.report
                found += [report.kind.value, f"{len(report.remedies)} remedies", "goal 3 s"]


def _beside_proportional(name: str, model: ModelSpec, nodes: list[NodeSpec], links: LinkMatrix) -> None:
    row = [f"{name:34}"]
    for objective in ("latency", "throughput", "proportional"):
        plan = plan_split(model, nodes, links, Workload(context=4096), objective=objective, engine="chain")
        prediction = plan.prediction
        figures = (
            "unknown"
            if prediction is None
            else (f"{prediction.latency_s * 1000:8.2f} ms {1 / prediction.bottleneck_s:8.1f} tok/s")
        )
        row.append(figures)
    print("  ".join(row))


def _macs() -> list[NodeSpec]:
    sizes = ((36, 264.4), (96, 344.0), (64, 308.7), (96, 351.2), (36, 177.6))
    return [
        NodeSpec.single(f"mac{n}", usable_bytes=size * GB, memory_bandwidth_bytes_per_s=speed * 1e9)
        for n, (size, speed) in enumerate(sizes, 1)
    ]


def _cluster() -> list[NodeSpec]:
    kinds = (("a100", 4, 40, 1555), ("l4", 8, 24, 300), ("t4", 12, 16, 320))
    return [
        NodeSpec.single(f"{kind}-{n:02}", usable_bytes=round(size * GB * 0.9), memory_bandwidth_bytes_per_s=speed * 1e9)
        for kind, count, size, speed in kinds
        for n in range(count)
    ]


def _all_linked(nodes: list[NodeSpec], rtt_ms: Callable[[int, int], float]) -> LinkMatrix:
    pairs = [(a, b) for a in range(len(nodes)) for b in range(len(nodes)) if a != b]
    return LinkMatrix({(nodes[a].id, nodes[b].id): Link(rtt_ms(a, b), bandwidth_bytes_per_s=1.25e9) for a, b in pairs})


def main() -> None:
    """Speeds first, then the table."""
    _speed(12, 180, "goal 1 s, exact")
    _speed(64, 400, "goal 5 s, gap under 2 %")
    _speed(1000, 400, "goal 20 s")
    _throughput()
    _replan()
    _shortfall()
    print("\npredicted: the latency plan's, the throughput plan's, and the proportional rule's latency and tokens/s")
    equal = ModelSpec("40 layers of 1 GB", (LayerSpec(count=40, weight_bytes=GB),), hidden_size=4096)
    _beside_proportional("five Macs, free links", equal, _macs(), LinkMatrix.all_free())
    seventy = ModelSpec("70B", (LayerSpec.with_f16_kv(count=80, weight_bytes=1_750_000_000, kv_bytes_per_token=4096),),
                        embedding_bytes=2 * GB, output_bytes=2 * GB, hidden_size=8192)  # fmt: skip
    cluster = _cluster()
    _beside_proportional("24 nodes, 1 ms", seventy, cluster, _all_linked(cluster, lambda a, b: 1.0))
    regional = _all_linked(cluster, lambda a, b: 1.0 if a % 3 == b % 3 else 50.0)
    _beside_proportional("24 nodes, three regions at 50 ms", seventy, cluster, regional)


if __name__ == "__main__":
    main()
