"""The simple rule others use: nodes in order of size, each with layers in proportion to its memory.

Lives here: `solve_proportional`, and `proportional_rule`, the rule itself without a look at memory (the bench sets it
beside better plans). Not here: anything that weighs speed.

The rule's cuts are kept as near to proportional as memory allows: for the order by size, a dynamic programme finds the
cuts that fit and are least off, in bytes. Where no cuts of that order fit there is no proportional plan.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from planner.fewest import largest_first
from planner.instance import Instance
from planner.solution import Placement, Solution


def proportional_rule(instance: Instance) -> tuple[Placement, ...]:
    """Layers by rounded cumulative share of usable bytes, largest device first; whether it fits is not looked at."""
    ranked, total = largest_first(instance), sum(instance.usable_bytes)
    placements: list[Placement] = []
    start = 0
    for device, room in zip(ranked, accumulate(instance.usable_bytes[device] for device in ranked), strict=True):
        end = (2 * instance.layer_count * room + total) // (2 * total) if total else 0
        if end > start:
            placements.append(Placement(device, start, end))
            start = end
    return tuple(placements)


def solve_proportional(instance: Instance) -> Solution:
    """The rule's plan, its cuts moved as little as memory demands; `value` is the number of stages."""
    plain = proportional_rule(instance)
    if instance.defect(plain) is None:
        return Solution(plain, len(plain), None, "proportional to usable memory")
    moved = _nearest_cuts(instance)
    if moved and instance.defect(moved) is None:
        return Solution(moved, len(moved), None, "proportional to usable memory, cuts moved to fit")
    return Solution((), None, None, "proportional to usable memory")


def _nearest_cuts(instance: Instance) -> tuple[Placement, ...]:
    """Cuts for the devices in order of size that fit and together are least off their shares, in bytes."""
    ranked, prefix = largest_first(instance), instance.layer_prefix_bytes
    total, layers = sum(instance.usable_bytes), instance.layer_count
    targets = [prefix[-1] * room // total for room in accumulate(instance.usable_bytes[d] for d in ranked)]
    # off[p]: least sum of deviations with [0, p) on the devices so far; None if not possible.
    off: list[int | None] = [0, *[None] * layers]
    choices: list[list[int]] = []
    for device, target in zip(ranked, targets, strict=True):
        row = instance.reach_row(device)
        following: list[int | None] = [None] * (layers + 1)
        chosen = [0] * (layers + 1)
        for end in range(layers + 1):
            if not instance.cut_allowed[end]:
                continue
            first = min(end, bisect_left(row, end))
            options = [(before, p) for p in range(first, end + 1) if (before := off[p]) is not None]
            if options:
                before, chosen[end] = min(options, key=lambda option: (option[0], -option[1]))
                following[end] = before + abs(prefix[end] - target)
        off = following
        choices.append(chosen)
    if off[layers] is None:
        return ()
    placements, end = [], layers
    for device, chosen in zip(reversed(ranked), reversed(choices), strict=True):
        if chosen[end] < end:
            placements.append(Placement(device, chosen[end], end))
        end = chosen[end]
    return tuple(placements[::-1])
