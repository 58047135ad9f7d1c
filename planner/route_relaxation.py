"""A stronger lower bound: relaxed routes that remember some of the devices they passed.

Lives here: `RouteRelaxation`, and the choice of what is remembered (`worthwhile`, `extended`). Not here: prices
(`planner.relaxation`), or when it is worth its work (`planner.least_cost`).

The relaxed programme of `planner.relaxation` may go back and forth between two near devices instead of crossing to
another site, and prices can't forbid that (half of each of two bad routes is a good average). So each class v has a
small neighbourhood N(v), and a route carries a memory: which classes of N(v) it has used while it was in places that
remember them. It can't repeat what it remembers:

    memory after going on from u to v = (memory at u + {u}), cut down to N(v)        allowed if v is not in it before

This is the ng-route relaxation (Baldacci, Mingozzi, Roberti, Operations Research 59, 2011), on top of layers and memory
windows; neighbourhoods grow along the cycles that relaxed routes still make (Roberti, Mingozzi, Transportation Science
48, 2014). Decremental state-space relaxation (Righini, Salani, Networks 51, 2008) is the case of one N for all. A sweep
costs O(L (states x window + transitions)), with 2^|N(v)| states per class. Only classes of one device are remembered.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from planner.classes import Classes
from planner.effort import Effort
from planner.hops import INFINITE, BoolArray, IntArray
from planner.relaxation import Path, Prices

Neighbourhoods = list[list[int]]
"""[v]: the other classes that a route remembers while it is at v."""


def hop_matrix(classes: Classes) -> IntArray:
    """[u, v]: all hops."""
    every = np.arange(classes.class_count)
    return classes.hops.between(every[:, None], every[None, :])


def worthwhile(matrix: IntArray, repeats: NDArray[np.float64], reach: int, size: int) -> Neighbourhoods:
    """For each class the `size` others most worth remembering: often repeated, and near on the scale of `reach`."""
    near = np.minimum(np.minimum(matrix, matrix.T), INFINITE) - min(0, int(matrix.min(initial=0)))
    worth = repeats[None, :] / (near + float(max(1, reach)))
    np.fill_diagonal(worth, 0.0)
    ranked = np.argsort(-worth, axis=1, kind="stable")[:, :size]
    return [[int(u) for u in row if worth[v, u] > 0.0] for v, row in enumerate(ranked)]


def extended(before: Neighbourhoods, paths: Iterable[Path], single: BoolArray, size: int) -> Neighbourhoods:
    """Neighbourhoods that forbid the cycles of `paths`: what is repeated is remembered by everything in between."""
    result = [list(each) for each in before]
    for path in paths:
        last: dict[int, int] = {}
        for number, (chosen, _) in enumerate(path):
            if chosen in last and single[chosen]:
                for between, _ in path[last[chosen] + 1 : number]:
                    if between != chosen and chosen not in result[between] and len(result[between]) < size:
                        result[between].append(chosen)
            last[chosen] = number
    return result


class RouteRelaxation:
    """Sweeps over states (last class, memory) and layer ends. States of class v lie at `_first[v]` + memory bits."""

    def __init__(self, classes: Classes, matrix: IntArray, remembered: Neighbourhoods) -> None:
        self._classes, self._matrix = classes, matrix
        sizes = np.array([1 << len(each) for each in remembered], dtype=np.int64)
        self._first = np.cumsum(sizes) - sizes
        self._class_of = np.repeat(np.arange(classes.class_count), sizes)
        self.state_count = int(sizes.sum())
        self._expired = self._expiries()
        self._link(remembered)
        shape = (classes.layer_count + 1, self.state_count)
        self._reached, self._onward, self._window = (np.full(shape, INFINITE, dtype=np.int64) for _ in range(3))

    @staticmethod
    def states(remembered: Neighbourhoods) -> int:
        """How many states there would be."""
        return sum(1 << len(each) for each in remembered)

    def _link(self, remembered: Neighbourhoods) -> None:
        """Transitions (source state, cost, target state), sorted by target; pairs that share nothing go by class."""
        places = [{u: bit for bit, u in enumerate(each)} for each in remembered]
        self._apart = np.full(self._matrix.shape, INFINITE, dtype=np.int64)
        sources, targets, costs = [], [], []
        for u, v in zip(*(axis.tolist() for axis in np.nonzero(self._matrix < INFINITE)), strict=True):
            kept = [(bit, places[v][w]) for w, bit in places[u].items() if w in places[v]]
            if not kept and u not in places[v] and v not in places[u] and u != v:
                self._apart[u, v] = self._matrix[u, v]
                continue
            memory = np.arange(1 << len(remembered[u]))
            if v in places[u]:
                memory = memory[memory >> places[u][v] & 1 == 0]
            after = np.full(len(memory), 1 << places[v][u] if u in places[v] else 0)
            for bit, new in kept:
                after |= (memory >> bit & 1) << new
            sources.append(self._first[u] + memory)
            targets.append(self._first[v] + (memory if u == v else after))
            costs.append(np.full(len(memory), self._matrix[u, v]))
        empty = np.zeros(0, dtype=np.int64)
        target = np.concatenate([*targets, empty])
        ranked = np.argsort(target, kind="stable")
        self._sources, self._costs = np.concatenate([*sources, empty])[ranked], np.concatenate([*costs, empty])[ranked]
        target = target[ranked]
        self._heads = np.flatnonzero(np.r_[True, target[1:] != target[:-1]]) if len(target) else empty
        self._targets = target[self._heads]

    def sweep(self, prices: Prices, effort: Effort) -> int:
        """The least priced cost of a relaxed route."""
        classes, total, of = self._classes, self._classes.layer_count, self._class_of
        fixed = (classes.fixed + prices.use + prices.stage)[of]
        prefix = np.ascontiguousarray(classes.prefix.T[:, of])
        self._onward[0] = INFINITE
        self._onward[0, self._first] = classes.start
        self._window[0] = self._onward[0] - prefix[0]
        floor, touched = classes.lowest.min(axis=0), 0
        for end in range(1, total + 1):
            if (gone := self._expired[end]) is not None:
                self._window[gone] = INFINITE
            if not classes.cut[end]:
                continue
            low, reached = int(floor[end]), self._reached[end]
            reached[:] = INFINITE
            if low < end:
                np.minimum(self._window[low:end].min(axis=0) + (prefix[end] + fixed), INFINITE, out=reached)
            touched += (end - low) * self.state_count
            if end < total:
                self._pass_on(reached, self._onward[end])
                np.subtract(self._onward[end], prefix[end], out=self._window[end])
        effort.charge(touched + total * (3 * len(self._sources) + 6 * self.state_count), 12 * total)
        return min(INFINITE, int((self._reached[total] + classes.finish[of]).min()))

    def _expiries(self) -> list[tuple[IntArray, IntArray] | None]:
        """[end]: (start, state) pairs that no stage ending from there on may have."""
        sizes = np.diff(np.append(self._first, self.state_count))
        result: list[tuple[IntArray, IntArray] | None] = []
        for gone in self._classes.expired:
            if gone is None:
                result.append(None)
                continue
            begin, chosen = gone
            count = sizes[chosen]
            inside = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            result.append((np.repeat(begin, count), np.repeat(self._first[chosen], count) + inside))
        return result

    def _pass_on(self, reached: IntArray, onward: IntArray) -> None:
        onward[:] = INFINITE
        if len(self._sources):
            onward[self._targets] = np.minimum.reduceat(reached[self._sources] + self._costs, self._heads)
        least = np.minimum.reduceat(reached, self._first)
        apart = (least[:, None] + self._apart).min(axis=0)
        onward[self._first] = np.minimum(onward[self._first], apart)
        np.minimum(onward, INFINITE, out=onward)

    def path(self) -> Path:
        """A route of the last sweep's least cost."""
        classes, end = self._classes, self._classes.layer_count
        state = int((self._reached[end] + classes.finish[self._class_of]).argmin())
        path: Path = []
        while True:
            chosen = int(self._class_of[state])
            path.append((chosen, end))
            low = int(classes.lowest[chosen, end])
            end = low + int((self._onward[low:end, state] - classes.prefix[chosen, low:end]).argmin())
            if end == 0:
                return path[::-1]
            state = self._before(state, end)

    def _before(self, state: int, end: int) -> int:
        """The state at `end` from which `state` is entered."""
        place = int(np.searchsorted(self._targets, state))
        if place < len(self._targets) and self._targets[place] == state:
            heads = self._heads
            high = int(heads[place + 1]) if place + 1 < len(heads) else len(self._sources)
            low = int(heads[place])
            cost = self._reached[end, self._sources[low:high]] + self._costs[low:high]
            if cost.min() == self._onward[end, state]:
                return int(self._sources[low + int(cost.argmin())])
        cost = self._reached[end] + self._apart[self._class_of, self._class_of[state]]
        return int(cost.argmin())

    def bounds(self) -> tuple[IntArray, IntArray]:
        """([q, v], [p, v]) of the last sweep: least cost with a stage of v just ended, or about to start."""
        reached = np.minimum.reduceat(self._reached, self._first, axis=1)
        return reached, np.minimum.reduceat(self._onward, self._first, axis=1)
