"""Lower bounds by letting devices repeat at a price, and what follows from them.

Lives here: the relaxed dynamic programme (`sweep`), its Lagrangian prices (`PriceAscent`), and the removal of classes
that can't be part of a better plan (`through_costs`). Not here: plans (`planner.local_search`, `planner.subset_dp`).
Called by `planner.least_cost`.

Relaxation (a state-space relaxation, Christofides, Mingozzi and Toth, Networks 11, 1981: the set that was visited is
forgotten): H[q, v] is the least cost of covering layers [0, q) with the last stage on v, devices repeating freely:

    H[q, v] = fixed_v + price_v + prefix_v[q] + min over lowest_v(q) <= p < q of (m[p, v] - prefix_v[p])
    m[p, v] = min over u of H[p, u] + hop(u, v)

O(L n^2) per sweep. Alone it is weak: the best device is used again and again. So each use of class v pays price_v >= 0,
and limit_v x price_v is given back: for every real plan the sum is at most its cost, hence

    bound(price) = min path cost with prices - sum of limit_v x price_v

is a lower bound for any prices (Lagrangian duality; Held and Karp 1971). Prices are integers, so the bound is exact. A
signed price per stage does the same for a minimum or maximum number of stages. Prices are raised where the relaxed path
repeats a class and lowered where it leaves one out (Polyak's step).

Elimination: the best relaxed path through v costs min over q of H[q, v] + B[q, v], B being the same from the other end.
If that is not below a known plan's cost, v is in no better plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.classes import Classes
from planner.effort import Effort
from planner.hops import INFINITE, IntArray

Path = list[tuple[int, int]]
"""(class, layer end) in layer order."""


@dataclass(frozen=True, eq=False)
class Prices:
    """Lagrangian prices: per use of each class (>= 0), and per stage (signed)."""

    use: IntArray
    stage: int = 0

    def returned(self, classes: Classes) -> int:
        """What every real plan gets back at least: the constant to subtract from a priced path."""
        count = classes.max_stages if self.stage >= 0 else classes.min_stages
        return int((self.use * classes.limit).sum()) + self.stage * count

    def subset(self, kept: IntArray) -> Prices:
        """The prices of the classes `kept`."""
        return Prices(self.use[kept], self.stage)


def no_prices(classes: Classes) -> Prices:
    """All zero."""
    return Prices(np.zeros(classes.class_count, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Sweep:
    """`reached[q, v]`: H of the module's text; `onward[p, v]`: m, what it costs to be about to start v at p."""

    reached: IntArray
    onward: IntArray
    total: int


def sweep(classes: Classes, prices: Prices, effort: Effort) -> Sweep:
    """One relaxed dynamic programme from the first layer to the last."""
    layers, count = classes.layer_count, classes.class_count
    fixed = classes.fixed + prices.use + prices.stage
    prefix = np.ascontiguousarray(classes.prefix.T)
    reached = np.full((layers + 1, count), INFINITE, dtype=np.int64)
    onward = np.full((layers + 1, count), INFINITE, dtype=np.int64)
    window = np.full((layers + 1, count), INFINITE, dtype=np.int64)
    onward[0] = classes.start
    window[0] = onward[0] - prefix[0]
    floor = classes.lowest.min(axis=0) if count else np.zeros(layers + 1, dtype=np.int64)
    touched = 0
    for end in range(1, layers + 1):
        gone = classes.expired[end]
        if gone is not None:
            window[gone] = INFINITE
        if not classes.cut[end]:
            continue
        low = int(floor[end])
        if low < end:
            best = window[low:end].min(axis=0) + prefix[end] + fixed
            np.minimum(best, INFINITE, out=best)
            reached[end] = best
            if end < layers:
                onward[end] = np.minimum(classes.hops.through(best[None])[0], INFINITE)
                window[end] = onward[end] - prefix[end]
        touched += (end - low) * count
    effort.charge(touched + layers * count * count, 10 * layers)
    last = reached[layers] + classes.finish if count else np.zeros(0)
    return Sweep(reached, onward, min(INFINITE, int(last.min())) if count else INFINITE)


def relaxed_path(classes: Classes, prices: Prices, forward: Sweep) -> Path:
    """A cheapest relaxed path; ties fall to lower classes and earlier starts, from the last stage backwards."""
    if forward.total >= INFINITE:
        return []
    end = classes.layer_count
    chosen = int((forward.reached[end] + classes.finish).argmin())
    path: Path = []
    while True:
        path.append((chosen, end))
        low = int(classes.lowest[chosen, end])
        begin = low + int((forward.onward[low:end, chosen] - classes.prefix[chosen, low:end]).argmin())
        if begin == 0:
            return path[::-1]
        into = forward.reached[begin] + classes.hops.between(np.arange(classes.class_count), chosen)
        chosen, end = int(into.argmin()), begin


