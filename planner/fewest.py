"""Fewest stages: the smallest number of devices that hold every layer.

Lives here: `solve_fewest` and `hold_all`. Not here: the longest prefix they stand on (`planner.prefix`).

Bytes and reserves do not depend on the device, so k stages are possible if and only if they are on the k devices with
the most usable bytes (an exchange argument). More devices never hurt, a device may stay empty, so the answer is found
by bisection between what the bytes alone demand and the largest number allowed. A least number of stages (`min_stages`)
is another question: exactly k stages, none of them empty. Up to `_EXACT_STAGES` it is answered by a programme over sets
of reachable boundaries, by the same exchange argument on the k largest devices; above, stages of a plan are cut
further.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Final

from planner.instance import Instance
from planner.prefix import DEFAULT_WORK, Prefix, longest_prefix
from planner.solution import Placement, Solution

_EXACT_STAGES: Final = 9


def largest_first(instance: Instance) -> list[int]:
    """Devices by usable bytes, most first; ties by label."""
    return sorted(range(instance.device_count), key=lambda device: (-instance.usable_bytes[device], device))


def hold_all(instance: Instance, *, work: int = DEFAULT_WORK) -> Solution:
    """Some placement of every layer within the stage limits, quickly; `value` is its number of stages, no bound."""
    ranked = largest_first(instance)[: instance.max_stages]
    if fewest_by_bytes(instance, ranked) > len(ranked):
        return _none(True, 0)
    prefix = longest_prefix(instance, ranked, work=work, whole=True)
    if prefix.layers < instance.layer_count:
        return _none(prefix.upper < instance.layer_count, prefix.work_units)
    if len(prefix.placements) >= instance.min_stages:
        return Solution(prefix.placements, len(prefix.placements), None, "longest prefix", work_units=prefix.work_units)
    return _at_least(instance, prefix, prefix.work_units, 1)


def solve_fewest(instance: Instance, *, work: int = DEFAULT_WORK) -> Solution:
    """The fewest stages that hold every layer. Exact while `longest_prefix` is; else the bound is what it proved."""
    ranked = largest_first(instance)
    most = min(len(ranked), instance.max_stages)
    low = fewest_by_bytes(instance, ranked)
    spent = 0

    def prefix_of(count: int) -> Prefix:
        nonlocal spent
        prefix = longest_prefix(instance, ranked[:count], work=work, whole=True)
        spent += prefix.work_units
        return prefix

    if low > most:
        return _none(True, spent)
    best = prefix_of(most)
    if best.layers < instance.layer_count:
        return _none(best.upper < instance.layer_count, spent)
    impossible, possible = low - 1, len(best.placements)
    while possible - impossible > 1:
        middle = (impossible + possible) // 2
        prefix = prefix_of(middle)
        if prefix.layers == instance.layer_count:
            best, possible = prefix, len(prefix.placements)
        elif prefix.upper < instance.layer_count:
            impossible = middle
        else:
            break
    if possible - impossible > 1:
        best, impossible = _settle(instance, ranked, best, impossible, prefix_of)
    if len(best.placements) < instance.min_stages:
        return _at_least(instance, best, spent, impossible + 1)
    placements = best.placements
    return Solution(placements, len(placements), impossible + 1, "top-k prefix programme", work_units=spent)


def _settle(
    instance: Instance, ranked: list[int], best: Prefix, impossible: int, prefix_of: Callable[[int], Prefix]
) -> tuple[Prefix, int]:
    """Where bisection met a number that is neither proved nor disproved: go up one by one from what is disproved."""
    proved = True
    for count in range(impossible + 1, len(best.placements)):
        prefix = prefix_of(count)
        if prefix.layers == instance.layer_count:
            return prefix, impossible
        proved = proved and prefix.upper < instance.layer_count
        impossible = count if proved else impossible
    return best, impossible


def fewest_by_bytes(instance: Instance, ranked: list[int]) -> int:
    """The smallest k whose k largest devices have the bytes that k stages take; more than all of them if none has."""
    body, last = instance.compute_bytes[False]
    layers = instance.layer_prefix_bytes[-1]
    several = layers + instance.first_bytes + instance.last_bytes + last
    for count, room in enumerate(accumulate(instance.usable_bytes[device] for device in ranked), 1):
        needed = instance.stage_bytes(0, instance.layer_count) if count == 1 else several + (count - 1) * body
        if room >= needed:
            return count
    return len(ranked) + 1


def _none(infeasible: bool, work: int) -> Solution:
    return Solution((), None, None, "top-k prefix programme", infeasible=infeasible, work_units=work)


def _at_least(instance: Instance, prefix: Prefix, work: int, fewest: int) -> Solution:
    """As few stages as possible but `min_stages` or more, given that fewer than that suffice for memory."""
    ranked = largest_first(instance)
    most = min(len(ranked), instance.max_stages)
    for count in range(instance.min_stages, min(most, _EXACT_STAGES) + 1):
        work += count << count
        placements = _exactly(instance, ranked[:count])
        if placements:
            bound = max(fewest, instance.min_stages) if count == instance.min_stages else count
            return Solution(placements, count, bound, "exact stage count programme", work_units=work)
    if most <= _EXACT_STAGES:
        return _none(True, work)
    placements = _cut_further(instance, prefix.placements)
    if len(placements) < instance.min_stages:
        return _none(False, work)
    return Solution(placements, len(placements), instance.min_stages, "stages cut further", work_units=work)


def _exactly(instance: Instance, devices: list[int]) -> tuple[Placement, ...]:
    """Every device used, none empty: sets of reachable boundaries (one bit each) per subset of devices."""
    total = instance.layer_count
    allowed = sum(1 << p for p, cut in enumerate(instance.cut_allowed) if cut)
    rows = [instance.reach_row(device) for device in devices]
    full = (1 << len(devices)) - 1
    reached = [0] * (full + 1)
    reached[0] = 1
    for subset in range(1, full + 1):
        for index, row in enumerate(rows):
            if subset >> index & 1:
                reached[subset] |= _onward(reached[subset ^ 1 << index], row) & allowed
    if not reached[full] >> total & 1:
        return ()
    placements, end, subset = [], total, full
    while subset:
        index, start = next(
            (index, start)
            for index, row in enumerate(rows)
            if subset >> index & 1
            for start in range(end)
            if reached[subset ^ 1 << index] >> start & 1 and row[start] >= end
        )
        placements.append(Placement(devices[index], start, end))
        end, subset = start, subset ^ 1 << index
    return tuple(placements[::-1])


def _onward(starts: int, row: list[int]) -> int:
    """Boundaries reached from any of `starts` by a stage that is not empty. A stage may end before its reach."""
    ends = 0
    while starts:
        start = (starts & -starts).bit_length() - 1
        starts &= starts - 1
        ends |= (1 << (row[start] + 1)) - (1 << (start + 1))
    return ends


def _cut_further(instance: Instance, placements: tuple[Placement, ...]) -> tuple[Placement, ...]:
    """Give a last part of some stage to a device that is free, until `min_stages` or nothing can be cut."""
    stages = list(placements)
    used = {stage.device for stage in stages}
    for device in (device for device in largest_first(instance) if device not in used):
        if len(stages) >= instance.min_stages:
            break
        for index, stage in enumerate(stages):
            cut = next(
                (
                    p
                    for p in range(stage.layer_end - 1, stage.layer_start, -1)
                    if instance.cut_allowed[p] and instance.fits(device, p, stage.layer_end)
                ),
                None,
            )
            if cut is not None:
                kept = Placement(stage.device, stage.layer_start, cut)
                stages[index : index + 1] = [kept, Placement(device, cut, stage.layer_end)]
                break
    return tuple(stages)
