"""The exact dynamic programme over sets of devices, pruned by bounds; with a limited width, a search with a
certificate.

Lives here: `SubsetSearch`. Not here: the bounds it prunes with (`planner.relaxation`), nor who calls it with what
(`planner.latency`).

For a multiset S of classes and a last stage on v, a row holds H[S, v, q] for every end q (Held and Karp 1962, with the
cut as a second state):

    H[S + v, v, q] = fixed_v + prefix_v[q] + min over lowest_v(q) <= p < q of (m[p] - prefix_v[p])
    m[p] = min over u in S of H[S, u, p] + hop(u, v)

Rows are made stage by stage: layer k holds all rows of k stages, so limits on the number of stages are exact. Classes
whose onward hops are equal share a row. Given prices and a completion bound, an entry that can't end below `cutoff` is
dropped, and so is a row without entries. If a layer still has more rows than `width`, the most promising are kept and
the least bound among the others is remembered: nothing is better than min(best found, that bound). Without any such
loss the result is optimal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.classes import Classes
from planner.effort import Effort
from planner.hops import INFINITE, BoolArray, IntArray
from planner.relaxation import Path, Prices
from planner.windows import WindowMinimum

_FINITE = INFINITE // 2
_WORD_BITS = 62
_MOST_COMPARED = 256
"""Classes of a chain whose onward hops are compared with each other; in a larger one they seldom are equal."""


@dataclass(frozen=True, eq=False)
class Completion:
    """Priced bounds on what is still to come: `after[q, v]` when v has ended at q, `before[p, v]` when v starts at
    p."""

    after: IntArray
    before: IntArray


@dataclass(frozen=True, slots=True)
class Found:
    """`path` and `cost` of the best plan below the cutoff (None: none); nothing can cost less than `bound`."""

    path: Path | None
    cost: int
    bound: int


@dataclass(frozen=True, eq=False)
class _Layer:
    """Rows of one number of stages, sorted by key, then group. `keys` is [N, words]: the multiset, packed."""

    keys: IntArray
    groups: IntArray
    rows: IntArray


class SubsetSearch:
    """One run over `classes`. `width`: most rows kept per layer."""

    def __init__(
        self, classes: Classes, prices: Prices, completion: Completion, cutoff: int, width: int, effort: Effort
    ) -> None:
        self._classes, self._completion = classes, completion
        self._effort, self._width = effort, width
        self._fixed = classes.fixed + prices.use + prices.stage
        self._returned = prices.returned(classes)
        self._prices = prices
        self._windows = WindowMinimum(classes)
        self._word, self._shift, self._words = _pack(classes.limit)
        self._groups, self._onward = onward_groups(classes)
        self._layers: list[_Layer] = []
        self._best = cutoff
        self._end: tuple[int, IntArray, int] | None = None
        self._lost = INFINITE

    def run(self) -> Found:
        """Search to the end, or until the effort is spent."""
        layer = self._first_layer()
        for stages in range(1, self._classes.max_stages + 1):
            self._layers.append(layer)
            if not len(layer.keys):
                break
            if self._effort.spent:
                self._lose(self._row_bounds(layer))
                break
            if stages < self._classes.max_stages:
                layer = self._next_layer(layer, stages + 1)
        bound = min(self._best, self._lost - self._returned)
        return Found(self._path() if self._end else None, self._best, bound)

    def _ceiling(self) -> int:
        """Priced costs from here on can't lead below the best cost."""
        return self._best + self._returned

    def _lose(self, bounds: IntArray) -> None:
        if len(bounds):
            self._lost = min(self._lost, int(bounds.min()))

    def _row_bounds(self, layer: _Layer) -> IntArray:
        """Least bound of each row over its last classes (of a group, the least)."""
        best = np.full(len(layer.keys), INFINITE, dtype=np.int64)
        for chosen, group in enumerate(self._groups):
            mine = np.flatnonzero(layer.groups == group)
            if len(mine):
                bound = (layer.rows[mine] + self._completion.after[:, chosen]).min(axis=1)
                best[mine] = np.minimum(best[mine], bound)
        return best

    def _first_layer(self) -> _Layer:
        layers = self._classes.layer_count
        made = []
        for chosen in range(self._classes.class_count):
            onward = np.full((1, layers + 1), INFINITE, dtype=np.int64)
            onward[0, 0] = self._classes.start[chosen]
            made.append(self._stage(np.zeros((1, self._words), dtype=np.int64), onward, chosen, 1))
        return self._merged(made)

    def _next_layer(self, layer: _Layer, stages: int) -> _Layer:
        first = np.flatnonzero(np.r_[True, (layer.keys[1:] != layer.keys[:-1]).any(axis=1)])
        onward: list[tuple[int, IntArray, IntArray, IntArray]] = []
        for chosen in range(self._classes.class_count):
            used = layer.keys[:, self._word[chosen]] >> self._shift[chosen] & self._mask(chosen)
            mine = np.flatnonzero(used < self._classes.limit[chosen])
            if not len(mine) or self._classes.fixed[chosen] >= INFINITE:
                continue
            hop = self._onward[layer.groups[mine], chosen]
            cost = layer.rows[mine] + hop[:, None]
            number = np.searchsorted(first, mine, side="right")
            heads = np.flatnonzero(np.r_[True, number[1:] != number[:-1]])
            cost = np.minimum.reduceat(cost, heads, axis=0) if len(heads) < len(mine) else cost
            bound = (cost + self._completion.before[:, chosen]).min(axis=1)
            alive = np.flatnonzero(bound < self._ceiling())
            self._effort.charge(4 * cost.size + 2 * len(mine) * cost.shape[1], 12)
            if len(alive):
                onward.append((chosen, layer.keys[mine[heads[alive]]], cost[alive], bound[alive]))
        return self._merged([self._stage(keys, cost, chosen, stages) for chosen, keys, cost in self._narrow(onward)])

    def _mask(self, chosen: int) -> int:
        return (1 << int(self._classes.limit[chosen]).bit_length()) - 1

    def _narrow(self, onward: list[tuple[int, IntArray, IntArray, IntArray]]) -> list[tuple[int, IntArray, IntArray]]:
        """Keep the `width` most promising; remember the bound of the rest."""
        bounds = np.concatenate([entry[3] for entry in onward]) if onward else np.zeros(0, dtype=np.int64)
        keep = np.ones(len(bounds), dtype=bool)
        if len(bounds) > self._width:
            ranked = np.argsort(bounds, kind="stable")
            keep[ranked[self._width :]] = False
            self._lose(bounds[~keep])
        result, low = [], 0
        for chosen, keys, cost, bound in onward:
            mine = keep[low : low + len(bound)]
            low += len(bound)
            if mine.any():
                result.append((chosen, keys[mine], cost[mine]))
        return result

    def _stage(self, keys: IntArray, onward: IntArray, chosen: int, stages: int) -> _Layer:
        """Add a stage on `chosen` to rows that are about to start it; note complete plans."""
        prefix = self._classes.prefix[chosen]
        rows = self._windows.of_class(np.minimum(onward, INFINITE) - prefix, chosen) + (prefix + self._fixed[chosen])
        rows[:, ~self._classes.cut] = INFINITE
        keys = keys.copy()
        keys[:, self._word[chosen]] += 1 << int(self._shift[chosen])
        self._effort.charge(12 * rows.size, 20)
        if stages >= self._classes.min_stages:
            self._note(keys, rows[:, -1] + self._classes.finish[chosen], chosen, stages)
        rows[rows + self._completion.after[:, chosen] >= self._ceiling()] = INFINITE
        rows[:, -1] = INFINITE
        alive = np.flatnonzero((rows < _FINITE).any(axis=1))
        groups = np.full(len(alive), self._groups[chosen], dtype=np.int64)
        return _Layer(keys[alive], groups, rows[alive])

    def _note(self, keys: IntArray, priced: IntArray, chosen: int, stages: int) -> None:
        cost = priced - self._price_of(keys) - stages * self._prices.stage
        cost = np.where(priced < _FINITE, cost, INFINITE)
        if len(cost) and int(cost.min()) < self._best:
            row = int(cost.argmin())
            self._best = int(cost[row])
            self._end = (stages, keys[row], chosen)

    def _price_of(self, keys: IntArray) -> IntArray:
        total = np.zeros(len(keys), dtype=np.int64)
        for chosen in np.flatnonzero(self._prices.use).tolist():
            used = keys[:, self._word[chosen]] >> self._shift[chosen] & self._mask(chosen)
            total += used * self._prices.use[chosen]
        return total

    def _merged(self, parts: list[_Layer]) -> _Layer:
        """One sorted layer; rows of equal key and group become their minimum."""
        keys = np.concatenate([part.keys for part in parts]) if parts else np.zeros((0, self._words), dtype=np.int64)
        if not len(keys):
            return _Layer(
                keys, np.zeros(0, dtype=np.int64), np.zeros((0, self._classes.layer_count + 1), dtype=np.int64)
            )
        groups = np.concatenate([part.groups for part in parts])
        rows = np.concatenate([part.rows for part in parts])
        ranked = np.lexsort((groups, *keys.T))
        keys, groups, rows = keys[ranked], groups[ranked], rows[ranked]
        differs = (keys[1:] != keys[:-1]).any(axis=1) | (groups[1:] != groups[:-1])
        heads = np.flatnonzero(np.r_[True, differs])
        if len(heads) < len(keys):
            rows = np.minimum.reduceat(rows, heads, axis=0)
        self._effort.charge(3 * rows.size, 10)
        return _Layer(keys[heads], groups[heads], rows)

    def _path(self) -> Path:
        """Walk back from the best end: at each step some row explains the value exactly."""
        assert self._end is not None
        stages, key, chosen = self._end
        end = self._classes.layer_count
        priced = self._best + int(self._price_of(key[None])[0]) + stages * self._prices.stage
        value = priced - int(self._classes.finish[chosen])
        path: Path = []
        while True:
            path.append((chosen, end))
            step = self._before(key, chosen, end, stages, value)
            if step is None:
                return path[::-1]
            chosen, end, value = step
            key = key.copy()
            key[self._word[path[-1][0]]] -= 1 << int(self._shift[path[-1][0]])
            stages -= 1

    def _before(self, key: IntArray, chosen: int, end: int, stages: int, value: int) -> tuple[int, int, int] | None:
        """The stage before (class, end, value) of a stage that has `value`; None if it is the first."""
        if stages == 1:
            return None
        rest = key.copy()
        rest[self._word[chosen]] -= 1 << int(self._shift[chosen])
        layer = self._layers[stages - 2]
        mine = np.flatnonzero((layer.keys == rest).all(axis=1))
        classes = self._classes
        low = int(classes.lowest[chosen, end])
        prefix = classes.prefix[chosen]
        before = value - int(self._fixed[chosen] + prefix[end]) + prefix[low:end]
        hop = self._onward[layer.groups[mine], chosen]
        row, offset = (int(found[0]) for found in np.nonzero(layer.rows[mine, low:end] + hop[:, None] == before))
        begin, worth = low + offset, int(layer.rows[mine[row], low + offset])
        members = np.flatnonzero(self._groups == layer.groups[mine[row]])
        for last in members:
            if self._explains(rest, int(last), begin, stages - 1, worth):
                return int(last), begin, worth
        raise AssertionError("a row of the dynamic programme has no cause")

    def _explains(self, key: IntArray, chosen: int, end: int, stages: int, value: int) -> bool:
        """Whether a last stage on `chosen` gives that row its value at `end`."""
        if not key[self._word[chosen]] >> self._shift[chosen] & self._mask(chosen):
            return False
        classes = self._classes
        low, prefix = int(classes.lowest[chosen, end]), classes.prefix[chosen]
        if stages == 1:
            return low == 0 and int(classes.start[chosen] + self._fixed[chosen] + prefix[end]) == value
        rest = key.copy()
        rest[self._word[chosen]] -= 1 << int(self._shift[chosen])
        layer = self._layers[stages - 2]
        mine = np.flatnonzero((layer.keys == rest).all(axis=1))
        before = value - int(self._fixed[chosen] + prefix[end]) + prefix[low:end]
        hop = self._onward[layer.groups[mine], chosen]
        return bool((layer.rows[mine, low:end] + hop[:, None] == before).any())


