"""Pipelines that keep layers where they lie: orders near the running plan's, with the cuts that move least.

Lives here: `orders_nearby`. Not here: other objectives, and what is made of the candidates (`planner.staying`).

In a pipeline every stage may take as long as the limit, so for a fixed order of devices the fewest bytes moved are a
dynamic programme over boundaries, with any device of the order left empty at will:

    D[k, q] = min(D[k-1, q], min over p < q of D[k-1, p] + bytes moved for [p, q) on device k), where [p, q) is allowed

Orders tried: the running plan's devices that are left and the best plan's, each alone and with one more device at each
place. Hops are looked at when a candidate is valued, not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from planner.instance import Instance
from planner.staying import Candidate, Terms
from planner.transfers import Place

if TYPE_CHECKING:
    from planner.hops import IntArray

_MOST_ORDERS: Final = 600


def orders_nearby(terms: Terms, limit: int) -> list[Candidate]:
    """Candidates of bottleneck at most `limit` (ns), one per order that has any."""
    instance = terms.instance(terms.solved.coordinator)
    lines = _Lines(terms, instance, limit)
    number = {label: index for index, label in enumerate(instance.labels)}
    running = [number[place] for place in _running_places(terms) if place in number]
    best = [number[place] for place, _, _ in terms.best.stages]
    found = []
    for tried, order in enumerate(_orders(running, best, instance.device_count)):
        if tried == _MOST_ORDERS:
            break
        stages = lines.least(order)
        if stages and (candidate := terms.candidate(_coordinator(terms, stages), stages)) is not None:
            found.append(candidate)
    return found


def _running_places(terms: Terms) -> list[Place]:
    return [(stage.node, stage.device) for stage in terms.held.stages]


def _coordinator(terms: Terms, stages: list[tuple[Place, int, int]]) -> str:
    return stages[0][0][0] if terms.placeable.coordinators == (None,) else terms.solved.coordinator


def _orders(running: list[int], best: list[int], devices: int) -> Iterator[tuple[int, ...]]:
    for base in (running, best):
        yield tuple(base)
    for base in (running, best):
        for more in range(devices):
            if more not in base:
                yield from ((*base[:place], more, *base[place:]) for place in range(len(base) + 1))


class _Lines:
    """One limit; the allowed stages of each device are worked out once."""

    def __init__(self, terms: Terms, instance: Instance, limit: int) -> None:
        self._terms, self._instance, self._limit = terms, instance, limit
        self._costs: dict[int, IntArray] = {}

    def least(self, order: tuple[int, ...]) -> list[tuple[Place, int, int]]:
        """The cuts of `order` that move least; empty where it can't hold every layer."""
        import numpy as np

        from planner.hops import INFINITE

        rows = [np.full(self._instance.layer_count + 1, INFINITE, dtype=np.int64)]
        rows[0][0] = 0
        for device in order:
            rows.append(np.minimum(rows[-1], (rows[-1][:, None] + self._cost(device)).min(axis=0)))
        if rows[-1][-1] >= INFINITE:
            return []
        stages, end = [], self._instance.layer_count
        for number in range(len(order), 0, -1):
            if rows[number - 1][end] == rows[number][end]:
                continue
            start = int((rows[number - 1] + self._cost(order[number - 1])[:, end]).argmin())
            stages.append((self._instance.labels[order[number - 1]], start, end))
            end = start
        return stages[::-1]

    def _cost(self, device: int) -> IntArray:
        """[p, q]: bytes moved for that stage, INFINITE where it is not allowed."""
        if device not in self._costs:
            self._costs[device] = self._costs_of(device)
        return self._costs[device]

    def _costs_of(self, device: int) -> IntArray:
        import numpy as np

        from planner.hops import INFINITE

        instance, timing = self._instance, self._instance.timing
        assert timing is not None, "a bottleneck comes from a timed instance"
        place, layers = instance.labels[device], instance.layer_count
        moved = np.array(self._terms.prefix(place), dtype=np.int64)
        cost = moved[None, :] - moved[:, None]
        cost[0, :] += self._terms.held.moved_first(place)
        cost[:, layers] += self._terms.held.moved_last(place)
        for start, reach in enumerate(instance.reach_row(device)):
            cost[start, : start + 1] = INFINITE
            cost[start, reach + 1 :] = INFINITE
            for end in range(start + 1, reach + 1):
                if not instance.cut_allowed[end] or timing.stage_ns(device, start, end) > self._limit:
                    cost[start, end] = INFINITE
        return cost
