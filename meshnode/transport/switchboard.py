"""The transport's hands: sockets, connection ids, timers. It moves packets and decides nothing about peers.

What lives here: `Switchboard`: reading the sockets, finding the link a packet belongs to, flushing links, waking them
in time, and burying them. What does not: who may be linked (`reception`), what a stranger gets (`intake`). Owned by the
reception; every method runs in the event loop's thread.

- One wake-up reads at most `DATAGRAMS_PER_WAKE` datagrams per socket, so that timers and other work get their turn.
- Strangers' packets wait until those of links are seen to, and are looked at for a little while at a time: a handshake
  costs milliseconds, which a flood would else take from everybody in one piece.
- A link has one timer, for the earliest of QUIC's and its own deadlines. It is set anew only when it must fire earlier;
  firing too early costs less than moving it with every packet.
- A link that was closed is freed at once. Its close packet is kept for a second and sent again if the peer goes on
  talking (RFC 9000, section 10.2.1), since it may have been lost.
"""

from __future__ import annotations

import asyncio
import errno
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from socket import AddressFamily
from typing import Protocol

from meshnode.transport.addresses import SocketName, family_of, format_address
from meshnode.transport.boundary import LocalIdentity
from meshnode.transport.call import is_call
from meshnode.transport.channel import Channel
from meshnode.transport.counters import Counters
from meshnode.transport.dialler import Target
from meshnode.transport.intake import Accepted, Intake, Reply, destination_cid
from meshnode.transport.link import Link, LinkOwner, Stage
from meshnode.transport.quic import MeshQuicConnection, accepting_configuration, dialling_configuration
from meshnode.transport.settings import TransportSettings
from meshnode.transport.trial import TrialWatch
from meshnode.transport.udp import PathError, Received, UdpSocket, bind_listeners

DATAGRAMS_PER_WAKE = 64
STRANGERS_S = 0.002
"""Time for packets of no link, at least for one, before the loop sees to other things."""
STRANGERS_WAITING = 256
"""More of them are dropped; QUIC sends its first packet again."""
MIN_TIMER_S = 0.001
CLOSE_REPLIES = 3
"""How often a close packet is sent again."""
CLOSE_MEMORY_S = 1.0
CLOSE_MEMORY = 512


class SwitchboardOwner(LinkOwner, Protocol):
    """What the switchboard tells its owner besides what links do."""

    def accepted(self, link: Link, *, validated: bool) -> None:
        """A stranger's connection was made; its first packet comes next."""

    def overdue(self, link: Link) -> None:
        """The link's `deadline_s` has passed."""

    def migrated(self, link: Link, old: SocketName) -> None:
        """The peer of an inbound link sends from another address, which is proved by now or being validated."""

    def moved_hint(self, link: Link, source: SocketName) -> None:
        """A packet for a dialled link came from an address it was not dialled at; QUIC drops such packets."""

    def path_error(self, link: Link, reason: str) -> None:
        """A sign that packets of this link do not arrive."""

    def called(self, data: bytes, source: SocketName) -> None:
        """Somebody calls on the local network."""

    def shed(self, half_open: int, dropped: int, *, retry_on: bool) -> None:
        """What the intake does about strangers, after each of their packets: half-open links now, attempts given up
        since the start, and whether addresses are being validated."""

    def ended(self, link: Link) -> None:
        """The link is over and forgotten."""


@dataclass(slots=True)
class _Closed:
    """What is left of a link: its last packet, for as long as the peer may not know."""

    data: bytes
    until_s: float
    replies_left: int = CLOSE_REPLIES


