"""`plan_split`: from a request to a plan, or to a shortfall that explains itself.

Lives here: which question is asked of which solver, and what the answer means. Not here: the solvers (`planner.fewest`,
`planner.proportional`, `planner.optimising`), whether anything fits (`planner.feasibility`), the plan made of the
answer (`planner.building`), the shortfall (`planner.diagnosis`).

A timed objective is planned on the nodes whose figures are known; nodes left out for that are named. Where these alone
can't hold the model, the plan falls back to the fewest stages over all of them and is labelled capacity-only: unknown
is never zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from planner.building import Found, build_plan
from planner.cache_ladder import CacheChoice, Rung, choice_of, in_order, rungs_of, smallest
from planner.constraints import Constraints, Exclusion, Objective, TargetPolicy
from planner.effort import DEFAULT_EFFORT
from planner.engine import LLAMA_CPP_RPC, EngineProfile, engine_named
from planner.errors import CapacityShortfall, InvalidPlanInput
from planner.feasibility import DEEP_WORK, Placeable, find_placement
from planner.fewest import solve_fewest
from planner.links import LinkMatrix
from planner.model import ModelSpec
from planner.nodes import NodeSpec
from planner.optimising import Optimised, optimise
from planner.plan import SplitPlan
from planner.proportional import solve_proportional
from planner.request import UNRESTRICTED, PlanRequest
from planner.workload import Workload

ShouldStop = Callable[[], bool] | None


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
    effort: int = DEFAULT_EFFORT,
    should_stop: ShouldStop = None,
    explain: bool = False,
) -> SplitPlan:
    """Place every layer of `model` on `nodes` at `workload`.

    `workload.context` None asks for the largest context that fits, at most the model's own; `k_auto` and `v_auto` for
    the cache types, which the plan's `cache` then tells of. `effort` bounds the search
    in work units (`planner.effort`); `should_stop` may end it earlier, and the plan is then marked `interrupted`.
    `explain` adds why each node is in or out, what binds, and the runner-up. Raises `CapacityShortfall` where no plan
    exists (its `report` says why and what would help) and `InvalidPlanInput` for figures no plan can be made from.
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
    settled = settle(request, effort=effort, should_stop=should_stop)
    plan = settled.told(build_plan(settled.request, settled.found))
    if not explain:
        return plan
    from planner.explaining import explained

    return explained(settled.request, plan, effort=effort, should_stop=should_stop)


@dataclass(frozen=True)
class Settled:
    """A request whose context and cache types are given, its best placement, and on what that was looked for.

    `cache`: how the types came about, None where they were asked for.
    """

    request: PlanRequest
    placeable: Placeable
    found: Found
    cache: CacheChoice | None

    def told(self, plan: SplitPlan) -> SplitPlan:
        """`plan`, with how its cache types came about."""
        warning = None if self.cache is None else self.cache.warning
        return replace(plan, cache=self.cache, warnings=plan.warnings if warning is None else (*plan.warnings, warning))


def settle(request: PlanRequest, *, effort: int = DEFAULT_EFFORT, should_stop: ShouldStop = None) -> Settled:
    """The request with all decided that was left open, and its best placement. Raises `CapacityShortfall`, explained,
    without one: for the smallest of the cache types, where these were open.
    """
    rungs = rungs_of(request, can_plan)
    failed: list[Rung] = []
    too_slow: dict[int, Found | None] = {}
    for rung in in_order(rungs):
        at = rung.request
        placeable = find_placement(at) or find_placement(at, work=DEEP_WORK)
        found = None if placeable is None else _best_on(at, placeable, effort, should_stop)
        if placeable is not None and found is not None and not misses_target(at, found):
            return Settled(at, placeable, found, choice_of(request, rungs, failed, rung, target=must_meet(request)))
        failed.append(rung)
        too_slow[id(rung)] = found
    from planner.diagnosis import shortfall_report

    least = smallest(rungs)
    choice = choice_of(request, rungs, failed, least, target=must_meet(request))
    raise CapacityShortfall(shortfall_report(least.request, too_slow[id(least)], choice))


def can_plan(request: PlanRequest) -> bool:
    """Whether `plan_split` would return a plan. A target that must be met needs a solved plan; else memory decides."""
    if not must_meet(request):
        return find_placement(request) is not None
    found = solve(request)
    return found is not None and not misses_target(request, found)


def must_meet(request: PlanRequest) -> bool:
    """Whether a plan slower than the target is no plan."""
    limits = request.constraints
    return limits.min_tokens_per_s is not None and limits.target_policy is TargetPolicy.MUST_MEET


def misses_target(request: PlanRequest, found: Found) -> bool:
    """Whether `found` is slower than a target that must be met. A speed that can't be predicted is not judged."""
    target, prediction = request.constraints.min_tokens_per_s, found.forecast.prediction
    return must_meet(request) and target is not None and prediction is not None and prediction.tokens_per_s < target


def solve(request: PlanRequest, *, effort: int = DEFAULT_EFFORT, should_stop: ShouldStop = None) -> Found | None:
    """The request's best placement under its objective, or None where nothing fits; a target is tried for."""
    placeable = find_placement(request)
    return None if placeable is None else _best_on(request, placeable, effort, should_stop)


def _best_on(request: PlanRequest, placeable: Placeable, effort: int, should_stop: ShouldStop) -> Found:
    found = _solve_on(request, placeable, effort, should_stop)
    return _towards_target(request, placeable, found, effort, should_stop)


