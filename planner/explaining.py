"""Why a plan is as it is: each node's part in it, what binds, and the runner-up.

Lives here: `explained`. Not here: the plan (`planner.building`), its words on a terminal (`meshnode.cli.explain_text`).
Everything is read off the plan, computed from the figures it was made from, or found by planning again with a node kept
free of stages; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from planner.building import build_plan
from planner.compiling import within_rtt_cap
from planner.constraints import Objective
from planner.nodes import NodeSpec, Willingness
from planner.plan import Explanation, NodeVerdict, RunnerUp, SplitPlan
from planner.request import PlanRequest
from planner.reserve import Reserve
from planner.sizes import format_gb

_MOST_RUNNERS_UP = 8
"""Nodes of the plan that are kept free in turn, to find what each is worth and the runner-up."""
_LEAST_EFFORT = 100

ShouldStop = Callable[[], bool] | None


def explained(request: PlanRequest, plan: SplitPlan, *, effort: int, should_stop: ShouldStop) -> SplitPlan:
    """`plan` with its `explanation`. Planning again may take as much effort as `effort` in all."""
    timed = [stage for stage in plan.stages if stage.seconds is not None]
    hops = [hop for hop in plan.hops if hop.seconds is not None]
    slowest = max(timed, key=lambda stage: (stage.seconds or 0.0, -stage.stage), default=None)
    costliest = max(hops, key=lambda hop: hop.seconds or 0.0, default=None)
    tightest = min(plan.stages, key=lambda stage: (stage.bytes.usable - stage.bytes.total, stage.stage))
    others = _without_each(request, plan, effort, should_stop)
    reserve = Reserve.of(request, plan)
    explanation = Explanation(
        verdicts=tuple(
            _used(plan, node, reserve, others) if node.id in plan.nodes else _unused(request, plan, node, reserve)
            for node in request.nodes
        ),
        bottleneck_stage=None if slowest is None else slowest.stage,
        costliest_hop=None if costliest is None else (costliest.source, costliest.target),
        shares=_shares(plan),
        tightest_stage=tightest.stage,
        runner_up=_runner_up(plan, others),
    )
    return replace(plan, explanation=explanation)


# --- what the plan's own nodes are worth -----------------------------------------------------------


@dataclass(frozen=True)
class _Without:
    """The best plan found that keeps `node` free of stages; None where there is none."""

    node: str
    plan: SplitPlan | None


def _without_each(request: PlanRequest, plan: SplitPlan, effort: int, should_stop: ShouldStop) -> list[_Without]:
    from planner.dispatch import solve

    tried = plan.nodes[:_MOST_RUNNERS_UP]
    share = max(_LEAST_EFFORT, effort // len(tried))
    results = []
    for without in tried:
        nodes = tuple(
            replace(node, willingness=Willingness.NEVER) if node.id == without else node for node in request.nodes
        )
        found = solve(replace(request, nodes=nodes), effort=share, should_stop=should_stop)
        results.append(_Without(without, None if found is None else build_plan(request, found)))
    return results


def _runner_up(plan: SplitPlan, others: list[_Without]) -> RunnerUp | None:
    """The best of the plans that do without one of the plan's nodes."""
    known = [(each.plan, each.node) for each in others if each.plan is not None and each.plan.unit == plan.unit]
    if not known:
        return None
    best, without = min(known, key=lambda pair: pair[0].value)
    return RunnerUp(best.nodes, len(best.stages), best.value, without)


