"""Stalls: this process did not run, so that what it missed is no sign of anybody else's death.

A poll that comes late says that the event loop was blocked or the machine slept. RTT samples of that moment are
dropped, examinations begin anew, nobody is accused for a while, and the local health is worse (Lifeguard).

What lives here: `Stalls`. What does not: the health score (`awareness`), noticing late inputs (the driver, which has
the machine polled before it hands one over).
"""

from __future__ import annotations

import math

from meshnode.events import HealthChanged, NodeStalled
from meshnode.membership.awareness import STALLED, Awareness
from meshnode.membership.board import Board
from meshnode.membership.detector import Detector
from meshnode.membership.judge import Judge

OVERLOAD_MEMORY_S = 0.1
"""How long after a late wake-up RTT samples are dropped."""
REPORT_STALL_S = 0.25
"""Shorter stalls are noticed but not reported (the loop's own work stays below 50 ms)."""
SUSPEND_S = 5.0
"""A stall this long is called a suspend."""


class Stalls:
    """What follows from one node's own stalls."""

    def __init__(self, board: Board, awareness: Awareness, detector: Detector, judge: Judge) -> None:
        self._board = board
        self._awareness = awareness
        self._detector = detector
        self._judge = judge
        self._stalled_at_s = -math.inf

    def polled_late(self, late_s: float, now: float) -> None:
        """The machine was polled `late_s` after it was due; negative where it was not due yet."""
        if late_s > self._board.settings.sample_lateness_s:
            self._board.overloaded_until_s = now + OVERLOAD_MEMORY_S
        if late_s > self._board.settings.lateness_s:
            self.stalled(late_s, now)

    def stalled(self, duration_s: float, now: float) -> None:
        """This process did not run for `duration_s` until now. Said twice of one moment it counts once."""
        if now == self._stalled_at_s:
            return
        # The driver and the machine's own timers may both notice one stall, a moment apart.
        told = now - duration_s < self._stalled_at_s
        self._stalled_at_s = now
        board = self._board
        board.quiet_until_s = max(board.quiet_until_s, now + board.settings.grace_after_stall_s)
        board.overloaded_until_s = now + OVERLOAD_MEMORY_S
        self._detector.abandon()
        self._judge.start_over(now)
        if told:
            return
        worse = self._awareness.change(STALLED)
        if duration_s >= REPORT_STALL_S:
            cause = "suspend" if duration_s >= SUSPEND_S else "blocked event loop"
            board.emit(NodeStalled(round(duration_s, 3), cause))
            if worse:
                board.emit(HealthChanged(self._awareness.score, f"stalled for {duration_s:.1f} s"))
