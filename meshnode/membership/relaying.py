"""Relayed paths: how a member that can't be dialled is still reached, through a neighbour both are linked to.

A relayed message is one encoded message inside a `Relay` that its source signed and numbered; the carrier passes it on
over its own link to the target, one hop, and can neither forge nor repeat it. A carrier is found by asking: a peer that
answers a ping request for the target with an ack has a link to it. The path is kept alive, and timed, by pings through
it, and is given up when three in a row go unanswered or an own link comes up.

Numbers seen are remembered by the process alone. So that nothing of before its start is taken for new, a source is
heard once it has answered a ping of this process through a relay: its answer's number is above all that were used
before. Until then only pings and acks are read. Who opens a path holds what it has to say until its first ping is
answered: the other end pings before it answers.

Relayed paths serve control messages; stages never run over them unless the operator allows it (reason
`stage_path_relay_only`). What lives here: `Relaying`, `RelayedPath`. What does not: QUIC links (`meshnode.transport`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from meshnode.events import LinkRelayed, LinkRelayLost, RecordRejected
from meshnode.membership.board import Board
from meshnode.membership.rtt import RttEstimator
from meshnode.membership.timers import Timer
from meshnode.membership.trust import UNSIGNED
from meshnode.membership.view import LinkFacts, PathKind
from proto.codec import decode_message, encode_message
from proto.errors import WireError
from proto.ids import NodeId
from proto.messages import Ack, Message, Ping, Relay
from proto.shapes import MAX_COUNTER

if TYPE_CHECKING:
    from meshnode.membership.pings import Pings

MISSED_TO_GIVE_UP = 3
SEQUENCES_PER_INCARNATION = 2**20
"""Numbers start at incarnation x this, so that a restarted source stays above what it used before."""
MAX_PATHS = 256
MAX_HELD = 32
"""Messages that wait for a path's first answer; more are dropped, as where there is no path."""
ASK_AGAIN_S = 1.0
"""Shortest time between two pings that ask one source whether it speaks now."""
FIRST_PING_AGAIN_S = 5.5
"""After the path's first ping; makes the second sample that corroborates it."""


class RelayedPath:
    """A path to one target through one carrier."""

    __slots__ = ("carrier", "held", "missed", "nonce", "rtt", "sent_at_s", "since_s", "target", "timer")

    def __init__(self, target: NodeId, carrier: NodeId, now: float) -> None:
        self.target = target
        self.carrier = carrier
        self.since_s = now
        self.rtt = RttEstimator()
        self.nonce: int | None = None
        self.sent_at_s = now
        self.missed = 0
        self.timer: Timer | None = None
        self.held: list[Message] | None = []
        """What is said once the first ping is answered; None from then on."""

    def facts(self) -> LinkFacts:
        """As the view shows it."""
        return LinkFacts(PathKind.RELAYED, "", dialled_by_us=True, up_since_s=self.since_s, carrier=self.carrier)


