"""Good plans quickly: orders of devices, improved step by step, each order with its exact best cuts.

Lives here: `LocalSearch`. Not here: any bound; alone it is not to be trusted (a prototype's was once 12.9 % off), so
`planner.latency` never ships its plans without one. Nothing is drawn at random: moves are tried in a fixed order and
the best one is made.

For a fixed order the best cuts are a dynamic programme over layers, O(K L). A move replaces stages [low, high) of the
order by a short list of classes; with the rows of the part before and the part after kept, it costs only its own few
steps, and all moves of one length are evaluated together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from planner.classes import Classes
from planner.effort import Effort
from planner.hops import INFINITE, IntArray
from planner.relaxation import Path
from planner.windows import WindowMinimum

_FINITE = INFINITE // 2
_LONGEST_SEGMENT = 6
_BATCH_ROWS = 2048

Move = tuple[int, tuple[int, ...], int]
"""(low, classes, high): stages [low, high) of the order become `classes`."""


@dataclass(frozen=True, eq=False)
class _Order:
    """An order with its rows: `before[k, q]` = stages [0, k) end at q; `after[k, p]` = stages [k, K) start at p."""

    classes: tuple[int, ...]
    before: IntArray
    after: IntArray
    cost: int


class LocalSearch:
    """Improves orders over one problem. `candidates`: classes that may be brought in (None: all)."""

    def __init__(self, classes: Classes, effort: Effort, candidates: Sequence[int] | None = None) -> None:
        self._classes, self._mirror = classes, classes.reversed()
        self._effort = effort
        self._candidates = list(range(classes.class_count)) if candidates is None else list(candidates)
        self._windows, self._mirror_windows = WindowMinimum(classes), WindowMinimum(self._mirror)

    def improve(self, order: Sequence[int]) -> tuple[int, Path] | None:
        """The cost and path of the best order reached from `order`; None if no legal plan was reached."""
        current = self._repaired(self._evaluated(self._within_limits(order)))
        if current is None:
            return None
        while not self._effort.spent:
            better = self._best_move(current)
            if better is None:
                break
            current = better
        return current.cost, self._path(current)

    def _within_limits(self, order: Iterable[int]) -> tuple[int, ...]:
        """Without the uses of a class beyond its limit, and no longer than allowed."""
        used: Counter[int] = Counter()
        kept = []
        for chosen in order:
            if used[chosen] < self._classes.limit[chosen]:
                used[chosen] += 1
                kept.append(chosen)
        return tuple(kept[: self._classes.max_stages])

    def _evaluated(self, order: tuple[int, ...]) -> _Order:
        before = self._rows(self._classes, self._windows, order)
        after = self._rows(self._mirror, self._mirror_windows, order[::-1])[::-1, ::-1]
        cost = INFINITE
        if order:
            cost = min(cost, int(before[-1, -1] + self._classes.finish[order[-1]]))
        self._effort.charge(24 * before.size, 40 * len(order))
        return _Order(order, before, after, cost)

    def _rows(self, classes: Classes, windows: WindowMinimum, order: tuple[int, ...]) -> IntArray:
        rows = np.full((len(order) + 1, classes.layer_count + 1), INFINITE, dtype=np.int64)
        rows[0, 0] = 0
        for number, chosen in enumerate(order):
            into = classes.start[chosen] if number == 0 else classes.hops.between(order[number - 1], chosen)
            prefix = classes.prefix[chosen]
            onward = np.minimum(rows[number] + into, INFINITE) - prefix
            row = windows.of_class(onward[None], chosen)[0] + (prefix + classes.fixed[chosen])
            row[~classes.cut] = INFINITE
            np.minimum(row, INFINITE, out=rows[number + 1])
        return rows

    def _repaired(self, order: _Order) -> _Order | None:
        """Bring devices in, each time the one that leaves the smallest uncovered gap, until a plan is legal."""
        while not self._is_legal(order):
            if self._effort.spent or len(order.classes) >= self._classes.max_stages:
                return None
            move = self._closing_move(order)
            if move is None:
                return None
            order = self._evaluated(_applied(order.classes, move))
        return order

    def _is_legal(self, order: _Order) -> bool:
        return order.cost < _FINITE and len(order.classes) >= self._classes.min_stages

    def _closing_move(self, order: _Order) -> Move | None:
        """The insertion that brings the covered prefix and the covered suffix closest together."""
        layers = self._classes.layer_count
        columns = np.arange(layers + 1)
        reached = np.where(order.before < _FINITE, columns, 0).max(axis=1)
        needed = np.where(order.after < _FINITE, columns, layers).min(axis=1)
        used = Counter(order.classes)
        free = [v for v in self._candidates if used[v] < self._classes.limit[v]]
        best: tuple[int, int, int] | None = None
        for position in range(len(order.classes) + 1):
            for chosen in free:
                gap = int(needed[position] - max(reached[position], self._classes.highest[chosen, reached[position]]))
                if best is None or gap < best[0]:
                    best = gap, position, chosen
        self._effort.charge(0, len(free) * (len(order.classes) + 1))
        return None if best is None else (best[1], (best[2],), best[1])

    def _best_move(self, order: _Order) -> _Order | None:
        best: tuple[int, Move] | None = None
        for moves in self._moves(order.classes):
            for low in range(0, len(moves), _BATCH_ROWS):
                if self._effort.spent:
                    break
                batch = moves[low : low + _BATCH_ROWS]
                costs = self._costs(order, batch)
                number = int(costs.argmin())
                if costs[number] < (order.cost if best is None else best[0]):
                    best = int(costs[number]), batch[number]
        return None if best is None else self._evaluated(_applied(order.classes, best[1]))

    def _moves(self, order: tuple[int, ...]) -> list[list[Move]]:
        """All moves, grouped by how many classes they put in. Leaving out comes first: fewer stages win ties."""
        length, used = len(order), Counter(order)
        least, most = self._classes.min_stages, self._classes.max_stages
        free = [v for v in self._candidates if used[v] < self._classes.limit[v]]
        groups: dict[int, list[Move]] = {0: [], 1: []}
        for low in range(length):
            groups[0] += [
                (low, (), high) for high in (low + 1, low + 2) if high <= length and length - high + low >= least
            ]
            groups[1] += [(low, (v,), low + 1) for v in free]
            if low + 2 <= length and length > least:
                groups[1] += [(low, (v,), low + 2) for v in free]
        if length < most:
            groups[1] += [(low, (v,), low) for low in range(length + 1) for v in free]
        for low in range(length):
            for high in range(low + 2, min(length, low + _LONGEST_SEGMENT) + 1):
                part = order[low:high]
                changed = {part[::-1], part[1:] + part[:1], part[-1:] + part[:-1], part[-1:] + part[1:-1] + part[:1]}
                groups.setdefault(high - low, []).extend((low, new, high) for new in sorted(changed - {part}))
        return [groups[size] for size in sorted(groups) if groups[size]]

    def _costs(self, order: _Order, moves: list[Move]) -> IntArray:
        """[moves]: what the order would cost after each; all put in equally many classes."""
        classes = self._classes
        low = np.array([move[0] for move in moves])
        high = np.array([move[2] for move in moves])
        middle = np.array([move[1] for move in moves], dtype=np.int64).reshape(len(moves), -1)
        stages = np.array((*order.classes, -1), dtype=np.int64)
        last = stages[low - 1]
        rows = order.before[low]
        for step in range(middle.shape[1]):
            chosen = middle[:, step]
            rows = np.minimum(rows + self._into(low + step == 0, last, chosen)[:, None], INFINITE)
            prefix = classes.prefix[chosen]
            rows = self._windows.of_classes(rows - prefix, chosen) + prefix + classes.fixed[chosen][:, None]
            rows[:, ~classes.cut] = INFINITE
            np.minimum(rows, INFINITE, out=rows)
            last = chosen
        self._effort.charge((12 * middle.shape[1] + 3) * rows.size, 20)
        empty = low + middle.shape[1] == 0
        closing = high == len(order.classes)
        onward = np.where(closing, 0, self._into(empty, last, stages[np.minimum(high, len(order.classes))]))
        joined = (rows + order.after[high]).min(axis=1) + onward
        ended = rows[:, -1] + np.where(last >= 0, classes.finish[last], INFINITE)
        return np.asarray(np.where(closing, ended, np.minimum(joined, INFINITE)))

    def _into(self, first: IntArray, last: IntArray, chosen: IntArray) -> IntArray:
        """Cost of entering `chosen`: from outside where `first`, else from `last`."""
        return np.where(first, self._classes.start[chosen], self._classes.hops.between(last, chosen))

    def _path(self, order: _Order) -> Path:
        classes, end = self._classes, self._classes.layer_count
        path: Path = []
        for number in range(len(order.classes) - 1, -1, -1):
            chosen = order.classes[number]
            path.append((chosen, end))
            low = int(classes.lowest[chosen, end])
            end = low + int((order.before[number, low:end] - classes.prefix[chosen, low:end]).argmin())
        return path[::-1]


def _applied(order: tuple[int, ...], move: Move) -> tuple[int, ...]:
    low, classes, high = move
    return order[:low] + classes + order[high:]
