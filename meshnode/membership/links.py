"""One link to a peer as membership sees it: its facts, when it was last heard, its RTT.

What lives here: `Link`, and what the ends of one mean. What does not: sockets and streams (`meshnode.transport`).
"""

from __future__ import annotations

from meshnode.membership.rtt import RttEstimator
from meshnode.membership.timers import Timer
from meshnode.membership.view import LinkFacts
from proto.ids import NodeId
from proto.messages import RefusalCode
from proto.parts import RttEntry

SURPLUS = frozenset({RefusalCode.LINK_LIMIT, RefusalCode.DUPLICATE_LINK, RefusalCode.BUSY})
"""Ends of a link that say nothing about the peer's health."""
FAREWELL = frozenset({RefusalCode.LEAVING, RefusalCode.REMOVED, RefusalCode.REVOKED, RefusalCode.IDENTITY_IN_USE})
"""Ends of a link that say that it shall not come back by itself."""
SILENCE = frozenset({"idle_timeout", "connection_lost"})
"""Ends of a link that nobody spoke. A peer that said why it closed the link was alive to say so."""


class Link:
    """A standing, authenticated link."""

    __slots__ = (
        "facts",
        "peer",
        "probed_at_s",
        "published_rtt",
        "reported_rtt_ms",
        "rtt",
        "rtt_timer",
        "sync_until_s",
        "up_at_s",
    )

    def __init__(self, peer: NodeId, facts: LinkFacts, now: float) -> None:
        self.peer = peer
        self.facts = facts
        self.up_at_s = now
        self.probed_at_s = now
        """When its last ping or ack came: who was probed just now, from either end, need not be probed again."""
        self.rtt = RttEstimator()
        self.rtt_timer: Timer | None = None
        self.sync_until_s = 0.0
        """An anti-entropy round with this peer is open until then."""
        self.published_rtt: RttEntry | None = None
        self.reported_rtt_ms: float | None = None

    def stop_timing(self) -> None:
        """The link ended, or a new one takes its place."""
        if self.rtt_timer is not None:
            self.rtt_timer.cancel()
