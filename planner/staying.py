"""Plans that keep layers where they lie: the fewest bytes moved among plans of at most a given value.

Lives here: `Candidate`, `Terms` (what one is worth and what it moves) and `least_moved`. Not here: what the limit is
and what is said of the outcome (`planner.replanning`), pipelines (`planner.staying_in_line`).

Bytes moved are a sum over stages, as times are, so a byte can be given a price in nanoseconds and the latency solver
asked for the least of time + price x bytes. By bisection on the price the plan with fewest bytes within the limit is
approached from both sides (Lagrangian relaxation of one constraint): every answer is a candidate, and the bound of a
priced problem bounds the bytes, since for plans within the limit

    bytes >= (least of time + price x bytes  -  limit) / price.

Where plans are counted in stages there is nothing to price: the least bytes within that many stages are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from planner.building import Found
from planner.compiling import TimedFamily
from planner.constraints import Objective
from planner.feasibility import Placeable
from planner.instance import Instance, Timing
from planner.request import PlanRequest
from planner.solution import Placement, Solution
from planner.transfers import Held, Place

_PRICES: Final = 6
"""Prices tried under each coordinator: each halves the uncertainty of the price's exponent."""
_PRICE_OCTAVES: Final = 30
_MOST_COORDINATORS: Final = 2
_LEAST_EFFORT: Final = 50

Stages = tuple[tuple[Place, int, int], ...]
"""(device, layer start, layer end) in layer order."""
ShouldStop = Callable[[], bool] | None


@dataclass(frozen=True)
class Candidate:
    """A legal answer. `value` in ns, or in stages where plans are counted in stages; `moved` in bytes."""

    coordinator: str
    stages: Stages
    value: int
    moved: int


