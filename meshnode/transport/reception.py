"""The owner of all links: what one of them or the switchboard tells goes to the part that it concerns.

What lives here: `Reception`: the parts put together, and a method for each thing that happens on links. What does not:
what the daemon asks for (`endpoint`), and any part's own work: packets and timers (`switchboard`), dials (`dial_book`),
which of two links stays (`judge`), two processes with one key (`doubles`), the observer's calls (`reports`).

Everything runs in the event loop's thread, in callbacks.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import anyio

from meshnode.transport.addresses import SocketName, format_address
from meshnode.transport.boundary import AdmissionGate, LinkObserver, LocalIdentity
from meshnode.transport.channel import CONNECTION_LOST
from meshnode.transport.dial_book import DialBook
from meshnode.transport.dialler import NO_ANSWER
from meshnode.transport.dialling import Purpose
from meshnode.transport.doubles import Doubles
from meshnode.transport.handshake import AcceptHandshake, LocalSide, Proved, Welcomed
from meshnode.transport.judge import Judge
from meshnode.transport.link import Link, Stage
from meshnode.transport.rate_limit import Overrun
from meshnode.transport.redemption import Redeemed, answer_token
from meshnode.transport.reports import Reports
from meshnode.transport.settings import TransportSettings
from meshnode.transport.streams import LinkStream
from meshnode.transport.switchboard import Switchboard
from proto.errors import WireError
from proto.ids import NodeId
from proto.messages import IdentityConflict, LifeRequest, LifeSign, Message, Refusal, RefusalCode

NONCE_BYTES = 32


class Reception:
    """See the module's text. `send` and `own_addresses` are the endpoint's, for `Doubles`."""

    def __init__(
        self,
        identity: LocalIdentity,
        local: LocalSide,
        gate: AdmissionGate,
        settings: TransportSettings,
        observer: LinkObserver,
        clock: Callable[[], float],
        *,
        send: Callable[[NodeId, Message, str | None], None],
        own_addresses: Callable[[], tuple[str, ...]],
    ) -> None:
        self._identity = identity
        self._local = local
        self._gate = gate
        self._settings = settings
        self._observer = observer
        self._clock = clock
        self._doubles = Doubles(identity, local.mesh, clock, send=send, own_addresses=own_addresses)
        self._reports = Reports(identity.node, observer, clock, self._doubles.is_proved)
        self.take_stream: Callable[[NodeId, LinkStream], None] = lambda _, stream: stream.abandon()
        """Gets every stream that a peer opens."""
        self.take_call: Callable[[bytes, SocketName], None] = lambda data, source: None
        """Gets every call on the local network."""
        self.empty = anyio.Event()
        """Set once no link is left."""

    def open(self, listen: tuple[SocketName, ...]) -> tuple[str, ...]:
        """Bind and listen; the addresses as bound. The parts are there from now on. Raises `ListenFailed`."""
        self.switchboard = Switchboard(self, self._identity, self._settings, self._clock)
        self.judge = Judge(
            self._identity.node,
            self.switchboard,
            self._settings,
            self._clock,
            installed=self._installed,
            conflicting=lambda old, new, proof: self._doubles.refuse_newer(old, new, proof, self._reports),
        )
        self.dials = DialBook(
            self._local,
            self.switchboard,
            self._settings,
            self._clock,
            peer_floor=self._observer.peer_floor,
            ended=self._dial_ended,
            tried=self._reports.join_attempt,
        )
        return self.switchboard.bind(listen)

    # --- LinkOwner --------------------------------------------------------------------------------------------------

    def cid_issued(self, link: Link, cid: bytes) -> None:
        """See `LinkOwner`."""
        self.switchboard.cid_issued(link, cid)

    def cid_retired(self, link: Link, cid: bytes) -> None:
        """See `LinkOwner`."""
        self.switchboard.cid_retired(link, cid)

    def secured(self, link: Link) -> None:
        """See `LinkOwner`."""
        if (dial := self.dials.of(link)) is not None:
            dial.secured(link)

    def wrong_peer(self, link: Link, answered_as: NodeId | None) -> None:
        """See `LinkOwner`."""
        self._reports.wrong_peer(link, answered_as)
        if (dial := self.dials.of(link)) is not None:
            dial.failed(link, "answered_as_another_node")

    def progressed(self, link: Link) -> None:
        """See `LinkOwner`."""
        if (dial := self.dials.of(link)) is not None:
            dial.progressed(link)

    def accepted(self, link: Link, *, validated: bool) -> None:
        """See `SwitchboardOwner`."""
        link.expect_hello(AcceptHandshake(self._local, os.urandom(NONCE_BYTES), self.judge.boot_id_of))

    def proved(self, link: Link, proved: Proved) -> None:
        """See `LinkOwner`."""
        self.switchboard.settled(link)
        if proved.peer == self._identity.node:
            self._doubles.refuse_own(link, proved.boot_id, self._reports)
        elif proved.token is not None:
            answer = self._gate.redeem(proved.token, proved.peer, link.address_text(), proved.role)
            answer_token(link, answer, self._observer.peer_floor(proved.peer), self._clock())
        else:
            self.judge.arrive(link, own_dial_leads=self.dials.leads(proved.peer))

    def welcomed(self, link: Link, welcomed: Welcomed) -> None:
        """See `LinkOwner`."""
        dial = self.dials.of(link)
        if dial is None:
            return
        dial.won(link)
        redemption = self.dials.redemption(dial)
        if redemption is not None and welcomed.issued_chain is not None:
            link.channel.close(Refusal(RefusalCode.LEAVING, "redeemed"), self._clock())
            chain, observed = welcomed.issued_chain, welcomed.observed_address
            redemption.succeed(Redeemed(self._local.mesh, chain, welcomed.peer, observed))
        else:
            self.dials.cancel(welcomed.peer)
            self.judge.arrive(link, own_dial_leads=False)

    def refused(self, link: Link, refusal: Refusal, *, by_us: bool) -> None:
        """See `LinkOwner`."""
        if self.judge.is_current(link):
            self._take_down(link, refusal.code, refusal.text, by_peer=not by_us)
            return
        self._reports.refused(link, refusal, by_us=by_us)
        dial = self.dials.of(link)
        if dial is None:
            return
        redemption = self.dials.redemption(dial)
        if redemption is None:
            self.dials.lose(dial, refusal.code)
        elif redemption.refused(refusal):
            dial.failed(link, refusal.code)

    def rejected(self, link: Link, error: WireError) -> None:
        """See `LinkOwner`."""
        self._reports.rejected(link, error)

    def throttled(self, link: Link, overrun: Overrun) -> None:
        """See `LinkOwner`."""
        self._reports.throttled(link, overrun)

    def answered(self, link: Link, question: int) -> None:
        """See `LinkOwner`."""
        self.judge.answered(link, question)

    def message(self, link: Link, message: Message, received_at_s: float) -> None:
        """See `LinkOwner`."""
        if link.peer is None or not self.judge.is_current(link):
            return
        match message:
            case IdentityConflict():
                self._doubles.told(link, message, self._reports)
            case LifeRequest():
                self._doubles.asked(link.peer, message)
            case LifeSign():
                if self._doubles.is_sign(link, message):
                    self.judge.proved_alive(link, message)
            case _:
                self._observer.message(link.peer, message, received_at_s)

    def datagram(self, link: Link, message: Message, received_at_s: float) -> None:
        """See `LinkOwner`."""
        if link.peer is not None and self.judge.is_current(link):
            self._observer.datagram(link.peer, message, received_at_s)

    def stream_opened(self, link: Link, stream: LinkStream) -> None:
        """See `LinkOwner`."""
        if link.peer is not None and self.judge.is_current(link):
            self.take_stream(link.peer, stream)
        else:
            stream.abandon()

    # --- SwitchboardOwner -------------------------------------------------------------------------------------------

    def overdue(self, link: Link) -> None:
        """See `SwitchboardOwner`."""
        link.channel.abandon(NO_ANSWER)

    def migrated(self, link: Link, old: SocketName) -> None:
        """See `SwitchboardOwner`."""
        if link.peer is not None and self.judge.is_current(link):
            self._reports.moved(link.peer, format_address(old), link.address_text())

    def moved_hint(self, link: Link, source: SocketName) -> None:
        """See `SwitchboardOwner`. The connection id it came with was known to the peer and to whoever watches the path,
        so the address is tried like any other: with a dial of our own, and the key pinned."""
        if self.judge.is_current(link):
            self.dials.follow(link, source)

    def path_error(self, link: Link, reason: str) -> None:
        """See `SwitchboardOwner`. Whoever is on the path can forge such a sign: it ends an attempt, never a link."""
        if self.judge.is_current(link):
            if link.peer is not None:
                self._observer.path_trouble(link.peer, reason)
        elif link.stage is Stage.CONNECTING and link.dialled_by_us:
            link.channel.abandon(reason)
            self.switchboard.touch(link)

    def called(self, data: bytes, source: SocketName) -> None:
        """See `SwitchboardOwner`."""
        self.take_call(data, source)

    def shed(self, half_open: int, dropped: int, *, retry_on: bool) -> None:
        """See `SwitchboardOwner`."""
        self._reports.shed(half_open, dropped, retry_on=retry_on)

    def ended(self, link: Link) -> None:
        """See `SwitchboardOwner`."""
        ended = link.ended
        assert ended is not None, "only ended links are reported"
        if self.judge.is_current(link):
            self._take_down(link, ended.code, ended.reason, by_peer=ended.by_peer)
        elif (dial := self.dials.of(link)) is not None:
            dial.failed(link, ended.reason if ended.code == CONNECTION_LOST else ended.code)
        else:
            self.judge.gone(link)
            if link.expected is not None and link.stage is Stage.JUDGED:
                self._dial_ended(link.expected, ended.code, Purpose.LINK)
        if not self.switchboard.links():
            self.empty.set()

    # --- outcomes ---------------------------------------------------------------------------------------------------

    def _installed(self, link: Link, replaced: Link | None, reason: str) -> None:
        assert link.peer is not None, "an installed link has a peer"
        now_s = self._clock()
        if not link.dialled_by_us:
            link.welcome(peer_floor=self._observer.peer_floor(link.peer), now_s=now_s)
        self.dials.cancel(link.peer)
        link.go_up(now_s)
        self._reports.up(link, replaced, reason)
        if replaced is not None:
            replaced.channel.close(Refusal(RefusalCode.DUPLICATE_LINK, reason), now_s)
            self.switchboard.touch(replaced)
        link.channel.take_frames(now_s)
        self.switchboard.touch(link)

    def _take_down(self, link: Link, code: str, reason: str, *, by_peer: bool) -> None:
        """The current link of a peer is over: tell the observer, who may dial at once, then let whoever waited in."""
        self.judge.lapsed(link)
        self._reports.down(link, code, reason, by_peer=by_peer)
        self.judge.gone(link)

    def _dial_ended(self, peer: NodeId, reason: str, purpose: Purpose) -> None:
        """A dial brought no link; that is news only where no other one did."""
        self.judge.own_dial_ended(peer)
        is_linked = self.judge.current(peer) is not None or self.judge.is_judging(peer) or peer in self.dials
        if purpose is Purpose.LINK and not is_linked:
            self._observer.dial_failed(peer, reason)
