"""Whether a request can be placed at all: memory, willingness, coordinator, cuts, stage counts, RTT cap; no times.

Lives here: `find_placement`, the one question that `planner.dispatch`, the largest context and every remedy ask. Not
here: a good plan (`planner.optimising`), or why there is none (`planner.diagnosis`).

Nodes willing `when_needed` are used only where no placement exists without them: the largest are added until one does,
then each that turns out not to be needed is taken out again, so that every one kept is needed. Nor does one of them
coordinate where another node can.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from planner.compiling import compile_instance
from planner.coordinators import coordinators_of
from planner.fewest import hold_all
from planner.instance import Instance
from planner.memory import MemoryNeed, memory_need
from planner.nodes import NodeSpec, Willingness
from planner.prefix import DEFAULT_WORK
from planner.request import PlanRequest
from planner.solution import Solution

DEEP_WORK: Final = 3_000_000
"""Work units before a request is called impossible though that was not proved: a few seconds."""

_MOST_COORDINATORS: Final = 64
"""Under an RTT cap each coordinator is a problem of its own; so many that work are enough."""


@dataclass(frozen=True)
class Placeable:
    """A request that can be placed: on which nodes, under which coordinators, and one placement as a witness.

    `coordinators` are those under which a placement is known to exist; None stands for the first stage's node.
    """

    need: MemoryNeed
    nodes: tuple[NodeSpec, ...]
    coordinators: tuple[str | None, ...]
    instance: Instance
    solution: Solution


def find_placement(request: PlanRequest, *, work: int = DEFAULT_WORK) -> Placeable | None:
    """A placement of every layer, or None where none was found (see `planner.prefix` for when that is a proof)."""
    need = memory_need(request.model, request.workload, request.engine)
    glad = tuple(node for node in request.workers if node.willingness is Willingness.ALWAYS)
    spare = [node for node in request.workers if node.willingness is Willingness.WHEN_NEEDED]
    for coordinators in _willing_first(request, coordinators_of(request, need).ids):
        if found := _on(request, need, coordinators, glad, work):
            return found
        if spare and _on(request, need, coordinators, request.workers, work):
            return _fewest_spares(request, need, coordinators, glad, spare, work)
    return None


def is_impossible(request: PlanRequest) -> bool:
    """Whether it is proved that no placement exists."""
    need = memory_need(request.model, request.workload, request.engine)
    instances = (
        compile_instance(request, request.workers, need, coordinator=coordinator)
        for coordinator in coordinators_of(request, need).ids
    )
    return all(hold_all(instance).infeasible for instance in instances)


def _willing_first(request: PlanRequest, able: Sequence[str | None]) -> Iterator[tuple[str | None, ...]]:
    """Who may coordinate: the always willing; only where none of them can, those for when needed, then everybody.

    Who coordinates decides what can be placed only under an RTT cap.
    """
    willing = {node.id: node.willingness for node in request.nodes}
    ranks = [Willingness.ALWAYS, Willingness.WHEN_NEEDED, Willingness.NEVER]
    tried = 0
    for last in range(1, len(ranks) + 1):
        among = tuple(each for each in able if each is None or willing[each] in ranks[:last])
        if len(among) > tried:
            yield among
            if request.constraints.max_stage_rtt_ms is None:
                return
        tried = len(among)


def _fewest_spares(
    request: PlanRequest,
    need: MemoryNeed,
    coordinators: Sequence[str | None],
    glad: tuple[NodeSpec, ...],
    spare: list[NodeSpec],
    work: int,
) -> Placeable | None:
    ranked = sorted(spare, key=lambda node: (-node.usable_bytes, node.id))
    low, high = 0, len(ranked)
    while high - low > 1:
        middle = (low + high) // 2
        if _on(request, need, coordinators, (*glad, *ranked[:middle]), work):
            high = middle
        else:
            low = middle
    kept = ranked[:high]
    for node in ranked[:high]:
        without = [each for each in kept if each is not node]
        if _on(request, need, coordinators, (*glad, *without), work):
            kept = without
    return _on(request, need, coordinators, (*glad, *kept), work)


def _on(
    request: PlanRequest,
    need: MemoryNeed,
    coordinators: Sequence[str | None],
    nodes: tuple[NodeSpec, ...],
    work: int,
) -> Placeable | None:
    if request.constraints.max_stage_rtt_ms is None and coordinators:
        instance = compile_instance(request, nodes, need)
        solution = hold_all(instance, work=work)
        return Placeable(need, nodes, tuple(coordinators), instance, solution) if solution.placements else None
    possible: list[tuple[str | None, Instance, Solution]] = []
    for coordinator in coordinators:
        instance = compile_instance(request, nodes, need, coordinator=coordinator)
        if (solution := hold_all(instance, work=work)).placements:
            possible.append((coordinator, instance, solution))
        if len(possible) == _MOST_COORDINATORS:
            break
    if not possible:
        return None
    _, instance, solution = possible[0]
    return Placeable(need, nodes, tuple(coordinator for coordinator, _, _ in possible), instance, solution)
