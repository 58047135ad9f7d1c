"""The fastest plan under any coordinator: which timed problems are solved, in which order, with what proof in the end.

Lives here: `optimise`. Not here: the solvers themselves (`planner.latency`, `planner.throughput`), nor what is said of
the result (`planner.building`). Called by `planner.dispatch`.

Each coordinator is a problem of its own. They are tried from the most promising quick bound on; a plan found under one
is the cutoff for the next, and once a coordinator's quick bound reaches the best value, it and all later ones are done.
The lower bound of the whole is the least over all coordinators, tried or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from planner.compiling import TimedFamily
from planner.effort import DEFAULT_EFFORT
from planner.feasibility import Placeable
from planner.instance import Instance
from planner.request import PlanRequest
from planner.solution import Solution, TimedSolver

_MOST_COORDINATORS: Final = 64
"""Coordinators that are solved for; the bound of those beyond still counts."""


@dataclass(frozen=True)
class Optimised:
    """The best solution over all coordinators: `solution.lower_bound` holds for all of them.

    `coordinator` None: the first stage's node. `left_out`: nodes whose memory bandwidth is unknown.
    """

    instance: Instance
    solution: Solution
    coordinator: str | None
    left_out: tuple[str, ...]


def optimise(
    request: PlanRequest,
    placeable: Placeable,
    *,
    pipelined: bool,
    batch: int,
    max_stages: int | None = None,
    effort: int = DEFAULT_EFFORT,
    should_stop: Callable[[], bool] | None = None,
) -> Optimised | None:
    """The plan of least latency of a pass of `batch` lanes, or (`pipelined`) of least bottleneck.

    None where no plan can be timed: too little is known of the nodes or links.
    """
    family = TimedFamily.of(request, placeable.nodes, placeable.need, batch=batch)
    if not family.instance.device_count:
        return None
    problems = _problems(family, _candidates(request, placeable, family, pipelined), max_stages, pipelined)
    solver = _solver(pipelined)
    best: Optimised | None = None
    bounds: list[int] = []
    tried, left = 0, effort
    for bound, coordinator, instance in problems[:_MOST_COORDINATORS]:
        cutoff = None if best is None else best.solution.value
        if cutoff is not None and (bound >= cutoff or (should_stop is not None and should_stop())):
            break
        solution = solver(instance, effort=max(1, left), should_stop=should_stop, cutoff_ns=cutoff)
        tried, left = tried + 1, left - solution.work_units
        if not solution.infeasible:
            bounds.append(bound if solution.lower_bound is None else max(bound, solution.lower_bound))
        if solution.value is not None and (cutoff is None or solution.value < cutoff):
            best = Optimised(instance, solution, coordinator, family.left_out)
    if best is None or best.solution.value is None:
        return None
    bounds += [bound for bound, _, _ in problems[tried:]]
    proved = min([*bounds, best.solution.value])
    return replace(best, solution=replace(best.solution, lower_bound=proved, work_units=effort - left))


def _candidates(
    request: PlanRequest, placeable: Placeable, family: TimedFamily, pipelined: bool
) -> tuple[str | None, ...]:
    """In a chain without a named coordinator every node may be the first, unless it makes no difference which."""
    if placeable.coordinators != (None,) or request.links.free or pipelined:
        return placeable.coordinators
    return tuple(dict.fromkeys(family.times.node_ids))


def _problems(
    family: TimedFamily, coordinators: tuple[str | None, ...], max_stages: int | None, pipelined: bool
) -> list[tuple[int, str | None, Instance]]:
    """(quick bound, coordinator, instance) of every coordinator that can be entered and left, best bound first."""
    work = 0 if pipelined else _work_bound(family)
    problems = []
    for coordinator in coordinators:
        instance = family.under(coordinator, max_stages=max_stages)
        timing = instance.timing
        assert timing is not None, "a family is timed"
        firsts = range(instance.device_count) if instance.first_devices is None else instance.first_devices
        enter = [entry for device in firsts if (entry := timing.entry_ns[device]) is not None]
        leave = [leaving for leaving in timing.exit_ns if leaving is not None]
        if enter and leave:
            hops = 0 if pipelined else min(enter) + min(leave)
            problems.append((work + hops, coordinator, instance))
    return sorted(problems, key=lambda problem: (problem[0], problem[1] or ""))


def _work_bound(family: TimedFamily) -> int:
    """Every layer on the device that is fastest at it, whatever it can hold."""
    rows = family.times.cost_prefix_ns
    layers = family.instance.layer_count
    return min(family.times.head_ns) + sum(min(row[p + 1] - row[p] for row in rows) for p in range(layers))


def _solver(pipelined: bool) -> TimedSolver:
    if pipelined:
        from planner.throughput import solve_throughput

        return solve_throughput
    from planner.latency import solve_latency

    return solve_latency
