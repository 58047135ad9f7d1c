"""Virtual time: a heap of moments and what happens then. Nothing here knows of nodes or networks.

Runs as fast as the machine allows; two runs with the same calls happen in the same order, since ties are broken by the
order of scheduling.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Clockwork:
    """Calls scheduled actions in order of time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.happened = 0
        """Actions run so far: a cheap measure of a simulation's work."""
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._scheduled = 0

    def at(self, due_s: float, action: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401 (any action)
        """Calls `action(*arguments)` at `due_s`, or at once in order if that has passed."""
        self._scheduled += 1
        heapq.heappush(self._heap, (due_s, self._scheduled, action, arguments))

    def run_until(self, end_s: float) -> None:
        """Runs everything up to `end_s`, and leaves the clock there."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= end_s:
            due_s, _, action, arguments = pop(heap)
            if due_s > self.now_s:
                self.now_s = due_s
            self.happened += 1
            action(*arguments)
        self.now_s = max(self.now_s, end_s)
