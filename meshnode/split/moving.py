"""Moving a running split: whether it is worth it.

What lives here: `gains_enough`. What does not: finding the plan that is as good as the best and moves least, and what
moving there carries (`planner.replanning`, `planner.transfers`).
"""

from __future__ import annotations

from planner.plan import SplitPlan


def gains_enough(old: SplitPlan, new: SplitPlan, margin: float) -> bool:
    """Whether `new` is better by more than the share `margin` of `old`'s value: moving interrupts those who are served.

    Plans of different units (one capacity-only, the other timed) can't be compared: stay.
    """
    if old.unit != new.unit or old.objective is not new.objective or old.context != new.context:
        return False
    return new.value < old.value * (1.0 - margin)
