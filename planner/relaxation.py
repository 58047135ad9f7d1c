"""Lower bounds by letting devices repeat at a price, and what follows from them.

Lives here: the relaxed dynamic programme (`sweep`), its Lagrangian (`LagrangianBound`) and the removal of classes that
can't be part of a better plan. Not here: plans (`planner.local_search`, `planner.subset_dp`). Called by
`planner.latency`.

Relaxation (facts, section 5, "decremental state-space relaxation", without its visited set): H[q, v] is the least cost
of covering layers [0, q) with the last stage on v, devices repeating freely:

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

from dataclasses import dataclass, field

import numpy as np

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


@dataclass(eq=False)
class LagrangianBound:
    """The best bound so far and the prices that gave it; `paths` are relaxed paths worth turning into plans."""

    classes: Classes
    prices: Prices
    bound: int
    paths: list[Path] = field(default_factory=list)
    exact: Path | None = None

    def completion(self, effort: Effort) -> IntArray:
        """[q, v]: least priced cost from "a stage of v has ended at q" to the end, the finish included."""
        mirror = self.classes.reversed()
        back = sweep(mirror, self.prices, effort)
        return np.ascontiguousarray(back.onward[::-1])

    def keep(self, kept: IntArray) -> None:
        """Go on with fewer classes. The bound stays one."""
        self.classes = self.classes.subset(kept)
        self.prices = self.prices.subset(kept)
        self.paths = []


def through_costs(forward: Sweep, completion: IntArray) -> IntArray:
    """[v]: bound-scale cost of the best priced path through each class (prices not yet given back)."""
    return np.asarray((forward.reached + completion).min(axis=0))
