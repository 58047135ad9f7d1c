"""How many layers a set of devices can hold at most, in any order: an upper bound that needs no search.

Lives here: `priced_bound`. Not here: the longest prefix that it bounds (`planner.prefix`).

Give every layer a price, none negative. A device earns at most its dearest window, so devices that hold [0, end) need

    price of [0, end) <= sum over devices of the dearest window that fits there

whatever the prices are (Lagrangian duality: each layer is to be held once). Prices in proportion to bytes count what is
left over on each device because layers are whole; from there layers that the dearest windows hold too often get cheaper
and the others dearer. Prices are whole numbers, so rounding makes no wrong bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

_SCALE: Final = 1 << 40
"""What all layers cost together: sums over a million devices stay within 64 bits."""
_ROUNDS: Final = 60
_FIRST_STEP: Final = 0.5
_STEP_SHRINKS: Final = 0.95


def priced_bound(rows: Sequence[Sequence[int]], counts: Sequence[int], sizes: Sequence[int], *, whole: bool) -> int:
    """No order of any subset holds more layers than this.

    `rows`: the reach of each kind of device, `counts`: how many there are of it, `sizes`: bytes of each layer. `whole`:
    it is enough to know that not all layers can be held.
    """
    reach, many = np.asarray(rows, dtype=np.int64), np.asarray(counts, dtype=np.int64)
    kinds, total = np.arange(len(reach)), len(sizes)
    weights = np.asarray(sizes, dtype=float) + max(sizes) / _SCALE + 1.0
    bound, step = total, _FIRST_STEP
    for _ in range(_ROUNDS):
        weights /= weights.sum()
        paid = np.concatenate(([0], np.cumsum((weights * _SCALE).astype(np.int64))))
        earned = paid[reach] - paid
        starts = earned.argmax(axis=1)
        most = int((earned[kinds, starts] * many).sum())
        bound = min(bound, int(np.searchsorted(paid, most, side="right")) - 1)
        if whole and bound < total:
            break
        held = np.zeros(total + 1)
        np.add.at(held, starts, many)
        np.add.at(held, reach[kinds, starts], -many)
        held = np.cumsum(held)[:total]
        excess = held - float(held @ weights)
        if not (largest := float(np.abs(excess).max())):
            break
        weights *= 1.0 - step * excess / largest
        step *= _STEP_SHRINKS
    return bound
