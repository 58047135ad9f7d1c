"""Least latency: the order of devices and the cuts that give one token its shortest way through the model.

Lives here: `solve_latency`. Not here: the search itself (`planner.least_cost`), instances (`planner.instance`), or the
choice of a coordinator (`planner.optimising`, which imports this module, and with it numpy, only when a timed plan is
asked for).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planner.classes import Classes, classes_of
from planner.effort import DEFAULT_EFFORT, Effort
from planner.hops import INFINITE
from planner.instance import Instance
from planner.least_cost import Least, LeastCost
from planner.solution import Solution

_SHIFT_STEP = 8


def solve_latency(
    instance: Instance,
    *,
    effort: int = DEFAULT_EFFORT,
    should_stop: Callable[[], bool] | None = None,
    cutoff_ns: int | None = None,
    start: Sequence[int] = (),
) -> Solution:
    """Placements of least latency (ns), with a certified lower bound.

    Exact for small problems (12 nodes of one device at 128 layers in well under a second) and often far above; else the
    best found within `effort` work units. Ties fall to fewest passages between nodes, then fewest stages, then lower
    ids. With `cutoff_ns`, only plans below it are sought. `should_stop` is asked between steps. `start`: an
    order of devices to improve first. The instance must be timed.
    """
    meter = Effort(effort, should_stop)
    shift = 0
    while True:
        classes = classes_of(instance, shift)
        cutoff = INFINITE if cutoff_ns is None else min(INFINITE, (cutoff_ns >> shift) * classes.scale)
        found = LeastCost(classes, meter, cutoff, classes.order_of(start)).run()
        if not classes.clipped or meter.spent or _is_within(found, classes):
            return solution_of(instance, classes, found, meter, cutoff_ns)
        shift += _SHIFT_STEP


def _is_within(found: Least, classes: Classes) -> bool:
    """Whether nothing that was clipped could have mattered."""
    return found.path is not None and classes.value_ns(found.cost) < classes.longest_ns


def solution_of(
    instance: Instance, classes: Classes, found: Least, meter: Effort, cutoff_ns: int | None = None
) -> Solution:
    """A search's outcome in the instance's own terms; the value is recomputed there, exactly."""
    timing = instance.timing
    assert timing is not None
    bound = classes.value_ns(max(0, found.bound))
    if classes.clipped:
        bound = min(bound, classes.longest_ns)
    placements = classes.placements(found.path) if found.path else ()
    value = timing.latency_ns(placements) if placements else None
    impossible = found.impossible and not classes.clipped
    if value is not None:
        bound = min(bound, value)
    elif cutoff_ns is not None and not impossible:
        bound = min(bound, cutoff_ns)
    return Solution(
        placements=placements,
        value=value,
        lower_bound=None if impossible else bound,
        method=found.method,
        infeasible=impossible,
        interrupted=meter.cut_short and (value is None or bound < value),
        work_units=meter.used_units,
    )
