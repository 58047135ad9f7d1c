"""An `Instance` as arrays: interchangeable devices merged into classes, and one integer cost that also settles ties.

Lives here: `Classes`, how it is compiled, restricted, reversed, and turned back into placements. Not here: any search.
Called by every optimiser below `planner.latency`.

Cost. A plan's cost is latency x scale + tie, where tie = stages + (stage limit + 1) x passages between nodes is always
below scale. So among plans of equal latency the one with fewest passages wins, then the one with fewest stages: a
node is never added when the plan without it is no worse.

Classes. Two devices are interchangeable if exchanging them changes no plan's cost: same bytes, speed and roles, and
they are on the same node, or each alone on a node whose hops are mirror images. A class is used at most `limit` times.

Star. Each stage away costs entry + exit whatever its neighbours are; both are folded into the stage, hops become free,
and two stages of one node in a row get them back (`planner.hops.FreeHops`).

Range. Arrays are int64. Times so long that sums might overflow (hours per token) are forbidden at `shift` 0; callers
raise `shift`, which drops low bits by rounding down, until the best value is below `longest_ns`. Bounds stay bounds;
only exactness to the last nanosecond is lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Final

import numpy as np

from planner.hops import INFINITE, BoolArray, DenseHops, FreeHops, Hops, IntArray
from planner.instance import Instance, Timing
from planner.solution import Placement

_FINITE_BITS: Final = 57


@dataclass(frozen=True, eq=False)
class Classes:
    """T classes of devices and L layers; arrays are indexed by class first, costs are in the module's unit.

    `lowest[t, q]`: least start of a stage of t that ends at q (q if there is none); non-decreasing in q.
    `prefix[t, q]`: cost of layers [0, q). `fixed`: per stage. `start`/`finish`: being first/last, INFINITE if it may
    not. `cut[q]`: a boundary may lie at q. `order` tells which way layers run (False after `reversed`).
    """

    members: tuple[tuple[int, ...], ...]
    limit: IntArray
    lowest: IntArray
    prefix: IntArray
    fixed: IntArray
    start: IntArray
    finish: IntArray
    hops: Hops
    cut: BoolArray
    min_stages: int
    max_stages: int
    scale: int
    shift: int
    longest_ns: int
    clipped: bool

    @property
    def class_count(self) -> int:
        """T."""
        return len(self.members)

    @property
    def layer_count(self) -> int:
        """L."""
        return len(self.cut) - 1

    @cached_property
    def highest(self) -> IntArray:
        """[T, L+1]: furthest end of a stage of t that starts at p, p if there is none; cuts are not looked at."""
        ends = [np.searchsorted(row, np.arange(len(row)), side="right") - 1 for row in self.lowest]
        return np.array(ends, dtype=np.int64).reshape(self.lowest.shape)

    @cached_property
    def expired(self) -> list[tuple[IntArray, IntArray] | None]:
        """For each end q: the (p, class) pairs that can't start a stage ending at q or later, but could one before."""
        before, after = self.lowest[:, :-1], self.lowest[:, 1:]
        result: list[tuple[IntArray, IntArray] | None] = [None] * (self.layer_count + 1)
        for end in np.flatnonzero((after > before).any(axis=0)) + 1:
            moved = np.flatnonzero(after[:, end - 1] > before[:, end - 1])
            counts = after[moved, end - 1] - before[moved, end - 1]
            first = np.repeat(before[moved, end - 1] - np.cumsum(counts) + counts, counts)
            result[end] = (first + np.arange(counts.sum()), np.repeat(moved, counts))
        return result

    def subset(self, kept: IntArray) -> Classes:
        """Only the classes numbered `kept` (ascending)."""
        return replace(
            self,
            members=tuple(self.members[t] for t in kept),
            limit=self.limit[kept],
            lowest=self.lowest[kept],
            prefix=self.prefix[kept],
            fixed=self.fixed[kept],
            start=self.start[kept],
            finish=self.finish[kept],
            hops=self.hops.subset(kept),
        )

    def order_of(self, devices: Sequence[int]) -> tuple[int, ...]:
        """The classes of `devices`, in their order; devices that are in none are left out."""
        number = {device: chosen for chosen, group in enumerate(self.members) for device in group}
        return tuple(number[device] for device in devices if device in number)

    def reversed(self) -> Classes:
        """The mirror image: layer L-1 first. A plan read backwards costs the same there."""
        total = self.layer_count
        return replace(
            self,
            lowest=np.ascontiguousarray(total - self.highest[:, ::-1]),
            prefix=np.ascontiguousarray(self.prefix[:, -1:] - self.prefix[:, ::-1]),
            start=self.finish,
            finish=self.start,
            hops=self.hops.reversed(),
            cut=self.cut[::-1].copy(),
        )

    def path_cost(self, path: Sequence[tuple[int, int]]) -> int:
        """Cost of (class, layer end) pairs in layer order; assumed legal."""
        total, begin, before = 0, 0, -1
        for chosen, end in path:
            enter = self.start[chosen] if before < 0 else self.hops.between(before, chosen)
            total += int(enter) + int(self.fixed[chosen] + self.prefix[chosen, end] - self.prefix[chosen, begin])
            begin, before = end, chosen
        return total + int(self.finish[before])

    def placements(self, path: Sequence[tuple[int, int]]) -> tuple[Placement, ...]:
        """(class, layer end) pairs as placements; each class hands out its devices lowest first."""
        handed: dict[int, int] = defaultdict(int)
        result, begin = [], 0
        for chosen, end in path:
            result.append(Placement(self.members[chosen][handed[chosen]], begin, end))
            handed[chosen] += 1
            begin = end
        return tuple(result)

    def value_ns(self, cost: int) -> int:
        """The latency in a cost, rounded down to what the shift leaves."""
        return (cost // self.scale) << self.shift


def classes_of(instance: Instance, shift: int = 0) -> Classes:
    """Compile a timed instance. Devices that can hold no layer, or can't be entered or left, are dropped."""
    timing = instance.timing
    assert timing is not None, "a timed objective needs a timed instance"
    layers = instance.layer_count
    blocks = sum(instance.cut_allowed) - 1
    most = max(1, min(instance.device_count, blocks, instance.max_stages))
    scale = (most + 1) ** 2
    longest = ((1 << _FINITE_BITS) // (scale * max(layers, 4)) - 1) << shift
    usable = [v for v in range(instance.device_count) if _is_usable(instance, timing, v)]
    lowest = _lowest(instance, usable)
    holds = np.asarray((lowest < np.arange(layers + 1)).any(axis=1)) if usable else np.zeros(0, dtype=bool)
    usable, lowest = [v for v, keep in zip(usable, holds.tolist(), strict=True) if keep], lowest[holds]
    draft = _Draft(instance, timing, usable, lowest, shift, longest, most, scale)
    return draft.classes()


def _is_usable(instance: Instance, timing: Timing, device: int) -> bool:
    """A star enters and leaves every node by its coordinator; in a chain only the ends need to be known."""
    if timing.hop_ns is not None:
        return True
    return timing.entry_ns[device] is not None and timing.exit_ns[device] is not None


def _lowest(instance: Instance, devices: Sequence[int]) -> IntArray:
    """`Instance.lo` of all ends at once: [devices, L+1]."""
    total = instance.layer_count
    prefix = np.array(instance.layer_prefix_bytes, dtype=np.int64)
    usable = np.array([min(instance.usable_bytes[v], 1 << 61) for v in devices], dtype=np.int64)
    extra = np.full(total + 1, instance.compute_bytes[0][0], dtype=np.int64)
    extra[total] = instance.compute_bytes[0][1] + instance.last_bytes
    need = (prefix + extra)[None, :] - usable[:, None]
    lowest = np.maximum(np.searchsorted(prefix, need, side="left"), 1)
    whole = np.array([0, *(instance.stage_bytes(0, end) for end in range(1, total + 1))], dtype=np.int64)
    lowest = np.where(whole[None, :] <= usable[:, None], 0, lowest)
    return np.minimum(lowest, np.arange(total + 1)).astype(np.int64).reshape(len(devices), total + 1)


class _Draft:
    """Per-device arrays on their way to classes. `devices` are numbers of the instance; rows follow them."""

    def __init__(
        self,
        instance: Instance,
        timing: Timing,
        devices: list[int],
        lowest: IntArray,
        shift: int,
        longest_ns: int,
        most: int,
        scale: int,
    ) -> None:
        self.instance, self.timing, self.devices = instance, timing, devices
        self.shift, self.longest, self.most, self.scale = shift, longest_ns, most, scale
        self.star = timing.hop_ns is None
        self.clipped = False
        self.lowest = lowest
        self.prefix = self._prefix_and_limits()
        self.fixed = self._clip(timing.fixed_ns)
        self.head = self._clip(timing.head_ns)
        self.enter = self._clip(timing.entry_ns)
        self.leave = self._clip(timing.exit_ns)
        self.node = np.array([timing.node_of[v] for v in devices], dtype=np.int64)
        first = instance.first_devices
        self.first = np.array([first is None or v in first for v in devices], dtype=bool)
        self.matrix = self.transfer = None
        if timing.hop_ns is not None:
            self.matrix = self._square(timing.hop_ns)
        if timing.transfer_rows_ns is not None:
            self.transfer = self._square(timing.transfer_rows_ns)

    def _shifted(self, value_ns: int | None) -> int:
        """Rounded down to the shift; INFINITE for what is unknown or too long to be counted."""
        if value_ns is not None and value_ns <= self.longest:
            return value_ns >> self.shift
        self.clipped = self.clipped or value_ns is not None
        return INFINITE

    def _clip(self, values: Sequence[int | None]) -> IntArray:
        return np.array([self._shifted(values[v]) for v in self.devices], dtype=np.int64)

    def _square(self, rows: Sequence[Sequence[int | None]]) -> IntArray:
        unknown = -1
        known = [[unknown if cost is None else min(cost, INFINITE) for cost in row] for row in rows]
        kept = np.array(self.devices, dtype=np.int64)
        picked = np.array(known, dtype=np.int64).reshape(len(rows), len(rows))[np.ix_(kept, kept)]
        usable = (picked != unknown) & (picked <= self.longest)
        self.clipped = self.clipped or bool((picked > self.longest).any())
        matrix = np.where(usable, picked >> self.shift, INFINITE)
        matrix[self.node[:, None] == self.node[None, :]] = 0
        return np.ascontiguousarray(matrix)

    def _prefix_and_limits(self) -> IntArray:
        """Prefix sums of shifted layer times; a layer that takes too long bars every stage it is in."""
        rows = np.zeros((len(self.devices), self.instance.layer_count + 1), dtype=np.int64)
        for row, device in enumerate(self.devices):
            exact = self.timing.cost_prefix_ns[device]
            each = [self._shifted(after - before) for before, after in pairwise(exact)]
            if INFINITE in each:
                bars = [p + 1 if cost == INFINITE else 0 for p, cost in enumerate(each)]
                lowest = np.maximum(self.lowest[row, 1:], np.maximum.accumulate(bars))
                self.lowest[row, 1:] = np.minimum(lowest, np.arange(1, len(each) + 1))
                each = [0 if cost == INFINITE else cost for cost in each]
            rows[row, 1:] = np.cumsum(each)
        return rows

    def classes(self) -> Classes:
        """Merge, and scale."""
        groups = self._groups()
        kept = np.array([group[0] for group in groups], dtype=np.int64)
        limit = np.array([min(len(group), self.most) for group in groups], dtype=np.int64)
        fixed = self.fixed + self.enter + self.leave if self.star else self.fixed
        start = np.where(self.first, 0 if self.star else self.enter, INFINITE)
        finish = self.head + (0 if self.star else self.leave)
        passage = self.most + 1 if self.star else 0
        return Classes(
            members=tuple(tuple(self.devices[row] for row in group) for group in groups),
            limit=limit,
            lowest=self.lowest[kept],
            prefix=self.prefix[kept] * self.scale,
            fixed=self._scaled(fixed[kept], 1 + passage),
            start=self._scaled(start[kept], 0),
            finish=self._scaled(finish[kept], 0),
            hops=self._hops(groups, kept),
            cut=np.array(self.instance.cut_allowed, dtype=bool),
            min_stages=self.instance.min_stages,
            max_stages=self.most,
            scale=self.scale,
            shift=self.shift,
            longest_ns=self.longest,
            clipped=self.clipped,
        )

    def _scaled(self, value: IntArray, tie: int) -> IntArray:
        short = np.minimum(value, self.longest >> self.shift << 3)
        return np.where(value >= INFINITE, INFINITE, short * self.scale + tie)

    def _hops(self, groups: list[list[int]], kept: IntArray) -> Hops:
        single = np.array([min(len(group), self.most) == 1 for group in groups], dtype=bool)
        if self.matrix is not None:
            other = self.node[:, None] != self.node[None, :]
            costs = self._scaled(self.matrix, 0) + np.where(other, self.most + 1, 0)
            costs = np.minimum(costs, INFINITE)
            picked = costs[np.ix_(kept, kept)]
            for number, group in enumerate(groups):
                picked[number, number] = INFINITE if single[number] else costs[group[0], group[1]]
            return DenseHops(np.ascontiguousarray(picked))
        node = self.node[kept].copy()
        for number, group in enumerate(groups):
            if len({int(self.node[row]) for row in group}) > 1:
                node[number] = -1 - number
        leave = self.leave[kept] * self.scale + self.most + 1
        return FreeHops(node, single, leave, self.enter[kept] * self.scale)

    def _groups(self) -> list[list[int]]:
        """Rows of interchangeable devices, ascending, ordered by their first."""
        alone = self._alone()
        buckets: dict[tuple[object, ...], list[list[int]]] = defaultdict(list)
        prints = self._hop_prints()
        for row in range(len(self.devices)):
            groups = buckets[(*self._signature(row), -1 if alone[row] else int(self.node[row]), prints[row])]
            for group in groups:
                if self._is_mirror(group[0], row):
                    group.append(row)
                    break
            else:
                groups.append([row])
        return sorted(group for groups in buckets.values() for group in groups)

    def _alone(self) -> list[bool]:
        """Whether the device is the only one of its node (of those that count)."""
        nodes, counts = np.unique(self.node, return_counts=True)
        single = dict(zip(nodes.tolist(), (counts == 1).tolist(), strict=True))
        return [single[node] for node in self.node.tolist()]

    def _signature(self, row: int) -> tuple[object, ...]:
        device = self.devices[row]
        timing = self.timing
        return (
            self.instance.usable_bytes[device],
            timing.cost_prefix_ns[device],
            timing.fixed_ns[device],
            timing.head_ns[device],
            timing.entry_ns[device],
            timing.exit_ns[device],
            timing.entry_transfer_ns[device],
            timing.exit_transfer_ns[device],
            bool(self.first[row]),
        )

    def _hop_prints(self) -> list[bytes]:
        """Equal for devices whose hops may be mirror images; keeps `_is_mirror` from being asked of every pair."""
        if self.matrix is None:
            return [b""] * len(self.devices)
        out, back = np.sort(self.matrix, axis=1), np.sort(self.matrix.T, axis=1)
        return [out[row].tobytes() + back[row].tobytes() for row in range(len(self.devices))]

    def _is_mirror(self, one: int, other: int) -> bool:
        """Whether exchanging two rows changes no hop and no transfer."""
        for square in (self.matrix, self.transfer):
            if square is None:
                continue
            swapped = np.arange(len(square))
            swapped[[one, other]] = other, one
            if not (np.array_equal(square[one][swapped], square[other]) and square[one, other] == square[other, one]):
                return False
            if not np.array_equal(square[:, one][swapped], square[:, other]):
                return False
        return True
