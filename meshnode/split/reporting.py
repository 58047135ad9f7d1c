"""Plans and shortfalls as events: the planner's own figures and words.

What lives here: `planned_event`, `replanned_event`, `shortfall_event`. What does not: the plan and the report
(`planner`), and when they are said (`meshnode.split.pursuit`, `meshnode.split.inquiring`).
"""

from __future__ import annotations

from meshnode.events import SplitPlanned, SplitReplanned, SplitShortfall
from meshnode.split.planning import PlanOutcome, PlanRefused
from planner.plan import SplitPlan
from planner.shortfall import ShortfallReport
from proto.ids import NodeId


def planned_event(plan: SplitPlan, generation: int) -> SplitPlanned:
    """The event for a plan; `generation` 0 where it is only a plan and nothing is reserved."""
    return SplitPlanned(
        model=plan.model,
        objective=plan.objective.value,
        stages=_stages(plan),
        generation=generation,
        coordinator=plan.coordinator.node,
        missing_bytes=sum(stage.missing_bytes or 0 for stage in plan.stages),
        method=plan.method,
        gap=plan.gap,
        warnings=plan.warnings,
    )


def replanned_event(
    plan: SplitPlan, generation: int, *, before: SplitPlan, cause: str, lost_node: NodeId | None, moved_bytes: int
) -> SplitReplanned:
    """The event for `plan` in the place of `before`, which lost what it had on `lost_node`, if it lost anything."""
    return SplitReplanned(
        model=plan.model,
        generation=generation,
        cause=cause,
        node=lost_node,
        lost=_lost_layers(before, lost_node),
        stages=_stages(plan),
        moved_bytes=moved_bytes,
    )


def _lost_layers(plan: SplitPlan, node: NodeId | None) -> tuple[str, ...]:
    """The stages of `plan` on `node`, as `cuda0:[7,18)`."""
    return tuple(
        f"{stage.device}:[{stage.layer_start},{stage.layer_end})" for stage in plan.stages if stage.node == node
    )


def _stages(plan: SplitPlan) -> tuple[str, ...]:
    return tuple(f"{stage.node}/{stage.device}:[{stage.layer_start},{stage.layer_end})" for stage in plan.stages)


def shortfall_event(model: str, outcome: PlanOutcome) -> SplitShortfall:
    """The event for a shortfall, or for an input that no plan can be made from (kind `invalid`)."""
    if isinstance(outcome, PlanRefused):
        message = f"{model}: {outcome.field}: found {outcome.found!r}, expected {outcome.expected}"
        return SplitShortfall(model, "invalid", 0, 0, 0, 0, message, ())
    assert isinstance(outcome, ShortfallReport), "a plan is no shortfall"
    return SplitShortfall(
        model=model,
        kind=outcome.kind.value,
        required_bytes=outcome.required_bytes,
        available_bytes=outcome.available_bytes,
        short_by_bytes=outcome.short_by_bytes,
        short_layers=outcome.short_layers,
        message=outcome.message,
        remedies=tuple(remedy.asks for remedy in outcome.remedies),
    )
