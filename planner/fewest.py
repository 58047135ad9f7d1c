"""Fewest stages, and the simple proportional rule.

Lives here: `solve_fewest` and `solve_proportional`. Not here: the longest prefix they stand on (`planner.prefix`).

Bytes and reserves do not depend on the device, so k stages are possible if and only if they are on the k devices with
the most usable bytes (facts, section 5). The answer is the smallest k at which these hold every layer.
"""

from __future__ import annotations

from planner.instance import Instance
from planner.prefix import longest_prefix
from planner.solution import Placement, Solution


def solve_fewest(instance: Instance) -> Solution:
    """The fewest stages that hold every layer. Exact while `longest_prefix` is; else the bound is what it proved."""
    devices = sorted(range(instance.device_count), key=lambda device: (-instance.usable_bytes[device], device))
    proved, work = 1, 0
    for count in range(1, min(len(devices), instance.max_stages) + 1):
        prefix = longest_prefix(instance, devices[:count])
        work += prefix.work_units
        if prefix.layers == instance.layer_count:
            placements = _at_least(instance, prefix.placements)
            if instance.defect(placements) is None:
                bound = max(proved, instance.min_stages)
                return Solution(placements, len(placements), bound, "top-k prefix programme", work_units=work)
        if prefix.upper < instance.layer_count:
            proved = count + 1
    return Solution((), None, None, "top-k prefix programme", infeasible=proved > len(devices), work_units=work)


def solve_proportional(instance: Instance) -> Solution | None:
    """Layers in proportion to usable bytes, in device order: the simple rule others use. None where it does not fit."""
    total, layers = sum(instance.usable_bytes), instance.layer_count
    placements: list[Placement] = []
    start, seen = 0, 0
    for device, usable in enumerate(instance.usable_bytes):
        seen += usable
        end = round(layers * seen / total) if total else 0
        if end > start:
            placements.append(Placement(device, start, end))
            start = end
    if not placements or instance.defect(placements) is not None:
        return None
    return Solution(tuple(placements), len(placements), None, "proportional to usable memory")


def _at_least(instance: Instance, placements: tuple[Placement, ...]) -> tuple[Placement, ...]:
    """Cut stages further, on devices that are free, until `min_stages` are reached or nothing can be cut."""
    stages = list(placements)
    free = [d for d in range(instance.device_count) if d not in {stage.device for stage in stages}]
    for device in sorted(free, key=lambda device: (-instance.usable_bytes[device], device)):
        if len(stages) >= instance.min_stages:
            break
        for index, stage in enumerate(stages):
            cuts = [p for p in range(stage.layer_start + 1, stage.layer_end) if instance.cut_allowed[p]]
            fitting = [p for p in cuts if instance.fits(device, p, stage.layer_end)]
            if fitting:
                cut = fitting[0]
                stages[index : index + 1] = [
                    Placement(stage.device, stage.layer_start, cut), Placement(device, cut, stage.layer_end)
                ]  # fmt: skip
                break
    return tuple(stages)
