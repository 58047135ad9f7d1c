"""Why no plan exists: the kind of shortfall and every figure behind it.

Lives here: `shortfall_report`. Not here: the message's words (`planner.message`) and the remedies (`planner.remedies`).
"""

from __future__ import annotations

from dataclasses import replace

from planner.compiling import compile_instance
from planner.constraints import Constraints
from planner.dispatch import eligible_coordinators, solve
from planner.instance import Instance
from planner.memory import MemoryNeed, memory_need
from planner.nodes import NodeSpec
from planner.prefix import Prefix, longest_prefix, longest_windows
from planner.remedies import remedies_for
from planner.request import PlanRequest
from planner.shortfall import ParticipantReport, ShortfallKind, ShortfallReport


def shortfall_report(request: PlanRequest) -> ShortfallReport:
    """The report for a request that has no plan. `request.workload.context` must be given."""
    from planner.message import headline, message

    need = memory_need(request.model, request.workload, request.engine)
    instance = compile_instance(request, request.workers, coordinator=request.constraints.coordinator, need=need)
    prefix = longest_prefix(instance, range(instance.device_count))
    windows = longest_windows(instance) if instance.device_count else []
    required = required_bytes(instance, need)
    available = sum(instance.usable_bytes)
    kind, binds = _kind(request, need, required, available)
    layers = request.model.layer_count
    placed = min(prefix.layers, layers - 1)
    last = need.total_prefix[-1] - need.total_prefix[placed] + need.last_bytes
    report = ShortfallReport(
        kind=kind,
        model=request.model.name,
        required_bytes=required,
        available_bytes=available,
        short_by_bytes=max(0, required - available),
        layers=layers,
        placeable_layers=placed,
        short_layers=layers - placed,
        short_layers_bytes=last,
        participants=tuple(_participant(request, need, instance, windows, node) for node in request.nodes),
        excluded=request.excluded,
        remedies=remedies_for(request, required, available),
        binds=binds,
        headline="",
        message="",
        requirement={
            "weights": need.weights_prefix[-1], "kv": need.kv_prefix[-1], "state": need.state_prefix[-1],
            "endpoints": required - need.layers_bytes, "host": need.host_bytes,
        },
        leftovers=_leftovers(instance, prefix),
        placeable_exact=prefix.exact,
    )  # fmt: skip
    return replace(report, headline=headline(report), message=message(report))


def required_bytes(instance: Instance, need: MemoryNeed) -> int:
    """Bytes that must lie on participants' devices: one copy of a tied head where one device holds the model alone."""
    alone = any(instance.fits(device, 0, instance.layer_count) for device in range(instance.device_count))
    return need.solo_bytes if alone else need.split_bytes


def _kind(request: PlanRequest, need: MemoryNeed, required: int, available: int) -> tuple[ShortfallKind, str | None]:
    if required > available:
        return ShortfallKind.AGGREGATE, None
    if not eligible_coordinators(request, need, request.workers):
        lacking = [node for node in request.nodes if node.has_package is False]
        held = len(lacking) < len(request.nodes)
        return ShortfallKind.CONSTRAINT, "coordinator_host" if held else "coordinator_package"
    bare = Constraints(coordinator=request.constraints.coordinator)
    if request.constraints != bare and solve(replace(request, constraints=bare)) is not None:
        return ShortfallKind.CONSTRAINT, _binding(request)
    return ShortfallKind.PLACEMENT, None


def _binding(request: PlanRequest) -> str:
    """The first single constraint without which a plan exists; all of them where none suffices alone."""
    limits, free = request.constraints, Constraints()
    for field in ("max_stages", "min_stages", "max_stage_rtt_ms", "forbidden_boundaries"):
        loosened = replace(limits, **{field: getattr(free, field)})
        if loosened != limits and solve(replace(request, constraints=loosened)) is not None:
            return field
    return "several constraints together"


def _participant(
    request: PlanRequest, need: MemoryNeed, instance: Instance, windows: list[int], node: NodeSpec
) -> ParticipantReport:
    own = [window for (name, _), window in zip(instance.labels, windows, strict=True) if name == node.id]
    missing = None if node.cached_bytes is None else max(0, request.model.file_bytes - node.cached_bytes)
    return ParticipantReport(
        node=node.id,
        capacity_bytes=node.capacity_bytes,
        usable_bytes=node.usable_bytes,
        cached_bytes=node.cached_bytes,
        missing_bytes=missing,
        rtt_ms=node.rtt_ms,
        transfer=node.can_receive,
        placeable_layers=max(own, default=0),
    )


def _leftovers(instance: Instance, prefix: Prefix) -> dict[str, int]:
    """Bytes left over on each node after the longest prefix is placed."""
    left: dict[str, int] = {}
    used = {stage.device: instance.stage_bytes(stage.layer_start, stage.layer_end) for stage in prefix.placements}
    for device, (node, _) in enumerate(instance.labels):
        left[node] = left.get(node, 0) + instance.usable_bytes[device] - used.get(device, 0)
    return left
