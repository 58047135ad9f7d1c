"""The search for a path of least cost over classes: bounds from below, plans from above, until they meet.

Lives here: `LeastCost`, which decides in which order the methods are used. Not here: the methods (`planner.relaxation`,
`planner.route_relaxation`, `planner.local_search`, `planner.subset_dp`), nor instances and nanoseconds (`planner.latency`,
`planner.throughput` call it).

1. A relaxed sweep: a first bound, or a proof that nothing exists; local search makes its path a plan.
2. Few classes: the dynamic programme over sets, exact.
3. Else prices are raised, relaxed paths become plans, and classes that can't be in a better plan go, until few are left;
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
from planner.route_relaxation import RouteRelaxation, hop_matrix
from planner.subset_dp import Completion, SubsetSearch

_EXACT_ELEMENTS: Final = 16_000_000
"""Largest table of the dynamic programme over sets, in integers: 128 MB."""
_PRICE_ROUNDS: Final = 48
_ROUTE_ROUNDS: Final = 16
_ROUTE_CLASSES: Final = 320
_ROUTE_ELEMENTS: Final = 24_000_000
"""Largest array of a remembering sweep, in integers; it keeps three."""
_CANDIDATES: Final = 128
_REMEMBERED: Final = (6, 8, 10)
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
    """One search. `cutoff`: only cheaper paths are of interest (INFINITE: any)."""

    def __init__(self, classes: Classes, effort: Effort, cutoff: int = INFINITE) -> None:
        self._classes, self._effort = classes, effort
        self._origin = np.arange(classes.class_count)
        self._cost, self._path = cutoff, None
        self._bound = -INFINITE
        self._tried: set[tuple[int, ...]] = set()
        self._repeats = np.zeros(classes.class_count)
        self._prices = no_prices(classes)
        self._cluster = classes.hops.clusters()
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
        self._try(relaxed_path(self._classes, self._prices, first))
        return self._exact() if self._is_small() else self._closed()

    def _closed(self) -> Least:
        self._ascend()
        if self._is_done():
            return self._least("priced relaxation met by local search")
        if self._is_small():
            return self._exact()
        if self._classes.class_count <= _ROUTE_CLASSES:
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
        """Drop classes in no better plan; `routes`: (reached, completion) of remembering sweeps instead of plain ones."""
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
        self._cluster = self._cluster[kept]
        if self._ahead is not None:
            self._ahead = Completion(self._ahead.after[:, kept], self._ahead.before[:, kept])
        self._tried, self._local = set(), None
        return True

    def _remember(self) -> None:
        """Rounds of remembering sweeps with more and more remembered, as long as they pay."""
        for remembered in _REMEMBERED:
            if self._is_done() or self._is_small() or self._effort.spent:
                return
            matrix = hop_matrix(self._classes)
            cluster = np.unique(self._cluster, return_inverse=True)[1]
            size = (1 << remembered) * self._classes.class_count * (self._classes.layer_count + 1)
            work = RouteRelaxation.work(self._classes, cluster, remembered) * (_ROUTE_ROUNDS + 2)
            if size > _ROUTE_ELEMENTS or work > self._effort.remaining_elements:
                return
            critical = self._critical(cluster, remembered)
            routes = RouteRelaxation(self._classes, matrix, cluster, critical)
            self._ascend_routes(routes)
            if self._is_done() or self._effort.spent:
                return
            ceiling = min(INFINITE, self._cost + self._prices.returned(self._classes))
            back = sweep(self._classes.reversed(), self._prices, self._effort).onward[::-1]
            routes.sweep(self._prices, self._effort, back, ceiling)
            reached, _ = routes.bounds()
            mirror = RouteRelaxation(self._classes.reversed(), np.ascontiguousarray(matrix.T), cluster, critical)
            ahead = np.asarray(sweep(self._classes, self._prices, self._effort).onward[::-1])
            mirror.sweep(self._prices, self._effort, ahead, ceiling)
            started, onward = mirror.bounds()
            self._ahead = Completion(np.ascontiguousarray(onward[::-1]), np.ascontiguousarray(started[::-1]))
            self._eliminate((reached, self._ahead.after))

    def _critical(self, cluster: IntArray, remembered: int) -> list[list[int]]:
        single = self._classes.limit == 1
        result = []
        for number in range(int(cluster.max()) + 1):
            mine = np.flatnonzero((cluster == number) & single & (self._repeats > 0))
            ranked = mine[np.argsort(-self._repeats[mine], kind="stable")]
            result.append(sorted(ranked[:remembered].tolist()))
        return result

    def _ascend_routes(self, routes: RouteRelaxation) -> None:
        ascent = PriceAscent(self._classes, self._prices)
        for number in range(_ROUTE_ROUNDS):
            if self._effort.spent or self._is_done():
                break
            ahead = sweep(self._classes.reversed(), ascent.prices, self._effort).onward[::-1]
            ceiling = min(INFINITE, self._cost + ascent.prices.returned(self._classes))
            total = routes.sweep(ascent.prices, self._effort, ahead, ceiling)
            if total >= ceiling:
                self._raise_bound(self._cost)
                break
            path = routes.path()
            self._count(path)
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
