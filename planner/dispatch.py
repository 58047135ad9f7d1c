"""`plan_split`: from a request to a plan, or to a shortfall that explains itself.

Lives here: which coordinators and which nodes are tried, and the plan made of a solver's placements. Not here: the
solvers (`planner.fewest`), the compiling (`planner.compiling`), the shortfall (`planner.diagnosis`).

Nodes willing `when_needed` are tried only where no plan exists without them. A coordinator that is not pinned is
chosen among the eligible ones: the largest host budget, then the lowest id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from planner.compiling import compile_instance
from planner.constraints import Constraints, Exclusion, Objective
from planner.engine import LLAMA_CPP_RPC, EngineProfile, Topology, engine_named
from planner.errors import CapacityShortfall, InvalidPlanInput
from planner.fewest import solve_fewest, solve_proportional
from planner.instance import Instance
from planner.links import LinkMatrix
from planner.memory import MemoryNeed, memory_need
from planner.model import ModelSpec
from planner.nodes import NodeSpec, Willingness
from planner.plan import CoordinatorPlan, HopPlan, SplitPlan, StageBytes, StagePlan
from planner.request import UNRESTRICTED, PlanRequest
from planner.solution import Placement, Solution
from planner.workload import Workload


@dataclass(frozen=True)
class Found:
    """A solved request: the instance, its placements, and who coordinates."""

    instance: Instance
    need: MemoryNeed
    solution: Solution
    coordinator: str
    warnings: tuple[str, ...] = ()


def plan_split(
    model: ModelSpec,
    nodes: Iterable[NodeSpec],
    links: LinkMatrix,
    workload: Workload,
    *,
    objective: str | Objective = Objective.LATENCY,
    constraints: Constraints = UNRESTRICTED,
    excluded: Sequence[Exclusion] = (),
    engine: str | EngineProfile = LLAMA_CPP_RPC,
    smaller_files: Sequence[ModelSpec] = (),
) -> SplitPlan:
    """Place every layer of `model` on `nodes` at `workload`.

    `workload.context` None asks for the largest context that fits, at most the model's own. Raises `CapacityShortfall`
    where no plan exists (its `report` says why and what would help) and `InvalidPlanInput` for figures no plan can be
    made from.
    """
    request = PlanRequest(
        model=model,
        nodes=tuple(nodes),
        links=links,
        workload=workload,
        objective=_objective(objective),
        constraints=constraints,
        excluded=tuple(excluded),
        engine=engine_named(engine) if isinstance(engine, str) else engine,
        smaller_files=tuple(smaller_files),
    )
    asked = workload.context is not None
    if not asked:
        request = request.at_context(_largest_context(request))
    if (found := solve(request)) is not None:
        return _plan(request, found)
    from planner.diagnosis import shortfall_report

    raise CapacityShortfall(shortfall_report(request))


def solve(request: PlanRequest) -> Found | None:
    """The request's placements under the objective, or None where no plan exists."""
    need = memory_need(request.model, request.workload, request.engine)
    glad = tuple(node for node in request.workers if node.willingness is Willingness.ALWAYS)
    for nodes in dict.fromkeys((glad, request.workers)):
        for coordinator in eligible_coordinators(request, need, nodes):
            instance = compile_instance(request, nodes, coordinator=coordinator, need=need)
            solution, warnings = _solve_one(request, instance)
            if solution is not None:
                named = coordinator or instance.labels[solution.placements[0].device][0]
                return Found(instance, need, solution, named, warnings)
    return None