def _solve_on(request: PlanRequest, placeable: Placeable, effort: int, should_stop: ShouldStop) -> Found:
    if request.objective is Objective.PROPORTIONAL:
        return _proportional(request, placeable)
    if request.objective is Objective.FEWEST:
        return _fewest(request, placeable, effort, should_stop)
    throughput = request.objective is Objective.THROUGHPUT
    if (best := _optimise(request, placeable, throughput, None, effort, should_stop)) is not None:
        return _timed(request, placeable, best)
    return _capacity_only(request, placeable)


def _optimise(
    request: PlanRequest,
    placeable: Placeable,
    throughput: bool,
    max_stages: int | None,
    effort: int,
    should_stop: ShouldStop,
) -> Optimised | None:
    """Throughput of a pipeline is its bottleneck; without one it is the latency of a pass of all lanes."""
    return optimise(
        request,
        placeable,
        pipelined=throughput and request.engine.pipelined,
        batch=request.workload.lanes if throughput and not request.engine.pipelined else 1,
        max_stages=max_stages,
        effort=effort,
        should_stop=should_stop,
    )


def _timed(request: PlanRequest, placeable: Placeable, best: Optimised) -> Found:
    solution = best.solution
    lanes = request.workload.lanes
    if request.objective is Objective.THROUGHPUT and not request.engine.pipelined and lanes > 1:
        per_lane = [None if ns is None else ns // lanes for ns in (solution.value, solution.lower_bound)]
        solution = replace(solution, value=per_lane[0], lower_bound=per_lane[1])
    notes = tuple(f"{node} was left out: its memory bandwidth is unknown" for node in best.left_out[:8])
    return Found.of(
        request,
        placeable.need,
        best.instance,
        solution,
        best.coordinator,
        unit="s",
        capacity_only=False,
        notes=notes,
    )


def _fewest(request: PlanRequest, placeable: Placeable, effort: int, should_stop: ShouldStop) -> Found:
    """Fewest stages by memory; among those the fastest, where that many are enough with what is known."""
    fewest = _capacity_only(request, placeable, capacity_only=False)
    stages = fewest.solution.value
    best = _optimise(request, placeable, False, stages, effort, should_stop)
    if best is None or stages is None or len(best.solution.placements) > stages:
        return replace(fewest, capacity_only=fewest.forecast.prediction is None)
    solution = replace(
        best.solution,
        value=stages,
        lower_bound=fewest.solution.lower_bound,
        method=f"{fewest.solution.method}, then {best.solution.method}",
    )
    return Found.of(
        request, placeable.need, best.instance, solution, best.coordinator, unit="stages", capacity_only=False
    )


def _capacity_only(request: PlanRequest, placeable: Placeable, *, capacity_only: bool = True) -> Found:
    """Fewest stages, whatever is known of speed. The witness stands in where the search for fewer gave up."""
    solution = solve_fewest(placeable.instance)
    if not solution.placements:
        solution = placeable.solution
    return Found.of(
        request,
        placeable.need,
        placeable.instance,
        solution,
        placeable.coordinators[0],
        unit="stages",
        capacity_only=capacity_only,
    )


def _proportional(request: PlanRequest, placeable: Placeable) -> Found:
    solution = solve_proportional(placeable.instance)
    if not solution.placements:
        fewest = _capacity_only(request, placeable, capacity_only=False)
        note = "no cuts in proportion to memory fit this model; the fewest stages were taken instead"
        return replace(fewest, capacity_only=fewest.forecast.prediction is None, notes=(*fewest.notes, note))
    tried = [
        Found.of(
            request,
            placeable.need,
            placeable.instance,
            solution,
            coordinator,
            unit="stages",
            capacity_only=False,
        )
        for coordinator in placeable.coordinators[:64]
    ]
    return _in_seconds(min(tried, key=_expected_latency_s))


def _expected_latency_s(found: Found) -> float:
    return float("inf") if found.forecast.prediction is None else found.forecast.prediction.latency_s


def _in_seconds(found: Found) -> Found:
    """A rule without a bound is valued by the latency it gives, where that is known."""
    if found.forecast.prediction is None:
        return replace(found, capacity_only=True)
    value = round(found.forecast.prediction.latency_s * 1e9)
    return replace(found, unit="s", solution=replace(found.solution, value=value, lower_bound=None))


def _towards_target(
    request: PlanRequest, placeable: Placeable, found: Found, effort: int, should_stop: ShouldStop
) -> Found:
    """Where a target is missed, the fastest plan that meets it is taken instead; else `found` says by how much."""
    target, prediction = request.constraints.min_tokens_per_s, found.forecast.prediction
    if target is None:
        return found
    if prediction is None:
        return replace(found, notes=(*found.notes, f"whether {target:g} tokens/s are met can't be predicted"))
    if prediction.tokens_per_s >= target:
        return found
    faster = replace(request, objective=Objective.THROUGHPUT)
    other = _solve_on(faster, placeable, effort, should_stop) if request.objective is not faster.objective else found
    expected = other.forecast.prediction
    if expected is None or expected.tokens_per_s <= prediction.tokens_per_s:
        other, expected = found, prediction
    if expected.tokens_per_s >= target:
        note = f"chosen for throughput: the best plan for {request.objective.value} misses {target:g} tokens/s"
        return replace(other, notes=(*other.notes, note))
    short = target - expected.tokens_per_s
    missing = f"target of {target:g} tokens/s missed by {short:.2f} ({expected.tokens_per_s:.2f} predicted)"
    return replace(other, notes=(*other.notes, missing))


def _objective(objective: str | Objective) -> Objective:
    if objective not in tuple(Objective):
        raise InvalidPlanInput("objective", objective, "one of " + ", ".join(Objective))
    return Objective(objective)
