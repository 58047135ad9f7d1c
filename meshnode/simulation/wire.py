"""Simulated links: what the QUIC transport gives membership, in virtual time.

A link is one object with two ends. Datagrams are lost or arrive; control messages arrive in order, each loss costing a
retransmission time-out that doubles (RFC 9002: 2 RTT plus 30 ms to begin with, at most 4 s here). An end that hears
nothing for the idle time-out is told so. A dial takes four flights; what becomes of a second link to the same peer is
decided as in `meshnode.transport.link_table`, in short: a link that lives at both ends stays.

What lives here: `Wire`, `SimulatedLink`. What does not: nodes (`world`), delay and loss (`paths`).
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from meshnode.membership.view import LinkFacts, PathKind
from meshnode.simulation.clockwork import Clockwork
from meshnode.simulation.paths import Paths
from proto.ids import NodeId
from proto.messages import Message, RefusalCode

IDLE_TIMEOUT_S = 30.0
"""As `meshnode.transport.settings` has it."""
DIAL_DEADLINE_S = 5.0
FIRST_KNOCK_AGAIN_S = 0.2
"""QUIC repeats its first packet after 2 x 100 ms initial RTT (aioquic), then doubles."""
HANDSHAKE_FLIGHTS = 4
HANDSHAKE_WORK_S = 0.004
"""Processor time of one handshake, both ends (aioquic 1.7.2: 3.8 ms on a machine with two shared cores)."""
RETRANSMIT_MIN_S = 0.03
RETRANSMIT_MAX_S = 4.0


class Station(Protocol):
    """What the wire needs of a node."""

    node: NodeId
    is_running: bool
    accepts_dials: bool
    blocked_until_s: float
    addresses: tuple[str, ...]
    links: dict[NodeId, SimulatedLink]

    def link_up(self, peer: NodeId, facts: LinkFacts, floor: int) -> None: ...

    def link_down(self, peer: NodeId, code: str, reason: str) -> None: ...

    def dial_failed(self, peer: NodeId, reason: str) -> None: ...

    def message(self, peer: NodeId, message: Message) -> None: ...

    def datagram(self, peer: NodeId, message: Message) -> None: ...

    def path_trouble(self, peer: NodeId) -> None: ...

    def floor_of(self, node: NodeId) -> int: ...


class Direction:
    """One direction of a link's control stream: what waits behind a loss, and when the last message arrives."""

    __slots__ = ("arrives_s", "retransmit_s", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Message] = deque()
        self.arrives_s = 0.0
        self.retransmit_s = 0.0


class SimulatedLink:
    """One link between two stations; each end knows it as long as `links` of that station names it."""

    __slots__ = ("base_s", "directions", "heard_s")

    def __init__(self, a: NodeId, b: NodeId, base_s: float, now_s: float) -> None:
        self.base_s = base_s
        self.directions = {a: Direction(), b: Direction()}
        """By sender."""
        self.heard_s = {a: now_s, b: now_s}
        """When each end last heard the other."""

    def ends(self) -> tuple[tuple[NodeId, NodeId], tuple[NodeId, NodeId]]:
        """Each end with its peer."""
        a, b = self.heard_s
        return (a, b), (b, a)