def _pack(limit: IntArray) -> tuple[IntArray, IntArray, int]:
    """Where each class's count lies in a key: (word, bit offset), and how many words there are."""
    words, offsets, word, bit = [], [], 0, 0
    for most in limit.tolist():
        width = most.bit_length()
        if bit + width > _WORD_BITS:
            word, bit = word + 1, 0
        words.append(word)
        offsets.append(bit)
        bit += width
    return np.array(words, dtype=np.int64), np.array(offsets, dtype=np.int64), word + 1


def onward_groups(classes: Classes) -> tuple[IntArray, IntArray]:
    """([v]: number of the group from whose members going on costs the same, whoever comes next; [group, v]: that cost).

    What a class of one device would cost after itself never matters, so it may take the others' cost there.
    """
    count = classes.class_count
    every = np.arange(count)
    hops = classes.hops.between(every[:, None], every[None, :]) if count else np.zeros((0, 0), dtype=np.int64)
    if count > _MOST_COMPARED and not classes.hops.is_free:
        return every, hops
    groups = np.full(count, -1, dtype=np.int64)
    shared: list[tuple[IntArray, BoolArray]] = []
    for chosen in range(count):
        unused = (every == chosen) & (classes.limit[chosen] == 1)
        for number, (row, undecided) in enumerate(shared):
            if ((row == hops[chosen]) | undecided | unused).all():
                row[undecided] = hops[chosen][undecided]
                undecided &= unused
                groups[chosen] = number
                break
        else:
            groups[chosen] = len(shared)
            shared.append((hops[chosen].copy(), unused))
    onward = np.array([row for row, _ in shared], dtype=np.int64).reshape(len(shared), count)
    return groups, onward
