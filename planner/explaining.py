"""Why a plan is as it is: each node's part in it, what binds, and the runner-up.

Lives here: `explained`. Not here: the plan (`planner.building`), its words on a terminal (`meshnode.cli.plan_text`).
Everything is read off the plan or found by planning again without a node; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from planner.constraints import Objective
from planner.nodes import NodeSpec, Willingness
from planner.plan import Explanation, NodeVerdict, RunnerUp, SplitPlan
from planner.request import PlanRequest
from planner.sizes import format_gb

_MOST_RUNNERS_UP = 8
"""Nodes of the plan that are left out in turn, to find the runner-up."""


def explained(
    request: PlanRequest, plan: SplitPlan, *, effort: int, should_stop: Callable[[], bool] | None
) -> SplitPlan:
    """`plan` with its `explanation`."""
    timed = [stage for stage in plan.stages if stage.seconds is not None]
    hops = [hop for hop in plan.hops if hop.seconds is not None]
    slowest = max(timed, key=lambda stage: (stage.seconds or 0.0, -stage.stage), default=None)
    costliest = max(hops, key=lambda hop: hop.seconds or 0.0, default=None)
    tightest = min(plan.stages, key=lambda stage: (stage.bytes.usable - stage.bytes.total, stage.stage))
    explanation = Explanation(
        verdicts=tuple(_verdict(plan, node) for node in request.nodes),
        bottleneck_stage=None if slowest is None else slowest.stage,
        costliest_hop=None if costliest is None else (costliest.source, costliest.target),
        shares=_shares(plan),
        tightest_stage=tightest.stage,
        runner_up=_runner_up(request, plan, effort, should_stop),
    )
    return replace(plan, explanation=explanation)


def _verdict(plan: SplitPlan, node: NodeSpec) -> NodeVerdict:
    stages = [stage for stage in plan.stages if stage.node == node.id]
    hops = [hop.seconds for hop in plan.hops if node.id in (hop.source, hop.target) and hop.seconds is not None]
    hop_ms = sum(hops) * 1000 if hops else None
    if stages:
        layers = sum(stage.layers for stage in stages)
        free = sum(stage.bytes.usable - stage.bytes.total for stage in stages)
        seconds = [stage.seconds for stage in stages if stage.seconds is not None]
        layer_ms = sum(seconds) * 1000 / layers if len(seconds) == len(stages) else None
        return NodeVerdict(node.id, True, f"holds {layers} layers, {format_gb(free)} left", layer_ms, hop_ms)
    return NodeVerdict(node.id, False, _why_out(plan, node), None, hop_ms)


def _why_out(plan: SplitPlan, node: NodeSpec) -> str:
    if not node.devices:
        return "has no device that takes stages"
    if node.willingness is Willingness.NEVER:
        return "its operator keeps stages off it"
    if node.willingness is Willingness.WHEN_NEEDED:
        return "it is only for when it is needed, and a plan exists without it"
    if plan.objective is Objective.FEWEST or plan.capacity_only:
        return "fewer stages hold the model without it"
    if all(device.memory_bandwidth_bytes_per_s is None for device in node.devices):
        return "its memory bandwidth is unknown, so no speed can be predicted with it"
    return "the plan is no better with it"


def _shares(plan: SplitPlan) -> tuple[tuple[str, float], ...]:
    """Fractions of a token's time by cause, where all of it is known."""
    stages = [stage.seconds for stage in plan.stages]
    hops = [hop.seconds for hop in plan.hops]
    if plan.prediction is None or None in stages or None in hops:
        return ()
    memory = sum(each for each in stages if each is not None)
    between = sum(each for each in hops if each is not None)
    total = memory + between
    return (("memory", memory / total), ("hops", between / total)) if total else ()


def _runner_up(
    request: PlanRequest, plan: SplitPlan, effort: int, should_stop: Callable[[], bool] | None
) -> RunnerUp | None:
    """The best plan that does without one of the plan's nodes."""
    from planner.building import build_plan
    from planner.dispatch import solve

    best: RunnerUp | None = None
    for without in plan.nodes[:_MOST_RUNNERS_UP]:
        if without == request.constraints.coordinator:
            continue
        rest = tuple(node for node in request.nodes if node.id != without)
        found = solve(replace(request, nodes=rest), effort=effort, should_stop=should_stop) if rest else None
        if found is None:
            continue
        other = build_plan(request, found)
        if other.unit == plan.unit and (best is None or other.value < best.value):
            best = RunnerUp(other.nodes, len(other.stages), other.value, without)
    return best
