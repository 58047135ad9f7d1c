"""The search for a path of least cost over classes: bounds from below, plans from above, until they meet.

Lives here: `LeastCost`, which decides in which order the methods are used. Not here: the methods (`planner.relaxation`,
`planner.route_relaxation`, `planner.local_search`, `planner.subset_dp`), nor instances and nanoseconds
(`planner.latency` calls it).

1. A relaxed sweep: a first bound, or a proof that nothing exists; local search makes its path a plan.
2. Few classes: the dynamic programme over sets, exact.
3. Else prices are raised, relaxed paths become plans, and classes that can't be in a better plan go, until few are
   left;
4. routes that remember lift the bound where devices repeat within a site;
5. the dynamic programme over sets, pruned by those bounds, in growing widths, closes what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from planner.classes import Classes
from planner.effort import Effort
from planner.hops import INFINITE, IntArray
from planner.local_search import LocalSearch
from planner.relaxation import (
    Path,
    PriceAscent,
    Prices,
    no_prices,
    opening_prices,
    relaxed_path,
    sweep,
    through_costs,
)
from planner.route_relaxation import Neighbourhoods, RouteRelaxation, extended, hop_matrix, worthwhile
from planner.subset_dp import Completion, SubsetSearch

_EXACT_ELEMENTS: Final = 16_000_000
"""Largest table of the dynamic programme over sets, in integers: 128 MB."""
_PRICE_ROUNDS: Final = 48
_ROUTE_ROUNDS: Final = 12
_REACH: Final = 50
_ROUTE_CLASSES: Final = 320
_ROUTE_ELEMENTS: Final = 8_000_000
"""Largest array of a remembering sweep, in integers; it keeps three."""
_CANDIDATES: Final = 128
_REMEMBERED: Final = (7, 8, 9, 10, 11)
_FIRST_WIDTH: Final = 100
_WIDTHS: Final = (400, 3_200, 25_600)


@dataclass(frozen=True, slots=True)
class Least:
    """`path` (classes as numbered at the start) of `cost`, None if nothing below the cutoff was found.

    Nothing is below `bound`. `impossible`: no path exists at all.
    """

    path: Path | None
    cost: int
    bound: int
    method: str
    impossible: bool = False


class LeastCost:
    """One search. `cutoff`: only cheaper paths are of interest (INFINITE: any). `start`: an order to improve first."""

    def __init__(self, classes: Classes, effort: Effort, cutoff: int = INFINITE, start: tuple[int, ...] = ()) -> None:
        self._classes, self._effort = classes, effort
        self._origin = np.arange(classes.class_count)
        self._cost, self._start = cutoff, start
        self._path: Path | None = None
        self._bound = -INFINITE
        self._tried: set[tuple[int, ...]] = set()
        self._repeats = np.zeros(classes.class_count)
        self._memory: Neighbourhoods = []
        self._recent: list[Path] = []
        self._prices = no_prices(classes)
        self._ahead: Completion | None = None
        self._local: LocalSearch | None = None

    def run(self) -> Least:
        """Search until bound and cost meet, or the effort is spent."""
        if not self._classes.class_count or self._classes.min_stages > self._classes.max_stages:
            return Least(None, self._cost, INFINITE, "no device can take part", impossible=True)
        first = sweep(self._classes, self._prices, self._effort)
        if first.total >= INFINITE:
            return Least(None, self._cost, INFINITE, "relaxed programme", impossible=True)
        self._raise_bound(first.total)
        if self._start:
            self._try([(chosen, 0) for chosen in self._start])
        self._try(relaxed_path(self._classes, self._prices, first))
        return self._exact() if self._is_small() else self._closed()

    def _closed(self) -> Least:
        self._ascend()
        if self._is_done():
            return self._least("priced relaxation met by local search")
        if self._is_small():
            return self._exact()
        if self._classes.class_count <= _ROUTE_CLASSES and not self._classes.hops.is_free:
            self._remember()
        if self._is_done():
            return self._least("route relaxation met by local search")
        for width in _WIDTHS:
            if self._search(width) or self._effort.spent:
                break
        return self._least("local search under a relaxed bound")

    def _exact(self) -> Least:
        complete = self._search(_EXACT_ELEMENTS)
        found = self._least("dynamic programme over sets of devices")
        return found if complete or found.path is None else self._least("local search under a relaxed bound")

    def _is_done(self) -> bool:
        return self._bound >= self._cost

    def _is_small(self) -> bool:
        states = float(np.prod(self._classes.limit + 1.0))
        return states * self._classes.class_count / 2 * (self._classes.layer_count + 1) <= _EXACT_ELEMENTS

    def _least(self, method: str) -> Least:
        bound = min(self._bound, self._cost)
        impossible = self._path is None and bound >= INFINITE
        return Least(self._path, self._cost, bound, method, impossible)

    def _raise_bound(self, bound: int) -> None:
        self._bound = max(self._bound, bound)

    def _offer(self, cost: int, path: Path) -> None:
        if cost < self._cost:
            self._cost = cost
            self._path = [(int(self._origin[chosen]), end) for chosen, end in path]

    def _try(self, path: Path) -> None:
        """Make a relaxed path a plan, once."""
        order = tuple(chosen for chosen, _ in path)
        if order in self._tried or self._effort.spent:
            return
        self._tried.add(order)
        self._local = self._local or LocalSearch(self._classes, self._effort, self._candidates())
        improved = self._local.improve(order)
        if improved is not None:
            self._offer(*improved)

    def _candidates(self) -> list[int]:
        """The classes worth bringing in: those that cost least per layer, and those that hold most."""
        classes = self._classes
        if classes.class_count <= _CANDIDATES:
            return list(range(classes.class_count))
        width = (classes.highest - np.arange(classes.layer_count + 1)).max(axis=1)
        charge = classes.fixed + np.minimum(classes.hops.through(classes.start[None])[0], INFINITE >> 3)
        rate = classes.prefix[:, -1] / classes.layer_count + charge / np.maximum(width, 1)
        half = _CANDIDATES // 2
        best, widest = np.argsort(rate, kind="stable")[:half], np.argsort(-width, kind="stable")[:half]
        return sorted({*best.tolist(), *widest.tolist()})

    def _target(self) -> int:
        """What prices are raised towards: the best cost, or a guess above the bound while there is none."""
        return self._cost if self._cost < INFINITE else self._bound + abs(self._bound) // 10 + 1

    def _set_prices(self, prices: Prices) -> None:
        self._prices, self._ahead = prices, None

    def _ascend(self) -> None:
        ascent = PriceAscent(self._classes, opening_prices(self._classes))
        for number in range(_PRICE_ROUNDS):
            if self._effort.spent or ascent.settled or self._is_done():
                break
            forward = sweep(self._classes, ascent.prices, self._effort)
            path = relaxed_path(self._classes, ascent.prices, forward)
            self._count(path)
            self._raise_bound(ascent.step(forward.total, path, self._target()))
            self._set_prices(ascent.best_prices)
            if number == 0:
                self._search(_FIRST_WIDTH)
            if number % 8 == 7:
                self._try(path)
            if number % 12 in (0, 4) and self._eliminate(None):
                if self._is_done() or self._is_small():
                    break
                ascent = PriceAscent(self._classes, self._prices)

    def _count(self, path: Path) -> None:
        """Note what relaxed paths repeat: those classes are worth remembering."""
        used = np.bincount([chosen for chosen, _ in path], minlength=self._classes.class_count)
        self._repeats = self._repeats * 0.9 + np.maximum(0, used - self._classes.limit) + used / 1024

    def _completion(self) -> Completion:
        if self._ahead is not None:
            return self._ahead
        back = sweep(self._classes.reversed(), self._prices, self._effort)
        return Completion(np.ascontiguousarray(back.onward[::-1]), np.ascontiguousarray(back.reached[::-1]))

    def _eliminate(self, routes: tuple[IntArray, IntArray] | None) -> bool:
        """Drop classes in no better plan; `routes`: (reached, completion) of remembering sweeps, not of plain ones."""
        if self._cost >= INFINITE or self._effort.spent:
            return False
        if routes is None:
            reached = sweep(self._classes, self._prices, self._effort).reached
            routes = reached, self._completion().after
        ceiling = self._cost + self._prices.returned(self._classes)
        kept = np.flatnonzero(through_costs(*routes) < ceiling)
        if len(kept) == self._classes.class_count:
            return False
        if not len(kept):
            self._raise_bound(self._cost)
        self._classes, self._origin = self._classes.subset(kept), self._origin[kept]
        self._prices, self._repeats = self._prices.subset(kept), self._repeats[kept]
        self._renumber(kept)
        if self._ahead is not None:
            self._ahead = Completion(self._ahead.after[:, kept], self._ahead.before[:, kept])
        self._tried, self._local = set(), None
        return True

    def _renumber(self, kept: IntArray) -> None:
        """What is remembered, in the numbers of the classes that stay."""
        number = {int(chosen): place for place, chosen in enumerate(kept)}
        if self._memory:
            self._memory = [[number[u] for u in self._memory[v] if u in number] for v in number]
        self._recent = [[(number[v], end) for v, end in path if v in number] for path in self._recent]

    def _remember(self) -> None:
        """Rounds of remembering sweeps with more and more remembered, as long as they pay."""
        matrix = hop_matrix(self._classes)
        repeats = np.where(self._classes.limit == 1, self._repeats, 0.0)
        reach = self._target() // (_REACH * (1 + len(self._path or ())))
        self._memory = worthwhile(matrix, repeats, reach, _REMEMBERED[0])
        for size in _REMEMBERED:
            if self._is_done() or self._is_small() or self._effort.spent:
                return
            self._memory = extended(self._memory, self._recent, self._classes.limit == 1, size)
            if RouteRelaxation.states(self._memory) * (self._classes.layer_count + 1) > _ROUTE_ELEMENTS:
                return
            matrix = hop_matrix(self._classes)
            self._ascend_routes(RouteRelaxation(self._classes, matrix, self._memory))
            if self._is_done() or self._effort.spent:
                return
            self._look_ahead(matrix)

    def _look_ahead(self, matrix: IntArray) -> None:
        """Remembering sweeps from both ends at the best prices: drop classes, keep the bounds for the last search."""
        routes = RouteRelaxation(self._classes, matrix, self._memory)
        routes.sweep(self._prices, self._effort)
        mirror = RouteRelaxation(self._classes.reversed(), np.ascontiguousarray(matrix.T), self._memory)
        mirror.sweep(self._prices, self._effort)
        started, onward = mirror.bounds()
        self._ahead = Completion(np.ascontiguousarray(onward[::-1]), np.ascontiguousarray(started[::-1]))
        self._eliminate((routes.bounds()[0], self._ahead.after))

    def _ascend_routes(self, routes: RouteRelaxation) -> None:
        ascent = PriceAscent(self._classes, self._prices)
        self._recent = []
        for number in range(_ROUTE_ROUNDS):
            if self._effort.spent or self._is_done() or ascent.settled:
                break
            total = routes.sweep(ascent.prices, self._effort)
            if total >= INFINITE:
                self._raise_bound(self._cost)
                break
            path = routes.path()
            self._recent.append(path)
            if number % 3 == 0:
                self._try(path)
            self._raise_bound(ascent.step(total, path, self._target()))
        self._set_prices(ascent.best_prices)

    def _search(self, width: int) -> bool:
        """The pruned dynamic programme over sets; True if it settled the matter."""
        if self._effort.spent:
            return False
        if not self._classes.class_count:
            return True
        limit = max(1, min(width, _EXACT_ELEMENTS // (self._classes.layer_count + 1)))
        search = SubsetSearch(self._classes, self._prices, self._completion(), self._cost, limit, self._effort)
        found = search.run()
        if found.path is not None:
            self._offer(found.cost, found.path)
        self._raise_bound(found.bound)
        return self._is_done()