def _used(plan: SplitPlan, node: NodeSpec, reserve: Reserve, others: list[_Without]) -> NodeVerdict:
    stages = [stage for stage in plan.stages if stage.node == node.id]
    layers = sum(stage.layers for stage in stages)
    free = sum(stage.bytes.usable - stage.bytes.total for stage in stages)
    seconds = [stage.seconds for stage in stages if stage.seconds is not None]
    held = f"holds {layers} layer{'' if layers == 1 else 's'}, {format_gb(free)} left"
    other = next((each for each in others if each.node == node.id), None)
    return NodeVerdict(
        node.id,
        True,
        held if other is None else f"{held}; {_worth(plan, other.plan)}",
        layer_ms=sum(seconds) * 1000 / layers if len(seconds) == len(stages) else None,
        hop_ms=reserve.hop_ms(node.id),
        without_value=None if other is None or other.plan is None else other.plan.value,
        hop_estimated=reserve.hop_estimated(node.id),
    )


def _worth(plan: SplitPlan, other: SplitPlan | None) -> str:
    if other is None:
        return "no plan was found without it"
    if other.unit != plan.unit:
        return f"without it only a plan by {other.unit} was found"
    if other.value <= plan.value:
        return "a plan as good exists without it"
    return f"the best plan found without it takes {_value(other)} instead of {_value(plan)}"


def _value(plan: SplitPlan) -> str:
    return f"{plan.value * 1000:.1f} ms" if plan.unit == "s" else f"{plan.value:g} stages"


# --- why the others are out ------------------------------------------------------------------------


def _unused(request: PlanRequest, plan: SplitPlan, node: NodeSpec, reserve: Reserve) -> NodeVerdict:
    layer_ms, hop_ms = reserve.layer_ms(node.id), reserve.hop_ms(node.id)
    why = _why_barred(request, plan, node, reserve) or _why_not_better(plan, node, reserve)
    return NodeVerdict(node.id, False, why, layer_ms, hop_ms, hop_estimated=reserve.hop_estimated(node.id))


def _why_barred(request: PlanRequest, plan: SplitPlan, node: NodeSpec, reserve: Reserve) -> str | None:
    """What keeps the node out whatever a plan with it would be worth."""
    if not node.devices:
        return "has no device that takes stages"
    if node.willingness is Willingness.NEVER:
        return "its operator keeps stages off it"
    if node.willingness is Willingness.WHEN_NEEDED:
        return "it is only for when it is needed, and a plan exists without it"
    if not within_rtt_cap(request, plan.coordinator.node, node.id):
        return f"its RTT to the coordinator is above {request.constraints.max_stage_rtt_ms:g} ms or unknown"
    if reserve.most_layers(node) == 0:
        return "not one layer fits on it"
    if plan.objective is Objective.FEWEST or plan.capacity_only:
        return "as few stages hold the model without it"
    if plan.objective is Objective.PROPORTIONAL:
        return "the rule of proportion leaves it out"
    if reserve.layer_ms(node.id) is None:
        return "its memory bandwidth is unknown, so no speed can be predicted with it"
    if reserve.hop_ms(node.id) is None:
        return "its RTT is unknown, so no speed can be predicted with it"
    return None


def _why_not_better(plan: SplitPlan, node: NodeSpec, reserve: Reserve) -> str:
    layer_ms, hop_ms, slowest_ms = reserve.layer_ms(node.id), reserve.hop_ms(node.id), reserve.slowest_used_ms()
    assert layer_ms is not None, "a node of unknown speed is barred"
    assert hop_ms is not None, "a node of unknown RTT is barred"
    if plan.objective is Objective.THROUGHPUT:
        return "no plan found with it has a shorter bottleneck"
    if slowest_ms is None:
        return "no plan found with it is faster"
    if layer_ms >= slowest_ms:
        return f"slower than every node used: {layer_ms:.2f} ms for a layer, at most {slowest_ms:.2f} there"
    most = reserve.most_layers(node)
    saved_ms = most * (slowest_ms - layer_ms)
    if hop_ms >= saved_ms:
        return (
            f"going there and back takes {hop_ms:.2f} ms, the {most} layers it could hold would save"
            f" at most {saved_ms:.2f} ms"
        )
    return "no plan found with it is faster"


# --- what binds ------------------------------------------------------------------------------------


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
