"""Whom to be linked with: which peers to dial, when, and how lost ones are found again.

Up to `max_links` live nodes every pair is linked: of two nodes that hear of one another the smaller id dials at once,
the larger after `dial_patience_s` if no link came. Above, each node keeps max(`min_active_links`, 2 log2 N) links to
random members and accepts more up to `max_links` (HyParView's active view; everybody's *record* is still known to
everybody). A failed dial is repeated with doubling, jittered waits. Of the dead one is dialled every `heal_interval_s`,
since each may be the other half of a partition, and a peer is asked whether it knows better: a goodbye that a partition
kept away would else leave the node dead here for ever. Known peers that never appeared are dialled as seeds.

What lives here: `Topology`. What does not: dialling itself (`meshnode.transport`), relayed paths (`relaying`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from meshnode.events import DialFailed
from meshnode.membership.board import Board
from meshnode.membership.effects import CloseLink, Dial
from meshnode.membership.timers import Timer
from meshnode.membership.view import PathKind
from proto.ids import NodeId
from proto.messages import Digest, RefusalCode
from proto.parts import MAX_ADDRESSES

if TYPE_CHECKING:
    from meshnode.membership.detector import Detector

MAX_OBSERVED = 4
MAX_KNOWN_PEERS = 1024
FILL_INTERVAL_S = 1.0
SETTLED_LINK_S = 1.0
"""A link this old has done its first exchange and may be dropped for a newcomer."""
SURPLUS_SHARE = 1.5
"""Links are dropped above this many times the wanted number: others' dials come on top of one's own."""
LATE_AFTER_S = 3600.0
EXAMINE_AFTER_FAILURES = 2
"""Dials that must fail before an unlinked member is examined through others."""


class Attempt:
    """Dialling one peer: how often it failed, whether it is under way or due, and where the peer called from
    meanwhile."""

    __slots__ = ("called_from", "failures", "in_flight", "timer")

    def __init__(self) -> None:
        self.failures = 0
        self.in_flight = False
        self.timer: Timer | None = None
        self.called_from: str | None = None


class Topology:
    """Dialling decisions of one node. `detector` is set by the composition."""

    detector: Detector

    def __init__(self, board: Board) -> None:
        self._board = board
        self.attempts: dict[NodeId, Attempt] = {}
        self._in_flight = 0
        self._waiting: dict[NodeId, None] = {}
        """Dials held back by `dials_at_once`, in order."""
        self._lost: dict[NodeId, tuple[float, float]] = {}
        """Dead members: (lost at, last tried at)."""
        self._known: dict[NodeId, tuple[str, ...]] = {}
        self._observed: dict[NodeId, tuple[str, ...]] = {}

    def start(self, now: float) -> None:
        board = self._board
        board.timers.at(now + board.jittered(board.settings.heal_interval_s, 0.5), self._heal)
        board.timers.at(now + board.jittered(board.settings.shuffle_interval_s, 0.5), self._shuffle)
        board.timers.at(now + board.jittered(FILL_INTERVAL_S, 0.5), self._fill)

    # --- who is there ---

    def know(self, peers: Mapping[NodeId, tuple[str, ...]], now: float) -> None:
        """Addresses from outside gossip (the known-peers file, a static list, an invite's members): dialled at once."""
        for peer, addresses in peers.items():
            if peer == self._board.node or (peer not in self._known and len(self._known) >= MAX_KNOWN_PEERS):
                continue
            self._known[peer] = tuple(addresses)[:MAX_ADDRESSES]
            if peer not in self._board.links:
                self._schedule(peer, now)

    def learned(self, peer: NodeId, now: float) -> None:
        """A live member became known or came back."""
        self._lost.pop(peer, None)
        board = self._board
        if peer == board.node or peer in board.links:
            return
        attempt = self.attempts.get(peer)
        if attempt is not None and attempt.failures:
            # What failed before it was known to live says nothing.
            attempt.failures = 0
            if attempt.timer is not None:
                attempt.timer.cancel()
                attempt.timer = None
        if board.is_large and len(board.links) + self._in_flight >= self._wanted_links() // 2:
            return
        patience_s = 0.0 if board.node < peer else board.jittered(board.settings.dial_patience_s)
        self._schedule(peer, now + patience_s)

    def lost(self, peer: NodeId, now: float) -> None:
        """A member is dead: it is looked for from time to time."""
        self._drop_attempt(peer)
        self._lost[peer] = (now, now)

    def gone(self, peer: NodeId) -> None:
        """A member left or was removed: nobody looks for it."""
        self._drop_attempt(peer)
        self._lost.pop(peer, None)

    def forget(self, peer: NodeId) -> None:
        """A member was revoked: not even its addresses are kept."""
        self.gone(peer)
        self._known.pop(peer, None)
        self._observed.pop(peer, None)

    def is_connecting(self, peer: NodeId) -> bool:
        """A dial is under way or due and has not failed over and over."""
        attempt = self.attempts.get(peer)
        return attempt is not None and (attempt.in_flight or attempt.failures <= EXAMINE_AFTER_FAILURES)

    # --- outcomes ---

    def linked(self, peer: NodeId, now: float) -> None:
        self._drop_attempt(peer)
        link = self._board.links[peer]
        if link.facts.path is PathKind.DIRECT and link.facts.dialled_by_us:
            before = [address for address in self._observed.get(peer, ()) if address != link.facts.address]
            self._observed[peer] = (link.facts.address, *before)[:MAX_OBSERVED]
        if len(self._board.links) > self._board.settings.max_links:
            self._make_room(peer, now)

    def unlinked(self, peer: NodeId, surplus: bool, now: float) -> None:
        """The link to a live member ended; `surplus` where it was closed as one too many."""
        if self._board.live_entry(peer) is None:
            if peer in self._known and self._board.store.get(peer) is None:
                self._schedule(peer, now + self._board.jittered(self._board.settings.dial_backoff_min_s, 0.5))
        elif not surplus and not self._board.is_large:
            self._schedule(peer, now)

    def dial_failed(self, peer: NodeId, reason: str, now: float) -> None:
        """No address of `peer` answered."""
        attempt = self.attempts.get(peer)
        if attempt is None:
            return
        self._landed(attempt, now)
        if attempt.called_from is not None:
            self.called(peer, attempt.called_from, now)
            return
        attempt.failures += 1
        self._board.store.changes += 1
        if self._wants(peer):
            retry_in_s = self._backoff_s(attempt)
            attempt.timer = self._board.timers.at(now + retry_in_s, self._due, peer)
            self._board.emit(DialFailed(peer, self.addresses_of(peer), reason, retry_in_s))
        else:
            self._drop_attempt(peer)
        if self._board.live_entry(peer) is not None and attempt.failures >= EXAMINE_AFTER_FAILURES:
            self.detector.burst(peer, now, dial=False)

    def dial_now(self, peer: NodeId, now: float) -> None:
        """Dials `peer` whatever its backoff says."""
        if peer in self._board.links:
            return
        attempt = self.attempts.get(peer)
        if attempt is not None and attempt.timer is not None:
            attempt.timer.cancel()
            attempt.timer = None
        self._dial(peer, now)

    def called(self, peer: NodeId, address: str, now: float) -> None:
        """A member was heard at `address`, which nobody has proved: it is dialled there, and not remembered."""
        attempt = self.attempts.get(peer) or self._attempt(peer)
        attempt.called_from = address if attempt.in_flight else None
        if attempt.in_flight:
            return
        if attempt.timer is not None:
            attempt.timer.cancel()
            attempt.timer = None
        self._waiting.pop(peer, None)
        attempt.in_flight = True
        self._in_flight += 1
        self._board.effects.append(Dial(peer, (address,)))

    def addresses_of(self, peer: NodeId) -> tuple[str, ...]:
        """Every address known of `peer`, those that worked before first."""
        entry = self._board.store.get(peer)
        own_word = entry.identity.addresses if entry is not None and entry.identity is not None else ()
        every = (*self._observed.get(peer, ()), *own_word, *self._known.get(peer, ()))
        return tuple(dict.fromkeys(every))[:MAX_ADDRESSES]

    # --- dialling ---

    def _wanted_links(self) -> int:
        board = self._board
        if not board.is_large:
            return board.settings.max_links
        wanted = math.ceil(2 * math.log2(board.store.live_count))
        return min(board.settings.max_links, max(board.settings.min_active_links, wanted))

    def _wants(self, peer: NodeId) -> bool:
        """Whether a failed dial of `peer` is to be repeated."""
        board = self._board
        if peer in board.links:
            return False
        entry = board.store.get(peer)
        if entry is None:
            return peer in self._known
        return entry.is_live and (not board.is_large or len(board.links) + self._in_flight < self._wanted_links())

    def _schedule(self, peer: NodeId, due_s: float) -> None:
        attempt = self.attempts.get(peer)
        if attempt is None:
            attempt = self._attempt(peer)
        if attempt.in_flight or attempt.timer is not None or peer in self._waiting:
            return
        attempt.timer = self._board.timers.at(due_s, self._due, peer)

    def _attempt(self, peer: NodeId) -> Attempt:
        self._board.store.changes += 1
        attempt = self.attempts[peer] = Attempt()
        return attempt

    def _due(self, peer: NodeId, now: float) -> None:
        attempt = self.attempts.get(peer)
        if attempt is None:
            return
        attempt.timer = None
        if self._wants(peer):
            self._dial(peer, now)
        else:
            self._drop_attempt(peer)

    def _dial(self, peer: NodeId, now: float) -> None:
        attempt = self.attempts.get(peer) or self._attempt(peer)
        addresses = self.addresses_of(peer)
        if attempt.in_flight or peer in self._waiting:
            return
        if not addresses:
            self._drop_attempt(peer)
        elif self._in_flight >= self._board.settings.dials_at_once:
            self._waiting[peer] = None
        else:
            attempt.in_flight = True
            self._in_flight += 1
            self._board.effects.append(Dial(peer, addresses))

    def _landed(self, attempt: Attempt, now: float) -> None:
        """A dial ended: the next one that waits may go."""
        if attempt.in_flight:
            attempt.in_flight = False
            self._in_flight -= 1
        while self._waiting and self._in_flight < self._board.settings.dials_at_once:
            peer = next(iter(self._waiting))
            del self._waiting[peer]
            if peer not in self._board.links and peer in self.attempts:
                self._dial(peer, now)

    def _drop_attempt(self, peer: NodeId) -> None:
        attempt = self.attempts.pop(peer, None)
        self._waiting.pop(peer, None)
        if attempt is None:
            return
        self._board.store.changes += 1
        if attempt.timer is not None:
            attempt.timer.cancel()
        if attempt.in_flight:
            self._in_flight -= 1

    def _backoff_s(self, attempt: Attempt) -> float:
        settings = self._board.settings
        doubled_s = settings.dial_backoff_min_s * 2.0 ** min(16, attempt.failures - 1)
        return self._board.jittered(min(settings.dial_backoff_max_s, doubled_s), 0.5)

    # --- keeping the overlay whole ---

    def _heal(self, _: None, now: float) -> None:
        """Dials the lost member that was not tried for longest, and asks a peer what it holds of it."""
        settings = self._board.settings
        for peer in [peer for peer, (lost_s, _) in self._lost.items() if now - lost_s >= settings.floor_s]:
            del self._lost[peer]
        youngest_s = min((now - lost_s for lost_s, _ in self._lost.values()), default=0.0)
        interval_s = settings.heal_interval_s if youngest_s < LATE_AFTER_S else settings.heal_interval_late_s
        self._board.timers.lazily_at(now + self._board.jittered(interval_s), self._heal)
        if self._lost:
            peer = min(self._lost, key=lambda lost: (self._lost[lost][1], self._board.rng.random()))
            self._lost[peer] = (self._lost[peer][0], now)
            self._ask_about(peer)
            self._dial(peer, now)

    def _ask_about(self, peer: NodeId) -> None:
        entry = self._board.store.get(peer)
        if entry is not None:
            for neighbour in self._board.some_links(1):
                self._board.send(neighbour, Digest((entry.digest(),), 0, 0, False))

    def _fill(self, _: None, now: float) -> None:
        """In a large mesh: dials random members while links are too few; in a small one: nobody is forgotten."""
        board = self._board
        board.timers.lazily_at(now + board.jittered(FILL_INTERVAL_S), self._fill)
        self._dial_waiting(now)
        if board.is_large:
            self._keep_active_view(now)
        elif len(board.links) + 1 < board.store.live_count:
            for entry in board.store.live():
                if entry.node != board.node and entry.node not in board.links and entry.node not in self.attempts:
                    self._schedule(entry.node, now)

    def _keep_active_view(self, now: float) -> None:
        """A few links more or less, towards the wanted number: too many stem from when the mesh was small."""
        board = self._board
        wanted = self._wanted_links()
        missing = wanted - len(board.links) - self._in_flight
        if missing > 0:
            # Others dial too: above half of the wanted number a node waits for them, and adds one link at a time.
            at_once = missing - wanted // 2 if missing > wanted // 2 else 1
            for peer in self._unlinked_members(min(at_once, board.settings.dials_at_once)):
                self._dial(peer, now)
        elif len(board.links) > wanted * SURPLUS_SHARE:
            self._make_room(None, now)

    def _dial_waiting(self, now: float) -> None:
        """Dropped attempts free their place without a landing; the next in line takes it here at the latest."""
        while self._waiting and self._in_flight < self._board.settings.dials_at_once:
            peer = next(iter(self._waiting))
            del self._waiting[peer]
            if peer not in self._board.links:
                self._dial(peer, now)

    def _unlinked_members(self, count: int) -> list[NodeId]:
        """Up to `count` random live members without a link or an attempt, found by drawing: most members qualify."""
        board = self._board
        found: dict[NodeId, None] = {}
        for _ in range(8 * count):
            peer = board.rng.choice(board.store.ids)
            if len(found) < count and peer != board.node and peer not in board.links and peer not in self.attempts:
                entry = board.store.entries[peer]
                if entry.is_live:
                    found[peer] = None
        return list(found)

    def _shuffle(self, _: None, now: float) -> None:
        """In a large mesh: one new random link; `_keep_active_view` drops an old one where there are too many."""
        board = self._board
        board.timers.lazily_at(now + board.jittered(board.settings.shuffle_interval_s), self._shuffle)
        if not board.is_large:
            return
        for peer in self._unlinked_members(1):
            self._dial(peer, now)

    def _make_room(self, newcomer: NodeId | None, now: float) -> None:
        """Closes one link too many: a random settled one, so that the newcomer gets its first exchange."""
        board = self._board
        settled = [peer for peer, link in board.links.items() if now - link.up_at_s > SETTLED_LINK_S]
        victim = board.rng.choice(settled) if settled else newcomer
        if victim is not None:
            board.effects.append(CloseLink(victim, RefusalCode.LINK_LIMIT, "one link more than this node keeps"))
