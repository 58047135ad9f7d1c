"""How large a new node must be, and how much must be freed on an existing one, for a plan to exist.

Lives here: `room_remedies`. Not here: the exact programme for few devices (`planner.enough`).

Where that programme applies the figures are exact at once. Elsewhere (many different devices, stage limits, an RTT cap)
they are found by bisection on the planner itself, for the few nodes where least must be freed by a first estimate: the
device is put between the two parts of a greedy order of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, TypeVar

from planner.changes import AddNode, Change, FreeBytes
from planner.compiling import compile_instance
from planner.coordinators import coordinators_of
from planner.dispatch import can_plan, must_meet
from planner.enough import SpareRoom
from planner.errors import MAX_BYTES
from planner.feasibility import is_impossible
from planner.fewest import largest_first
from planner.instance import Instance
from planner.memory import memory_need
from planner.nodes import DeviceSpec
from planner.request import PlanRequest

SizedT = TypeVar("SizedT", AddNode, FreeBytes)

_MOST_SEARCHED: Final = 3
"""Nodes for which freed bytes are searched by bisection."""


def room_remedies(request: PlanRequest) -> list[tuple[Change, bool]]:
    """(change, exact): adding a node, and freeing bytes on each node that could; each one suffices."""
    need = memory_need(request.model, request.workload, request.engine)
    if not coordinators_of(request, need).ids:
        return []
    instance = compile_instance(request, request.workers, need)
    spare = SpareRoom(instance)
    simple = request.constraints.max_stage_rtt_ms is None and not must_meet(request)
    if spare.exact and simple:
        return [*_freed_exactly(request, instance, spare), *_added_exactly(request, spare)]
    return [*_freed_by_search(request, instance), *_added_by_search(request, instance)]


def _freed_exactly(request: PlanRequest, instance: Instance, spare: SpareRoom) -> Iterator[tuple[Change, bool]]:
    for node_id, devices in _devices(request, instance).items():
        options = [
            (more, device.id, device.usable_bytes >= device.capacity_bytes)
            for index, device in devices
            if 0 < (more := spare.device_bytes(index) - device.usable_bytes) <= room_to_free(device)
        ]
        if options:
            more, device_id, offers_all = min(options)
            change = FreeBytes(node_id, device_id, more, offers_all)
            if can_plan(change.applied(request)):
                yield change, True


def _added_exactly(request: PlanRequest, spare: SpareRoom) -> Iterator[tuple[Change, bool]]:
    change = AddNode(spare.new_device_bytes())
    if 0 < change.usable_bytes <= MAX_BYTES and can_plan(change.applied(request)):
        yield change, True


def _freed_by_search(request: PlanRequest, instance: Instance) -> Iterator[tuple[Change, bool]]:
    estimates = (
        sorted(
            (
                (max(1, _estimate(instance, index) - device.usable_bytes), node_id, device)
                for node_id, devices in _devices(request, instance).items()
                for index, device in devices
            ),
            key=lambda estimate: (estimate[0], estimate[1], estimate[2].id),
        )
        if instance.device_count
        else []
    )
    searched: dict[str, FreeBytes] = {}
    for _, node_id, device in estimates[: 2 * _MOST_SEARCHED]:
        if node_id in searched or len(searched) == _MOST_SEARCHED:
            continue
        found = _least(
            lambda more: FreeBytes(node_id, device.id, more, device.usable_bytes >= device.capacity_bytes),  # noqa: B023
            request,
            instance,
            device.usable_bytes,
            room_to_free(device),
        )
        if found is not None:
            searched[node_id] = found
            yield found, _is_least(request, replace(found, usable_bytes=found.usable_bytes - 1))


def _added_by_search(request: PlanRequest, instance: Instance) -> Iterator[tuple[Change, bool]]:
    if (found := _least(AddNode, request, instance, 0, MAX_BYTES)) is not None:
        yield found, _is_least(request, replace(found, usable_bytes=found.usable_bytes - 1))


def _is_least(request: PlanRequest, less: Change) -> bool:
    return not must_meet(request) and is_impossible(less.applied(request))


def _least(
    change_of: Callable[[int], SizedT], request: PlanRequest, instance: Instance, before: int, most: int
) -> SizedT | None:
    """The least bytes, on top of `before`, that suffice: only sizes at which one more stage fits are tried."""
    low, high = 0, min(most, instance.stage_bytes(0, instance.layer_count))
    if not can_plan(change_of(high).applied(request)):
        return None
    while high - low > 1:
        middle = _fitting(instance, before + (low + high) // 2) - before
        if middle <= low:
            middle = _fitting(instance, before + high - 1) - before
            if middle <= low:
                break
        if can_plan(change_of(middle).applied(request)):
            high = middle
        else:
            low = middle
    return change_of(high)


def _fitting(instance: Instance, usable_bytes: int) -> int:
    """Bytes of the largest stage that fits into `usable_bytes`: between the two nothing more does."""
    one = replace(instance, labels=(("", ""),), node_of=(0,), usable_bytes=(usable_bytes,), timing=None)
    starts = [(start, end) for start, end in enumerate(one.reach_row(0)) if end > start and one.cut_allowed[start]]
    return max((one.stage_bytes(start, end) for start, end in starts), default=0)


def _estimate(instance: Instance, special: int) -> int:
    """Bytes `special` would need between the two parts of an order of the others by size; at most the whole model."""
    others = [device for device in largest_first(instance) if device != special]
    total = instance.layer_count
    ends = [0]
    for device in others:
        ends.append(instance.reach_row(device)[ends[-1]])
    starts = [total]
    for device in reversed(others):
        starts.append(min(starts[-1], instance.lo(device, starts[-1])))
    starts.reverse()
    return min(instance.stage_bytes(end, start) if end < start else 0 for end, start in zip(ends, starts, strict=True))


def room_to_free(device: DeviceSpec) -> int:
    """The most that could be asked to be freed: what the device has beyond what is usable, or as much as it gives
    now."""
    beyond = device.capacity_bytes - device.usable_bytes
    return beyond if device.declared_usable_bytes is not None and beyond > 0 else device.usable_bytes


def _devices(request: PlanRequest, instance: Instance) -> dict[str, list[tuple[int, DeviceSpec]]]:
    """Node id -> (number in the instance, device) of each of its devices."""
    number = {label: index for index, label in enumerate(instance.labels)}
    return {node.id: [(number[node.id, device.id], device) for device in node.devices] for node in request.workers}
