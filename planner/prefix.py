"""The longest prefix of layers that a set of devices can hold, in any order; all layers means that a placement exists.

Lives here: `longest_prefix`, the one question behind feasibility, `fewest` and a shortfall's placeable layers. Not
here: which devices to ask about (`planner.fewest`), or how fast the answer runs.

With reach_v(p) the furthest end of a stage that starts at p on v (monotone in p), the best prefix of a set S is
f(S) = max over v in S of reach_v(f(S without v)), f(empty) = 0: a subset dynamic programme of 2^k k steps, and less
where devices are equal, since only how many of each kind are used matters. Around it:

- orders that fill greedily give a prefix at once (a lower bound);
- upper bounds: bytes (what all devices together can fill), windows (device v never holds more than w_v layers, its
  longest window anywhere, and whoever is first or last loses what the embedding or head takes from it), and, where the
  programme is not small, windows of layers that have prices (`planner.priced_windows`);
- too many different devices for the programme: a beam search over orders, up to a limit of work units.

The result says whether it is exact: the programme ran, or lower and upper bound met.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from math import prod
from operator import mul
from typing import Final

from planner.instance import Instance
from planner.solution import Placement

_PYTHON_STEPS: Final = 60_000
"""Up to so many steps the programme runs in plain Python; above, in numpy, which an idle daemon does not load."""

EXACT_STEPS: Final = 24_000_000
"""Largest programme that is run: 20 different devices, well under a second."""

DEFAULT_WORK: Final = 100_000
"""Work units (stages looked up) of the beam search where the programme is too large."""


_BeamState = tuple[int, int, int, tuple[int, ...]]
"""Bytes wasted so far, layers placed, mask of devices used, and the kinds in order."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """`placements` cover [0, layers); `upper` bounds what any order of any subset holds; exact when they are equal."""

    layers: int
    upper: int
    placements: tuple[Placement, ...]
    work_units: int

    @property
    def exact(self) -> bool:
        """Whether no order of any subset holds more."""
        return self.layers == self.upper


def longest_prefix(
    instance: Instance,
    devices: Sequence[int],
    *,
    work: int = DEFAULT_WORK,
    exact_steps: int = EXACT_STEPS,
    whole: bool = False,
) -> Prefix:
    """The longest prefix that any order of any subset of `devices` holds (see the module for when it is exact).

    `whole`: only whether all layers can be held is asked; the search ends where that is disproved.
    """
    search = _PrefixSearch(instance, devices, whole)
    search.try_greedy_orders()
    if search.open and search.programme_steps > _PYTHON_STEPS:
        search.price_windows()
    if search.open and search.programme_steps <= exact_steps:
        search.run_programme()
    if search.open:
        search.beam(work)
    return search.result()


def longest_windows(instance: Instance) -> list[int]:
    """For each device its longest window of layers anywhere, endpoints charged where they lie (forbidden cuts kept)."""
    known: dict[int, int] = {}
    for device, usable in enumerate(instance.usable_bytes):
        if usable not in known:
            row = instance.reach_row(device)
            known[usable] = max(end - start for start, end in enumerate(row) if instance.cut_allowed[start])
    return [known[usable] for usable in instance.usable_bytes]


class _PrefixSearch:
    """One search: the best order found so far, the proved upper bound, and the work spent."""

    def __init__(self, instance: Instance, devices: Sequence[int], whole: bool) -> None:
        self._instance = instance
        self._whole = whole
        self._kinds = device_kinds(instance, devices)
        self._devices = [device for kind in self._kinds for device in kind]
        self._rows: dict[int, list[int]] = {}
        for kind in self._kinds:
            row = instance.reach_row(kind[0])
            self._rows.update(dict.fromkeys(kind, row))
        self._windows = {kind[0]: self._window(kind[0]) for kind in self._kinds}
        self._best = 0
        self._order: list[int] = []
        self._work = 0
        self._upper = min(self._bytes_bound(), self._windows_bound())

    @property
    def open(self) -> bool:
        """Whether more layers might still be placed, as far as that is asked."""
        return self._best < self._upper and not (self._whole and self._upper < self._instance.layer_count)

    @property
    def programme_steps(self) -> int:
        """States x kinds of the dynamic programme."""
        return programme_steps([len(kind) for kind in self._kinds])

    def result(self) -> Prefix:
        placements, start = [], 0
        for device in self._order:
            end = self._rows[device][start]
            if end > start:
                placements.append(Placement(device, start, end))
            start = end
        return Prefix(self._best, self._upper, tuple(placements), self._work)

    def try_greedy_orders(self) -> None:
        """Largest first, smallest first, and tightest first after each kind of first device."""
        if not self._devices:
            return
        self._offer(self._devices)
        self._offer(self._devices[::-1])
        by_loss = sorted(self._kinds, key=lambda kind: (self._windows[kind[0]] - self._rows[kind[0]][0], kind[0]))
        for kind in by_loss[:3]:
            if self.open:
                self._offer(self._tightest_order(kind[0]))

    def _tightest_order(self, first: int) -> list[int]:
        """Always the device that loses least of its longest window here; the largest among equals."""
        left = {kind[0]: [device for device in kind if device != first] for kind in self._kinds}
        order, position, total = [first], self._rows[first][0], self._instance.layer_count
        while position < total and any(left.values()):
            self._work += len(left)
            key = min(
                (key for key, devices in left.items() if devices),
                key=lambda key: (
                    self._rows[key][position] < total,
                    self._windows[key] - (self._rows[key][position] - position),
                    -self._instance.usable_bytes[key],
                ),
            )
            device = left[key].pop(0)
            order.append(device)
            position = self._rows[device][position]
        return order + [device for devices in left.values() for device in devices]

    def price_windows(self) -> None:
        """Lower the upper bound by pricing layers."""
        from planner.priced_windows import priced_bound

        prefix = self._instance.layer_prefix_bytes
        sizes = [after - before for before, after in pairwise(prefix)]
        rows = [self._rows[kind[0]] for kind in self._kinds]
        counts = [len(kind) for kind in self._kinds]
        self._upper = min(self._upper, priced_bound(rows, counts, sizes, whole=self._whole))

    def run_programme(self) -> None:
        """Exact: f over how many of each kind are used; afterwards lower and upper bound are equal."""
        self._work += self.programme_steps
        rows = [self._rows[kind[0]] for kind in self._kinds]
        counts = [len(kind) for kind in self._kinds]
        ends = programme(rows, counts)
        self._order = self._trace(ends, rows, counts)
        self._best = self._upper = ends[-1]

    def _trace(self, ends: Sequence[int], rows: list[list[int]], counts: list[int]) -> list[int]:
        steps = strides(counts)
        left = list(counts)
        state, order = len(ends) - 1, []
        while state:
            kind = next(k for k, stride in enumerate(steps) if left[k] and rows[k][ends[state - stride]] == ends[state])
            left[kind] -= 1
            state -= steps[kind]
            order.append(self._kinds[kind][left[kind]])
        return order[::-1]

    def beam(self, work: int) -> None:
        """Grow many orders side by side, keeping those that have wasted the fewest bytes; wider while work is left."""
        width, limit, taken = 4, self._work + work, 0
        # A wider beam takes as much more work; one that could not get to its end would tell nothing.
        while self.open and self._work + 4 * taken < limit:
            before = self._work
            self._beam_of(width, limit)
            width, taken = 4 * width, self._work - before

    def _beam_of(self, width: int, limit: int) -> None:
        prefix = self._instance.layer_prefix_bytes
        # Which devices are used is a mask with one run of bits per kind, filled from its low end.
        kinds, offset = [], 0
        for number, kind in enumerate(self._kinds):
            usable = self._instance.usable_bytes[kind[0]]
            kinds.append((number, self._rows[kind[0]], usable, offset, (1 << len(kind)) - 1))
            offset += len(kind)
        states: list[_BeamState] = [(0, 0, 0, ())]
        while states and self.open and self._work < limit:
            following: dict[tuple[int, int], _BeamState] = {}
            for wasted, position, used, order in states:
                self._work += len(kinds)
                for number, row, usable, low, full in kinds:
                    end = row[position]
                    taken = used >> low & full
                    if end == position or taken == full:
                        continue
                    waste = wasted + usable - (prefix[end] - prefix[position])
                    mask = used | (taken + 1) << low
                    known = following.get((end, mask))
                    if known is None or waste < known[0]:
                        following[end, mask] = (waste, end, mask, (*order, number))
            states = heapq.nsmallest(width, following.values())
            furthest = max(states, key=lambda state: state[1], default=None)
            if furthest is not None and furthest[1] > self._best:
                left = [list(kind) for kind in self._kinds]
                self._offer([left[number].pop(0) for number in furthest[3]])

    def _reached(self, order: Sequence[int]) -> int:
        self._work += len(order)
        position = 0
        for device in order:
            position = self._rows[device][position]
        return position

    def _offer(self, order: Sequence[int]) -> None:
        reached = self._reached(order)
        if reached > self._best or not self._order:
            self._best, self._order = reached, list(order)

    def _window(self, device: int) -> int:
        row = self._rows[device]
        return max(end - start for start, end in enumerate(row))

    def _bytes_bound(self) -> int:
        instance = self._instance
        least = min(map(min, instance.compute_bytes))
        room = sum(max(0, instance.usable_bytes[device] - least) for device in self._devices)
        end = bisect_right(instance.layer_prefix_bytes, room - instance.first_bytes) - 1
        total = instance.layer_count
        if end < total:
            return max(0, end)
        needed = instance.layer_prefix_bytes[total] + min(
            instance.whole_bytes, instance.first_bytes + instance.last_bytes
        )
        return total if room >= needed else total - 1

    def _windows_bound(self) -> int:
        total = self._instance.layer_count
        if not self._devices:
            return 0
        if any(self._rows[kind[0]][0] == total for kind in self._kinds):
            return total
        widest = sum(len(kind) * self._windows[kind[0]] for kind in self._kinds)
        first_loss = [(self._windows[kind[0]] - self._rows[kind[0]][0], kind[0], len(kind)) for kind in self._kinds]
        best_first = min(loss for loss, _, _ in first_loss)
        prefix_bound = min(total - 1, widest - best_first)
        last_loss = {kind[0]: self._windows[kind[0]] - self._suffix(kind[0]) for kind in self._kinds}
        pair = min(
            (
                loss + last_loss[other]
                for loss, key, count in first_loss
                for other in last_loss
                if other != key or count > 1
            ),
            default=None,
        )
        if pair is not None and widest - pair >= total:
            return total
        return prefix_bound

    def _suffix(self, device: int) -> int:
        """Layers of its longest window that ends with the head; hugely negative if it can't hold even the last."""
        total = self._instance.layer_count
        row = self._rows[device]
        start = next((p for p in range(1, total) if row[p] == total and self._instance.cut_allowed[p]), total)
        return total - start if start < total else -total


