"""Moving a running split: what it costs in bytes, and whether it is worth it.

What lives here: `moved_bytes`, `gains_enough`. What does not: finding the better plan (the planner).
"""

from __future__ import annotations

from planner.model import ModelSpec
from planner.plan import SplitPlan


def moved_bytes(model: ModelSpec, old: SplitPlan, new: SplitPlan) -> int:
    """Weight bytes of the layers that lie on another device in `new` than in `old`."""
    before = _places(old)
    weights = [layer.weight_bytes for layer in model.each_layer]
    return sum(weights[layer] for layer, place in _places(new).items() if before.get(layer) != place)


def gains_enough(old: SplitPlan, new: SplitPlan, margin: float) -> bool:
    """Whether `new` is better by more than the share `margin` of `old`'s value: moving interrupts those who are served.

    Plans of different units (one capacity-only, the other timed) can't be compared: stay.
    """
    if old.unit != new.unit or old.objective is not new.objective or old.context != new.context:
        return False
    return new.value < old.value * (1.0 - margin)


def _places(plan: SplitPlan) -> dict[int, tuple[str, str]]:
    return {
        layer: (stage.node, stage.device)
        for stage in plan.stages
        for layer in range(stage.layer_start, stage.layer_end)
    }
