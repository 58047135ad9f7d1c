"""Lifeguard's local health: a node that doubts itself gives others more time.

A node whose own network or processor is in trouble sees everybody fail. The score counts signs of that: each raises it,
each answered probe lowers it. Probe interval and time-outs are multiplied by score + 1, so that a sick node accuses
slowly while a healthy one stays quick (Lifeguard, section IV-A: LHA-Probe, with memberlist's table of deltas).
"""

from __future__ import annotations

ANSWERED = -1
"""A probe was answered."""
NO_NACK = 1
"""For each asked relay that sent neither ack nor nack: the trouble is probably ours."""
HAD_TO_REFUTE = 1
"""We were suspected: our answers come late."""
ACCUSED_WRONGLY = 1
"""Our accusation was refuted by another witness (Mesh-LLM 417)."""
STALLED = 1
"""Our own process did not run for a while."""


class Awareness:
    """The score, from 0 (healthy) to `ceiling`."""

    __slots__ = ("_ceiling", "score")

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self.score = 0

    def change(self, delta: int) -> bool:
        """Adds `delta` within the bounds; True where the score changed."""
        before = self.score
        self.score = max(0, min(self._ceiling, before + delta))
        return self.score != before

    def scale(self, duration_s: float) -> float:
        """`duration_s` as this node should wait, given its health."""
        return duration_s * (self.score + 1)
