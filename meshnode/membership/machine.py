"""Membership of one node, whole: every input the outside has, every effect it must carry out.

Theory of operation. The machine is sans-IO: time and randomness are arguments, inputs return effects (`effects`), and
`next_wakeup()` says when `poll` is due. One idea per file beside this one; this file only hands inputs to them:

    link_up, link_down, dial_failed  ->  topology, gossip, pings, detector
    Ping, Ack, PingRequest           ->  pings, detector -> judge (who is alive)
    ViewHash, Digest, Delta          ->  gossip; parts -> acceptance; claims -> judge
    Relay                            ->  relaying
    publish_offer, set_addresses     ->  publisher (the local node's own record)
    view                             ->  picture

What lives here: `Membership`. Called by the daemon's mesh driver and by the simulator, which run the same class."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from meshnode.membership.acceptance import Acceptance
from meshnode.membership.awareness import Awareness
from meshnode.membership.board import Board
from meshnode.membership.coordinates import LocalCoordinate
from meshnode.membership.detector import Detector
from meshnode.membership.effects import CloseLink, Deliver, Effect, Send
from meshnode.membership.gossip import Gossip
from meshnode.membership.judge import Judge
from meshnode.membership.links import FAREWELL, SILENCE, SURPLUS, Link
from meshnode.membership.local import LocalNode, OfferDraft
from meshnode.membership.picture import Picture
from meshnode.membership.pings import Pings
from meshnode.membership.publisher import Publisher
from meshnode.membership.records import NOTHING, NodeEntry
from meshnode.membership.relaying import Relaying
from meshnode.membership.settings import MembershipSettings
from meshnode.membership.stalls import Stalls
from meshnode.membership.topology import Topology
from meshnode.membership.trust import Trust
from meshnode.membership.view import LinkFacts, MeshView, Status
from proto.ids import NodeId
from proto.messages import (
    Ack,
    Delta,
    Digest,
    IndirectAck,
    Message,
    Ping,
    PingRequest,
    RefusalCode,
    Relay,
    Row,
    RowRequest,
    ViewHash,
)
from proto.parts import PartKind

EXPIRE_INTERVAL_S = 60.0


class Membership:
    """One node's membership. Every input takes `now` (monotonic seconds, never going back) and returns effects in
    order."""

    def __init__(
        self, local: LocalNode, settings: MembershipSettings, trust: Trust, rng: random.Random, now: float
    ) -> None:
        board = self._board = Board(local, settings, trust, rng)
        self.awareness = Awareness(settings.awareness_max)
        coordinate = LocalCoordinate(rng)
        self._judge = Judge(board, self.awareness)
        self._detector = Detector(board, self.awareness)
        self._gossip = Gossip(board)
        self._pings = Pings(board, coordinate)
        self._topology = Topology(board)
        self._relaying = Relaying(board)
        self._publisher = Publisher(board, self.awareness, coordinate, now)
        self._picture = Picture(board, self._topology, self._relaying)
        self._acceptance = Acceptance(
            board, self._publisher, self._gossip, self._judge, self._topology, self._relaying
        )  # fmt: skip
        self._stalls = Stalls(board, self.awareness, self._detector, self._judge)
        self._wire_parts()
        self._handlers: dict[type[Message], Callable[[NodeId, Any, float, float], None]] = {
            ViewHash: lambda peer, message, _, now: self._gossip.handle_view_hash(peer, message, now),
            Digest: lambda peer, message, _, now: self._gossip.handle_digest(peer, message, now),
            Delta: self._on_delta,
            Ping: lambda peer, message, at, now: self._pings.handle_ping(peer, message, at, now, reliable=True),
            Ack: self._pings.handle_ack,
            PingRequest: lambda peer, message, _, now: self._detector.handle_request(peer, message, now),
            IndirectAck: lambda peer, message, _, now: self._detector.handle_indirect(peer, message, now),
            Relay: self._on_relay,
            RowRequest: self._on_row_request,
            Row: self._on_row,
        }
        self._detector.start(now)
        self._gossip.start(now)
        self._topology.start(now)
        board.timers.at(now + EXPIRE_INTERVAL_S, self._expire)
        board.take_effects()

    def _wire_parts(self) -> None:
        self._judge.gossip, self._judge.detector, self._judge.topology = self._gossip, self._detector, self._topology
        self._detector.judge, self._detector.pings = self._judge, self._pings
        self._detector.relaying, self._detector.topology = self._relaying, self._topology
        self._pings.detector, self._pings.judge, self._pings.publisher = self._detector, self._judge, self._publisher
        self._topology.detector = self._detector
        self._relaying.pings = self._pings
        self._publisher.gossip = self._gossip

    # --- what is known ---

    @property
    def incarnation(self) -> int:
        """The local node's own incarnation."""
        return self._board.incarnation

    @property
    def settings(self) -> MembershipSettings:
        return self._board.settings

    def view(self, now: float) -> MeshView:
        """The mesh as this node sees it; cached until something changes, and at most a second old."""
        return self._picture.view(now)

    def view_hash(self) -> int:
        """64 bits over everything live that this node holds: equal on nodes that know the same."""
        return self._board.store.view_hash()

    def status_of(self, node: NodeId) -> Status | None:
        """How `node` stands; None where it is not known."""
        entry = self._board.store.get(node)
        return None if entry is None else entry.status

    @property
    def live_count(self) -> int:
        """How many nodes are held alive or suspect, the local one included."""
        return self._board.store.live_count

    def alive(self) -> set[NodeId]:
        """Every node held alive, the local one included."""
        return {node for node, entry in self._board.store.entries.items() if entry.status is Status.ALIVE}

    def described(self) -> set[NodeId]:
        """Every node of which all three parts are held."""
        entries = self._board.store.entries.items()
        return {node for node, entry in entries if entry.identity and entry.offer and entry.network}

    def holds(self, node: NodeId, kind: PartKind) -> tuple[int, int] | None:
        """(incarnation, version) of the part held of `node`; None where none was received."""
        entry = self._board.store.get(node)
        order = None if entry is None else entry.order_of(kind)
        return order if order != NOTHING else None

    def held(self) -> Iterable[NodeEntry]:
        """Every entry as it is now, for whoever checks the machine from outside; nobody may change one."""
        return self._board.store.entries.values()

    def floor_of(self, node: NodeId) -> int:
        """The incarnation that `node` must exceed to come back here; told to it when a link is made."""
        return self._board.store.floor_of(node)

    def addresses_of(self, node: NodeId) -> tuple[str, ...]:
        """Every address known of `node`, best first: what the known-peers file should keep."""
        return self._topology.addresses_of(node)

    @property
    def changes(self) -> int:
        """Grows with every change that a new view would show, ages apart."""
        return self._board.store.changes

    def next_wakeup(self) -> float:
        """When `poll` is due; infinity never occurs, since the periods go on."""
        return self._board.timers.next_due_s()

    def no_wakeup_before(self) -> float:
        """A moment before which no `poll` is due, without the search: less than `next_wakeup()` where a timer was
        cancelled."""
        return self._board.timers.not_before_s

    # --- time ---

    def begin(self, now: float) -> list[Effect]:
        """The driver polls from now on. What came due before is run; it was no stall that it was not."""
        self._board.timers.run_due(now)
        return self._board.take_effects()

    def poll(self, now: float) -> list[Effect]:
        """Runs everything due. A poll that comes late says that this process did not run."""
        timers = self._board.timers
        if now > timers.not_before_s:
            self._stalls.polled_late(now - timers.next_due_s(), now)
        timers.run_due(now)
        return self._board.take_effects()

    def ping_left(self, nonce: int, at_s: float | None) -> None:
        """The ping's packet was handed to the kernel at `at_s`, which is what is timed; None where it waits for room on
        the path, which would be taken for the path's length: it is timed no more. A driver that sends at the moment of
        the input (the simulator) need not say so."""
        self._pings.left(nonce, at_s)

    def stalled(self, duration_s: float, now: float) -> list[Effect]:
        """This process did not run for `duration_s` (a blocked loop, a suspend): nobody is accused for a while.
        A late `poll` finds out by itself; this is for a driver that knows first."""
        self._stalls.stalled(duration_s, now)
        return self._board.take_effects()

    def _expire(self, _: None, now: float) -> None:
        self._board.timers.lazily_at(now + EXPIRE_INTERVAL_S, self._expire)
        self._board.store.expire(now)

    # --- links ---

    def link_up(self, peer: NodeId, facts: LinkFacts, floor: int, now: float) -> list[Effect]:
        """An authenticated link stands. `floor` is the incarnation that the peer holds against us: we go above it.
        Again for a peer that has one already: the new link took the old one's place."""
        board = self._board
        if (replaced := board.links.get(peer)) is not None:
            replaced.stop_timing()
        link = Link(peer, facts, now)
        board.links[peer] = link
        board.store.changes += 1
        self._relaying.drop(peer)
        if floor >= board.incarnation:
            self._publisher.rise_above(floor, now)
        self._gossip.link_up(peer, facts.dialled_by_us, now)
        self._topology.linked(peer, now)
        self._detector.linked(peer)
        self._heard(peer, now, now)
        self._pings.linked(link, now)
        return board.take_effects()

    def link_down(self, peer: NodeId, code: str, reason: str, now: float) -> list[Effect]:
        """The link ended: `code` is a `RefusalCode` value or the transport's `idle_timeout` or `connection_lost`."""
        board = self._board
        link = board.links.pop(peer, None)
        if link is None:
            return board.take_effects()
        board.store.changes += 1
        link.stop_timing()
        self._detector.unlinked(peer)
        self._relaying.carrier_lost(peer)
        self._publisher.link_ended(link, now)
        surplus = code in SURPLUS
        if code not in FAREWELL:
            self._topology.unlinked(peer, surplus, now)
            if code in SILENCE and board.live_entry(peer) is not None:
                self._detector.end_burst(peer)
                self._detector.burst(peer, now)
        return board.take_effects()

    def dial_failed(self, peer: NodeId, reason: str, now: float) -> list[Effect]:
        """No address of `peer` answered, or it refused."""
        self._topology.dial_failed(peer, reason, now)
        return self._board.take_effects()

    def migrated(self, peer: NodeId, address: str, now: float) -> list[Effect]:
        """The peer's address changed under a living link: what was measured belongs to the old path."""
        link = self._board.links.get(peer)
        if link is not None:
            link.facts = replace(link.facts, address=address)
            link.rtt.reset()
            link.reported_rtt_ms = None
            self._board.store.changes += 1
            self._pings.datagram(peer, now, rtt=True)
        return self._board.take_effects()

    def path_trouble(self, peer: NodeId, reason: str, now: float) -> list[Effect]:
        """A sign that `peer` may be gone (an ICMP refusal, QUIC's own probes unanswered): a burst, no verdict."""
        if peer in self._board.links and self._board.live_entry(peer) is not None:
            self._detector.burst(peer, now)
        return self._board.take_effects()

    # --- messages ---

    def receive(self, peer: NodeId, message: Message, received_at: float, now: float) -> list[Effect]:
        """A control message from a linked peer; types that are not membership's own are ignored."""
        if peer in self._board.links:
            self._heard(peer, received_at, now)
            handler = self._handlers.get(type(message))
            if handler is not None:
                handler(peer, message, received_at, now)
        return self._board.take_effects()

    def receive_datagram(self, peer: NodeId, message: Message, received_at: float, now: float) -> list[Effect]:
        """A probe message from a linked peer, with the time its datagram reached this machine."""
        link = self._board.links.get(peer)
        if link is not None:
            link.probed_at_s = received_at
            self._heard(peer, received_at, now)
            if type(message) is Ping:
                self._pings.handle_ping(peer, message, received_at, now, reliable=False)
            elif type(message) is Ack:
                self._pings.handle_ack(peer, message, received_at, now)
            elif type(message) is PingRequest:
                self._detector.handle_request(peer, message, now)
            elif type(message) is IndirectAck:
                self._detector.handle_indirect(peer, message, now)
        return self._board.take_effects()

    def _heard(self, peer: NodeId, received_at: float, now: float) -> None:
        """An authenticated packet came from `peer`: whatever it says, it lives."""
        entry = self._board.store.entries.get(peer)
        if entry is not None:
            entry.heard_at_s = received_at
            if peer in self._judge.cases or entry.status is Status.DEAD:
                self._judge.heard(entry, received_at, now)
        self._detector.heard(peer, received_at, now)

    def _on_delta(self, peer: NodeId, delta: Delta, _: float, now: float) -> None:
        for signed in delta.parts:
            self._acceptance.take(signed, peer, now)
        for claim in delta.claims:
            if claim.subject != self._board.node:
                self._judge.hear_claim(claim, peer, now)
            else:
                self._publisher.hear_claim(claim, peer, now)

    def _on_relay(self, peer: NodeId, relay: Relay, received_at: float, now: float) -> None:
        opened = self._relaying.handle(peer, relay, received_at, now)
        if opened is not None:
            self._board.effects.append(Deliver(*opened))

    def _on_row_request(self, peer: NodeId, request: RowRequest, _: float, now: float) -> None:
        self._board.send(peer, Row(request.nonce, self._publisher.row(now)), coalesce="row")

    def _on_row(self, peer: NodeId, row: Row, _: float, now: float) -> None:
        self._picture.asked_rows[peer] = (now, {entry.peer: entry for entry in row.entries})
        self._board.store.changes += 1

    # --- the local node's word ---

    def publish_offer(self, draft: OfferDraft, now: float) -> list[Effect]:
        """What the node offers now; said when it differs by more than 5 %, at most once a second."""
        self._publisher.publish_offer(draft, now)
        return self._board.take_effects()

    def set_addresses(self, addresses: tuple[str, ...], now: float) -> list[Effect]:
        """Where the local node answers now, best first."""
        self._publisher.set_addresses(addresses, now)
        return self._board.take_effects()

    def describe(self, local: LocalNode, now: float) -> list[Effect]:
        """The local node's description changed (features, engine, chain); node, mesh and boot id stay as they are."""
        self._publisher.describe(local, now)
        return self._board.take_effects()

    def known_peers(self, peers: Mapping[NodeId, tuple[str, ...]], now: float) -> list[Effect]:
        """Peers from outside gossip: the known-peers file, a static list, an invite's members. They are dialled."""
        self._topology.know(peers, now)
        return self._board.take_effects()

    def leave(self, now: float) -> list[Effect]:
        """Says goodbye to everybody; the outside closes the links once it is sent."""
        self._publisher.leave(now)
        return self._board.take_effects()

    # --- what others ask of membership ---

    def measure(self, peers: Iterable[NodeId], now: float) -> list[Effect]:
        """Samples the RTT to `peers` at once and again 5.2 s later; dials those without a link, asks for their rows."""
        board = self._board
        for peer in peers:
            if peer in board.links:
                self._pings.measure(peer, now)
            elif peer != board.node and board.live_entry(peer) is not None:
                self._topology.dial_now(peer, now)
        return board.take_effects()

    def called(self, peer: NodeId, address: str, now: float) -> list[Effect]:
        """A member without a link called from `address` on the local network."""
        if peer not in self._board.links:
            self._topology.called(peer, address, now)
        return self._board.take_effects()

    def send(self, peer: NodeId, message: Message, now: float) -> list[Effect]:
        """Sends another room's control message by the best path: the link, else a relayed path, else nothing."""
        if peer in self._board.links:
            self._board.effects.append(Send(peer, message))
        else:
            self._relaying.send(peer, message)
        return self._board.take_effects()

    def revoked(self, nodes: Iterable[NodeId], now: float) -> list[Effect]:
        """These nodes are members no more: their records, links and paths go; `Trust` refuses them from now on."""
        board = self._board
        for node in nodes:
            if node == board.node:
                continue
            self._judge.forget(node)
            self._detector.end_burst(node)
            self._topology.forget(node)
            self._relaying.drop(node)
            self._relaying.carrier_lost(node)
            self._picture.asked_rows.pop(node, None)
            self._acceptance.forget(node)
            board.store.remove(node)
            if node in board.links:
                board.effects.append(CloseLink(node, RefusalCode.REMOVED, "this node was removed from the mesh"))
        return board.take_effects()
