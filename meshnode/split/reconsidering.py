"""When what a pursuit decided is thought over: at news of the members, or at a time that was set.

What lives here: `Reconsidering`, which remembers the members that the newest decision was made for, and when to look
again without any news. What does not: what is decided then (`pursuit`), and what counts as a change of members
(`meshnode.readiness.settling`). Times are monotonic seconds.
"""

from __future__ import annotations

import math
from typing import Final

from meshnode.readiness.settling import Members, members_changed

YIELD_S: Final = 5.0
"""Fenced off by another living coordinator: so long its offer may take to arrive, saying that it coordinates."""
RECHECK_S: Final = 60.0
"""After a shortfall with a node that did not answer: asked again, since nothing in the view will show its recovery."""


class Reconsidering:
    """What one pursuit considered, and when it looks again. `drift` is the share by which figures may move without
    being news."""

    def __init__(self, drift: float) -> None:
        self._drift = drift
        self._members: Members = {}
        self._look_s = math.inf
        self._yield_s = math.inf

    def considered(self, members: Members) -> None:
        """What is decided now is decided for these."""
        self._members = members

    def is_news(self, members: Members) -> bool:
        """Whether these are others than were considered, or offer other than they did."""
        return members_changed(self._members, members, self._drift)

    def are_others(self, members: Members) -> bool:
        """Whether these are other nodes than were considered, whatever they offer."""
        return members.keys() != self._members.keys()

    def look_again(self, at_s: float) -> None:
        """Look again then, in place of any other time; infinity: only at news."""
        self._look_s = at_s

    def give_way(self, now: float) -> None:
        """Another node seems to coordinate: begin nothing until its offer had time to say so."""
        self._yield_s = now + YIELD_S

    @property
    def gives_way(self) -> bool:
        """Whether another node's offer is waited for."""
        return math.isfinite(self._yield_s)

    def take_due(self, now: float) -> bool:
        """Whether it is time to look again; it is so once."""
        is_due = self.next_wakeup() <= now
        if is_due:
            self._look_s = self._yield_s = math.inf
        return is_due

    def next_wakeup(self) -> float:
        """When `take_due` must be called at the latest."""
        return min(self._look_s, self._yield_s)