class PriceAscent:
    """Raises the bound by moving prices along subgradients (Polyak: step = share x (target - bound) / |g|^2).

    `target`: cost of the best plan known, or a guess. The best bound and its prices are kept; after two rounds without
    progress the search goes back to them with half the share.
    """

    _PATIENCE = 1
    _MOMENTUM = 0.5

    def __init__(self, classes: Classes, prices: Prices, share: float = 0.7) -> None:
        self._classes, self._share = classes, share
        self.prices, self.best_prices = prices, prices
        self.best = -INFINITE
        self._best_slope = np.zeros(classes.class_count + 1)
        self._direction = np.zeros(classes.class_count + 1)
        self._stalled = 0

    def step(self, total: int, path: Path, target: int) -> int:
        """Take in a relaxed path of priced cost `total`, choose the next prices; returns this round's bound."""
        bound = total - self.prices.returned(self._classes)
        slope = self._slope(path)
        if bound > self.best:
            self.best, self.best_prices, self._best_slope, self._stalled = bound, self.prices, slope, 0
        else:
            self._stalled += 1
        if self._stalled > self._PATIENCE:
            self._share, self._stalled = self._share / 2, 0
            self._direction = self._best_slope
            self._move(self.best_prices, self.best, target)
        else:
            self._direction = (1 - self._MOMENTUM) * slope + self._MOMENTUM * self._direction
            self._move(self.prices, bound, target)
        return bound

    @property
    def settled(self) -> bool:
        """Whether the step has become too small to matter."""
        return self._share < 1 / 100

    def _slope(self, path: Path) -> NDArray[np.float64]:
        """How the bound changes with each price: uses beyond the limit; last the price per stage."""
        used = np.bincount([chosen for chosen, _ in path], minlength=self._classes.class_count)
        return np.append((used - self._classes.limit).astype(float), self._stage_slope(len(path)))

    def _move(self, base: Prices, bound: int, target: int) -> None:
        classes = self._classes
        towards = self._direction.copy()
        towards[:-1][(base.use <= 0) & (towards[:-1] < 0)] = 0
        length = float((towards**2).sum())
        if length == 0.0:
            return
        gap = max(target - bound, abs(target) // 10_000 + 1)
        moved = np.append(base.use, base.stage) + self._share * gap / length * towards
        most = (INFINITE >> 3) // (int(classes.limit.sum()) + classes.max_stages)
        use = np.clip(moved[:-1], 0, most).astype(np.int64)
        self.prices = Prices(use, int(np.clip(moved[-1], -most, most)))

    def _stage_slope(self, stages: int) -> float:
        """Towards the stage limits; 0 within them, unless an earlier price is to be taken back."""
        least, most = self._classes.min_stages, self._classes.max_stages
        if stages > most or self.prices.stage > 0:
            return float(stages - most)
        if stages < least or self.prices.stage < 0:
            return float(stages - least)
        return 0.0


def opening_prices(classes: Classes) -> Prices:
    """Prices at which the cheapest devices are just bought up: the dual of a fractional fill.

    Each class holds at most `width` layers a time and costs `rate` per layer, fixed charges and cheapest hop included.
    Filling the cheapest first until L layers lie somewhere gives the marginal rate; a cheaper class is worth the
    difference.
    """
    layers, count = classes.layer_count, classes.class_count
    every = np.arange(count)
    width = (classes.highest - np.arange(layers + 1)).max(axis=1)
    hops = classes.hops.between(every[:, None], every[None, :]).min(axis=0) if count <= _DENSE else np.zeros(count)
    entry = np.minimum(np.minimum(hops, classes.start), INFINITE >> 3)
    rate = classes.prefix[:, -1] / layers + (classes.fixed + entry) / np.maximum(width, 1)
    ranked = np.argsort(rate, kind="stable")
    filled = np.cumsum((width * classes.limit)[ranked])
    marginal = rate[ranked[min(int(np.searchsorted(filled, layers)), count - 1)]]
    most = (INFINITE >> 3) // (int(classes.limit.sum()) + classes.max_stages)
    return Prices(np.clip((marginal - rate) * width, 0, most).astype(np.int64))


_DENSE = 2000


def through_costs(reached: IntArray, completion: IntArray) -> IntArray:
    """[v]: cost of the best priced path through each class (prices not yet given back)."""
    return np.asarray((reached + completion).min(axis=0))
