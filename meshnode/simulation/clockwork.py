"""Virtual time: moments in order, and what happens then. Nothing here knows of nodes or networks.

Runs as fast as the machine allows; two runs with the same calls happen in the same order, since ties are broken by the
order of scheduling.

Time is cut into slots. Only the current one is a heap, small enough to stay in the processor's cache; what lies further
ahead waits unordered in its own slot (a calendar queue: Brown, CACM 31(10), 1988). One heap of everything that a
thousand nodes have ahead of them costs a tenth of the whole run.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

SLOTS_PER_S = 64
"""A thousand nodes at rest do about 200 things in one."""
_Due = tuple[float, int, Callable[..., None], tuple[Any, ...]]


class Clockwork:
    """Calls scheduled actions in order of time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.happened = 0
        """Actions run so far: a cheap measure of a simulation's work."""
        self._scheduled = 0
        self._slot = 0
        """The slot of `_heap`, which also takes what is due before it."""
        self._heap: list[_Due] = []
        self._ahead: dict[int, list[_Due]] = {}
        self._slots_ahead: list[int] = []
        """A heap of the keys of `_ahead`."""

    def at(self, due_s: float, action: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401 (any action)
        """Calls `action(*arguments)` at `due_s`, or at once in order if that has passed."""
        self._scheduled += 1
        slot = int(due_s * SLOTS_PER_S)
        if slot <= self._slot:
            heapq.heappush(self._heap, (due_s, self._scheduled, action, arguments))
            return
        waiting = self._ahead.get(slot)
        if waiting is None:
            waiting = self._ahead[slot] = []
            heapq.heappush(self._slots_ahead, slot)
        waiting.append((due_s, self._scheduled, action, arguments))

    def run_until(self, end_s: float) -> None:
        """Runs everything up to `end_s`, and leaves the clock there."""
        pop, last_slot = heapq.heappop, int(end_s * SLOTS_PER_S)
        while True:
            heap = self._heap
            while heap and heap[0][0] <= end_s:
                due_s, _, action, arguments = pop(heap)
                if due_s > self.now_s:
                    self.now_s = due_s
                self.happened += 1
                action(*arguments)
            if heap or not self._slots_ahead or self._slots_ahead[0] > last_slot:
                break
            self._slot = pop(self._slots_ahead)
            self._heap = self._ahead.pop(self._slot)
            heapq.heapify(self._heap)
        self.now_s = max(self.now_s, end_s)
