"""Least bottleneck: the stage or hop that a pipeline waits for, as short as possible.

Lives here: `solve_throughput` and its bounds. Not here: what is possible within a bottleneck (`planner.covering`),
latency (`planner.latency`), or who coordinates (`planner.optimising`).

The least tau is found by bisection between a bound and a plan. While `planner.covering` is exact for every tau asked,
so is the value. Else two bounds hold, and the larger is stated:

- count: together the widest windows of all devices (of `max_stages` of them) must hold every layer, in number and in
  weight;
- endpoint: every layer lies somewhere, the last one with the head.
"""

from __future__ import annotations

from collections.abc import Callable

from planner.covering import Covering
from planner.effort import DEFAULT_EFFORT
from planner.instance import Instance
from planner.solution import Placement, Solution

_STEPS_PER_UNIT = 500
"""Steps in about a millisecond (`planner.effort`)."""


def solve_throughput(
    instance: Instance,
    *,
    effort: int = DEFAULT_EFFORT,
    should_stop: Callable[[], bool] | None = None,
    cutoff_ns: int | None = None,
) -> Solution:
    """Placements of least bottleneck (ns), with a certified bound; the instance must be timed.

    Exact for up to about 12 devices that all differ, and for many more of few kinds. With `cutoff_ns`, only plans below
    it are sought.
    """
    timing = instance.timing
    assert timing is not None, "the instance must be timed"
    covering = Covering(instance, timing)
    highest = _longest_ns(instance) if cutoff_ns is None else cutoff_ns - 1
    best = covering.placements(highest)
    if best is None:
        exact = covering.is_exact(highest)
        bound = highest + 1 if exact else count_bound(covering, highest)
        return Solution((), None, bound, _method(exact), infeasible=exact and cutoff_ns is None)
    (value, best), low, exact, interrupted = _bisected(covering, best, effort, should_stop)
    return Solution(
        best,
        value,
        min(low, value),
        _method(exact),
        interrupted=interrupted,
        work_units=covering.steps // _STEPS_PER_UNIT,
    )


def _method(exact: bool) -> str:
    return "bottleneck bisection" if exact else "bottleneck bisection over orders, under count and endpoint bounds"


def _bisected(
    covering: Covering, best: tuple[Placement, ...], effort: int, should_stop: Callable[[], bool] | None
) -> tuple[tuple[int, tuple[Placement, ...]], int, bool, bool]:
    """((value, placements), bound, whether bisection itself proved it, whether it was interrupted)."""
    value = _bottleneck(covering, best)
    proved = max(endpoint_bound(covering.instance), count_bound(covering, value))
    low, exact = proved, True
    while low < value:
        if covering.steps > effort * _STEPS_PER_UNIT or (should_stop is not None and should_stop()):
            return (value, best), proved, False, True
        middle = (low + value) // 2
        found = covering.placements(middle)
        if found is not None:
            best, value = found, _bottleneck(covering, found)
            continue
        low = middle + 1
        if covering.is_exact(middle):
            proved = max(proved, low)
        else:
            exact = False
    return (value, best), proved, exact or proved >= value, False


def _bottleneck(covering: Covering, placements: tuple[Placement, ...]) -> int:
    value = covering.timing.bottleneck_ns(placements)
    assert value is not None, "only known hops are used"
    return value


def _longest_ns(instance: Instance) -> int:
    """No stage and no hop takes longer."""
    timing = instance.timing
    assert timing is not None, "the instance must be timed"
    stages = [timing.stage_ns(v, 0, instance.layer_count) for v in range(instance.device_count)]
    hops = [*timing.entry_transfer_ns, *timing.exit_transfer_ns]
    for row in timing.transfer_rows_ns or ():
        hops += row
    return max([*stages, *hops])


def endpoint_bound(instance: Instance) -> int:
    """The slowest layer where it is fastest, the last one with the head."""
    timing = instance.timing
    assert timing is not None, "the instance must be timed"
    devices, last = range(instance.device_count), instance.layer_count
    rows = timing.cost_prefix_ns
    layers = [min(timing.fixed_ns[v] + rows[v][p + 1] - rows[v][p] for v in devices) for p in range(last - 1)]
    return max([*layers, min(timing.stage_ns(v, last - 1, last) for v in devices)])


def count_bound(covering: Covering, highest: int) -> int:
    """The least tau, up to `highest`, at which the widest windows together hold every layer."""
    low = 0
    while low < highest:
        middle = (low + highest) // 2
        if _may_hold_all(covering, middle):
            highest = middle
        else:
            low = middle + 1
    return low


def _may_hold_all(covering: Covering, tau: int) -> bool:
    instance = covering.instance
    weights, most = instance.layer_prefix_bytes, instance.max_stages
    layers, held = [], []
    for v, count in covering.alike.items():
        ends = covering.ends(v, tau)
        layers += [max(end - p for p, end in enumerate(ends))] * count
        held += [max(weights[end] - weights[p] for p, end in enumerate(ends))] * count
    enough = sum(sorted(layers, reverse=True)[:most]) >= instance.layer_count
    return enough and sum(sorted(held, reverse=True)[:most]) >= weights[-1]