class Switchboard:
    """See the module's text."""

    def __init__(
        self,
        owner: SwitchboardOwner,
        identity: LocalIdentity,
        settings: TransportSettings,
        clock: Callable[[], float],
    ) -> None:
        self._owner = owner
        self._settings = settings
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._sockets: list[UdpSocket] = []
        self._links: dict[int, Link] = {}
        self._by_cid: dict[bytes, Link] = {}
        self._closed: OrderedDict[bytes, _Closed] = OrderedDict()
        self._touched: dict[int, Link] = {}
        self._flush_due = False
        self._strangers: deque[tuple[UdpSocket, Received]] = deque()
        self._strangers_due = False
        self._dialling = dialling_configuration(settings)
        self._intake = Intake(accepting_configuration(settings, identity), settings, clock())
        self.counters = Counters()
        self.trials = TrialWatch()
        self.is_accepting = True

    @property
    def guard_size(self) -> int:
        """Half-open inbound links."""
        return len(self._intake.guard)

    def links(self) -> tuple[Link, ...]:
        """Every link that has not ended."""
        return tuple(self._links.values())

    def link(self, number: int) -> Link | None:
        """The link of this number, while it lives."""
        return self._links.get(number)

    # --- opening and closing ----------------------------------------------------------------------------------------

    def bind(self, listen: tuple[SocketName, ...]) -> tuple[str, ...]:
        """Bind all sockets and start reading; the addresses as bound. Raises `ListenFailed`."""
        self._sockets = bind_listeners(listen, self._clock)
        for one in self._sockets:
            self._loop.add_reader(one.fileno(), self._readable, one)
        return tuple(format_address(one.name) for one in self._sockets)

    def shut(self) -> None:
        """Stop reading and free everything. Links that still live end without a word."""
        for one in self._sockets:
            self._loop.remove_reader(one.fileno())
            one.close()
        self._sockets = []
        self._strangers.clear()
        for link in self._links.values():
            link.channel.streams.end()
            if link.timer is not None:
                link.timer.cancel()
        self._links.clear()
        self._by_cid.clear()

    def open(self, target: Target, now_s: float) -> Link | None:
        """Start a connection to `target`; None where no socket here has its address family."""
        socket = next((one for one in self._sockets if one.family == family_of(target.address)), None)
        if socket is None:
            return None
        connection = MeshQuicConnection(self._dialling)
        connection.connect(target.address, now_s)
        link = self._adopt(connection, socket, target, now_s)
        self.counters.links_dialled += 1
        self.touch(link)
        return link

    def settled(self, link: Link) -> None:
        """An inbound link's peer is authenticated: it is half-open no more."""
        self._intake.guard.settled(link.number)

    def call(self, data: bytes, targets: Sequence[tuple[str, int]]) -> int:
        """Send a call to these IPv4 addresses, from sockets whose owner would hear one itself; how many were sent."""
        callers = [one for one in self._sockets if one.is_wildcard and one.family is AddressFamily.AF_INET]
        return sum(one.send(data, target, None) is None for one in callers for target in targets)

    # --- sending ----------------------------------------------------------------------------------------------------

    def touch(self, link: Link) -> None:
        """The link has something to send; it goes out at the end of this pass of the loop."""
        self._touched[link.number] = link
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush_touched)

    def flush(self, link: Link) -> float | None:
        """Send what the link has now, bury it if it has ended, else see to its timer. Returns when the first packet
        went, which carries the datagrams; None where there was nothing to send."""
        self._touched.pop(link.number, None)
        if link.number not in self._links:
            return None
        now_s = self._clock()
        last: bytes | None = None
        sent_at_s: float | None = None
        for packet in link.channel.flush(now_s):
            last = packet.data
            if sent_at_s is None:
                sent_at_s = self._clock()
            self._send(link, packet.data, packet.to)
        if link.ended is not None:
            self._bury(link, last, now_s)
        else:
            self._arm(link, now_s)
        return sent_at_s

    def _flush_touched(self) -> None:
        self._flush_due = False
        touched, self._touched = self._touched, {}
        for link in touched.values():
            self.flush(link)

    def _send(self, link: Link, data: bytes, to: SocketName) -> None:
        self.counters.udp_packets_sent += 1
        self.counters.udp_bytes_sent += len(data)
        failure = link.socket.send(data, to, link.local if to == link.address else None)
        if failure is not None:
            self._owner.path_error(link, errno.errorcode.get(failure.errno or 0, "send failed").lower())

    # --- receiving --------------------------------------------------------------------------------------------------

    def _readable(self, socket: UdpSocket) -> None:
        received = socket.receive(DATAGRAMS_PER_WAKE)
        for packet in received:
            self.counters.udp_packets_received += 1
            self.counters.udp_bytes_received += len(packet.data)
            if not self._is_strangers(packet.data):
                self._route_safely(socket, packet)
            elif len(self._strangers) < STRANGERS_WAITING:
                self._strangers.append((socket, packet))
        if not received:
            for error in socket.path_errors():
                self._note_path_error(error)
        if self._strangers and not self._strangers_due:
            self._look_at_strangers()
        self._flush_touched()

    def _look_at_strangers(self) -> None:
        """The longest waiting ones; more of them at the loop's next pass, after everything else that is due by then."""
        until_s = self._clock() + STRANGERS_S
        while self._strangers:
            self._route_safely(*self._strangers.popleft())
            if self._clock() >= until_s:
                break
        self._strangers_due = bool(self._strangers)
        if self._strangers_due:
            self._loop.call_soon(self._look_at_strangers)
        self._flush_touched()

    def _is_strangers(self, data: bytes) -> bool:
        """Whether a packet is of an inbound connection whose peer is not authenticated."""
        cid = destination_cid(data)
        if cid is None:
            return False
        link = self._by_cid.get(cid)
        if link is None:
            return bool(data[0] & 0x80) and cid not in self._closed
        return not link.dialled_by_us and link.stage <= Stage.GREETING

    def _route_safely(self, socket: UdpSocket, packet: Received) -> None:
        try:
            self._route(socket, packet)
        except Exception as error:  # noqa: BLE001  a fault met on one peer's packet must not cost the others theirs
            where = f"while handling a packet from {format_address(packet.source)}"
            self._loop.call_exception_handler({"message": f"transport: {where}", "exception": error})

    def _route(self, socket: UdpSocket, packet: Received) -> None:
        cid = destination_cid(packet.data)
        if cid is None or self.trials.take(packet.data):
            return
        if is_call(packet.data):
            self._owner.called(packet.data, packet.source)
            return
        link = self._by_cid.get(cid)
        if link is not None:
            self._deliver(link, socket, packet)
        elif (closed := self._closed.get(cid)) is not None:
            self._say_closed(closed, socket, packet)
        elif packet.data[0] & 0x80 and self.is_accepting:
            self._take_in(socket, packet)

    def _deliver(self, link: Link, socket: UdpSocket, packet: Received) -> None:
        now_s = self._clock()
        if link.dialled_by_us and packet.source != link.address:
            if not packet.data[0] & 0x80:
                self._owner.moved_hint(link, packet.source)
            return
        link.channel.receive(packet.data, packet.source, packet.at_s, now_s)
        peer_address = link.channel.connection.get_peer_address()
        if peer_address is not None and peer_address == packet.source:
            if not link.dialled_by_us:
                # What was dialled must answer from the address that was dialled. A link of our own leaves the choice
                # to the kernel, which follows this machine to its next network.
                link.local, link.socket = packet.local, socket
            if peer_address != link.address:
                old, link.address = link.address, peer_address
                self._owner.migrated(link, old)
        self._touched[link.number] = link

    def _take_in(self, socket: UdpSocket, packet: Received) -> None:
        now_s = self._clock()
        verdict = self._intake.judge(packet.data, packet.source, now_s)
        match verdict:
            case Reply():
                self.counters.handshakes_retried += 1
                socket.send(verdict.data, packet.source, packet.local)
            case Accepted():
                self._accept(verdict, socket, packet, now_s)
        guard = self._intake.guard
        self._owner.shed(len(guard), guard.dropped, retry_on=guard.retry_on)

    def _accept(self, accepted: Accepted, socket: UdpSocket, packet: Received, now_s: float) -> None:
        if accepted.evict is not None and (oldest := self._links.get(accepted.evict)) is not None:
            oldest.channel.abandon("half-open for longest when the cap was reached")
            self.flush(oldest)
        link = self._adopt(accepted.connection, socket, packet.source, now_s)
        link.local = packet.local
        self._register(link, accepted.first_cid)
        self._intake.guard.opened(link.number, validated=accepted.validated)
        self.counters.links_accepted += 1
        self._owner.accepted(link, validated=accepted.validated)
        self._deliver(link, socket, packet)

    def _say_closed(self, closed: _Closed, socket: UdpSocket, packet: Received) -> None:
        if closed.replies_left and self._clock() < closed.until_s:
            closed.replies_left -= 1
            socket.send(closed.data, packet.source, packet.local)

    def _note_path_error(self, error: PathError) -> None:
        for link in tuple(self._links.values()):
            if link.address == error.destination:
                self._owner.path_error(link, error.name)

    # --- a link's life ----------------------------------------------------------------------------------------------

    def _adopt(self, connection: MeshQuicConnection, socket: UdpSocket, to: Target | SocketName, now_s: float) -> Link:
        address, expected = (to.address, to.peer) if isinstance(to, Target) else (to, None)
        link = Link(self._owner, socket, address, expected, now_s)
        link.carry(Channel(connection, link, self._settings, self.counters, now_s, partial(self.touch, link)))
        link.deadline_s = now_s + self._settings.handshake_deadline_s
        self._links[link.number] = link
        self._register(link, connection.host_cid)
        return link

    def _register(self, link: Link, cid: bytes) -> None:
        link.cids.add(cid)
        self._by_cid[cid] = link

    def cid_issued(self, link: Link, cid: bytes) -> None:
        """QUIC gave the peer another id for this link."""
        self._register(link, cid)

    def cid_retired(self, link: Link, cid: bytes) -> None:
        """The peer will not use it any more."""
        link.cids.discard(cid)
        self._by_cid.pop(cid, None)

    def _arm(self, link: Link, now_s: float) -> None:
        due_s = self._due_s(link)
        if link.timer is not None:
            if due_s >= link.timer_at_s:
                return
            link.timer.cancel()
        link.timer_at_s = due_s
        link.timer = self._loop.call_later(max(due_s - now_s, MIN_TIMER_S), partial(self._wake, link))

    @staticmethod
    def _due_s(link: Link) -> float:
        deadline_s = link.channel.next_deadline_s()
        return link.deadline_s if deadline_s is None else min(deadline_s, link.deadline_s)

    def _wake(self, link: Link) -> None:
        link.timer = None
        if link.number not in self._links:
            return
        now_s = self._clock()
        if now_s < self._due_s(link):
            # Set for something that was settled since.
            self._arm(link, now_s)
            return
        if now_s >= link.deadline_s:
            link.deadline_s = float("inf")
            self._owner.overdue(link)
        link.channel.wake(now_s)
        self.flush(link)

    def _bury(self, link: Link, last: bytes | None, now_s: float) -> None:
        if self._links.pop(link.number, None) is None:
            return
        if link.timer is not None:
            link.timer.cancel()
            link.timer = None
        ended = link.ended
        for cid in link.cids:
            self._by_cid.pop(cid, None)
            if last is not None and ended is not None and not ended.by_peer:
                self._closed[cid] = _Closed(last, now_s + CLOSE_MEMORY_S)
        while len(self._closed) > CLOSE_MEMORY:
            self._closed.popitem(last=False)
        self._intake.guard.settled(link.number)
        self._owner.ended(link)
        # Later: this may be a callback of the connection's own.
        self._loop.call_soon(link.channel.connection.release)