@dataclass(frozen=True, eq=False)
class Terms:
    """The request as it is now, its best solution, and where the running plan's weights lie."""

    request: PlanRequest
    placeable: Placeable
    solved: Found
    held: Held
    running_coordinator: str

    @cached_property
    def best(self) -> Candidate:
        """The best plan, whatever it moves."""
        instance = self.solved.instance
        stages = _stages_of(instance, self.solved.solution.placements)
        best = self.candidate(self.solved.coordinator, stages)
        assert best is not None, "the best plan is a legal one"
        return best

    def candidate(self, coordinator: str, stages: Sequence[tuple[Place, int, int]]) -> Candidate | None:
        """These stages as they would run now; None where they can't, or their value can't be told."""
        if coordinator not in self.coordinators:
            return None
        instance = self.instance(coordinator)
        number = {label: index for index, label in enumerate(instance.labels)}
        if any(place not in number for place, _, _ in stages):
            return None
        placements = tuple(Placement(number[place], start, end) for place, start, end in stages)
        if instance.defect(placements) is not None:
            return None
        value = self._value(instance, placements)
        moved = sum(self._stage_moved(place, start, end) for place, start, end in stages)
        return None if value is None else Candidate(coordinator, tuple(stages), value, moved)

    def found_of(self, candidate: Candidate) -> Found:
        """`candidate` as a solved request; its bound is the best plan's."""
        best = self.solved
        if candidate == self.best:
            return best
        instance = self.instance(candidate.coordinator)
        number = {label: index for index, label in enumerate(instance.labels)}
        solution = replace(
            best.solution,
            placements=tuple(Placement(number[place], start, end) for place, start, end in candidate.stages),
            value=candidate.value,
            method=f"fewest bytes moved ({best.solution.method} for the best)",
        )
        return Found.of(
            self.request,
            best.need,
            instance,
            solution,
            candidate.coordinator,
            unit=best.unit,
            capacity_only=best.capacity_only,
            notes=best.notes,
        )

    def meets_target(self, candidate: Candidate) -> bool:
        """Whether a target for tokens per second, if there is one, is met as well as by the best plan."""
        target, best = self.request.constraints.min_tokens_per_s, self.solved.forecast.prediction
        if target is None or best is None:
            return True
        expected = self.found_of(candidate).forecast.prediction
        return expected is not None and expected.tokens_per_s >= min(target, best.tokens_per_s)

    @cached_property
    def coordinators(self) -> tuple[str, ...]:
        """Who may coordinate, the best plan's first. In a chain without a pinned one: whoever has the first stage."""
        if self.placeable.coordinators == (None,):
            return tuple(dict.fromkeys((self.solved.coordinator, *(node.id for node in self.placeable.nodes))))
        able = self.running_coordinator in self.placeable.coordinators
        return tuple(dict.fromkeys((self.solved.coordinator, *([self.running_coordinator] if able else []))))

    @property
    def searched_coordinators(self) -> tuple[str, ...]:
        """Those under which plans are looked for."""
        if self.placeable.coordinators != (None,):
            return self.coordinators
        if self._any_first:
            return (self.solved.coordinator,)
        running = (stage.node for stage in self.held.stages if stage.node in self.coordinators)
        return tuple(dict.fromkeys((self.solved.coordinator, *running)))[:_MOST_COORDINATORS]

    def is_complete(self, coordinators: Sequence[str]) -> bool:
        """Whether nobody else may coordinate."""
        able = self.placeable.coordinators
        if able == (None,):
            return self._any_first or len(coordinators) == len(self.coordinators)
        return set(coordinators) == set(able)

    def instance(self, coordinator: str) -> Instance:
        """The problem under `coordinator`; untimed where plans are counted in stages."""
        if self.solved.unit != "s":
            return self.placeable.instance
        key = None if self.placeable.coordinators == (None,) and self._any_first else coordinator
        if key not in self._instances:
            self._instances[key] = self._family.under(key)
        return self._instances[key]

    def prefix(self, place: Place) -> tuple[int, ...]:
        """Bytes moved to `place` by layer, see `Held.moved_prefix`."""
        if place not in self._prefixes:
            self._prefixes[place] = self.held.moved_prefix(place)
        return self._prefixes[place]

    @property
    def is_pipelined(self) -> bool:
        """Whether the bottleneck is what counts."""
        return self.request.objective is Objective.THROUGHPUT and self.request.engine.pipelined

    @property
    def lanes(self) -> int:
        """Lanes of a timed pass that its value is divided by."""
        is_batched = self.request.objective is Objective.THROUGHPUT and not self.request.engine.pipelined
        return self.request.workload.lanes if is_batched else 1

    @property
    def _any_first(self) -> bool:
        """Whether it makes no difference which node a token enters and leaves at."""
        return self.request.links.free or self.is_pipelined

    def _value(self, instance: Instance, placements: Sequence[Placement]) -> int | None:
        if instance.timing is None:
            return len(placements)
        if self.is_pipelined:
            return instance.timing.bottleneck_ns(placements)
        latency = instance.timing.latency_ns(placements)
        return None if latency is None else latency // self.lanes

    def _stage_moved(self, place: Place, start: int, end: int) -> int:
        row = self.prefix(place)
        first = self.held.moved_first(place) if start == 0 else 0
        last = self.held.moved_last(place) if end == len(row) - 1 else 0
        return row[end] - row[start] + first + last

    @cached_property
    def _family(self) -> TimedFamily:
        return TimedFamily.of(self.request, self.placeable.nodes, self.placeable.need, batch=self.lanes)

    @cached_property
    def _instances(self) -> dict[str | None, Instance]:
        return {}

    @cached_property
    def _prefixes(self) -> dict[Place, tuple[int, ...]]:
        return {}


