"""From a request to an `Instance`: who takes part, under which coordinator, in integers.

Lives here: choosing the devices of one problem and compiling them, without times (`compile_instance`) and with them
(`TimedFamily`). Not here: which problems are tried and in which order (`planner.coordinators`), nor the solving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from planner.engine import Topology
from planner.instance import Instance
from planner.memory import MemoryNeed
from planner.model import MAX_LAYERS
from planner.nodes import DeviceSpec, NodeSpec
from planner.request import PlanRequest
from planner.timing import DeviceTimes, device_times, timing_under, token_pass

Placed = Sequence[tuple[str, DeviceSpec]]
"""(node id, device) of every device of a problem, sorted by node id."""


def compile_instance(
    request: PlanRequest, nodes: Sequence[NodeSpec], need: MemoryNeed, *, coordinator: str | None = None
) -> Instance:
    """The capacity-only instance of `nodes`. The RTT cap leaves out nodes above it, or unknown, from `coordinator`."""
    kept = [node for node in nodes if within_rtt_cap(request, coordinator, node.id)]
    return _untimed(request, need, _devices_of(kept))


@dataclass(frozen=True)
class TimedFamily:
    """Timed instances of the same devices under different coordinators; devices of unknown bandwidth are left out.

    `left_out`: node ids of those. In a star, a device whose RTT to the coordinator is unknown
    has no `entry_ns`, so that no plan can use it; nodes above the RTT cap are left out.
    """

    request: PlanRequest
    instance: Instance
    times: DeviceTimes
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, request: PlanRequest, nodes: Sequence[NodeSpec], need: MemoryNeed, *, batch: int) -> TimedFamily:
        """The family of `nodes`, timed for a pass of `batch` lanes."""
        devices = _devices_of(nodes)
        known = [each for each in devices if each[1].memory_bandwidth_bytes_per_s is not None]
        instance = _untimed(request, need, known)
        passing = token_pass(request.model, request.workload, request.engine, batch)
        times = device_times(passing, request.engine, request.links, known, instance.node_of)
        unknown = (node for node, device in devices if device.memory_bandwidth_bytes_per_s is None)
        return cls(request, instance, times, tuple(dict.fromkeys(unknown)))

    def under(self, coordinator: str | None, *, max_stages: int | None = None) -> Instance:
        """The instance under `coordinator`, with at most `max_stages` stages if given.

        In a chain, a coordinator that is not pinned must take the first stage (`first_devices`); None costs nothing to
        enter and leave, which is right where hops are free or only the bottleneck counts.
        """
        request, family = self.request, self._within_cap(coordinator)
        timing = timing_under(coordinator, family.times, request.engine, request.links)
        own = frozenset(index for index, node in enumerate(family.times.node_ids) if node == coordinator)
        chosen_first = not family.instance.star and coordinator is not None and request.constraints.coordinator is None
        return replace(
            family.instance,
            timing=timing,
            first_devices=own if chosen_first else None,
            coordinator=family.instance.node_of[min(own)] if own else None,
            max_stages=family.instance.max_stages if max_stages is None else max_stages,
        )

    def _within_cap(self, coordinator: str | None) -> TimedFamily:
        nodes = self.times.node_ids
        kept = [index for index, node in enumerate(nodes) if within_rtt_cap(self.request, coordinator, node)]
        if len(kept) == len(nodes):
            return self
        labels = tuple(self.instance.labels[index] for index in kept)
        instance = replace(
            self.instance,
            labels=labels,
            node_of=_numbered(labels),
            usable_bytes=tuple(self.instance.usable_bytes[index] for index in kept),
        )
        return replace(self, instance=instance, times=self.times.only(kept, instance.node_of))


def within_rtt_cap(request: PlanRequest, coordinator: str | None, node: str) -> bool:
    """Whether the RTT cap, if set, lets this node hold a stage under `coordinator`; an unknown RTT does not pass."""
    cap = request.constraints.max_stage_rtt_ms
    if cap is None or coordinator is None or node == coordinator or request.links.free:
        return True
    link = request.links.get(coordinator, node)
    return link is not None and link.rtt_ms <= cap


def _devices_of(nodes: Sequence[NodeSpec]) -> list[tuple[str, DeviceSpec]]:
    ordered = sorted(nodes, key=lambda node: node.id)
    return [(node.id, device) for node in ordered for device in sorted(node.devices, key=lambda device: device.id)]


def _untimed(request: PlanRequest, need: MemoryNeed, placed: Placed) -> Instance:
    limits = request.constraints
    cut_allowed = tuple(p not in limits.forbidden_boundaries for p in range(request.model.layer_count + 1))
    labels = tuple((node, device.id) for node, device in placed)
    return Instance(
        labels=labels,
        node_of=_numbered(labels),
        usable_bytes=tuple(device.usable_bytes for _, device in placed),
        layer_prefix_bytes=need.total_prefix,
        first_bytes=need.first_bytes,
        last_bytes=need.last_bytes,
        whole_bytes=need.whole_bytes,
        compute_bytes=(
            (need.body_compute_bytes, need.last_compute_bytes),
            (need.body_compute_bytes, need.whole_compute_bytes),
        ),
        cut_allowed=cut_allowed,
        min_stages=limits.min_stages,
        max_stages=min(MAX_LAYERS, limits.max_stages or MAX_LAYERS),
        first_devices=None,
        coordinator=None,
        star=request.engine.topology is Topology.STAR,
        timing=None,
        rows=_rows_of(need, cut_allowed),
    )


@lru_cache(maxsize=4)
def _rows_of(need: MemoryNeed, cut_allowed: tuple[bool, ...]) -> dict[int, list[int]]:
    """Rows by usable bytes, shared by all instances of one need: remedies ask about hundreds of meshes."""
    return {}


def _numbered(labels: Sequence[tuple[str, str]]) -> tuple[int, ...]:
    numbers = {node: number for number, node in enumerate(dict.fromkeys(node for node, _ in labels))}
    return tuple(numbers[node] for node, _ in labels)
