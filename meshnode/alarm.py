"""A timer that follows a moment which moves: when a state machine next wants to be polled.

What lives here: `Alarm`. What does not: what it rings for (`meshnode.mesh`).

It rings in the loop's callbacks: a task that sleeps costs three passes of the loop for each ring, which is most of what
an idle node would spend.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Alarm:
    """Calls `ring` once `clock` has reached `due`, both in s, again and again. From the event loop's thread only."""

    def __init__(self, clock: Callable[[], float], due: Callable[[], float], ring: Callable[[], None]) -> None:
        self._clock = clock
        self._due = due
        self._ring = ring
        self._fault: asyncio.Future[None] | None = None
        """What `run` waits for: a fault in the callback. None while `run` does not run."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = math.inf

    @property
    def is_running(self) -> bool:
        """Whether it rings at all: within `run`."""
        return self._fault is not None

    async def run(self) -> None:
        """Ring when it is due. Ends by cancellation, and with what `ring` raises."""
        self._fault = asyncio.get_running_loop().create_future()
        self.set()
        try:
            await self._fault
        finally:
            self._fault = None
            self._stop()

    def set(self) -> None:
        """What is due may have moved."""
        if self._fault is None:
            return
        due_s = self._due()
        if self._timer is None or due_s != self._timer_at_s:
            self._stop()
            self._timer_at_s = due_s
            wait_s = max(0.0, due_s - self._clock())
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._fire)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        try:
            if self._clock() >= self._due():
                self._ring()
            self.set()
        except Exception as fault:
            # A callback's error would end in the loop's log, and the timer for good; `run` ends with it instead.
            if self._fault is None or self._fault.done():
                raise
            self._fault.set_exception(fault)
