"""Whom nobody need believe any more about whom: accusers that were found wrong again and again.

One member with a broken path, or a bad will, could else keep everybody examining a healthy node for ever, and that node
refuting: each accusation costs every judge a burst, and the accused a signature, a write to its disk, a push down all
its links and a point of its local health. So the accused listens to one accuser no more than `REFUTED_TO_DISCREDIT`
times a window; and who hears the accused itself says so from then on, without another look. Whoever depends on
accusers for lack of a link goes on counting them.

What lives here: `Credit`. What does not: finding out who was right (`judge`, `publisher`).
"""

from __future__ import annotations

from collections import deque

from proto.ids import NodeId

REFUTED_TO_DISCREDIT = 3
CREDIT_WINDOW_S = 60.0
FRESH_S = 5.0
"""Who was heard this lately need not be examined because of an accuser without credit."""
MAX_PAIRS = 4096
"""Pairs remembered, about 200 bytes each; with more the memory begins anew."""


class Credit:
    """Remembers when accusations were refuted, by accuser and accused."""

    __slots__ = ("_refuted_at_s",)

    def __init__(self) -> None:
        self._refuted_at_s: dict[tuple[NodeId, NodeId], deque[float]] = {}

    def refuted(self, accuser: NodeId, accused: NodeId, now: float) -> None:
        """`accuser` was wrong about `accused`."""
        if len(self._refuted_at_s) >= MAX_PAIRS and (accuser, accused) not in self._refuted_at_s:
            self._refuted_at_s.clear()
        self._refuted_at_s.setdefault((accuser, accused), deque(maxlen=REFUTED_TO_DISCREDIT)).append(now)

    def is_spent(self, accuser: NodeId, accused: NodeId, now: float) -> bool:
        """True while `accuser` was wrong too often about `accused`."""
        moments = self._refuted_at_s.get((accuser, accused))
        return moments is not None and len(moments) == REFUTED_TO_DISCREDIT and now - moments[0] < CREDIT_WINDOW_S
