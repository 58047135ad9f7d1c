"""Timers of a sans-IO machine: a heap of moments, each with what to do then.

What lives here: `Timers`. What does not: any clock; `now` is always an argument. Used by every part of membership; a
cancelled timer stays in the heap and wakes nobody.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

Action = Callable[[Any, float], None]
"""Called with the timer's argument and the moment of the poll."""


class Timer:
    """One pending moment; `cancel()` makes it a no-op."""

    __slots__ = ("action", "argument", "due_s")

    def __init__(self, due_s: float, action: Action, argument: Any) -> None:  # noqa: ANN401 (opaque to the heap)
        self.due_s = due_s
        self.action: Action | None = action
        self.argument = argument

    def cancel(self) -> None:
        self.action = None


class Timers:
    """A heap of timers in order of their moment, then of their making."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._made = 0

    def at(self, due_s: float, action: Action, argument: Any = None) -> Timer:  # noqa: ANN401 (opaque to the heap)
        """Calls `action(argument, now)` at the first poll at or after `due_s`."""
        timer = Timer(due_s, action, argument)
        self._made += 1
        heapq.heappush(self._heap, (due_s, self._made, timer))
        return timer

    def next_due_s(self) -> float:
        """The next moment anything is due; infinity where nothing is."""
        heap = self._heap
        while heap and heap[0][2].action is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else float("inf")

    def run_due(self, now: float) -> None:
        """Runs everything due at `now`; what those actions add for `now` or earlier runs at the next call."""
        heap = self._heap
        last_made = self._made
        while heap and heap[0][0] <= now and heap[0][1] <= last_made:
            timer = heapq.heappop(heap)[2]
            action = timer.action
            if action is not None:
                timer.action = None
                action(timer.argument, now)
