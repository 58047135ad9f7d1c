"""The largest context that fits, where none is asked for.

Lives here: `largest_context`. Not here: what fits, which is a function it is given (`planner.dispatch`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from planner.errors import InvalidPlanInput
from planner.memory import CELL_PADDING
from planner.request import PlanRequest

LEAST_CONTEXT: Final = 4096
"""An unasked context below this would be a plan of no use: it is a shortfall, whose remedies say what does fit."""


def largest_context(request: PlanRequest, fits: Callable[[PlanRequest], bool]) -> int:
    """The largest whole number of cells (or the native context) that fits, at least `LEAST_CONTEXT`.

    Where not even that fits it is returned all the same, to be reported on. Raises `InvalidPlanInput` if the model does
    not state its native context, since then nothing limits the search.
    """
    native = request.model.native_context
    if native <= 0:
        raise InvalidPlanInput("context", None, "a context in tokens: the model does not state its own")
    if fits(request.at_context(native)):
        return native
    least = min(LEAST_CONTEXT, native)
    low, high = least // CELL_PADDING, -(-native // CELL_PADDING)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(request.at_context(middle * CELL_PADDING)):
            low = middle
        else:
            high = middle
    return max(least, low * CELL_PADDING)
