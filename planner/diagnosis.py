"""Why no plan exists: the kind of shortfall, what binds, and every figure behind it.

Lives here: `shortfall_report`. Not here: the message's words (`planner.message`) and the remedies (`planner.remedies`).

Kinds, in the order they are judged: `aggregate` where the participants' usable bytes are fewer than what must lie on
them; `constraint` where a plan exists without the operator's restrictions or with another coordinator's budget, or
where one exists but is slower than the target; else `placement`: the sum suffices, whole layers don't fit.
"""

from __future__ import annotations

from dataclasses import replace

from planner.at_hand import known_bytes
from planner.binding import Binding, binding_of
from planner.building import Found
from planner.cache_ladder import CacheChoice
from planner.compiling import compile_instance
from planner.coordinators import coordinators_of
from planner.fewest import largest_first
from planner.instance import Instance
from planner.memory import MemoryNeed, memory_need
from planner.message import headline, message
from planner.nodes import NodeSpec
from planner.prefix import Prefix, longest_prefix, longest_windows
from planner.remedies import excluded_of, remedies_for
from planner.request import PlanRequest
from planner.shortfall import ParticipantReport, ShortfallKind, ShortfallReport


def shortfall_report(
    request: PlanRequest, too_slow: Found | None = None, cache: CacheChoice | None = None
) -> ShortfallReport:
    """The report for a request that has no plan, or only `too_slow`. Its context and cache types must be given; `cache`
    says how these came about.
    """
    need = memory_need(request.model, request.workload, request.engine)
    instance = compile_instance(request, request.workers, need)
    required, available = required_bytes(instance, need), sum(instance.usable_bytes)
    binding = None if required > available else binding_of(request, need, too_slow)
    kind = _kind(required > available, binding)
    prefix = _placeable(request, instance, binding)
    layers = request.model.layer_count
    gap = max(0, required - available)
    report = ShortfallReport(
        kind=kind,
        model=request.model.name,
        required_bytes=required,
        available_bytes=available,
        short_by_bytes=gap,
        layers=layers,
        placeable_layers=prefix.layers,
        short_layers=layers - prefix.layers,
        short_layers_bytes=need.total_prefix[-1] - need.total_prefix[prefix.layers] + need.last_bytes,
        participants=_participants(request, instance, _centre(request, need)),
        excluded=excluded_of(request),
        remedies=remedies_for(request, kind, () if binding is None else binding.lifted_by, gap),
        binds=None if binding is None else binding.name,
        headline="",
        message="",
        requirement=_requirement(request, need, required),
        leftovers=_leftovers(instance, prefix),
        placeable_exact=prefix.exact,
        binds_because=None if binding is None else binding.because,
        cache=cache,
    )
    report = replace(report, headline=headline(report))
    return replace(report, message=message(report))


def required_bytes(instance: Instance, need: MemoryNeed) -> int:
    """Bytes that must lie on participants' devices: one copy of a tied head where one device holds the model alone."""
    alone = any(instance.fits(device, 0, instance.layer_count) for device in range(instance.device_count))
    return need.solo_bytes if alone else need.split_bytes


def _kind(too_little: bool, binding: Binding | None) -> ShortfallKind:
    if too_little:
        return ShortfallKind.AGGREGATE
    return ShortfallKind.PLACEMENT if binding is None else ShortfallKind.CONSTRAINT


def _placeable(request: PlanRequest, instance: Instance, binding: Binding | None) -> Prefix:
    """The longest prefix under what binds; never all layers, since there is no plan."""
    most = instance.layer_count - 1
    if binding is not None and binding.placeable_layers is not None:
        placed = min(binding.placeable_layers, most)
        return Prefix(placed, placed, (), 0)
    within = instance if binding is None or binding.instance is None else binding.instance
    prefix = longest_prefix(within, largest_first(within)[: within.max_stages])
    if prefix.layers <= most:
        return replace(prefix, upper=min(prefix.upper, most))
    return Prefix(most, most, (), prefix.work_units)


def _centre(request: PlanRequest, need: MemoryNeed) -> str | None:
    """The node that RTTs are told from: who would coordinate, by host budget and then id."""
    able = (*coordinators_of(request, need).ids, request.constraints.coordinator)
    ranked = sorted(request.workers, key=lambda node: (-(node.host_usable_bytes or 0), node.id))
    return next((each for each in (*able, *(node.id for node in ranked)) if each is not None), None)


def _participants(request: PlanRequest, instance: Instance, centre: str | None) -> tuple[ParticipantReport, ...]:
    windows = longest_windows(instance) if instance.device_count else []
    longest: dict[str, int] = {}
    for (node, _), window in zip(instance.labels, windows, strict=True):
        longest[node] = max(window, longest.get(node, 0))
    return tuple(_participant(request, node, longest.get(node.id, 0), centre) for node in request.workers)


def _participant(request: PlanRequest, node: NodeSpec, placeable_layers: int, centre: str | None) -> ParticipantReport:
    cached = known_bytes(node, request.model)
    missing = None if cached is None else max(0, request.model.file_bytes - cached)
    rtt_ms, rtt_estimated = _rtt(request, node, centre)
    return ParticipantReport(
        node=node.id,
        capacity_bytes=node.capacity_bytes,
        usable_bytes=node.usable_bytes,
        cached_bytes=cached,
        missing_bytes=missing,
        rtt_ms=rtt_ms,
        transfer=node.can_receive,
        placeable_layers=placeable_layers,
        rtt_estimated=rtt_estimated,
    )


def _rtt(request: PlanRequest, node: NodeSpec, centre: str | None) -> tuple[float | None, bool]:
    """The node's own figure, or else its link's from the centre, and whether it is an estimate; to itself nothing,
    where any RTT is known at all."""
    if node.rtt_ms is not None or centre is None:
        return node.rtt_ms, node.rtt_estimated
    if node.id == centre:
        return (0.0 if request.links.links else None), False
    link = request.links.get(centre, node.id) or request.links.get(node.id, centre)
    return (None, False) if link is None else (link.rtt_ms, link.estimated)


def _requirement(request: PlanRequest, need: MemoryNeed, required: int) -> dict[str, int]:
    return {
        "weights": need.weights_prefix[-1],
        "kv": need.kv_prefix[-1],
        "state": need.state_prefix[-1],
        "endpoints": required - need.layers_bytes,
        "compute_per_stage": need.body_compute_bytes,
        "compute_last_stage": need.last_compute_bytes,
        "host": need.host_bytes,
    }


def _leftovers(instance: Instance, prefix: Prefix) -> dict[str, int]:
    """Bytes left over on each node after the longest prefix is placed."""
    left: dict[str, int] = {}
    used = {stage.device: instance.stage_bytes(stage.layer_start, stage.layer_end) for stage in prefix.placements}
    for device, (node, _) in enumerate(instance.labels):
        left[node] = left.get(node, 0) + instance.usable_bytes[device] - used.get(device, 0)
    return left
