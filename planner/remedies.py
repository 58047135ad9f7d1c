"""What would help: changes that were re-planned, never canned.

Lives here: `remedies_for`. Each remedy with `sufficient` was applied and planned; figures (a context, bytes to add) are
found by bisection on the planner itself, so one step less does not plan. Ordered by how little they ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from planner.dispatch import solve
from planner.errors import MAX_BYTES
from planner.message import short_id
from planner.nodes import DeviceSpec, NodeSpec, Willingness
from planner.request import PlanRequest
from planner.shortfall import Remedy, RemedyAction
from planner.sizes import format_gb
from planner.workload import CacheType

_CELLS = 256
_NEW_NODE = "added"


def remedies_for(request: PlanRequest, required: int, available: int) -> tuple[Remedy, ...]:
    """Every remedy found for a request that has no plan."""
    gap = max(0, required - available)
    found = [
        *_shorter_context(request), *_cache_types(request), *_fewer_lanes(request), *_admissions(request, gap),
        *_smaller_files(request), *_freed(request), *_added(request),
    ]  # fmt: skip
    return tuple(found)


def _plans(request: PlanRequest) -> bool:
    return solve(request) is not None


def _closes(before: PlanRequest, after: PlanRequest) -> int:
    from planner.memory import memory_need

    needs = [memory_need(each.model, each.workload, each.engine).split_bytes for each in (before, after)]
    return max(0, needs[0] - needs[1])


def _shorter_context(request: PlanRequest) -> list[Remedy]:
    context = request.workload.context or 0
    steps = (context - 1) // _CELLS
    best = _last_true(steps, lambda step: _plans(request.at_context(step * _CELLS)))
    if best < 1:
        return []
    shorter = best * _CELLS
    closes = _closes(request, request.at_context(shorter))
    asks = f"shorten the context to {shorter} tokens (from {context})"
    return [Remedy(RemedyAction.SHORTEN_CONTEXT, asks, closes, True, {"context": shorter})]


def _cache_types(request: PlanRequest) -> list[Remedy]:
    workload = request.workload
    if not workload.flash_attention:
        return []
    found = []
    for kind in (CacheType.Q8_0, CacheType.Q4_0):
        changed = replace(request, workload=replace(workload, k_type=kind, v_type=kind))
        closes = _closes(request, changed)
        if closes == 0:
            continue
        enough = _plans(changed)
        asks = f"quantise the KV cache to {kind.value} (saves {format_gb(closes)})"
        details = {"k_type": kind.value, "v_type": kind.value}
        found.append(Remedy(RemedyAction.CACHE_TYPE, asks, closes, enough, details))
        if enough:
            break
    return found


def _fewer_lanes(request: PlanRequest) -> list[Remedy]:
    lanes = request.workload.lanes
    best = _last_true(lanes - 1, lambda count: count > 0 and _plans(_with_lanes(request, count)))
    if best < 1:
        return []
    closes = _closes(request, _with_lanes(request, best))
    asks = f"use {best} lane{'' if best == 1 else 's'} instead of {lanes}"
    return [Remedy(RemedyAction.FEWER_LANES, asks, closes, True, {"lanes": best})]


def _with_lanes(request: PlanRequest, lanes: int) -> PlanRequest:
    return replace(request, workload=replace(request.workload, lanes=lanes))


def _admissions(request: PlanRequest, gap: int) -> list[Remedy]:
    found = []
    for exclusion in request.excluded:
        node = exclusion.node
        if node is None or not node.usable_bytes:
            continue
        rest = tuple(each for each in request.excluded if each is not exclusion)
        admitted = replace(node, willingness=Willingness.ALWAYS)
        enough = _plans(replace(request, nodes=(*request.nodes, admitted), excluded=rest))
        advice = f": {exclusion.advice}" if exclusion.advice else ""
        asks = f"admit {short_id(node.id)} ({format_gb(node.usable_bytes)}, excluded as {exclusion.reason}){advice}"
        closes = min(node.usable_bytes, gap) if gap else node.usable_bytes
        details = {"node": node.id, "reason": exclusion.reason, "usable_bytes": node.usable_bytes}
        found.append(Remedy(RemedyAction.ADMIT_PEER, asks, closes, enough, details))
    return found


def _smaller_files(request: PlanRequest) -> list[Remedy]:
    found = []
    for model in sorted(request.smaller_files, key=lambda each: -each.file_bytes):
        changed = replace(request, model=model)
        if _plans(changed):
            asks = f"use the smaller file {model.name} ({format_gb(model.file_bytes)})"
            details = {"model": model.name, "file_bytes": model.file_bytes}
            found.append(Remedy(RemedyAction.SMALLER_FILE, asks, _closes(request, changed), True, details))
            break
    return found


def _freed(request: PlanRequest) -> list[Remedy]:
    """Bytes to free on one node so that it alone closes the gap; only where the device is large enough for it."""
    best: Remedy | None = None
    for node in request.workers:
        for device in node.devices:
            room = device.capacity_bytes - device.usable_bytes
            if room <= 0 or not _plans(_with_room(request, node, device, room)):
                continue
            freed = _first_true(room, partial(_plans_with_room, request, node, device))
            if best is None or freed < best.closes_bytes:
                asks = f"free {format_gb(freed)} on {short_id(node.id)}"
                details = {"node": node.id, "device": device.id, "bytes": freed}
                best = Remedy(RemedyAction.FREE_BYTES, asks, freed, True, details)
    return [] if best is None else [best]


def _plans_with_room(request: PlanRequest, node: NodeSpec, device: DeviceSpec, extra_bytes: int) -> bool:
    return _plans(_with_room(request, node, device, extra_bytes))


def _with_room(request: PlanRequest, node: NodeSpec, device: DeviceSpec, extra_bytes: int) -> PlanRequest:
    larger = replace(device, declared_usable_bytes=device.usable_bytes + extra_bytes)
    devices = tuple(larger if each is device else each for each in node.devices)
    nodes = tuple(replace(each, devices=devices) if each is node else each for each in request.nodes)
    return replace(request, nodes=nodes)


def _added(request: PlanRequest) -> list[Remedy]:
    """The least usable bytes of one more node with which a plan exists; exact: one byte less does not plan."""
    ceiling = 1 << 20
    while ceiling < MAX_BYTES and not _plans(_with_node(request, ceiling)):
        ceiling *= 2
    if ceiling >= MAX_BYTES:
        return []
    least = _first_true(ceiling, lambda size: _plans(_with_node(request, size)))
    asks = f"add a node with at least {_ceil_gb(least)} usable"
    return [Remedy(RemedyAction.ADD_NODE, asks, least, True, {"usable_bytes": least})]


def _with_node(request: PlanRequest, usable_bytes: int) -> PlanRequest:
    name = _NEW_NODE
    while any(node.id == name for node in request.nodes):
        name += "+"
    return replace(request, nodes=(*request.nodes, NodeSpec.single(name, usable_bytes=usable_bytes, has_package=False)))


def _ceil_gb(count: int) -> str:
    """Rounded up to a tenth of a GB, so that a node of the size shown is never too small."""
    return format_gb(-(-count // 10**8) * 10**8)


def _last_true(highest: int, holds: Callable[[int], bool]) -> int:
    """The largest number in 1..highest that holds, for a property that holds up to some point; 0 where none does."""
    low, high = 0, highest
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _first_true(highest: int, holds: Callable[[int], bool]) -> int:
    """The smallest number in 1..highest that holds, for a property that holds from some point on up to `highest`."""
    low, high = 1, highest
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
