"""Minimum over a sliding window of starts, for many rows at once.

Lives here: `WindowMinimum`. Not here: what the rows mean. Called by `planner.subset_dp` and `planner.local_search`.

A stage of class t that ends at q may start in [lowest[t, q], q). The minimum over such a window is the smaller of two
overlapping power-of-two windows (a sparse table: Bender, Farach-Colton, LATIN 2000), so every row costs
O(L log(longest window)) whatever its windows are.
"""

from __future__ import annotations

import numpy as np

from planner.classes import Classes
from planner.hops import INFINITE, IntArray


class WindowMinimum:
    """Windows of all classes of one problem, ready to be looked up."""

    def __init__(self, classes: Classes) -> None:
        ends = np.arange(classes.layer_count + 1)
        width = ends[None, :] - classes.lowest
        level = np.where(width > 0, np.frexp(np.maximum(width, 1))[1] - 1, 0)
        self._columns = classes.layer_count + 2
        self._levels = level.max(axis=1, initial=0) + 1
        never = classes.layer_count + 1
        base = level * self._columns
        self._left = np.where(width > 0, base + classes.lowest, never)
        self._right = np.where(width > 0, base + ends[None, :] - (1 << level), never)

    def of_class(self, values: IntArray, chosen: int) -> IntArray:
        """[R, L+1] -> [R, L+1]: at q, the minimum of each row over the window of class `chosen` that ends there."""
        table = self._table(values, int(self._levels[chosen]))
        return np.minimum(table[:, self._left[chosen]], table[:, self._right[chosen]])

    def of_classes(self, values: IntArray, chosen: IntArray) -> IntArray:
        """The same with a class of its own for each row."""
        table = self._table(values, int(self._levels[chosen].max(initial=1)))
        left = np.take_along_axis(table, self._left[chosen], axis=1)
        return np.minimum(left, np.take_along_axis(table, self._right[chosen], axis=1))

    def _table(self, values: IntArray, levels: int) -> IntArray:
        rows, columns = len(values), self._columns
        table = np.full((rows, levels, columns), INFINITE, dtype=np.int64)
        table[:, 0, : columns - 1] = values
        for level in range(1, levels):
            half = 1 << (level - 1)
            below = table[:, level - 1]
            np.minimum(below[:, :-half], below[:, half:], out=table[:, level, :-half])
        return table.reshape(rows, levels * columns)
