"""What the planner is asked with, and a plan as it makes it, of any cut, for tests of what follows from plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planner.constraints import Objective
from planner.links import Link, LinkMatrix
from planner.nodes import NodeSpec
from planner.plan import CoordinatorPlan, SplitPlan, StageBytes, StagePlan
from planner.workload import Workload

MB = 10**6
GB = 10**9


def a_plan(
    layers: Sequence[int],
    *,
    nodes: Sequence[str] | None = None,
    devices: Sequence[str] | None = None,
    host_bytes: int = 50 * MB,
    context: int = 2048,
    workload: Workload | None = None,
) -> SplitPlan:
    """Stages of so many layers each on `node0`, `node1`, ...; the first coordinates."""
    names = nodes or [f"node{number}" for number in range(len(layers))]
    stages = []
    begin = 0
    for number, count in enumerate(layers):
        is_last = number == len(layers) - 1
        sizes = StageBytes(
            weights=count * MB, kv=MB, state=0, endpoint=100 * MB if is_last else 0, compute=10 * MB, usable=1000 * MB
        )
        device = "cpu" if devices is None else devices[number]
        stages.append(StagePlan(number, names[number], device, begin, begin + count, sizes, None))
        begin += count
    return SplitPlan(
        model="tiny",
        objective=Objective.FEWEST,
        engine="llama_cpp_rpc",
        workload=workload or Workload(context=context),
        context=context,
        stages=tuple(stages),
        hops=(),
        coordinator=CoordinatorPlan(names[0], is_stage=True, host_bytes=host_bytes),
        value=float(len(layers)),
        lower_bound=1.0,
        unit="stages",
        method="made",
        capacity_only=True,
    )


def a_node(name: str, usable_gb: float = 6, bandwidth_gb_s: float | None = 100, **more: Any) -> NodeSpec:
    """One device; `bandwidth_gb_s` None: unknown."""
    speed = None if bandwidth_gb_s is None else bandwidth_gb_s * 1e9
    return NodeSpec.single(name, usable_bytes=round(usable_gb * GB), memory_bandwidth_bytes_per_s=speed, **more)


def linked(*nodes: NodeSpec, rtt_ms: float = 1.0, **far: float) -> LinkMatrix:
    """Every two of them, at 1 GB/s. `far`: another RTT of every link of that node."""
    names = [node.id for node in nodes]
    return LinkMatrix(
        {(a, b): Link(max(far.get(a, rtt_ms), far.get(b, rtt_ms)), 1e9) for a in names for b in names if a != b}
    )
