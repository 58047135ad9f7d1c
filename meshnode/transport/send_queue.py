"""One link's outbound frames that QUIC has not been given yet.

What lives here: `SendQueue`: bounded, first in first out, with slots in which a newer frame replaces an older one.
What does not: QUIC's own buffer, which the link keeps small so that frames wait here, where they can still be
replaced. Pure: time is an argument.

Gossip is state, not a log: behind a slow reader only the newest state is worth sending. A frame with a `coalesce` slot
therefore takes the *place* of the queued frame with that slot (its position stays, so a slot written all the time
is not starved). Frames without a slot are never dropped: a queue that cannot take one more is over its watermark, and
the link is closed with the reason `slow_reader`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True)
class _Queued:
    frame: bytes
    at_s: float


class SendQueue:
    """At most `max_frames` frames of `max_bytes` together."""

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._queued: OrderedDict[str | int, _Queued] = OrderedDict()
        self._serial = 0
        self.queued_bytes = 0
        self.replaced = 0

    def __len__(self) -> int:
        return len(self._queued)

    def push(self, frame: bytes, coalesce: str | None, now_s: float) -> bool:
        """Queue `frame`; False where that would pass the watermark (the queue is then as it was)."""
        waiting = self._queued.get(coalesce) if coalesce is not None else None
        grown_bytes = self.queued_bytes + len(frame) - (len(waiting.frame) if waiting else 0)
        if grown_bytes > self._max_bytes or (waiting is None and len(self._queued) >= self._max_frames):
            return False
        self.queued_bytes = grown_bytes
        if waiting is not None:
            waiting.frame = frame
            self.replaced += 1
            return True
        self._serial += 1
        self._queued[self._serial if coalesce is None else coalesce] = _Queued(frame, now_s)
        return True

    def pop(self) -> bytes | None:
        """The frame that has waited longest; None where nothing waits."""
        if not self._queued:
            return None
        _, oldest = self._queued.popitem(last=False)
        self.queued_bytes -= len(oldest.frame)
        return oldest.frame

    def oldest_at_s(self) -> float | None:
        """Since when the foremost place waits; None where nothing does. A replaced frame keeps its place's time: what
        counts is how long the peer has not been reading."""
        return next(iter(self._queued.values())).at_s if self._queued else None

    def clear(self) -> None:
        """Drop everything."""
        self._queued.clear()
        self.queued_bytes = 0