def least_moved(terms: Terms, limit: int, effort: int, should_stop: ShouldStop) -> tuple[Candidate, int]:
    """Of plans worth at most `limit`, one that moves the fewest bytes found, and a bound on what all of them move."""
    if terms.request.objective is Objective.PROPORTIONAL:
        return terms.best, 0
    if terms.is_pipelined and terms.solved.unit == "s":
        from planner.staying_in_line import orders_nearby

        return _Search(terms, limit).offered(orders_nearby(terms, limit)), 0
    search = _Search(terms, limit)
    if terms.solved.unit != "s":
        bound = search.by_stages(_Priced(terms, terms.solved.coordinator, effort, should_stop))
        return search.taken, bound
    searched = terms.searched_coordinators
    share = max(_LEAST_EFFORT, effort // (_PRICES * len(searched)))
    bounds = [search.by_price(_Priced(terms, coordinator, share, should_stop)) for coordinator in searched]
    return search.taken, min(bounds) if terms.is_complete(searched) else 0


class _Search:
    """The best candidate so far: fewest bytes moved, then least value."""

    def __init__(self, terms: Terms, limit: int) -> None:
        self._terms, self._limit = terms, limit
        self.taken = terms.best

    def offered(self, candidates: Sequence[Candidate]) -> Candidate:
        """The best of what is held and `candidates`."""
        for candidate in candidates:
            self._offer(candidate)
        return self.taken

    def _offer(self, candidate: Candidate | None) -> bool:
        """Whether it is within the limit."""
        if candidate is None or candidate.value > self._limit:
            return False
        better = (candidate.moved, candidate.value) < (self.taken.moved, self.taken.value)
        if better and self._terms.meets_target(candidate):
            self.taken = candidate
        return True

    def by_stages(self, solve: _Priced) -> int:
        """At most `limit` stages, fewest bytes; returns the proved bound."""
        instance = replace(solve.instance, max_stages=min(solve.instance.max_stages, self._limit))
        solution = solve.least(instance, free_timing(instance), 1.0)
        self._offer(solve.candidate(solution))
        return solution.lower_bound or 0

    def by_price(self, solve: _Priced) -> int:
        """Bisection on the exponent of the price; returns the proved bound."""
        timing = solve.instance.timing
        assert timing is not None, "plans in seconds come from timed instances"
        budget = (self._limit + 1) * self._terms.lanes
        highest = budget / max(1, min(self._terms.held.layer_bytes, default=1))
        low, high, bound = 0.0, float(_PRICE_OCTAVES), 0
        price = highest
        for _ in range(_PRICES):
            solution = solve.least(solve.instance, timing, price)
            if solution.lower_bound is not None:
                rounding = solve.instance.layer_count + 3
                bound = max(bound, math.floor((solution.lower_bound - budget - rounding) / price))
            octaves = math.log2(highest / price)
            if self._offer(solve.candidate(solution)):
                high = octaves
            else:
                low = octaves
            if high - low < 0.1 or high <= 0.0:
                break
            price = highest / 2 ** ((low + high) / 2)
        return bound


class _Priced:
    """The latency solver on one coordinator's instance, with a price on bytes moved."""

    def __init__(self, terms: Terms, coordinator: str, effort: int, should_stop: ShouldStop) -> None:
        self._terms, self._coordinator = terms, coordinator
        self._effort, self._should_stop = effort, should_stop
        self.instance = terms.instance(coordinator)

    def least(self, instance: Instance, timing: Timing, price_ns: float) -> Solution:
        """The least of time + `price_ns` x bytes moved."""
        from planner.latency import solve_latency

        held, labels = self._terms.held, instance.labels
        priced = replace(
            timing,
            cost_prefix_ns=tuple(
                tuple(
                    spent + math.floor(price_ns * moved)
                    for spent, moved in zip(row, self._terms.prefix(place), strict=True)
                )
                for row, place in zip(timing.cost_prefix_ns, labels, strict=True)
            ),
            head_ns=tuple(
                spent + math.floor(price_ns * held.moved_last(place))
                for spent, place in zip(timing.head_ns, labels, strict=True)
            ),
        )
        number = {place: index for index, place in enumerate(labels)}
        running = [(stage.node, stage.device) for stage in held.stages]
        return solve_latency(
            replace(instance, timing=priced),
            effort=self._effort,
            should_stop=self._should_stop,
            start=[number[place] for place in running if place in number],
        )

    def candidate(self, solution: Solution) -> Candidate | None:
        """What was found, in its own terms."""
        if not solution.placements:
            return None
        stages = _stages_of(self.instance, solution.placements)
        is_first = self._terms.placeable.coordinators == (None,)
        return self._terms.candidate(stages[0][0][0] if is_first else self._coordinator, stages)


def free_timing(instance: Instance) -> Timing:
    """No time at all, so that only what is added counts."""
    count, layers = instance.device_count, instance.layer_count
    zeros = (0,) * count
    square = (zeros,) * count
    return Timing(
        node_of=instance.node_of,
        cost_prefix_ns=((0,) * (layers + 1),) * count,
        fixed_ns=zeros,
        head_ns=zeros,
        entry_ns=zeros,
        exit_ns=zeros,
        hop_ns=None if instance.star else square,
        entry_transfer_ns=zeros,
        exit_transfer_ns=zeros,
        transfer_rows_ns=None if instance.star else square,
    )


def _stages_of(instance: Instance, placements: Sequence[Placement]) -> Stages:
    return tuple((instance.labels[stage.device], stage.layer_start, stage.layer_end) for stage in placements)