def eligible_coordinators(request: PlanRequest, need: MemoryNeed, nodes: Sequence[NodeSpec]) -> tuple[str | None, ...]:
    """Who may coordinate, best first; `(None,)` for a chain that pins nobody: its first stage does.

    A star's coordinator holds the embedding and host compute in host memory and needs the complete package. An unknown
    host budget or package does not bar a node.
    """
    pinned = request.constraints.coordinator
    if request.engine.topology is not Topology.STAR:
        return (pinned,)
    able = [
        node
        for node in request.nodes
        if pinned in (None, node.id)
        and (node.host_usable_bytes is None or node.host_usable_bytes >= need.host_bytes)
        and not (request.engine.needs_package and node.has_package is False)
    ]
    return tuple(node.id for node in sorted(able, key=lambda node: (-(node.host_usable_bytes or 0), node.id)))


def _solve_one(request: PlanRequest, instance: Instance) -> tuple[Solution | None, tuple[str, ...]]:
    if not instance.device_count:
        return None, ()
    warnings: tuple[str, ...] = ()
    if request.objective is Objective.PROPORTIONAL:
        if (proportional := solve_proportional(instance)) is not None:
            return proportional, ()
        warnings = ("the proportional rule does not fit this model; the fewest stages were taken instead",)
    elif request.objective in (Objective.LATENCY, Objective.THROUGHPUT):
        warnings = (
            f"capacity-only: this version does not optimise {request.objective.value}; the fewest stages were taken",
        )
    solution = solve_fewest(instance)
    return (solution, warnings) if solution.placements else (None, ())


def _largest_context(request: PlanRequest) -> int:
    """The largest multiple of 256, at most the native context, at which a plan exists; the native one where none is."""
    native = request.model.native_context
    if native <= 0:
        raise InvalidPlanInput("context", None, "a context in tokens: the model does not state its own")
    low, high = 0, -(-native // 256)
    if solve(request.at_context(native)) is not None:
        return native
    while low < high - 1:
        middle = (low + high) // 2
        if solve(request.at_context(middle * 256)) is not None:
            low = middle
        else:
            high = middle
    return low * 256 or native


def _plan(request: PlanRequest, found: Found) -> SplitPlan:
    placements = found.solution.placements
    stages = tuple(_stage(found, number, placement) for number, placement in enumerate(placements))
    context = request.workload.context or 0
    warnings = list(found.warnings)
    if request.model.native_context and context > request.model.native_context:
        warnings.append(f"context {context} is above the model's own {request.model.native_context}")
    held = {stage.node for stage in stages}
    bound = found.solution.lower_bound if request.objective is Objective.FEWEST else None
    return SplitPlan(
        model=request.model.name,
        objective=request.objective,
        engine=request.engine.name,
        workload=request.workload,
        context=context,
        stages=stages,
        hops=_hops(request, found.coordinator, stages),
        coordinator=CoordinatorPlan(found.coordinator, found.coordinator in held, found.need.host_bytes),
        value=float(len(stages)),
        lower_bound=None if bound is None else float(bound),
        unit="stages",
        method=found.solution.method,
        capacity_only=True,
        warnings=tuple(warnings),
    )


def _stage(found: Found, number: int, placement: Placement) -> StagePlan:
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
    return StagePlan(number, node, device, start, end, held, None)


def _hops(request: PlanRequest, coordinator: str, stages: Sequence[StagePlan]) -> tuple[HopPlan, ...]:
    """Passages between nodes: from the coordinator to each stage in a star, from stage to stage in a chain."""
    names = list(dict.fromkeys(stage.node for stage in stages))
    if request.engine.topology is Topology.STAR:
        pairs = [(coordinator, name) for name in names if name != coordinator]
    else:
        pairs = list(zip(names, [*names[1:], names[0]], strict=True)) if len(names) > 1 else []
    hops = []
    for source, target in pairs:
        link = request.links.get(source, target)
        rtt_ms = 0.0 if request.links.free else None if link is None else link.rtt_ms
        hops.append(HopPlan(source, target, None, rtt_ms, estimated=link is not None and link.estimated))
    return tuple(hops)


def _objective(objective: str | Objective) -> Objective:
    if objective not in tuple(Objective):
        raise InvalidPlanInput("objective", objective, "one of " + ", ".join(Objective))
    return Objective(objective)