class Relaying:
    """Relayed paths of one node, and carrying for others. `pings` is set by the composition."""

    pings: Pings

    def __init__(self, board: Board) -> None:
        self._board = board
        self.paths: dict[NodeId, RelayedPath] = {}
        self._sent = 0
        self._seen: dict[NodeId, int] = {}
        self._fresh: set[NodeId] = set()
        """Sources that have answered a ping of this process: lower numbers than theirs may be older than it."""
        self._asked: dict[NodeId, tuple[int, float]] = {}
        """Sources that were pinged for that outside a path: (nonce, when)."""

    # --- paths ---

    def likely_carriers(self, target: NodeId, count: int) -> list[NodeId]:
        """Linked peers to ask about `target`: those whose published row names it first, then random ones."""
        board = self._board
        subject = board.store.get(target)
        naming: list[NodeId] = []
        if subject is not None:
            for peer in board.links:
                entry = board.store.get(peer)
                if entry is None or entry.network is None or not entry.is_live:
                    continue
                if any(row.peer == subject.short and not row.relayed for row in entry.network.row):
                    naming.append(peer)
        if len(naming) >= count:
            return board.rng.sample(naming, count)
        return naming + board.some_links(count - len(naming), {*naming, target})

    def carrier_found(self, target: NodeId, carrier: NodeId, now: float) -> None:
        """`carrier` reaches `target`, which we are not linked to."""
        board = self._board
        if target in board.links or board.live_entry(target) is None or carrier not in board.links:
            return
        path = self.paths.get(target)
        if path is not None or len(self.paths) >= MAX_PATHS:
            return
        path = self.paths[target] = RelayedPath(target, carrier, now)
        board.store.changes += 1
        self._ping(path, now, FIRST_PING_AGAIN_S)

    def drop(self, target: NodeId) -> None:
        """An own link came up, or the target is gone."""
        path = self.paths.pop(target, None)
        if path is not None:
            self._board.store.changes += 1
            if path.timer is not None:
                path.timer.cancel()
            if path.held is None and target not in self._board.links:
                self._board.emit(LinkRelayLost(target, path.carrier))

    def restarted(self, target: NodeId, now: float) -> None:
        """Another process of `target` runs, which has heard nothing yet of what comes through its path."""
        path = self.paths.get(target)
        if path is not None and path.held is None:
            path.held = []
            if path.timer is not None:
                path.timer.cancel()
            self._ping(path, now, FIRST_PING_AGAIN_S)

    def carrier_lost(self, carrier: NodeId) -> None:
        """The link to a carrier ended: its paths with it."""
        for target in [path.target for path in self.paths.values() if path.carrier == carrier]:
            self.drop(target)

    def _ping(self, path: RelayedPath, now: float, again_s: float) -> None:
        path.nonce = self._board.nonce()
        path.sent_at_s = now
        if path.carrier in self._board.links:
            self._send_through(path.carrier, path.target, Ping(path.nonce, self._board.incarnation, rtt=True))
        path.timer = self._board.timers.at(now + again_s, self._due, path)

    def _due(self, path: RelayedPath, now: float) -> None:
        path.missed = path.missed + 1 if path.nonce is not None else 0
        if path.missed >= MISSED_TO_GIVE_UP or self._board.live_entry(path.target) is None:
            self.drop(path.target)
            return
        self._ping(path, now, self._board.jittered(self._board.settings.rtt_interval_s))

    # --- sending and receiving ---

    def send(self, target: NodeId, message: Message) -> bool:
        """Sends `message` by the relayed path to `target`; False where there is none."""
        path = self.paths.get(target)
        if path is None or path.carrier not in self._board.links:
            return False
        if path.held is None:
            self._send_through(path.carrier, target, message)
        elif len(path.held) < MAX_HELD:
            path.held.append(message)
        return True

    def _send_through(self, carrier: NodeId, target: NodeId, message: Message) -> None:
        board = self._board
        self._sent += 1
        sequence = min(MAX_COUNTER, board.incarnation * SEQUENCES_PER_INCARNATION + self._sent)
        relay = Relay(board.node, target, sequence, encode_message(message), UNSIGNED)
        board.send(carrier, board.trust.sign_relay(relay))

    def handle(self, via: NodeId, relay: Relay, received_at: float, now: float) -> tuple[NodeId, Message] | None:
        """A relay from the link to `via`: carried on if it is for a neighbour; if it is for us, its source and message.

        Forged, repeated and reordered ones give None; so do messages with which membership is done itself.
        """
        board = self._board
        source, target = NodeId(relay.source), NodeId(relay.target)
        if target != board.node:
            if source == via and target in board.links and target != via:
                board.send(target, relay)
            return None
        if source == board.node or board.live_entry(source) is None:
            return None
        if relay.sequence <= self._seen.get(source, -1):
            return None
        if not board.trust.relay_is_signed(relay):
            board.emit(RecordRejected(source, via, "relay", "signature of the source does not verify"))
            return None
        self._seen[source] = relay.sequence
        return self._open(source, via, relay, received_at, now)

    def _open(
        self, source: NodeId, carrier: NodeId, relay: Relay, received_at: float, now: float
    ) -> tuple[NodeId, Message] | None:
        try:
            message = decode_message(relay.payload)
        except WireError as error:
            self._board.emit(RecordRejected(source, carrier, "relay", str(error)))
            return None
        if message is None or isinstance(message, Relay):
            return None
        self.carrier_found(source, carrier, now)
        if isinstance(message, Ack):
            self._ack(source, message, received_at, now)
            return None
        if source not in self._fresh:
            self._ask(source, carrier, now)
        if isinstance(message, Ping):
            self._send_through(carrier, source, self.pings.ack_for(message, received_at, now))
            return None
        return (source, message) if source in self._fresh else None

    def _ask(self, source: NodeId, carrier: NodeId, now: float) -> None:
        """Have `source` show that what it sends now is no repetition of what it sent before this process started."""
        path = self.paths.get(source)
        _, asked_s = self._asked.get(source, (0, -math.inf))
        if path is not None and path.nonce is not None:
            asked_s = max(asked_s, path.sent_at_s)
        if now - asked_s >= ASK_AGAIN_S:
            nonce = self._board.nonce()
            self._asked[source] = nonce, now
            self._send_through(carrier, source, Ping(nonce, self._board.incarnation))

    def _ack(self, source: NodeId, ack: Ack, received_at: float, now: float) -> None:
        if source in self._asked and self._asked[source][0] == ack.nonce:
            del self._asked[source]
            self._fresh.add(source)
        path = self.paths.get(source)
        if path is None or path.nonce != ack.nonce:
            return
        self._fresh.add(source)
        path.nonce = None
        if path.held is not None:
            self._board.emit(LinkRelayed(source, path.carrier))
        held, path.held = path.held, None
        for message in held or ():
            self._send_through(path.carrier, source, message)
        if not self.pings.lagged(ack, received_at):
            path.rtt.add(received_at - path.sent_at_s - ack.hold_us / 1e6, now, self._board.settings)
            self._board.store.changes += 1
