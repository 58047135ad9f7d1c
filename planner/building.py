"""The plan that people and engines see, made of a solved request.

Lives here: `Found` (a solved request) and `build_plan`. Not here: solving (`planner.dispatch`), predicting
(`planner.predicting`).
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.at_hand import missing_bytes
from planner.instance import Instance
from planner.memory import MemoryNeed
from planner.plan import CoordinatorPlan, SplitPlan, StageBytes, StagePlan
from planner.predicting import Forecast, forecast
from planner.request import PlanRequest
from planner.solution import Placement, Solution


@dataclass(frozen=True)
class Found:
    """A solved request. `solution`'s value and bound are in ns, or stages where `unit` says so.

    `capacity_only`: memory alone decided. `notes`: what a reader must know of how it was found.
    """

    instance: Instance
    need: MemoryNeed
    solution: Solution
    coordinator: str
    unit: str
    capacity_only: bool
    forecast: Forecast
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        request: PlanRequest,
        need: MemoryNeed,
        instance: Instance,
        solution: Solution,
        coordinator: str | None,
        *,
        unit: str,
        capacity_only: bool,
        notes: tuple[str, ...] = (),
    ) -> Found:
        """With its forecast; a coordinator that is not named is the first stage's node."""
        named = coordinator or instance.labels[solution.placements[0].device][0]
        expected = forecast(request, need, instance, solution.placements, named)
        return cls(instance, need, solution, named, unit, capacity_only, expected, notes)


def build_plan(request: PlanRequest, found: Found) -> SplitPlan:
    """The plan of `found`, with its warnings."""
    solution = found.solution
    scale = 1e9 if found.unit == "s" else 1
    stages = tuple(_stage(request, found, number, placement) for number, placement in enumerate(solution.placements))
    assert solution.value is not None, "a found solution has a value"
    return SplitPlan(
        model=request.model.name,
        objective=request.objective,
        engine=request.engine.name,
        workload=request.workload,
        context=request.workload.context or 0,
        stages=stages,
        hops=found.forecast.hops,
        coordinator=CoordinatorPlan(
            found.coordinator, any(stage.node == found.coordinator for stage in stages), found.need.host_bytes
        ),
        value=solution.value / scale,
        lower_bound=None if solution.lower_bound is None else solution.lower_bound / scale,
        unit=found.unit,
        method=solution.method,
        capacity_only=found.capacity_only,
        interrupted=solution.interrupted,
        prediction=found.forecast.prediction,
        warnings=(*found.notes, *_warnings(request, found, stages)),
    )


def _stage(request: PlanRequest, found: Found, number: int, placement: Placement) -> StagePlan:
    need, instance = found.need, found.instance
    start, end = placement.layer_start, placement.layer_end
    node, device = instance.labels[placement.device]
    held = StageBytes(
        weights=need.weights_prefix[end] - need.weights_prefix[start],
        kv=need.kv_prefix[end] - need.kv_prefix[start],
        state=need.state_prefix[end] - need.state_prefix[start],
        endpoint=instance.endpoint_bytes(start, end),
        compute=instance.compute_bytes[start == 0][end == instance.layer_count],
        usable=instance.usable_bytes[placement.device],
    )
    taken = found.forecast.stage_ns[number]
    seconds = None if taken is None else taken / 1e9
    holder = next(each for each in request.nodes if each.id == node)
    missing = missing_bytes(holder, request.model, start, end, held.endpoint)
    return StagePlan(number, node, device, start, end, held, seconds, missing)


def _warnings(request: PlanRequest, found: Found, stages: tuple[StagePlan, ...]) -> list[str]:
    warnings = []
    native, context = request.model.native_context, request.workload.context or 0
    if native and context > native:
        warnings.append(f"context {context} is above the model's own {native}")
    unknown = sorted({f"memory bandwidth of {stage.node}" for stage in stages if stage.seconds is None})
    unknown += [f"RTT from {hop.source} to {hop.target}" for hop in found.forecast.hops if hop.rtt_ms is None]
    if found.capacity_only:
        missing = f" (unknown: {_some(unknown)})" if unknown else ""
        warnings.append(f"capacity-only: the plan is made from memory alone{missing}")
    if any(hop.estimated for hop in found.forecast.hops):
        warnings.append("an RTT was estimated from network coordinates, not measured")
    coordinator = next(node for node in request.nodes if node.id == found.coordinator)
    if found.need.host_bytes and coordinator.host_usable_bytes is None:
        warnings.append(f"host memory of the coordinator {found.coordinator} is unknown")
    if found.solution.interrupted:
        warnings.append("the search was ended before it was done")
    return warnings


def _some(names: list[str]) -> str:
    shown = ", ".join(dict.fromkeys(names[:6]))
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown
