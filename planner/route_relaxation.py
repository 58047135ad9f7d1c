"""A stronger lower bound for chains: relaxed routes that remember some of the devices they passed.

Lives here: `RouteRelaxation`. Not here: clusters (`planner.hops`), prices (`planner.relaxation`), or when it is worth its
work (`planner.least_cost`).

The relaxed programme of `planner.relaxation` may go back and forth between two near devices instead of crossing to
another site, and prices can't forbid that (half of each of two bad routes is a good average). So classes that are near each
other form clusters, and while a route stays in a cluster it remembers which of that cluster's `critical` classes it has
used: those it can't repeat. Leaving the cluster forgets. This is the ng-route relaxation (Baldacci, Mingozzi, Roberti,
Operations Research 59, 2011) with one neighbourhood per cluster; without clusters it is the decremental state-space
relaxation of facts, section 5. With c critical classes per cluster a sweep costs O(2^c L (window T + sum of cluster sizes squared)).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner.classes import Classes
from planner.effort import Effort
from planner.hops import INFINITE, IntArray
from planner.relaxation import Path, Prices


def hop_matrix(classes: Classes) -> IntArray:
    """[u, v]: all hops."""
    every = np.arange(classes.class_count)
    return classes.hops.between(every[:, None], every[None, :])


class RouteRelaxation:
    """Sweeps over (set of remembered classes, last class, layer end). `critical[g]`: what cluster g remembers.

    Only classes of one device may be critical. Arrays are reused from sweep to sweep: 3 x (L+1) x 2^c x T integers.
    """

    def __init__(self, classes: Classes, matrix: IntArray, cluster: IntArray, critical: Sequence[Sequence[int]]) -> None:
        self._classes, self._matrix, self._cluster = classes, matrix, cluster
        count = classes.class_count
        self.sets = 1 << max((len(each) for each in critical), default=0)
        self._bit = np.zeros(count, dtype=np.int64)
        for each in critical:
            self._bit[list(each)] = 1 << np.arange(len(each))
        self._source = self._sources()
        self._groups = [np.flatnonzero(cluster == number) for number in range(len(critical))]
        self._blocks = [np.ascontiguousarray(matrix[np.ix_(group, group)]) for group in self._groups]
        self._between = np.where(cluster[:, None] == cluster[None, :], INFINITE, matrix)
        shape = (classes.layer_count + 1, self.sets, count)
        self._reached, self._onward, self._window = (np.full(shape, INFINITE, dtype=np.int64) for _ in range(3))

    @staticmethod
    def work(classes: Classes, cluster: IntArray, remembered: int) -> int:
        """Elements one sweep touches, roughly."""
        sizes = np.bincount(cluster)
        width = int((np.arange(classes.layer_count + 1)[None, :] - classes.lowest).mean()) + 1
        return (1 << remembered) * classes.layer_count * (width * classes.class_count + 2 * int((sizes**2).sum()))

    def _sources(self) -> IntArray:
        """[set, v] -> flat index of (set before v, v); a row beyond the last where v can't be what was just added."""
        sets = np.arange(self.sets)[:, None]
        holds = (sets & self._bit[None, :]) > 0
        before = np.where(self._bit[None, :] == 0, sets, np.where(holds, sets ^ self._bit[None, :], self.sets))
        return np.asarray(before * len(self._bit) + np.arange(len(self._bit))[None, :])

    def sweep(self, prices: Prices, effort: Effort, completion: IntArray, ceiling: int) -> int:
        """The least priced cost of a relaxed route, if it is below `ceiling`; else anything from `ceiling` up.

        `completion[q, v]`: bound, at these prices, on what comes after a stage of v that ends at q; states that can't end
        below the ceiling are dropped at once.
        """
        classes, total = self._classes, self._classes.layer_count
        fixed = classes.fixed + prices.use + prices.stage
        prefix = np.ascontiguousarray(classes.prefix.T)
        self._onward[0] = INFINITE
        self._onward[0, 0] = classes.start
        self._window[0] = self._onward[0] - prefix[0]
        padded = np.full((self.sets + 1, classes.class_count), INFINITE, dtype=np.int64)
        floor = classes.lowest.min(axis=0)
        for end in range(1, total + 1):
            gone, low = classes.expired[end], int(floor[end])
            if gone is not None:
                self._window[gone[0], :, gone[1]] = INFINITE
            if not classes.cut[end]:
                continue
            if low < end:
                padded[:-1] = self._window[low:end].min(axis=0)
            else:
                padded[:-1] = INFINITE
            reached = self._reached[end]
            np.minimum(padded.ravel()[self._source] + (prefix[end] + fixed), INFINITE, out=reached)
            reached[reached >= ceiling - completion[end]] = INFINITE
            if end < total:
                self._pass_on(reached, self._onward[end])
                np.subtract(self._onward[end], prefix[end], out=self._window[end])
        sizes = [len(group) for group in self._groups]
        effort.charge(self.work(classes, self._cluster, self.sets.bit_length() - 1), total * (8 + 3 * len(sizes)))
        return min(INFINITE, int((self._reached[total] + classes.finish).min()))

    def _pass_on(self, reached: IntArray, onward: IntArray) -> None:
        onward[:] = INFINITE
        for group, block in zip(self._groups, self._blocks, strict=True):
            inside = reached[:, group]
            rows = np.flatnonzero(inside.min(axis=1) < INFINITE)
            if not len(rows):
                continue
            inside = inside[rows]
            best = np.full(inside.shape, INFINITE, dtype=np.int64)
            sum_ = np.empty_like(best)
            for source in np.flatnonzero(inside.min(axis=0) < INFINITE):
                np.add(inside[:, source, None], block[source], out=sum_)
                np.minimum(best, sum_, out=best)
            onward[rows[:, None], group] = best
        crossing = (reached.min(axis=0)[:, None] + self._between).min(axis=0)
        np.minimum(onward[0], crossing, out=onward[0])

    def path(self) -> Path:
        """A route of the last sweep's least cost."""
        classes, end = self._classes, self._classes.layer_count
        remembered, chosen = self._least(self._reached[end] + classes.finish)
        path: Path = []
        while True:
            path.append((chosen, end))
            remembered ^= int(self._bit[chosen])
            low = int(classes.lowest[chosen, end])
            onward = self._onward[low:end, remembered, chosen] - classes.prefix[chosen, low:end]
            end = low + int(onward.argmin())
            if end == 0:
                return path[::-1]
            near = self._cluster == self._cluster[chosen]
            hops = self._matrix[:, chosen]
            inside = self._reached[end, remembered] + np.where(near, hops, INFINITE)
            if inside.min() == self._onward[end, remembered, chosen]:
                chosen = int(inside.argmin())
            else:
                remembered, chosen = self._least(self._reached[end] + np.where(near, INFINITE, hops))

    @staticmethod
    def _least(costs: IntArray) -> tuple[int, int]:
        row, column = np.unravel_index(int(costs.argmin()), costs.shape)
        return int(row), int(column)

    def bounds(self) -> tuple[IntArray, IntArray]:
        """([q, v], [p, v]) of the last sweep: least cost with a stage of v just ended, or about to start."""
        repeats = (np.arange(self.sets)[:, None] & self._bit[None, :]) > 0
        return self._reached.min(axis=1), np.where(repeats[None], INFINITE, self._onward).min(axis=1)
