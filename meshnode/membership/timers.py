"""Timers of a sans-IO machine: a heap of moments, each with what to do then.

Most timers of a node at rest are no appointments: whether a gossip round begins now or half a second later is all one,
but waking up for it costs more than the round. Such timers are *lazy*: they fire with whatever else wakes the machine
once they are due, and wake it themselves only when nothing else did for `slack_s`.

What lives here: `Timers`. What does not: any clock; `now` is always an argument. Used by every part of membership; a
cancelled timer stays in its heap and wakes nobody.
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


_Heap = list[tuple[float, int, Timer]]


class Timers:
    """Timers in order of their moment, then of their making. Lazy ones may be late by `slack_s`."""

    __slots__ = ("_heap", "_lazy", "_made", "_slack_s", "not_before_s")

    def __init__(self, slack_s: float = 0.0) -> None:
        self._slack_s = slack_s
        self._heap: _Heap = []
        self._lazy: _Heap = []
        self._made = 0
        self.not_before_s = float("inf")
        """No poll is needed before: what `next_due_s` said last, or less where a timer was made since. Costs nothing
        to ask."""

    def at(self, due_s: float, action: Action, argument: Any = None) -> Timer:  # noqa: ANN401 (opaque to the heap)
        """Calls `action(argument, now)` at the first poll at or after `due_s`."""
        if due_s < self.not_before_s:
            self.not_before_s = due_s
        return self._push(self._heap, due_s, action, argument)

    def lazily_at(self, due_s: float, action: Action, argument: Any = None) -> Timer:  # noqa: ANN401 (opaque too)
        """The same, but asks for a poll of its own only at `due_s + slack_s`."""
        if due_s + self._slack_s < self.not_before_s:
            self.not_before_s = due_s + self._slack_s
        return self._push(self._lazy, due_s, action, argument)

    def _push(self, heap: _Heap, due_s: float, action: Action, argument: Any) -> Timer:  # noqa: ANN401 (opaque too)
        timer = Timer(due_s, action, argument)
        self._made += 1
        heapq.heappush(heap, (due_s, self._made, timer))
        return timer

    def next_due_s(self) -> float:
        """The next moment a poll is needed; infinity where none is."""
        heap = self._heap
        while heap and heap[0][2].action is None:
            heapq.heappop(heap)
        lazy = self._lazy
        while lazy and lazy[0][2].action is None:
            heapq.heappop(lazy)
        due_s = heap[0][0] if heap else float("inf")
        if lazy and lazy[0][0] + self._slack_s < due_s:
            due_s = lazy[0][0] + self._slack_s
        self.not_before_s = due_s
        return due_s

    def run_due(self, now: float) -> None:
        """Runs everything due at `now`; what those actions add for `now` or earlier runs at the next call."""
        last_made = self._made
        self._run(self._heap, last_made, now)
        self._run(self._lazy, last_made, now)

    def _run(self, heap: _Heap, last_made: int, now: float) -> None:
        while heap and heap[0][0] <= now and heap[0][1] <= last_made:
            timer = heapq.heappop(heap)[2]
            action = timer.action
            if action is not None:
                timer.action = None
                action(timer.argument, now)
