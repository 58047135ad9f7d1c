"""A lower bound on latency in a moment: the cheapest way to fill devices with work, whatever its order.

Lives here: `FillBound`. Not here: plans; bounds that know the order of layers and devices (`planner.relaxation`).
Called by `planner.optimising` for every coordinator, so that few of them have to be searched.

Relaxation. Measure a layer by its time on a reference device, mu. Device v takes at least s_v per unit of mu (the least
over layers), can hold at most W_v of it at once (its widest window that fits), and, if used at all, costs at least F_v:
its own fixed time and the cheapest way to get to it. The head costs at least its least. So a plan costs no less than

    min  sum of F_v y_v + s_v x_v     with  0 <= x_v <= W_v y_v,  sum of x_v = mu of all layers,  y_v in {0, 1}.

That is a knapsack with fixed charges. Without the integrality of y it is solved by filling devices by s_v + F_v / W_v;
with it by branching on the one device that is then used in part, best bound first. Stopped early, the least bound that
is still open holds. Where order costs nothing (a star), this loses only what layers that differ lose at their cuts.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.instance import Instance, Timing

_MOST_BRANCHES = 4_000
_SAFE = 1.0 - 1e-9
"""Sums of floats are a little off; a bound must not be above the truth for that."""

FloatArray = NDArray[np.float64]
_IN, _OUT = 1, 0


@dataclass(frozen=True, eq=False)
class Fill:
    """What every coordinator's problem shares: rates, widest windows and total, in units of mu."""

    rate: FloatArray
    width: FloatArray
    total: float

    @classmethod
    def of(cls, instance: Instance, timing: Timing) -> Fill:
        """Of all devices of `instance`."""
        prefix = np.array(timing.cost_prefix_ns, dtype=np.float64)
        each = np.diff(prefix, axis=1)
        reference = each[int(prefix[:, -1].argmin())]
        unit = np.maximum(reference, 1.0)
        measure = np.append(0.0, np.cumsum(unit))
        reach = np.array([instance.reach_row(v) for v in range(instance.device_count)])
        return cls((each / unit).min(axis=1), (measure[reach] - measure).max(axis=1), float(measure[-1]))


def charges(instance: Instance, timing: Timing, nearest: FloatArray | None = None) -> tuple[FloatArray, int]:
    """([v]: the least that using v at all costs, infinite where it can't be reached; what one device is spared of it).

    Devices of one node may follow each other and share one way there (and back). In a chain, `nearest_hops` are given;
    if several nodes may be first, each is charged its nearest hop, and the longest of them is spared once.
    """
    entry, spared = _known(timing.entry_ns), 0
    if instance.star:
        ways = entry + _known(timing.exit_ns)
    else:
        assert nearest is not None, "a chain has hops"
        firsts = instance.first_devices
        if firsts is not None:
            entry[[v not in firsts for v in range(instance.device_count)]] = math.inf
            if len({instance.node_of[v] for v in firsts}) > 1 and np.isfinite(nearest).all():
                entry[:] = math.inf
                spared = math.ceil(max(nearest[v] for v in firsts))
        ways = np.minimum(entry, nearest)
    sharing = np.bincount(instance.node_of)[list(instance.node_of)]
    return np.asarray(np.array(timing.fixed_ns, dtype=np.float64) + ways / sharing), spared


def _known(costs: tuple[int | None, ...]) -> FloatArray:
    return np.array([math.inf if cost is None else cost for cost in costs], dtype=np.float64)


def nearest_hops(timing: Timing) -> FloatArray:
    """[v]: the cheapest hop to v from another node."""
    assert timing.hop_ns is not None, "a chain has hops"
    node = np.array(timing.node_of)
    hops = np.array([[math.inf if cost is None else cost for cost in row] for row in timing.hop_ns], dtype=np.float64)
    hops[node[:, None] == node[None, :]] = math.inf
    return np.asarray(hops.min(axis=0))


class FillBound:
    """The bound for one coordinator. `bound` grows with every `tighten`."""

    def __init__(self, fill: Fill, charge: FloatArray, head_ns: int) -> None:
        usable = (fill.width > 0) & np.isfinite(charge)
        self._rate, self._width, self._charge = fill.rate[usable], fill.width[usable], charge[usable]
        self._total, self._head = fill.total, head_ns
        self._open: list[tuple[float, int, tuple[tuple[int, int], ...], int | None]] = []
        self._made = 0
        self._ceiling = math.inf
        self._price = 0.0
        self._branch(())

    @property
    def bound(self) -> int | None:
        """No plan costs less (ns); None: there is none."""
        least = min(self._open[0][0] + self._head if self._open else math.inf, self._ceiling)
        return math.floor(least * _SAFE) if math.isfinite(least) else None

    def tighten(self, cutoff_ns: float = math.inf, branches: int = _MOST_BRANCHES) -> int | None:
        """Branch until the bound reaches `cutoff_ns`, is exact, or `branches` were made; the bound.

        Plans that cost `cutoff_ns` or more are of no interest: the bound may stop there.
        """
        if self._made == 1 and math.isfinite(cutoff_ns):
            self._leave_out(cutoff_ns)
        while self._open and branches > 0:
            value, _, fixed, partial = self._open[0]
            if partial is None or value + self._head >= min(cutoff_ns, self._ceiling):
                break
            heapq.heappop(self._open)
            self._branch((*fixed, (partial, _IN)))
            self._branch((*fixed, (partial, _OUT)))
            branches -= 2
        return self.bound

    def _leave_out(self, cutoff_ns: float) -> None:
        """Forget devices in no plan below the cutoff: using one costs its reduced cost above the first bound."""
        if not self._open or self._open[0][0] + self._head >= cutoff_ns:
            return
        gained = np.maximum(0.0, self._price - self._rate) * self._width
        kept = self._open[0][0] + self._head + (self._charge - gained) < cutoff_ns / _SAFE
        if not kept.all():
            self._rate, self._width, self._charge = self._rate[kept], self._width[kept], self._charge[kept]
            self._ceiling = cutoff_ns
            self._open.clear()
            self._branch(())

    def _branch(self, fixed: tuple[tuple[int, int], ...]) -> None:
        """Solve with some devices fixed in or out, and keep it open unless it can't hold everything."""
        charge, width, paid = self._charge.copy(), self._width.copy(), 0.0
        for device, decided in fixed:
            if decided == _IN:
                paid += self._charge[device]
                charge[device] = 0.0
            else:
                width[device] = 0.0
        price = self._rate + np.divide(charge, width, out=np.full_like(charge, math.inf), where=width > 0)
        ranked = np.argsort(price, kind="stable")
        filled = np.cumsum(width[ranked])
        last = int(np.searchsorted(filled, self._total * _SAFE))
        if last >= len(ranked) or not math.isfinite(price[ranked[last]]):
            return
        used = ranked[: last + 1]
        taken = width[used].copy()
        taken[-1] -= max(0.0, filled[last] - self._total)
        device = int(used[-1])
        is_partial = charge[device] > 0.0 and taken[-1] < width[device] * _SAFE
        self._made += 1
        self._price = self._price if fixed else float(price[device])
        value = paid + float((price[used] * taken).sum())
        heapq.heappush(self._open, (value, self._made, fixed, device if is_partial else None))
