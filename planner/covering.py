"""How far devices reach within a bottleneck: the one question that least-bottleneck planning asks, for any tau.

Lives here: `Covering`. Not here: the search for the least tau, and its bounds (`planner.throughput`).

For a tau, device v that starts at layer p reaches q(v, p): the furthest end that fits its memory and takes at most tau.
That is monotone in p. Where every device may follow every other within tau, a device can be passed over, so of all ways
to use a set of devices the one that covers most is never worse. Devices that are alike (same bytes, times, and ways in
and out) form a kind, and a set is a count per kind:

    f(counts) = max over kinds k with counts_k > 0 of q(k, f(counts - one of k))

tau is possible if and only if some f reaches every layer. Where a hop is unknown or takes longer than tau, or a least
number of stages is asked for, no stage may be empty, and it can be better to stop early; then all boundaries that a set
of devices with a given last one can reach are kept, one bit each. Where there are too many sets, devices go one after
another in a few orders, improved by exchanging two of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Final

from planner.instance import Instance, Timing
from planner.solution import Placement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_STEPS: Final = 50_000
"""Steps of the programme over counts for one tau; above, orders are tried."""
_MOST_EXCHANGES: Final = 400
_MOST_NS: Final = 1 << 61

Order = tuple[int, ...]


@dataclass
class Covering:
    """Answers for one instance. `steps` counts what was done, for effort."""

    instance: Instance
    timing: Timing

    def __post_init__(self) -> None:
        self.steps = 0
        self._last_order: Order = ()

    @cached_property
    def devices(self) -> tuple[int, ...]:
        """Those that hold a layer at all."""
        rows = map(self.instance.reach_row, range(self.instance.device_count))
        return tuple(v for v, row in enumerate(rows) if any(end > start for start, end in enumerate(row)))

    @cached_property
    def alike(self) -> Counter[int]:
        """One device of each kind (same bytes and times) -> how many there are."""
        return Counter(self._like.values())

    @cached_property
    def _like(self) -> dict[int, int]:
        """Each device -> the first one of the same bytes and times."""
        first: dict[object, int] = {}
        return {v: first.setdefault(self._signature(v), v) for v in self.devices}

    def _signature(self, v: int) -> tuple[object, ...]:
        timing = self.timing
        return (self.instance.usable_bytes[v], timing.cost_prefix_ns[v], timing.fixed_ns[v], timing.head_ns[v])

    def is_exact(self, tau: int) -> bool:
        """Whether `placements(tau)` is a proof where it finds none."""
        return self._steps_needed(tau) <= MOST_STEPS

    def placements(self, tau: int) -> tuple[Placement, ...] | None:
        """A legal answer whose bottleneck is at most `tau`, or None where none was found."""
        if self._steps_needed(tau) > MOST_STEPS:
            order = self._by_orders(tau)
        elif self._keeps_all_ends(tau):
            return self._by_sets(tau)
        else:
            order = self._by_counts(tau)
        return None if order is None else self._placed(order, tau)

    def ends(self, v: int, tau: int) -> list[int]:
        """`end(v, p, tau)` of every layer p, in one go."""
        self.steps += 8
        total, row = self.instance.layer_count, self.timing.cost_prefix_ns[v]
        if row[-1] + tau >= _MOST_NS:
            return [self.end(v, p, tau) for p in range(total)]
        import numpy as np

        spent = np.array(row, dtype=np.int64)
        within = np.searchsorted(spent, spent[:-1] + (tau - self.timing.fixed_ns[v]), side="right") - 1
        within = np.minimum(self._last_cut[np.minimum(within, total - 1)], self.instance.reach_row(v)[:total])
        ends = np.maximum(within, np.arange(total))
        for start in range(total - 1, -1, -1):
            if self.end(v, start, tau) < total:
                break
            ends[start] = total
        return [int(end) for end in ends]

    @cached_property
    def _last_cut(self) -> NDArray[np.int64]:
        """[p]: the last boundary up to p at which a stage may end."""
        import numpy as np

        allowed = np.array(self.instance.cut_allowed)
        return np.maximum.accumulate(np.where(allowed, np.arange(len(allowed)), 0))

    def end(self, v: int, start: int, tau: int) -> int:
        """The furthest allowed end of a stage at `start` on `v` that fits and takes at most `tau`."""
        instance, timing = self.instance, self.timing
        end = instance.reach_row(v)[start]
        if end <= start or timing.stage_ns(v, start, end) <= tau:
            return end
        row = timing.cost_prefix_ns[v]
        end = min(end, bisect_right(row, tau - timing.fixed_ns[v] + row[start]) - 1, instance.layer_count - 1)
        while end > start and not instance.cut_allowed[end]:
            end -= 1
        return max(end, start)

    # --- who may follow whom ---

    def may_start(self, v: int, tau: int) -> bool:
        """Whether a token may enter at `v` within `tau`."""
        first = self.instance.first_devices
        known = self.timing.entry_ns[v] is not None
        return known and self.timing.entry_transfer_ns[v] <= tau and (first is None or v in first)

    def may_end(self, v: int, tau: int) -> bool:
        """Whether a token may leave from `v` within `tau`."""
        return self.timing.exit_ns[v] is not None and self.timing.exit_transfer_ns[v] <= tau

    def may_follow(self, u: int, v: int, tau: int) -> bool:
        """Whether activations may pass from `u` to `v` within `tau`."""
        return self.timing.hop(u, v) is not None and self.timing.transfer(u, v) <= tau

    @cached_property
    def _slowest_hop(self) -> int | None:
        """Time of the slowest passage between two devices; None if one is unknown."""
        slowest = 0
        for u in self.devices:
            for v in self.devices:
                if u != v:
                    if self.timing.hop(u, v) is None:
                        return None
                    slowest = max(slowest, self.timing.transfer(u, v))
        return slowest

    def _is_open(self, tau: int) -> bool:
        """Whether every device may follow every other."""
        return self._slowest_hop is not None and self._slowest_hop <= tau

    def _keeps_all_ends(self, tau: int) -> bool:
        return self.instance.min_stages > 1 or not self._is_open(tau)

    def _steps_needed(self, tau: int) -> int:
        """Of the programme that would be used; 64 kinds are too many whatever their counts."""
        if self._keeps_all_ends(tau):
            return len(self.devices) ** 2 << min(len(self.devices), 64)
        kinds = self._kinds(tau)
        most = self.instance.max_stages
        return prod(min(len(kind), most) + 1 for kind in kinds[:64]) * len(kinds)

    # --- programme over counts ---

    def _kinds(self, tau: int) -> list[list[int]]:
        """Devices that are alike for this tau."""
        kinds: dict[object, list[int]] = defaultdict(list)
        for v in self.devices:
            kinds[self._signature(v), self.may_start(v, tau), self.may_end(v, tau)].append(v)
        return list(kinds.values())

    def _by_counts(self, tau: int) -> Order | None:
        kinds = self._kinds(tau)
        ends: dict[tuple[int, int], int] = {}

        def end_of(kind: int, start: int) -> int:
            if (kind, start) not in ends:
                v = kinds[kind][0]
                ends[kind, start] = min(self.end(v, start, tau), self._latest_end(v, 1, tau))
            return ends[kind, start]

        level: dict[Order, tuple[int, Order]] = {(0,) * len(kinds): (0, ())}
        for _ in range(min(len(self.devices), self.instance.max_stages)):
            longer: dict[Order, tuple[int, Order]] = {}
            for counts, (covered, order) in level.items():
                for number, kind in enumerate(kinds):
                    self.steps += 1
                    v = kind[counts[number]] if counts[number] < len(kind) else -1
                    if v < 0 or (not order and not self.may_start(v, tau)):
                        continue
                    end = end_of(number, covered)
                    key = (*counts[:number], counts[number] + 1, *counts[number + 1 :])
                    if end > covered and end > longer.get(key, (0, ()))[0]:
                        longer[key] = end, (*order, v)
            done = [order for end, order in longer.values() if end == self.instance.layer_count]
            if done:
                return min(done)
            level = longer
        return None

    def _latest_end(self, v: int, stages: int, tau: int) -> int:
        """Where stage number `stages`, on `v`, ends at the latest, so that as many follow as must."""
        to_come = max(self.instance.min_stages - stages, 0 if self.may_end(v, tau) else 1)
        return self._cuts[-1 - to_come] if to_come < len(self._cuts) else 0

    @cached_property
    def _cuts(self) -> list[int]:
        return [p for p, allowed in enumerate(self.instance.cut_allowed) if allowed and p > 0]

    # --- programme over sets, all ends kept ---

    def _by_sets(self, tau: int) -> tuple[Placement, ...] | None:
        total, count = self.instance.layer_count, len(self.devices)
        allowed = sum(1 << p for p in self._cuts)
        rows = [[self.end(v, p, tau) for p in range(total)] for v in self.devices]
        follows = [[u != v and self.may_follow(u, v, tau) for v in self.devices] for u in self.devices]
        level = {(0, -1): 1}
        levels = [level]
        for stages in range(1, min(count, self.instance.max_stages) + 1):
            longer: dict[tuple[int, int], int] = {}
            for (used, last), starts in level.items():
                for index, v in enumerate(self.devices):
                    self.steps += 1
                    if used >> index & 1 or not (follows[last][index] if used else self.may_start(v, tau)):
                        continue
                    if ends := _onward(starts & ~(1 << total), rows[index]) & allowed:
                        key = used | 1 << index, index
                        longer[key] = longer.get(key, 0) | ends
            level = longer
            levels.append(level)
            if stages >= self.instance.min_stages:
                for (used, last), ends in sorted(level.items()):
                    if ends >> total & 1 and self.may_end(self.devices[last], tau):
                        return self._traced(levels, used, last, rows, follows)
        return None

    def _traced(
        self,
        levels: list[dict[tuple[int, int], int]],
        used: int,
        last: int,
        rows: list[list[int]],
        follows: list[list[bool]],
    ) -> tuple[Placement, ...]:
        """Walk back: each stage starts where the set without its device can end."""
        placements, end = list[Placement](), self.instance.layer_count
        for level in levels[-2::-1]:
            rest = used ^ 1 << last
            start, before = next(
                (start, before)
                for start in range(end - 1, -1, -1)
                if rows[last][start] >= end
                for before in (range(len(self.devices)) if rest else (-1,))
                if level.get((rest, before), 0) >> start & 1 and (not rest or follows[before][last])
            )
            placements.append(Placement(self.devices[last], start, end))
            used, last, end = rest, before, start
        return tuple(placements[::-1])

    # --- orders ---

    def _by_orders(self, tau: int) -> Order | None:
        """Widest windows first, and the other way round; then exchanges that cover more."""
        kinds = {v: max(end - p for p, end in enumerate(self.ends(v, tau))) for v in self.alike}
        width = {v: kinds[self._like[v]] for v in self.devices}
        widest = sorted(self.devices, key=lambda v: (-width[v], v))[: self.instance.max_stages]
        tries = [self._last_order, tuple(widest), tuple(widest[::-1])]
        best: tuple[int, Order] = (0, ())
        for order in tries:
            covered, used = self._walk(order, tau)
            if covered == self.instance.layer_count:
                return self._remembered(used)
            best = max(best, (covered, order), key=lambda pair: pair[0])
        return self._exchanged(best, tau)

    def _exchanged(self, best: tuple[int, Order], tau: int) -> Order | None:
        covered, order = best
        tried = 0
        pairs = ((i, i + gap) for gap in range(1, len(order)) for i in range(len(order) - gap))
        for i, j in pairs:
            if (tried := tried + 1) > _MOST_EXCHANGES:
                return None
            other = list(order)
            other[i], other[j] = other[j], other[i]
            reached, used = self._walk(tuple(other), tau)
            if reached == self.instance.layer_count:
                return self._remembered(used)
            if reached > covered:
                covered, order = reached, tuple(other)
        return None

    def _remembered(self, order: Order) -> Order:
        self._last_order = (*order, *(v for v in self._last_order if v not in order))
        return order

    def _walk(self, order: Sequence[int], tau: int) -> tuple[int, Order]:
        """How far `order` covers, and the devices it uses: each goes on from where the last one ended, if it can."""
        covered, used = 0, list[int]()
        total, most = self.instance.layer_count, self.instance.max_stages
        for v in order:
            if covered == total or len(used) == most:
                break
            self.steps += 1
            if not (self.may_follow(used[-1], v, tau) if used else self.may_start(v, tau)):
                continue
            end = min(self.end(v, covered, tau), self._latest_end(v, len(used) + 1, tau))
            if end > covered:
                covered = end
                used.append(v)
        return covered if len(used) >= self.instance.min_stages else 0, tuple(used)

    def _placed(self, order: Order, tau: int) -> tuple[Placement, ...]:
        placements, start = [], 0
        for number, v in enumerate(order, 1):
            end = min(self.end(v, start, tau), self._latest_end(v, number, tau))
            placements.append(Placement(v, start, end))
            start = end
        return tuple(placements)


def _onward(starts: int, row: Sequence[int]) -> int:
    """Ends of stages that are not empty, from any of `starts` (bits); a stage may end before its reach."""
    ends = 0
    while starts:
        start = (starts & -starts).bit_length() - 1
        reach = row[start]
        # Reaches are monotone, so of all starts up to `reach` the last one leads furthest, without a gap.
        while (further := row[(starts & ((2 << reach) - 1)).bit_length() - 1]) > reach:
            reach = further
        ends |= (2 << reach) - (2 << start)
        starts &= ~((2 << reach) - 1)
    return ends
