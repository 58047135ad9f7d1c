"""Plans and shortfalls as events: the planner's own figures and words.

What lives here: `planned_event`, `shortfall_event`. What does not: the plan and the report (`planner`), and when they
are said (`meshnode.split.pursuit`, `meshnode.split.asking`).
"""

from __future__ import annotations

from meshnode.events import SplitPlanned, SplitShortfall
from meshnode.split.planning import PlanOutcome, PlanRefused
from planner.plan import SplitPlan
from planner.shortfall import ShortfallReport


def planned_event(plan: SplitPlan, generation: int) -> SplitPlanned:
    """The event for a plan; `generation` 0 where it is only a plan and nothing is reserved."""
    return SplitPlanned(
        model=plan.model,
        objective=plan.objective.value,
        stages=tuple(f"{stage.node}/{stage.device}:[{stage.layer_start},{stage.layer_end})" for stage in plan.stages),
        generation=generation,
        coordinator=plan.coordinator.node,
        method=plan.method,
        gap=plan.gap,
        warnings=plan.warnings,
    )


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
