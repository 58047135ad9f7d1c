"""Coordinators of a chain that are all but alike, made into one problem.

Lives here: `alike` and `first_of`. Not here: what is solved (`planner.optimising`).

In a chain whose coordinator is not pinned the token enters and leaves where the first stage is, so each node is a
problem of its own. Nodes of one site differ only in the way back, and there by little. A group of them is one problem:
any of them may be first, and from each device the way back is the shortest to any of them. Its least is a lower bound
for every node of the group; a plan found for it is a plan, whose true value is that under the node it begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from planner.compiling import TimedFamily
from planner.instance import Instance

_UNKNOWN = float("inf")


def ways_back(family: TimedFamily, nodes: Sequence[str]) -> NDArray[np.float64]:
    """[f, v]: ns from node v to node f for what a last stage returns; infinite where unknown."""
    number = {node: index for index, node in enumerate(nodes)}
    back = np.full((len(nodes), len(nodes)), _UNKNOWN)
    payload = family.times.passing.leave_bytes
    for (source, target), link in family.request.links.links.items():
        if source in number and target in number:
            back[number[target], number[source]] = link.one_way_ns(payload)
    np.fill_diagonal(back, 0.0)
    return back


def alike(back: NDArray[np.float64], tolerance_ns: float) -> list[list[int]]:
    """Groups of nodes whose ways back differ by at most `tolerance_ns` from their leader's, themselves aside."""
    left, groups = list(range(len(back))), list[list[int]]()
    finite = np.where(np.isfinite(back), back, 1e18)
    while left:
        leader = left[0]
        differs = np.abs(finite[left] - finite[leader])
        differs[:, leader] = 0.0
        differs[np.arange(len(left)), left] = 0.0
        near = differs.max(axis=1) <= tolerance_ns
        groups.append([node for node, is_near in zip(left, near, strict=True) if is_near])
        left = [node for node, is_near in zip(left, near, strict=True) if not is_near]
    return groups


def first_of(family: TimedFamily, group: Sequence[int], nodes: Sequence[str], back: NDArray[np.float64],
             max_stages: int | None) -> Instance:  # fmt: skip
    """The problem of the group: the leader's instance, entered at any of them and left to the nearest."""
    instance = family.under(nodes[group[0]], max_stages=max_stages)
    timing = instance.timing
    assert timing is not None, "a family is timed"
    members = {nodes[index] for index in group}
    number = {node: index for index, node in enumerate(nodes)}
    nearest = back[list(group)].min(axis=0)
    owners = [node for node, _ in instance.labels]
    leave = tuple(int(way) if (way := nearest[number[node]]) < _UNKNOWN else None for node in owners)
    return replace(
        instance,
        timing=replace(
            timing,
            entry_ns=tuple(
                0 if node in members else entry for node, entry in zip(owners, timing.entry_ns, strict=True)
            ),
            exit_ns=leave,
        ),
        first_devices=frozenset(index for index, node in enumerate(owners) if node in members),
    )
