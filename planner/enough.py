"""How many bytes are exactly enough: the least a new device must hold, or an existing one must gain.

Lives here: `SpareRoom`. Not here: what is done with the figure (`planner.remedies`).

A special device takes one window [p, q) of layers; the others take what is before and after it. With f(S) the longest
prefix that a set S of others holds and h(T) the earliest start of a suffix that T holds (the same programme as in
`planner.prefix`, run backwards), the least room is

    min over S of stage bytes of [f(S), h(others without S))

since a stage's bytes only grow with its window. So no bisection is needed, and the figure is exact: one byte less does
not suffice, whatever the order.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from planner.instance import Instance
from planner.prefix import device_kinds, programme, programme_steps, strides

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_STEPS: Final = 6_000_000
"""Both programmes together stay around half a second; 18 different devices."""


class SpareRoom:
    """Exact figures for one capacity-only instance. `exact` False: too many different devices, or stage limits bind."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._kinds = device_kinds(instance, range(instance.device_count))
        self._counts = [len(kind) for kind in self._kinds]
        within = instance.min_stages == 1 and instance.max_stages > instance.device_count
        self.exact = within and programme_steps(self._counts) <= _MOST_STEPS
        if self.exact and self._kinds:
            import numpy as np

            rows = [instance.reach_row(kind[0]) for kind in self._kinds]
            mirrored = [_mirrored_row(instance, kind[0]) for kind in self._kinds]
            self._ends: NDArray[np.int64] = np.asarray(programme(rows, self._counts), dtype=np.int64)
            back = np.asarray(programme(mirrored, self._counts), dtype=np.int64)
            self._starts: NDArray[np.int64] = instance.layer_count - back

    def new_device_bytes(self) -> int:
        """Usable bytes that one more device needs at least; 0 if none is needed."""
        if not self._kinds:
            return self._instance.stage_bytes(0, self._instance.layer_count)
        return self._least(self._ends, self._starts[::-1])

    def device_bytes(self, device: int) -> int:
        """Usable bytes that `device` itself needs at least, the others being as they are."""
        import numpy as np

        number = next(index for index, kind in enumerate(self._kinds) if device in kind)
        step, count = strides(self._counts)[number], self._counts[number]
        states = np.arange(len(self._ends))
        without = states[(states // step) % (count + 1) < count]
        others = len(self._ends) - 1 - step
        return self._least(self._ends[without], self._starts[others - without])

    def _least(self, ends: NDArray[np.int64], starts: NDArray[np.int64]) -> int:
        import numpy as np

        instance, total = self._instance, self._instance.layer_count
        if bool((ends >= starts).any()):
            return 0
        prefix = np.asarray(instance.layer_prefix_bytes, dtype=np.int64)
        first, last = ends == 0, starts == total
        endpoint = np.where(
            first & last,
            instance.whole_bytes,
            np.where(first, instance.first_bytes, np.where(last, instance.last_bytes, 0)),
        )
        compute = np.asarray(instance.compute_bytes, dtype=np.int64)[first.astype(int), last.astype(int)]
        return int((prefix[starts] - prefix[ends] + endpoint + compute).min())


def _mirrored_row(instance: Instance, device: int) -> list[int]:
    """Reach backwards: at L - end, L minus the earliest allowed start of a stage that ends there."""
    total = instance.layer_count
    cuts = [p for p, allowed in enumerate(instance.cut_allowed) if allowed]
    row = [0] * (total + 1)
    for end in range(total + 1):
        start = cuts[min(bisect_left(cuts, instance.lo(device, end)), len(cuts) - 1)] if end else 0
        row[total - end] = total - min(start, end)
    return row
