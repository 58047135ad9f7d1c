"""The fastest plan under any coordinator: which timed problems are solved, in which order, with what proof in the end.

Lives here: `optimise`. Not here: the solvers themselves (`planner.latency`, `planner.throughput`), nor what is said of
the result (`planner.building`). Called by `planner.dispatch`.

Each coordinator is a problem of its own. They are tried from the most promising quick bound on; a plan found under one
is the cutoff for the next, and a coordinator whose bound reaches the best value is done. In a chain many that are alike
are one problem. The lower bound of the whole is the least over all coordinators, tried or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from planner.compiling import TimedFamily
from planner.effort import DEFAULT_EFFORT
from planner.feasibility import Placeable
from planner.instance import Instance
from planner.request import PlanRequest
from planner.solution import Solution, TimedSolver

if TYPE_CHECKING:
    from planner.fill_bound import FillBound, FloatArray

_MOST_COORDINATORS: Final = 64
"""Coordinators that are solved for; the bound of those beyond still counts."""
_FEW_COORDINATORS: Final = 16
"""So many are each solved for exactly. More that may be first in a chain are grouped where they are alike."""
_MOST_GROUPS: Final = 12
_TOLERANCE: Final = 400
"""Ways back may differ by the quick bound over this within a group: a quarter of a percent."""
_SHARE: Final = 2
_LEAST_SHARE: Final = 400
"""A coordinator may take the whole effort over this, and at least so much, before the next one is looked at."""


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
    for number, problem in enumerate(problems):
        cutoff = None if best is None else best.solution.value
        bound = problem.bound(cutoff)
        is_over = tried == _MOST_COORDINATORS or left <= 0 or (should_stop is not None and should_stop())
        if best is not None and (is_over or bound is None or (cutoff is not None and bound >= cutoff)):
            bounds += [] if bound is None else [bound]
            continue
        share = left if number == len(problems) - 1 else max(left // _SHARE, min(left, _LEAST_SHARE))
        solution = solver(problem.instance, effort=max(1, share), should_stop=should_stop, cutoff_ns=cutoff)
        tried, left = tried + 1, left - solution.work_units
        if not solution.infeasible:
            bounds.append(max(bound or 0, solution.lower_bound or 0))
        found = problem.settled(family, solution)
        value = found.solution.value
        if value is not None and (cutoff is None or value < cutoff):
            best = found
    if best is None or best.solution.value is None:
        return None
    proved = min([*bounds, best.solution.value])
    return replace(best, solution=replace(best.solution, lower_bound=proved, work_units=effort - left))


@dataclass(frozen=True, eq=False)
class _Problem:
    """One coordinator's instance, or that of several that are alike (`stands_for`).

    `quick`: a bound from its hops and the fastest devices alone.
    """

    quick: int
    coordinator: str | None
    instance: Instance
    fill: FillBound | None
    stands_for: int = 1

    def settled(self, family: TimedFamily, solution: Solution) -> Optimised:
        """The solution under its true coordinator: in a problem that stands for several, the first stage's node."""
        if self.stands_for == 1 or not solution.placements:
            return Optimised(self.instance, solution, self.coordinator, family.left_out)
        coordinator = self.instance.labels[solution.placements[0].device][0]
        instance = family.under(coordinator, max_stages=self.instance.max_stages)
        assert instance.timing is not None, "a family is timed"
        value = instance.timing.latency_ns(solution.placements)
        return Optimised(instance, replace(solution, value=value), coordinator, family.left_out)

    def bound(self, cutoff: int | None) -> int | None:
        """A lower bound, tightened until it reaches `cutoff`; None if nothing is possible here."""
        if self.fill is None or cutoff is None:
            return self.first
        filled = self.fill.tighten(cutoff)
        return None if filled is None else max(self.quick, filled)

    @property
    def first(self) -> int | None:
        """What is known before anything is tightened."""
        if self.fill is None:
            return self.quick
        return None if self.fill.bound is None else max(self.quick, self.fill.bound)


def _candidates(
    request: PlanRequest, placeable: Placeable, family: TimedFamily, pipelined: bool
) -> tuple[str | None, ...]:
    """In a chain without a named coordinator every node may be the first, unless it makes no difference which."""
    if placeable.coordinators != (None,) or request.links.free or pipelined:
        return placeable.coordinators
    return tuple(dict.fromkeys(family.times.node_ids))


def _problems(
    family: TimedFamily, coordinators: tuple[str | None, ...], max_stages: int | None, pipelined: bool
) -> list[_Problem]:
    """The problems of all coordinators that can be entered and left, best bound first."""
    work = 0 if pipelined else _work_bound(family)
    filling = None if pipelined else _filling(family)
    problems = []
    for coordinator, instance, stands_for in _instances(family, coordinators, max_stages, pipelined, work):
        timing = instance.timing
        assert timing is not None, "a family is timed"
        firsts = range(instance.device_count) if instance.first_devices is None else instance.first_devices
        enter = [entry for device in firsts if (entry := timing.entry_ns[device]) is not None]
        leave = [leaving for leaving in timing.exit_ns if leaving is not None]
        if enter and leave:
            hops = 0 if pipelined else min(enter) + min(leave)
            problems.append(_Problem(work + hops, coordinator, instance, filling and filling(instance), stands_for))
    ranked = [(first, problem) for problem in problems if (first := problem.first) is not None]
    return [problem for _, problem in sorted(ranked, key=lambda pair: (pair[0], pair[1].coordinator or ""))]


def _instances(
    family: TimedFamily, coordinators: tuple[str | None, ...], max_stages: int | None, pipelined: bool, work: int
) -> Iterator[tuple[str | None, Instance, int]]:
    """(coordinator, instance, how many it stands for). Many that may be first in a chain are grouped."""
    named = [coordinator for coordinator in coordinators if coordinator is not None]
    is_chosen = not family.instance.star and family.request.constraints.coordinator is None
    if pipelined or not is_chosen or len(named) <= _FEW_COORDINATORS:
        for coordinator in coordinators:
            yield coordinator, family.under(coordinator, max_stages=max_stages), 1
        return
    from planner.first_stages import alike, first_of, ways_back

    back = ways_back(family, named)
    tolerance = work / _TOLERANCE
    while len(groups := alike(back, tolerance)) > _MOST_GROUPS and tolerance < work:
        tolerance *= 2
    for group in groups:
        yield named[group[0]], first_of(family, group, named, back, max_stages), len(group)


def _filling(family: TimedFamily) -> Callable[[Instance], FillBound]:
    """Makes fill bounds; what all coordinators share is worked out once."""
    from planner.fill_bound import Fill, FillBound, charges, nearest_hops

    shared: tuple[Fill, FloatArray | None] | None = None

    def bound(instance: Instance) -> FillBound:
        nonlocal shared
        timing = instance.timing
        assert timing is not None, "a family is timed"
        mine = shared if instance.device_count == family.instance.device_count else None
        if mine is None:
            mine = Fill.of(instance, timing), None if timing.hop_ns is None else nearest_hops(timing)
        if instance.device_count == family.instance.device_count:
            shared = mine
        charge, spared = charges(instance, timing, mine[1])
        return FillBound(mine[0], charge, min(timing.head_ns) - spared)

    return bound


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