class Wire:
    """All links of one simulated mesh."""

    def __init__(self, clock: Clockwork, paths: Paths, stations: dict[NodeId, Station], icmp: bool = False) -> None:
        self._clock = clock
        self._paths = paths
        self._stations = stations
        self._icmp = icmp
        """True where a host answers for a process that is gone, as on loopback."""

    # --- sending ---

    def datagram(self, source: Station, target: NodeId, message: Message) -> None:
        """Best effort, at once."""
        link, paths = source.links.get(target), self._paths
        if link is None or (paths.may_swallow and self._is_swallowed(source.node, target)):
            return
        due_s = self._clock.now_s + paths.delay_s(source.node, target, link.base_s)
        self._clock.at(due_s, self._datagram_arrives, link, source.node, target, message)

    def _datagram_arrives(self, link: SimulatedLink, source: NodeId, target: NodeId, message: Message) -> None:
        station = self._stations[target]
        if not station.is_running:
            self._refused(link, source, target)
        elif station.links.get(source) is link:
            link.heard_s[target] = self._clock.now_s
            station.datagram(source, message)

    def control(self, source: Station, target: NodeId, message: Message) -> None:
        """Reliable and in order."""
        link = source.links.get(target)
        if link is None:
            return
        direction = link.directions[source.node]
        if direction.waiting:
            direction.waiting.append(message)
        elif self._paths.may_swallow and self._is_swallowed(source.node, target):
            direction.waiting.append(message)
            direction.retransmit_s = RETRANSMIT_MIN_S + 4 * link.base_s
            self._clock.at(self._clock.now_s + direction.retransmit_s, self._retransmit, link, source.node, target)
        else:
            self._control_departs(link, direction, source.node, target, message)

    def _control_departs(
        self, link: SimulatedLink, direction: Direction, source: NodeId, target: NodeId, message: Message
    ) -> None:
        due_s = self._clock.now_s + self._paths.delay_s(source, target, link.base_s)
        if due_s > direction.arrives_s:
            direction.arrives_s = due_s
        self._clock.at(direction.arrives_s, self._control_arrives, link, source, target, message)

    def _control_arrives(self, link: SimulatedLink, source: NodeId, target: NodeId, message: Message) -> None:
        station = self._stations[target]
        if not station.is_running:
            self._refused(link, source, target)
        elif station.links.get(source) is link:
            link.heard_s[target] = self._clock.now_s
            station.message(source, message)

    def _retransmit(self, link: SimulatedLink, source: NodeId, target: NodeId) -> None:
        direction = link.directions[source]
        if self._stations[source].links.get(target) is not link:
            direction.waiting.clear()
            return
        if self._is_swallowed(source, target):
            direction.retransmit_s = min(RETRANSMIT_MAX_S, 2 * direction.retransmit_s)
            self._clock.at(self._clock.now_s + direction.retransmit_s, self._retransmit, link, source, target)
            return
        waiting, direction.waiting = direction.waiting, deque()
        for message in waiting:
            self._control_departs(link, direction, source, target, message)

    def _is_swallowed(self, source: NodeId, target: NodeId) -> bool:
        return self._paths.is_lost() or self._paths.is_cut(source, target)

    def _refused(self, link: SimulatedLink, source: NodeId, target: NodeId) -> None:
        """The process is gone; its host may say so."""
        if self._icmp and not self._paths.is_cut(target, source):
            self._clock.at(self._clock.now_s + link.base_s, self._trouble, link, source, target)

    def _trouble(self, link: SimulatedLink, source: NodeId, target: NodeId) -> None:
        station = self._stations[source]
        if station.is_running and station.links.get(target) is link:
            station.path_trouble(target)

    # --- dialling ---

    def dial(self, source: Station, target: NodeId, addresses: tuple[str, ...]) -> None:
        """Four flights and the work of a handshake, or a failure after the deadline."""
        self._knock(source, target, addresses, self._clock.now_s, FIRST_KNOCK_AGAIN_S)

    def _knock(
        self, source: Station, target: NodeId, addresses: tuple[str, ...], began_s: float, again_s: float
    ) -> None:
        """One first packet of a handshake; sent again, with doubling waits, as long as nobody answers."""
        now_s = self._clock.now_s
        station = self._stations.get(target)
        answers = (
            station is not None
            and station.accepts_dials
            and bool(set(addresses) & set(station.addresses))
            and not self._is_cut_any(source.node, target)
        )
        if station is not None and answers:
            base_s = self._paths.one_way_s(source.node, target)
            if station.is_running:
                due_s = now_s + HANDSHAKE_WORK_S + self._flights_s(source.node, target, base_s)
                self._clock.at(due_s, self._dial_ends, source, target, base_s, began_s)
                return
            if self._icmp:
                self._clock.at(now_s + 2 * base_s, self._dial_fails, source, target, "unreachable")
                return
        if now_s + again_s < began_s + DIAL_DEADLINE_S:
            self._clock.at(now_s + again_s, self._knock, source, target, addresses, began_s, 2 * again_s)
        else:
            self._clock.at(began_s + DIAL_DEADLINE_S, self._dial_fails, source, target, "unreachable")

    def _flights_s(self, source: NodeId, target: NodeId, base_s: float) -> float:
        total_s = 0.0
        for _ in range(HANDSHAKE_FLIGHTS):
            wait_s = RETRANSMIT_MIN_S + 4 * base_s
            while self._paths.is_lost():
                total_s += wait_s
                wait_s *= 2
            total_s += self._paths.delay_s(source, target, base_s)
        return total_s

    def _is_cut_any(self, a: NodeId, b: NodeId) -> bool:
        return self._paths.is_cut(a, b) or self._paths.is_cut(b, a)

    def _dial_fails(self, source: Station, target: NodeId, reason: str) -> None:
        if source.is_running:
            source.dial_failed(target, reason)

    def _dial_ends(self, source: Station, target: NodeId, base_s: float, began_s: float) -> None:
        acceptor = self._stations[target]
        if not source.is_running:
            return
        took_too_long = self._clock.now_s - began_s > DIAL_DEADLINE_S
        busy_until_s = max(source.blocked_until_s, acceptor.blocked_until_s)
        if busy_until_s > self._clock.now_s and acceptor.is_running and not took_too_long:
            due_s = min(busy_until_s, began_s + DIAL_DEADLINE_S) + 1e-6
            self._clock.at(due_s, self._dial_ends, source, target, base_s, began_s)
            return
        if took_too_long or not acceptor.is_running or self._is_cut_any(source.node, target):
            source.dial_failed(target, "unreachable")
            return
        old = source.links.get(target)
        if old is not None and acceptor.links.get(source.node) is old:
            source.dial_failed(target, RefusalCode.DUPLICATE_LINK)
            return
        now_s = self._clock.now_s
        link = SimulatedLink(source.node, target, base_s, now_s)
        floors = (acceptor.floor_of(source.node), source.floor_of(target))
        acceptor.links[source.node] = source.links[target] = link
        dialled = LinkFacts(PathKind.DIRECT, acceptor.addresses[0], dialled_by_us=True, up_since_s=now_s)
        accepted = LinkFacts(PathKind.DIRECT, source.addresses[0], dialled_by_us=False, up_since_s=now_s)
        self._watch(link)
        acceptor.link_up(source.node, accepted, floors[1])
        source.link_up(target, dialled, floors[0])

    # --- ends ---

    def close(self, source: Station, target: NodeId, code: RefusalCode, text: str) -> None:
        """Ends the link at once here, and at the peer when it hears of it."""
        link = source.links.pop(target, None)
        if link is None:
            return
        source.link_down(target, code, text)
        if not self._is_swallowed(source.node, target):
            self._clock.at(self._clock.now_s + link.base_s, self._closed_by_peer, link, source.node, target, code, text)

    def _closed_by_peer(self, link: SimulatedLink, source: NodeId, target: NodeId, code: str, text: str) -> None:
        station = self._stations[target]
        if station.is_running and station.links.get(source) is link:
            del station.links[source]
            station.link_down(source, code, text)

    def _watch(self, link: SimulatedLink) -> None:
        """Looks at the link again when the first of the ends that still know it may have heard nothing for too long."""
        heard_s = [link.heard_s[end] for end, peer in link.ends() if self._knows(end, peer, link)]
        if heard_s:
            self._clock.at(min(heard_s) + IDLE_TIMEOUT_S, self._idle, link)

    def _idle(self, link: SimulatedLink) -> None:
        for end, peer in link.ends():
            # The same sum as `_watch` schedules by: a difference may round below the time-out, for ever.
            if self._clock.now_s >= link.heard_s[end] + IDLE_TIMEOUT_S and self._knows(end, peer, link):
                del self._stations[end].links[peer]
                self._stations[end].link_down(peer, "idle_timeout", "nothing heard")
        self._watch(link)

    def _knows(self, end: NodeId, peer: NodeId, link: SimulatedLink) -> bool:
        station = self._stations[end]
        return station.is_running and station.links.get(peer) is link