def device_kinds(instance: Instance, devices: Sequence[int]) -> list[list[int]]:
    """Devices grouped by usable bytes, most first: within a kind only how many are used matters."""
    usable = instance.usable_bytes
    ranked = sorted(devices, key=lambda device: (-usable[device], device))
    return [list(group) for _, group in groupby(ranked, key=usable.__getitem__)]


def programme_steps(counts: Sequence[int]) -> int:
    """States x kinds of the dynamic programme over `counts` devices of each kind."""
    return prod(count + 1 for count in counts) * len(counts)


def programme(rows: list[list[int]], counts: list[int]) -> Sequence[int]:
    """f for every state, given each kind's reach; a state's number is its counts in mixed radix (`strides`)."""
    small = programme_steps(counts) <= _PYTHON_STEPS
    return _programme(rows, counts) if small else _programme_in_numpy(rows, counts)


def strides(counts: Sequence[int]) -> list[int]:
    """What one more device of each kind adds to a state's number."""
    return list(accumulate((count + 1 for count in counts[:-1]), mul, initial=1))


def _programme(rows: list[list[int]], counts: list[int]) -> list[int]:
    """f for every state; a state's number is its counts in mixed radix, so that the full set is the last."""
    ends = [0]
    for kind, (row, count, stride) in enumerate(zip(rows, counts, strides(counts), strict=True)):
        earlier = list(zip(rows[:kind], strides(counts)[:kind], counts[:kind], strict=True))
        for used in range(1, count + 1):
            base = used * stride
            for below in range(stride):
                state = base + below
                best = row[ends[state - stride]]
                for other, step, most in earlier:
                    if (below // step) % (most + 1):
                        best = max(best, other[ends[state - step]])
                ends.append(best)
    return ends


def _programme_in_numpy(rows: list[list[int]], counts: list[int]) -> list[int]:
    import numpy as np

    steps = strides(counts)
    states = steps[-1] * (counts[-1] + 1)
    numbers = np.arange(states, dtype=np.int64)
    level = np.zeros(states, dtype=np.int32)
    for stride, count in zip(steps, counts, strict=True):
        level += ((numbers // stride) % (count + 1)).astype(np.int32)
    by_level = np.argsort(level, kind="stable")
    starts = np.searchsorted(level[by_level], np.arange(sum(counts) + 2))
    tables = [np.asarray(row, dtype=np.int32) for row in rows]
    ends = np.zeros(states, dtype=np.int32)
    for used in range(1, sum(counts) + 1):
        here = by_level[starts[used] : starts[used + 1]]
        for table, stride, count in zip(tables, steps, counts, strict=True):
            having = here[(here // stride) % (count + 1) > 0]
            ends[having] = np.maximum(ends[having], table[ends[having - stride]])
    result: list[int] = ends.tolist()
    return result
