"""Which of the operator's restrictions stands between a request and a plan, and what would lift it.

Lives here: `binding_of`. Not here: memory that does not suffice (`planner.diagnosis`), other remedies
(`planner.remedies`).

A restriction binds if a plan exists without it, all else being equal. Where several stand together, none alone is
named, and the smallest number of them is lifted. A target that must be met binds where the fastest plan found is
slower; what takes most of that plan's time is said: hops, the number of stages (the engine's overhead for each), or
memory bandwidth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from planner.building import Found
from planner.changes import Change, FetchPackage, FreeHostBytes, RelaxConstraint
from planner.compiling import compile_instance
from planner.constraints import Constraints
from planner.coordinators import coordinators_of
from planner.feasibility import find_placement
from planner.fewest import hold_all, solve_fewest
from planner.instance import Instance
from planner.memory import MemoryNeed
from planner.request import PlanRequest
from planner.sizes import format_gb
from planner.words import short_id


@dataclass(frozen=True)
class Binding:
    """`name`: the restriction; `because`: its figures in words; `lifted_by`: changes that make it no longer bind.

    `placeable_layers`: the longest prefix under it where that is not a question of memory; else it is asked of
    `instance`, or of all participants where that is None.
    """

    name: str
    because: str | None
    lifted_by: tuple[Change, ...]
    placeable_layers: int | None = None
    instance: Instance | None = None


def binding_of(request: PlanRequest, need: MemoryNeed, too_slow: Found | None) -> Binding | None:
    """What binds; None where memory alone stands in the way."""
    if too_slow is not None:
        return _target(request, too_slow)
    coordinators = coordinators_of(request, need)
    if coordinators.barrier is not None:
        memory = hold_all(compile_instance(request, request.workers, need))
        return _coordinator(request, need, coordinators.barrier) if memory.placements else None
    bare = replace(request, constraints=Constraints(coordinator=request.constraints.coordinator))
    if find_placement(bare) is None:
        return None
    for relaxed in (_max_stages, _min_stages, _boundaries, _rtt_cap):
        if (binding := relaxed(request, need)) is not None:
            return binding
    return Binding("several_constraints", "lifting one of them is not enough", tuple(_all_lifted(request.constraints)))


def _all_lifted(limits: Constraints) -> Iterator[RelaxConstraint]:
    """Each restriction that is set, dropped altogether."""
    if limits.max_stages is not None:
        yield RelaxConstraint("max_stages", None, f"drop max_stages ({limits.max_stages})")
    if limits.min_stages > 1:
        yield RelaxConstraint("min_stages", 1, f"drop min_stages ({limits.min_stages})")
    if limits.forbidden_boundaries:
        yield RelaxConstraint("forbidden_boundaries", None, "allow a cut before any layer")
    if limits.max_stage_rtt_ms is not None:
        yield RelaxConstraint("max_stage_rtt_ms", None, f"drop max_stage_rtt_ms ({limits.max_stage_rtt_ms:g})")


def _plans_with(request: PlanRequest, **constraints: object) -> bool:
    changed = replace(request.constraints, **constraints)  # type: ignore[arg-type]
    return changed != request.constraints and find_placement(replace(request, constraints=changed)) is not None


def _max_stages(request: PlanRequest, need: MemoryNeed) -> Binding | None:
    if not _plans_with(request, max_stages=None):
        return None
    free = replace(request, constraints=replace(request.constraints, max_stages=None))
    fewest = solve_fewest(compile_instance(free, request.workers, need)).value
    lifts = RelaxConstraint(
        "max_stages", fewest, f"allow {fewest} stages (max_stages is {request.constraints.max_stages})"
    )
    return Binding("max_stages", f"{fewest} stages are needed", (lifts,))


def _min_stages(request: PlanRequest, need: MemoryNeed) -> Binding | None:
    if not _plans_with(request, min_stages=1):
        return None
    asked = request.constraints.min_stages
    most = next((count for count in range(asked - 1, 0, -1) if _plans_with(request, min_stages=count)), 1)
    lifts = RelaxConstraint("min_stages", most, f"ask for at least {most} stages instead of {asked}")
    return Binding("min_stages", f"{most} stages are possible", (lifts,), placeable_layers=0)


def _boundaries(request: PlanRequest, need: MemoryNeed) -> Binding | None:
    if not _plans_with(request, forbidden_boundaries=frozenset()):
        return None
    forbidden = request.constraints.forbidden_boundaries
    single = [p for p in sorted(forbidden) if _plans_with(request, forbidden_boundaries=forbidden - {p})]
    lifts = [RelaxConstraint("forbidden_boundaries", p, f"allow a cut before layer {p}") for p in single[:3]]
    every = RelaxConstraint("forbidden_boundaries", None, "allow a cut before any layer")
    return Binding("forbidden_boundaries", f"{len(forbidden)} cuts are forbidden", tuple(lifts) or (every,))


def _rtt_cap(request: PlanRequest, need: MemoryNeed) -> Binding | None:
    cap = request.constraints.max_stage_rtt_ms
    if cap is None or not _plans_with(request, max_stage_rtt_ms=None):
        return None
    known = sorted({link.rtt_ms for link in request.links.links.values() if link.rtt_ms > cap})
    lowest = _first(known, lambda rtt: _plans_with(request, max_stage_rtt_ms=rtt))
    words = (
        "drop max_stage_rtt_ms: an RTT is unknown"
        if lowest is None
        else f"allow an RTT of {lowest:g} ms (the cap is {cap:g})"
    )
    lifts: list[Change] = [RelaxConstraint("max_stage_rtt_ms", lowest, words)]
    if request.constraints.coordinator is not None and _plans_with(request, coordinator=None):
        lifts.append(RelaxConstraint("coordinator", None, "let another node coordinate"))
    coordinator = request.constraints.coordinator or next(iter(coordinators_of(request, need).ids), None)
    within = compile_instance(request, request.workers, need, coordinator=coordinator)
    left = len(request.workers) - len(set(within.node_of))
    return Binding(
        "max_stage_rtt_ms", f"{left} participant(s) are above {cap:g} ms or unknown", tuple(lifts), instance=within
    )


def _coordinator(request: PlanRequest, need: MemoryNeed, barrier: str) -> Binding:
    pinned = request.constraints.coordinator
    asked = [node for node in request.nodes if pinned in (None, node.id)]
    lifts: list[Change] = []
    if barrier == "coordinator_host":
        able = [node for node in asked if not (request.engine.needs_package and node.has_package is False)]
        best = max(able, key=lambda node: (node.host_usable_bytes or 0, node.id))
        has = best.host_usable_bytes or 0
        because = f"{format_gb(need.host_bytes)} of host memory are needed, {short_id(best.id)} has {format_gb(has)}"
        lifts.append(FreeHostBytes(best.id, need.host_bytes - has))
    else:
        because = "the coordinator must hold the complete package"
        if pinned is None:
            because = "no participant holds the complete package"
        holders = sorted(asked, key=lambda node: (-(node.cached_bytes or 0), node.id))
        able = [node for node in holders if node.host_usable_bytes is None or node.host_usable_bytes >= need.host_bytes]
        for node in able[:1]:
            lifts.append(FetchPackage(node.id, max(0, request.model.file_bytes - (node.cached_bytes or 0))))
    if pinned is not None and _plans_with(request, coordinator=None):
        lifts.append(RelaxConstraint("coordinator", None, "let another node coordinate"))
    return Binding(barrier, because, tuple(lifts), placeable_layers=0)


def _target(request: PlanRequest, found: Found) -> Binding:
    prediction, target = found.forecast.prediction, request.constraints.min_tokens_per_s
    assert prediction is not None, "only a predicted plan is too slow"
    assert target is not None, "only a target can be missed"
    reached = math.floor(prediction.tokens_per_s * 100) / 100
    why, figures = _slowest_cause(request, found)
    because = f"{why}: {figures}; {prediction.tokens_per_s:.2f} tokens/s are predicted, {target:g} asked"
    lifts = (RelaxConstraint("min_tokens_per_s", reached or None, f"lower the target to {reached:g} tokens/s"),)
    return Binding("min_tokens_per_s", because, lifts, placeable_layers=_layers_in_time(found, target))


def _slowest_cause(request: PlanRequest, found: Found) -> tuple[str, str]:
    hop_ms = sum((hop.seconds or 0.0) * 1e3 for hop in found.forecast.hops)
    stage_ms = sum((taken or 0) / 1e6 for taken in found.forecast.stage_ns)
    entered = sum(hop.source == found.coordinator for hop in found.forecast.hops)
    overhead_ms = entered * request.engine.stage_overhead_ns / 1e6
    total = f"of {hop_ms + stage_ms:.1f} ms per token"
    if stage_ms >= hop_ms:
        return "memory_bandwidth", f"reading weights and cache takes {stage_ms:.1f} {total}"
    if overhead_ms > hop_ms / 2:
        return "number_of_stages", f"{entered} stages cost {overhead_ms:.1f} {total}"
    return "hops", f"{len(found.forecast.hops)} hops take {hop_ms:.1f} {total}"


def _layers_in_time(found: Found, target: float) -> int:
    """Layers that the plan found is through with when the target's time is up, taken in proportion."""
    prediction, stages = found.forecast.prediction, found.solution.placements
    assert prediction is not None, "only a predicted plan is too slow"
    share = min(1.0, prediction.tokens_per_s / target)
    return math.floor(share * stages[-1].layer_end)


def _first(ordered: list[float], holds: Callable[[float], bool]) -> float | None:
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        if holds(ordered[middle]):
            high = middle
        else:
            low = middle + 1
    return ordered[low] if low < len(ordered) else None
