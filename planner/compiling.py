"""From a request to an `Instance`: who takes part, under which coordinator, in integers.

Lives here: choosing the devices of one problem and compiling them. Not here: which problems are tried and in which
order (`planner.dispatch`), nor the solving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planner.engine import Topology
from planner.instance import Instance
from planner.memory import MemoryNeed, memory_need
from planner.model import MAX_LAYERS
from planner.nodes import DeviceSpec, NodeSpec
from planner.request import PlanRequest
from planner.timing import compile_timing, token_pass


def compile_instance(
    request: PlanRequest,
    nodes: Sequence[NodeSpec],
    *,
    coordinator: str | None = None,
    timed: bool = False,
    batch: int = 1,
    need: MemoryNeed | None = None,
) -> Instance:
    """The instance of `nodes` (a subset of the request's) under `coordinator`, timed for a pass of `batch` lanes.

    A timed instance leaves out devices whose bandwidth is unknown, and in a star those whose RTT to the coordinator is.
    In a chain whose coordinator is not pinned, a named `coordinator` must take the first stage (`first_devices`).
    The RTT cap leaves out nodes above it, or unknown, as seen from `coordinator`.
    """
    need = need or memory_need(request.model, request.workload, request.engine)
    kept = [node for node in nodes if within_rtt_cap(request, coordinator, node)]
    placed = [(node.id, device) for node in sorted(kept, key=lambda node: node.id) for device in node.devices]
    if timed:
        placed = [(node, device) for node, device in placed if is_timed(request, coordinator, node, device)]
    numbers = {node: number for number, node in enumerate(dict.fromkeys(node for node, _ in placed))}
    instance = untimed_instance(request, need, placed, numbers, coordinator)
    if not timed or not placed:
        return instance
    passing = token_pass(request.model, request.workload, request.engine, batch)
    timing = compile_timing(passing, request.engine, request.links, coordinator, placed, instance.node_of)
    return replace(instance, timing=timing)


def untimed_instance(
    request: PlanRequest,
    need: MemoryNeed,
    placed: Sequence[tuple[str, DeviceSpec]],
    numbers: dict[str, int],
    coordinator: str | None,
) -> Instance:
    """The instance's memory side. `placed`: (node id, device) sorted; `numbers`: node id to node number."""
    limits = request.constraints
    layers = request.model.layer_count
    star = request.engine.topology is Topology.STAR
    first = None
    if not star and coordinator is not None and limits.coordinator is None:
        first = frozenset(index for index, (node, _) in enumerate(placed) if node == coordinator)
    return Instance(
        labels=tuple((node, device.id) for node, device in placed),
        node_of=tuple(numbers[node] for node, _ in placed),
        usable_bytes=tuple(device.usable_bytes for _, device in placed),
        layer_prefix_bytes=need.total_prefix,
        first_bytes=need.first_bytes,
        last_bytes=need.last_bytes,
        whole_bytes=need.whole_bytes,
        compute_bytes=((need.body_compute_bytes, need.last_compute_bytes),) * 2,
        cut_allowed=tuple(p not in limits.forbidden_boundaries for p in range(layers + 1)),
        min_stages=limits.min_stages,
        max_stages=min(MAX_LAYERS, limits.max_stages or MAX_LAYERS),
        first_devices=first,
        coordinator=None if coordinator is None else numbers.get(coordinator),
        star=star,
        timing=None,
    )


def within_rtt_cap(request: PlanRequest, coordinator: str | None, node: NodeSpec) -> bool:
    """Whether the RTT cap, if set, lets this node hold a stage under `coordinator`; an unknown RTT does not pass."""
    cap = request.constraints.max_stage_rtt_ms
    if cap is None or coordinator is None or node.id == coordinator or request.links.free:
        return True
    link = request.links.get(coordinator, node.id)
    return link is not None and link.rtt_ms <= cap


def is_timed(request: PlanRequest, coordinator: str | None, node: str, device: DeviceSpec) -> bool:
    """Whether this device can be part of a timed plan: nothing it would cost is unknown."""
    if device.memory_bandwidth_bytes_per_s is None:
        return False
    if request.engine.topology is not Topology.STAR or request.links.free or coordinator in (None, node):
        return True
    assert coordinator is not None
    return None not in (request.links.get(coordinator, node), request.links.get(node, coordinator))
