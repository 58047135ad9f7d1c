"""Least bottleneck: the stage or hop that a pipeline waits for, as short as possible.

Lives here: `solve_throughput`. Not here: latency (`planner.latency`), or who coordinates (`planner.optimising`).

For a bottleneck tau, device v that starts at layer p reaches q(v, p, tau): the furthest end that fits its memory and
takes at most tau. That is monotone in p, so a set S of devices that ends on v covers at most
g(S, v) = max over u in S without v, with transfer(u, v) <= tau, of q(v, g(S without v, u), tau); tau is possible if
and only if some g reaches every layer with its way back allowed (planning notes, section 2.4). The least tau is found
by bisection, so the value is exact. Above `EXACT_DEVICES` only the devices with the longest windows are searched, and
the bound is that of counting: no tau is possible at which all longest windows together miss a layer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from planner.effort import DEFAULT_EFFORT
from planner.instance import Instance, Timing
from planner.solution import Placement, Solution

EXACT_DEVICES = 10
"""Most devices searched together: 2^10 x 10 x 10 steps for each of about 40 values of tau."""

_STEPS_PER_UNIT = 500
"""Steps in about a millisecond (`planner.effort`)."""


def solve_throughput(
    instance: Instance,
    *,
    effort: int = DEFAULT_EFFORT,
    should_stop: Callable[[], bool] | None = None,
    cutoff_ns: int | None = None,
) -> Solution:
    """Placements of least bottleneck (ns). Exact up to `EXACT_DEVICES` devices; the instance must be timed."""
    assert instance.timing is not None
    search = _Search(instance, instance.timing)
    highest = search.longest_ns() if cutoff_ns is None else cutoff_ns - 1
    best = search.placements(highest)
    exact = instance.device_count <= EXACT_DEVICES
    if best is None:
        bound = highest + 1 if exact else search.counting_bound(highest)
        return Solution((), None, bound, "bottleneck bisection", infeasible=exact and cutoff_ns is None)
    low, interrupted = 0, False
    while low < highest:
        if search.steps > effort * _STEPS_PER_UNIT or (should_stop is not None and should_stop()):
            interrupted = True
            break
        middle = (low + highest) // 2
        found = search.placements(middle)
        if found is None:
            low = middle + 1
        else:
            highest, best = middle, found
    value = instance.timing.bottleneck_ns(best)
    assert value is not None, "only known hops are used"
    bound = min(value, low) if exact else min(value, search.counting_bound(value))
    units = search.steps // _STEPS_PER_UNIT
    return Solution(best, value, bound, "bottleneck bisection", interrupted=interrupted, work_units=units)


class _Search:
    """Answers one question for any tau: which placements take at most tau everywhere."""

    def __init__(self, instance: Instance, timing: Timing) -> None:
        self._instance = instance
        self._timing = timing
        by_speed = sorted(range(instance.device_count), key=lambda v: (-self._window(v, self.longest_ns()), v))
        fast = sorted(range(instance.device_count), key=lambda v: (timing.cost_prefix_ns[v][-1], v))
        chosen = dict.fromkeys([*fast[: EXACT_DEVICES // 2], *by_speed, *fast])
        self._devices = sorted(list(chosen)[:EXACT_DEVICES])
        self.steps = 0

    def longest_ns(self) -> int:
        """No stage and no hop takes longer."""
        timing, layers = self._timing, self._instance.layer_count
        stages = [timing.stage_ns(v, 0, layers) for v in range(self._instance.device_count)]
        hops = [*timing.entry_transfer_ns, *timing.exit_transfer_ns]
        for row in timing.transfer_rows_ns or ():
            hops += row
        return max([*stages, *hops])

    def counting_bound(self, highest: int) -> int:
        """The least tau at which the longest windows of all devices together hold every layer."""
        low = 0
        while low < highest:
            middle = (low + highest) // 2
            total = sum(self._window(v, middle) for v in range(self._instance.device_count))
            if total >= self._instance.layer_count:
                highest = middle
            else:
                low = middle + 1
        return low

    def placements(self, tau: int) -> tuple[Placement, ...] | None:
        """A legal answer whose bottleneck is at most `tau`, fewest stages first; None where there is none."""
        devices = self._devices
        count = len(devices)
        reach = [[self._end(v, p, tau) for p in range(self._instance.layer_count + 1)] for v in devices]
        level: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = {}
        for index, v in enumerate(devices):
            if self._may_start(v, tau) and reach[index][0] > 0:
                level[1 << index, index] = (reach[index][0], (index,))
        for stages in range(1, min(count, self._instance.max_stages) + 1):
            if stages >= self._instance.min_stages and (done := self._finished(level, tau)) is not None:
                return self._as_placements(done, reach)
            level = self._longer(level, reach, tau)
            if not level:
                return None
        return None

    def _longer(
        self,
        level: dict[tuple[int, int], tuple[int, tuple[int, ...]]],
        reach: Sequence[Sequence[int]],
        tau: int,
    ) -> dict[tuple[int, int], tuple[int, tuple[int, ...]]]:
        longer: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = {}
        for (used, last), (covered, order) in level.items():
            for index, v in enumerate(self._devices):
                self.steps += 1
                if used >> index & 1 or not self._may_follow(self._devices[last], v, tau):
                    continue
                end = reach[index][covered]
                key = (used | 1 << index, index)
                if end > covered and end > longer.get(key, (0, ()))[0]:
                    longer[key] = (end, (*order, index))
        return longer

    def _finished(self, level: dict[tuple[int, int], tuple[int, tuple[int, ...]]], tau: int) -> tuple[int, ...] | None:
        total = self._instance.layer_count
        done = [order for (_, last), (end, order) in level.items() if end == total and self._may_end(last, tau)]
        return min(done, default=None)

    def _as_placements(self, order: Sequence[int], reach: Sequence[Sequence[int]]) -> tuple[Placement, ...]:
        placements, start = [], 0
        for index in order:
            end = reach[index][start]
            placements.append(Placement(self._devices[index], start, end))
            start = end
        return tuple(placements)

    def _end(self, v: int, start: int, tau: int) -> int:
        """The furthest allowed end of a stage at `start` on `v` that fits and takes at most `tau`."""
        instance, timing = self._instance, self._timing
        end = instance.reach(v, start)
        if end <= start or timing.stage_ns(v, start, end) <= tau:
            return end
        row = timing.cost_prefix_ns[v]
        limit = tau - timing.fixed_ns[v] + row[start]
        end = min(end, bisect_right(row, limit) - 1, instance.layer_count - 1)
        while end > start and not instance.cut_allowed[end]:
            end -= 1
        return max(end, start)

    def _window(self, v: int, tau: int) -> int:
        return max(self._end(v, p, tau) - p for p in range(self._instance.layer_count))

    def _may_start(self, v: int, tau: int) -> bool:
        first = self._instance.first_devices
        known = self._timing.entry_ns[v] is not None
        return known and self._timing.entry_transfer_ns[v] <= tau and (first is None or v in first)

    def _may_follow(self, u: int, v: int, tau: int) -> bool:
        return self._timing.hop(u, v) is not None and self._timing.transfer(u, v) <= tau

    def _may_end(self, last: int, tau: int) -> bool:
        v = self._devices[last]
        return self._timing.exit_ns[v] is not None and self._timing.exit_transfer_ns[v] <= tau
