"""What the parts of one node's membership share: who it is, what it holds, its timers, and the effects of this input.

What lives here: `Board`. It decides nothing. Made by `machine.Membership`, handed to every part.
"""

from __future__ import annotations

import random

from meshnode.events import Event
from meshnode.membership.effects import Effect, Emit, Send, SendDatagram
from meshnode.membership.links import Link
from meshnode.membership.local import LocalNode
from meshnode.membership.records import NodeEntry, RecordStore
from meshnode.membership.settings import MembershipSettings
from meshnode.membership.timers import Timers
from meshnode.membership.trust import Trust
from proto.ids import NodeId
from proto.messages import Message


class Board:
    """Shared state and the outbox. `incarnation` is the local node's own, already persisted."""

    __slots__ = (
        "effects",
        "incarnation",
        "links",
        "local",
        "node",
        "overloaded_until_s",
        "quiet_until_s",
        "rng",
        "settings",
        "store",
        "timers",
        "trust",
    )

    def __init__(self, local: LocalNode, settings: MembershipSettings, trust: Trust, rng: random.Random) -> None:
        self.local = local
        self.node: NodeId = local.node
        self.incarnation = local.incarnation
        self.settings = settings
        self.trust = trust
        self.rng = rng
        self.timers = Timers(settings.timer_slack_s)
        self.store = RecordStore(settings)
        self.links: dict[NodeId, Link] = {}
        self.effects: list[Effect] = []
        self.quiet_until_s = 0.0
        """Nobody is accused before then (after a stall)."""
        self.overloaded_until_s = 0.0
        """RTT samples that end before then are dropped: our own loop lagged."""

    def take_effects(self) -> list[Effect]:
        """The effects of the input just handled, in order."""
        effects, self.effects = self.effects, []
        return effects

    def send(self, peer: NodeId, message: Message, coalesce: str | None = None) -> None:
        self.effects.append(Send(peer, message, coalesce))

    def send_datagram(self, peer: NodeId, message: Message, held_since_s: float | None = None) -> None:
        self.effects.append(SendDatagram(peer, message, held_since_s))

    def emit(self, event: Event) -> None:
        self.effects.append(Emit(event))

    def nonce(self) -> int:
        return self.rng.getrandbits(52)

    def jittered(self, duration_s: float, share: float = 0.25) -> float:
        """`duration_s` give or take `share` of it: keeps nodes from acting in step."""
        return duration_s * (1.0 + share * (2.0 * self.rng.random() - 1.0))

    @property
    def is_large(self) -> bool:
        """More live nodes than links are kept: a partial view, announcements instead of pushes."""
        return self.store.live_count > self.settings.max_links

    def some_links(self, count: int, leaving_out: frozenset[NodeId] | set[NodeId] = frozenset()) -> list[NodeId]:
        """Up to `count` random linked peers that are live, none of `leaving_out`."""
        entries = self.store.entries
        drawn = 2 * count + len(leaving_out)
        if drawn < len(self.links):
            # Nearly all links are to live peers: a few drawn ones do, without a look at every entry.
            some = [peer for peer in self.rng.sample(list(self.links), drawn) if peer not in leaving_out]
            some = [peer for peer in some if (entry := entries.get(peer)) is None or entry.is_live]
            if len(some) >= count:
                return some[:count]
        candidates = [
            peer
            for peer in self.links
            if peer not in leaving_out and ((entry := entries.get(peer)) is None or entry.is_live)
        ]
        return candidates if len(candidates) <= count else self.rng.sample(candidates, count)

    def live_entry(self, node: NodeId) -> NodeEntry | None:
        entry = self.store.entries.get(node)
        return entry if entry is not None and entry.is_live else None
