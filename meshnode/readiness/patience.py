"""How long a node may hold a split up: at most `pending_s` per cause, however often the cause comes and goes.

What lives here: `Patience`. What does not: which causes there are (`meshnode.readiness.reasons`). The time a node is
pending for a cause adds up over interruptions, so that a flapping link can't buy more; a restart of it starts anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from meshnode.membership.view import MeshView
from meshnode.readiness.reasons import ReasonCode
from meshnode.readiness.verdict import Pending
from proto.ids import BootId, NodeId

_Cause = tuple[NodeId, BootId | None, ReasonCode]


class Patience:
    """Counts pending time per node, boot and cause; durations in seconds."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._spent_s: dict[_Cause, float] = {}
        self._since_s: dict[_Cause, float] = {}
        self._over: set[_Cause] = set()

    def note(self, pending: Iterable[Pending], view: MeshView, now: float) -> bool:
        """These are pending now, all others are not. True where that is over for one of them: judge again."""
        causes = {_cause(verdict, view) for verdict in pending}
        for cause in [cause for cause in self._since_s if cause not in causes]:
            self._spent_s[cause] = self._spent_s.get(cause, 0.0) + now - self._since_s.pop(cause)
        for cause in causes:
            self._since_s.setdefault(cause, now)
        return self._close_due(now)

    def over(self, view: MeshView, now: float) -> Mapping[NodeId, frozenset[ReasonCode]]:
        """By node of `view`, the causes it was pending for long enough."""
        self._close_due(now)
        found: dict[NodeId, frozenset[ReasonCode]] = {}
        for node_id, boot_id, code in self._over:
            node = view.nodes.get(node_id)
            if node is not None and node.boot_id == boot_id:
                found[node_id] = found.get(node_id, frozenset()) | {code}
        return found

    def next_due_s(self) -> float:
        """When the next node's patience ends; infinity where nobody is pending."""
        return min((self._due_s(cause) for cause in self._since_s), default=math.inf)

    def _due_s(self, cause: _Cause) -> float:
        return self._since_s[cause] + (self._limit_s - self._spent_s.get(cause, 0.0))

    def _close_due(self, now: float) -> bool:
        due = [cause for cause in self._since_s if self._due_s(cause) <= now]
        for cause in due:
            self._spent_s[cause] = self._limit_s
            del self._since_s[cause]
        self._over.update(due)
        return bool(due)


def _cause(verdict: Pending, view: MeshView) -> _Cause:
    return verdict.node, view.nodes[verdict.node].boot_id, verdict.reason
