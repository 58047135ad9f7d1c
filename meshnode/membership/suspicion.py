"""Suspicion: how long a node that does not answer may still prove itself alive.

Lifeguard's dynamic time (section IV-B): with C independent confirmations of K expected,

    time = max(min, max - (max - min) * ln(C + 1) / ln(K + 1))

One accuser alone gives the suspect the longest time, since the trouble may be the accuser's own path; each distinct
further accuser brings it down, K of them to the minimum. In a mesh too small for K others, K is what there are.

What lives here: `Suspicion`, one accusation's course. What does not: who accuses whom and when (`judge`).
"""

from __future__ import annotations

import math

from proto.ids import NodeId
from proto.messages import Claim


class Suspicion:
    """One node under examination, from the first accusation until it is acquitted or dead.

    `burst_failed` is None while the judge's own burst runs or none was made, else its outcome.
    """

    __slots__ = (
        "accusers",
        "burst_failed",
        "claims",
        "confirmations_needed",
        "first_accuser",
        "incarnation",
        "opened_at_s",
        "subject",
    )

    def __init__(
        self, subject: NodeId, incarnation: int, accuser: NodeId, confirmations_needed: int, now: float
    ) -> None:
        self.subject = subject
        self.incarnation = incarnation
        self.first_accuser = accuser
        self.accusers: set[NodeId] = {accuser}
        self.claims: dict[NodeId, Claim] = {}
        self.confirmations_needed = confirmations_needed
        self.opened_at_s = now
        self.burst_failed: bool | None = None

    @property
    def confirmations(self) -> int:
        """Accusers beyond the first."""
        return len(self.accusers) - 1

    def confirm(self, accuser: NodeId) -> bool:
        """Counts an accuser; True where it is a new one that still matters."""
        if accuser in self.accusers or self.confirmations >= self.confirmations_needed:
            return False
        self.accusers.add(accuser)
        return True

    def time_s(self, minimum_s: float, maximum_s: float) -> float:
        """How long the suspect has, from the first accusation on."""
        needed = self.confirmations_needed
        if needed < 1:
            return minimum_s
        share = math.log(self.confirmations + 1) / math.log(needed + 1)
        return max(minimum_s, maximum_s - (maximum_s - minimum_s) * share)
