"""What passing from one stage to the next costs, in bulk: the min-plus step that every dynamic programme here shares.

Lives here: `DenseHops` (a chain: any directed matrix) and `FreeHops` (a star: its costs are part of the stages, see
`planner.classes`, so passing on is free, and staying within a node gives something back). Not here: where the figures
come from. Called by `planner.relaxation`, `planner.subset_dp` and `planner.local_search`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Chosen = IntArray | np.int64 | int
"""One class or several."""

INFINITE: Final = 1 << 60
"""Stands for "not possible". Finite costs stay below a quarter of it, so three may be added without overflow."""

_CHUNK_ELEMENTS: Final = 1 << 18


class Hops(Protocol):
    """Costs between classes; `source` comes first. INFINITE: that passage is not possible."""

    def through(self, cost: IntArray) -> IntArray:
        """[R, T] -> [R, T]: m[r, v] = min over u of cost[r, u] + hop(u, v)."""
        ...

    def between(self, source: Chosen, target: Chosen) -> IntArray:
        """Element by element (arrays broadcast)."""
        ...

    def subset(self, kept: IntArray) -> Hops:
        """The same between the classes `kept`."""
        ...

    def reversed(self) -> Hops:
        """With source and target exchanged."""
        ...

    @property
    def is_free(self) -> bool:
        """Whether no passage between two devices costs anything, so that a relaxed route gains nothing by repeating."""
        ...


@dataclass(frozen=True, eq=False)
class DenseHops:
    """`matrix[u, v]`; the diagonal is INFINITE unless a class has several devices."""

    matrix: IntArray

    def through(self, cost: IntArray) -> IntArray:
        rows, classes = cost.shape
        if rows * classes * classes <= _CHUNK_ELEMENTS:
            return np.asarray((cost[:, :, None] + self.matrix[None]).min(axis=1))
        result = np.full((rows, classes), INFINITE, dtype=np.int64)
        step = max(1, _CHUNK_ELEMENTS // (rows * classes))
        for low in range(0, classes, step):
            part = cost[:, low : low + step, None] + self.matrix[None, low : low + step]
            np.minimum(result, part.min(axis=1), out=result)
        return result

    def between(self, source: Chosen, target: Chosen) -> IntArray:
        return np.asarray(self.matrix[source, target])

    def subset(self, kept: IntArray) -> DenseHops:
        return DenseHops(np.ascontiguousarray(self.matrix[np.ix_(kept, kept)]))

    def reversed(self) -> DenseHops:
        return DenseHops(np.ascontiguousarray(self.matrix.T))

    @property
    def is_free(self) -> bool:
        return False


class FreeHops:
    """Passing on costs nothing; from u to v in the same node it costs -(leave[u] + enter[v]), as both were charged.

    `node[t]` is the node of the class's devices, or a negative number of its own if they are on several nodes.
    `single[t]`: the class has one device, so it can't follow itself.
    """

    def __init__(self, node: IntArray, single: BoolArray, leave: IntArray, enter: IntArray) -> None:
        self._node, self._single, self._leave, self._enter = node, single, leave, enter
        self._groups = [
            (group, self.between(group[:, None], group[None, :]))
            for number in np.unique(node[node >= 0])
            for group in [np.flatnonzero(node == number)]
            if len(group) > 1 or not single[group[0]]
        ]
        self._columns = np.arange(len(node))

    def through(self, cost: IntArray) -> IntArray:
        rows = np.arange(len(cost))
        best = cost.argmin(axis=1)
        result = np.repeat(cost[rows, best][:, None], cost.shape[1], axis=1)
        alone = self._single[best]
        if alone.any():
            others = cost.copy()
            others[rows, best] = INFINITE
            result[rows[alone], best[alone]] = others.min(axis=1)[alone]
        for group, block in self._groups:
            inside = (cost[:, group, None] + block[None]).min(axis=1)
            result[:, group] = np.minimum(result[:, group], inside)
        return result

    def between(self, source: Chosen, target: Chosen) -> IntArray:
        same = (self._node[source] == self._node[target]) & (self._node[source] >= 0)
        cost = np.where(same, -(self._leave[source] + self._enter[target]), 0)
        itself = np.equal(source, target) & self._single[source]
        return np.asarray(np.where(itself, INFINITE, cost))

    def subset(self, kept: IntArray) -> FreeHops:
        return FreeHops(self._node[kept], self._single[kept], self._leave[kept], self._enter[kept])

    def reversed(self) -> FreeHops:
        return FreeHops(self._node, self._single, self._enter, self._leave)

    @property
    def is_free(self) -> bool:
        return not self._groups
