"""How long a worker that lives but fails its health checks may go on: 75 s, then its stage counts as lost.

What lives here: `Grace`. What does not: the checks. Withdrawing a running split at the first missed check was wrong in
the field; a grace of 75 s was their cure (facts, section 1).
"""

from __future__ import annotations

import math

from proto.ids import NodeId


class Grace:
    """Since when each worker is unhealthy; times are monotonic seconds."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._since_s: dict[NodeId, float] = {}

    def note(self, node: NodeId, healthy: bool, now: float) -> None:
        """What a check came to. One good check ends the trouble."""
        if healthy:
            self._since_s.pop(node, None)
        else:
            self._since_s.setdefault(node, now)

    def expired(self, now: float) -> NodeId | None:
        """A worker that was unhealthy for the whole grace time, the longest first; None where there is none."""
        due = [(since_s, node) for node, since_s in self._since_s.items() if since_s + self._grace_s <= now]
        return min(due)[1] if due else None

    def next_due_s(self) -> float:
        """When the next grace ends; infinity while all are well."""
        return min(self._since_s.values(), default=math.inf) + self._grace_s
