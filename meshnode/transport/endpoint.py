"""The transport's face: one node's links to its peers.

What lives here: `Endpoint`: dialling, accepting, sending, closing, redeeming, and telling the observer what happens.
What does not: the parts it is made of: packets and timers (`switchboard`), one connection (`link`, `channel`,
`handshake`), one dial (`dialling`), which of two links stays (`judge`, `link_table`), two processes with one key
(`doubles`), invites (`redemption`).

Used as `async with Endpoint(...) as endpoint:`. Everything runs in the event loop's thread, in callbacks; no task is
started. Leaving the block says `leaving` on every link, waits until that is read or `CLOSE_S` is over, and frees the
sockets.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

import anyio

from meshnode.transport.addresses import SocketName, format_address, parse_address
from meshnode.transport.boundary import AdmissionGate, LinkObserver, LocalIdentity
from meshnode.transport.channel import CONNECTION_LOST
from meshnode.transport.clock import boottime_s
from meshnode.transport.counters import Counters
from meshnode.transport.dial_book import UNREACHABLE, DialBook
from meshnode.transport.dialler import NO_ANSWER
from meshnode.transport.dialling import Purpose
from meshnode.transport.doubles import Doubles
from meshnode.transport.handshake import AcceptHandshake, LocalSide, Proved, Welcomed
from meshnode.transport.judge import Judge
from meshnode.transport.link import Link, Stage
from meshnode.transport.rate_limit import Overrun
from meshnode.transport.redemption import Redeemed, Redemption, answer_token
from meshnode.transport.reports import Reports
from meshnode.transport.settings import TransportSettings
from meshnode.transport.streams import LinkStream
from meshnode.transport.switchboard import Switchboard
from meshnode.transport.trial import SIZED, TrialWatch, trial_packet
from proto.errors import WireError
from proto.ids import MeshId, NodeId
from proto.messages import IdentityConflict, LifeRequest, LifeSign, Message, Refusal, RefusalCode
from proto.parts import Role
from proto.versions import OURS, VersionRange

CLOSE_S = 0.6
"""Longest time that closing takes, whatever the peers do."""
NONCE_BYTES = 32


class Endpoint:
    """One node's links. See the module's text."""

    def __init__(
        self,
        identity: LocalIdentity,
        mesh: MeshId,
        gate: AdmissionGate,
        listen: Sequence[str],
        settings: TransportSettings,
        observer: LinkObserver,
        *,
        software: str = "meshnode",
        versions: VersionRange = OURS,
        clock: Callable[[], float] = boottime_s,
    ) -> None:
        """`listen` holds numeric addresses (`[::]:4411` is every address of both families). Binding happens on
        entering the block. Raises `MalformedAddress`."""
        self._identity = identity
        self._mesh = mesh
        self._gate = gate
        self._listen = tuple(parse_address(text) for text in listen)
        self._settings = settings
        self._observer = observer
        self._clock = clock
        self._local = LocalSide(
            node=identity.node,
            boot_id=identity.boot_id,
            mesh=mesh,
            software=software,
            versions=versions,
            sign=identity.sign,
            own_chain=gate.own_chain,
            check_chain=gate.check_chain,
        )
        self._doubles = Doubles(
            identity, mesh, clock, send=self.send, own_addresses=lambda: self.bound_addresses
        )  # fmt: skip
        self._reports = Reports(identity.node, observer, clock, self._doubles.is_proved)
        self._empty = anyio.Event()
        self._take_stream: Callable[[NodeId, LinkStream], None] = lambda _, stream: stream.abandon()
        self._take_call: Callable[[bytes, SocketName], None] = lambda data, source: None
        self.bound_addresses: tuple[str, ...] = ()
        """Where it listens, with the ports the system chose; known inside the block."""

    async def __aenter__(self) -> Self:
        """Bind and listen. Raises `ListenFailed`."""
        self._switchboard = Switchboard(self, self._identity, self._settings, self._clock)
        self._judge = Judge(
            self._identity.node,
            self._switchboard,
            self._settings,
            self._clock,
            installed=self._installed,
            conflicting=lambda old, new, proof: self._doubles.refuse_newer(old, new, proof, self._reports),
        )
        self._dials = DialBook(
            self._local,
            self._switchboard,
            self._settings,
            self._clock,
            peer_floor=self._observer.peer_floor,
            ended=self._dial_ended,
            tried=self._reports.join_attempt,
        )
        self.bound_addresses = self._switchboard.bind(self._listen)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close cleanly, within `CLOSE_S`."""
        with anyio.CancelScope(shield=True):
            try:
                await self._leave()
            finally:
                self._switchboard.shut()

    # --- what the daemon asks ---------------------------------------------------------------------------------------

    @property
    def counters(self) -> Counters:
        """Totals since the start."""
        return self._switchboard.counters

    @property
    def half_open(self) -> int:
        """Inbound links that are not authenticated yet."""
        return self._switchboard.guard_size

    @property
    def open_links(self) -> int:
        """Connections in any stage: dialling, half-open, up, closing."""
        return len(self._switchboard.links())

    def peers(self) -> tuple[NodeId, ...]:
        """Every node with a link that is up."""
        return self._judge.peers()

    def heard_at_s(self, peer: NodeId) -> float | None:
        """When the last authenticated packet of `peer` came; None where there is no link."""
        link = self._judge.current(peer)
        return None if link is None else link.channel.connection.heard_at_s()

    def send(self, peer: NodeId, message: Message, coalesce: str | None = None) -> None:
        """Queue a control message; dropped where no link is up. `coalesce` names a slot in which a newer message takes
        an older one's place. Raises `WireError` for one that is larger than its type allows."""
        link = self._judge.current(peer)
        if link is not None:
            link.channel.send(message, coalesce, self._clock())
            self._switchboard.touch(link)

    def send_datagram(self, peer: NodeId, message: Message) -> float | None:
        """Send a probe at once, best effort; dropped where no link is up. Returns the moment it was handed to the
        kernel (s of the clock); None where that has not happened: it was dropped, or congestion control holds it back.
        Raises `WireError` for one that is none or is larger than 1,100 bytes."""
        link = self._judge.current(peer)
        if link is None or not link.channel.send_datagram(message):
            return None
        sent_at_s = self._switchboard.flush(link)
        return None if link.channel.connection.pending_datagrams else sent_at_s

    def open_stream(self, peer: NodeId) -> LinkStream | None:
        """A new stream on the link to `peer`; None where no link is up, or the peer allows no more streams. `peer`
        hears of it with its first byte."""
        link = self._judge.current(peer)
        return None if link is None else link.channel.streams.open()

    def take_streams(self, take: Callable[[NodeId, LinkStream], None]) -> None:
        """Hand every stream that a peer opens to `take`, from within the loop; until then they are cancelled."""
        self._take_stream = take

    @property
    def trials(self) -> TrialWatch:
        """Where trial packets are expected and counted."""
        return self._switchboard.trials

    def send_trials(self, peer: NodeId, nonce: bytes, sizes_bytes: Sequence[int]) -> bool:
        """Send trial packets of these sizes along the link to `peer`, none of them in fragments. False where there is
        no link or this system can't do it."""
        link = self._judge.current(peer)
        if link is None:
            return False
        packets = (trial_packet(nonce, SIZED, size) for size in sizes_bytes)
        return all(link.socket.send_unfragmented(packet, link.address, link.local) for packet in packets)

    def take_calls(self, take: Callable[[bytes, SocketName], None]) -> None:
        """Hand every call on the local network to `take`, with where it came from; until then they are dropped."""
        self._take_call = take

    def call(self, data: bytes, targets: Sequence[tuple[str, int]]) -> int:
        """Send a call to these broadcast addresses; how many were sent, none where this node would hear none itself."""
        return self._switchboard.call(data, targets)

    def dial(self, peer: NodeId, addresses: Iterable[str]) -> None:
        """Try to link to `peer` at `addresses`, best first. The outcome comes as `link_up` or `dial_failed`; nothing
        happens where a link is up or a dial under way."""
        if self._judge.current(peer) is not None or peer in self._dials or self._judge.is_judging(peer):
            return
        targets = self._dials.targets(peer, addresses)
        if peer == self._identity.node or self._gate.is_revoked(peer) or not targets:
            self._observer.dial_failed(peer, RefusalCode.REMOVED if self._gate.is_revoked(peer) else UNREACHABLE)
        elif len(self._dials) >= self._settings.max_dials or len(self._judge) >= self._settings.max_links:
            self._observer.dial_failed(peer, RefusalCode.LINK_LIMIT)
        else:
            self._dials.start(peer, targets, Purpose.LINK)

    def close(self, peer: NodeId, code: RefusalCode, text: str) -> None:
        """End the link to `peer`, telling it why. `link_down` is called before this returns."""
        link = self._judge.current(peer)
        if link is not None:
            link.refuse(Refusal(code, text), self._clock())
            self._switchboard.touch(link)

    async def redeem(self, token: str, role: Role | None = None) -> Redeemed:
        """Ask the members that `token` pins to let this node in, with `role` (None: the token's).

        The link is closed again: the node comes back as a member. Raises `JoinRefused`.
        """
        return await self._dials.redeem(Redemption.of_invite(token, role, self._identity.node, self._mesh))

    async def apply(self, text: str, role: Role | None, member: NodeId, addresses: Sequence[str]) -> Redeemed:
        """Say `text` to `member`, whose key is pinned, as one says a token: a step of asking for approval. Raises
        `JoinRefused`, with `approval_pending` where the next step is due."""
        return await self._dials.redeem(Redemption.at(text, role, member, addresses))

    # --- LinkOwner --------------------------------------------------------------------------------------------------

    def cid_issued(self, link: Link, cid: bytes) -> None:
        """See `LinkOwner`."""
        self._switchboard.cid_issued(link, cid)

    def cid_retired(self, link: Link, cid: bytes) -> None:
        """See `LinkOwner`."""
        self._switchboard.cid_retired(link, cid)

    def secured(self, link: Link) -> None:
        """See `LinkOwner`."""
        if (dial := self._dials.of(link)) is not None:
            dial.secured(link)

    def wrong_peer(self, link: Link, answered_as: NodeId | None) -> None:
        """See `LinkOwner`."""
        self._reports.wrong_peer(link, answered_as)
        if (dial := self._dials.of(link)) is not None:
            dial.failed(link, "answered_as_another_node")

    def progressed(self, link: Link) -> None:
        """See `LinkOwner`."""
        if (dial := self._dials.of(link)) is not None:
            dial.progressed(link)

    def accepted(self, link: Link, *, validated: bool) -> None:
        """See `SwitchboardOwner`."""
        link.expect_hello(AcceptHandshake(self._local, os.urandom(NONCE_BYTES), self._judge.boot_id_of))

    def proved(self, link: Link, proved: Proved) -> None:
        """See `LinkOwner`."""
        self._switchboard.settled(link)
        if proved.peer == self._identity.node:
            self._doubles.refuse_own(link, proved.boot_id, self._reports)
        elif proved.token is not None:
            answer = self._gate.redeem(proved.token, proved.peer, link.address_text(), proved.role)
            answer_token(link, answer, self._observer.peer_floor(proved.peer), self._clock())
        else:
            self._judge.arrive(link, own_dial_leads=self._dials.leads(proved.peer))

    def welcomed(self, link: Link, welcomed: Welcomed) -> None:
        """See `LinkOwner`."""
        dial = self._dials.of(link)
        if dial is None:
            return
        dial.won(link)
        redemption = self._dials.redemption(dial)
        if redemption is not None and welcomed.issued_chain is not None:
            link.channel.close(Refusal(RefusalCode.LEAVING, "redeemed"), self._clock())
            chain, observed = welcomed.issued_chain, welcomed.observed_address
            redemption.succeed(Redeemed(self._mesh, chain, welcomed.peer, observed))
        else:
            self._dials.cancel(welcomed.peer)
            self._judge.arrive(link, own_dial_leads=False)

    def refused(self, link: Link, refusal: Refusal, *, by_us: bool) -> None:
        """See `LinkOwner`."""
        if self._judge.is_current(link):
            self._take_down(link, refusal.code, refusal.text, by_peer=not by_us)
            return
        self._reports.refused(link, refusal, by_us=by_us)
        dial = self._dials.of(link)
        if dial is None:
            return
        redemption = self._dials.redemption(dial)
        if redemption is None:
            self._dials.lose(dial, refusal.code)
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
        self._judge.answered(link, question)

    def message(self, link: Link, message: Message, received_at_s: float) -> None:
        """See `LinkOwner`."""
        if link.peer is None or not self._judge.is_current(link):
            return
        match message:
            case IdentityConflict():
                self._doubles.told(link, message, self._reports)
            case LifeRequest():
                self._doubles.asked(link.peer, message)
            case LifeSign():
                if self._doubles.is_sign(link, message):
                    self._judge.proved_alive(link, message)
            case _:
                self._observer.message(link.peer, message, received_at_s)

    def datagram(self, link: Link, message: Message, received_at_s: float) -> None:
        """See `LinkOwner`."""
        if link.peer is not None and self._judge.is_current(link):
            self._observer.datagram(link.peer, message, received_at_s)

    def stream_opened(self, link: Link, stream: LinkStream) -> None:
        """See `LinkOwner`."""
        if link.peer is not None and self._judge.is_current(link):
            self._take_stream(link.peer, stream)
        else:
            stream.abandon()

    # --- SwitchboardOwner -------------------------------------------------------------------------------------------

    def overdue(self, link: Link) -> None:
        """See `SwitchboardOwner`."""
        link.channel.abandon(NO_ANSWER)

    def migrated(self, link: Link, old: SocketName) -> None:
        """See `SwitchboardOwner`."""
        if link.peer is not None and self._judge.is_current(link):
            self._reports.moved(link.peer, format_address(old), link.address_text())

    def moved_hint(self, link: Link, source: SocketName) -> None:
        """See `SwitchboardOwner`. The connection id it came with was known to the peer and to whoever watches the path,
        so the address is tried like any other: with a dial of our own, and the key pinned."""
        if self._judge.is_current(link):
            self._dials.follow(link, source)

    def path_error(self, link: Link, reason: str) -> None:
        """See `SwitchboardOwner`. Whoever is on the path can forge such a sign: it ends an attempt, never a link."""
        if self._judge.is_current(link):
            if link.peer is not None:
                self._observer.path_trouble(link.peer, reason)
        elif link.stage is Stage.CONNECTING and link.dialled_by_us:
            link.channel.abandon(reason)
            self._switchboard.touch(link)

    def called(self, data: bytes, source: SocketName) -> None:
        """See `SwitchboardOwner`."""
        self._take_call(data, source)

    def shed(self, half_open: int, dropped: int, *, retry_on: bool) -> None:
        """See `SwitchboardOwner`."""
        self._reports.shed(half_open, dropped, retry_on=retry_on)

    def ended(self, link: Link) -> None:
        """See `SwitchboardOwner`."""
        ended = link.ended
        assert ended is not None, "only ended links are reported"
        if self._judge.is_current(link):
            self._take_down(link, ended.code, ended.reason, by_peer=ended.by_peer)
        elif (dial := self._dials.of(link)) is not None:
            dial.failed(link, ended.reason if ended.code == CONNECTION_LOST else ended.code)
        else:
            self._judge.gone(link)
            if link.expected is not None and link.stage is Stage.JUDGED:
                self._dial_ended(link.expected, ended.code, Purpose.LINK)
        if not self._switchboard.links():
            self._empty.set()

    # --- outcomes ---------------------------------------------------------------------------------------------------

    def _installed(self, link: Link, replaced: Link | None, reason: str) -> None:
        assert link.peer is not None, "an installed link has a peer"
        now_s = self._clock()
        if not link.dialled_by_us:
            link.welcome(peer_floor=self._observer.peer_floor(link.peer), now_s=now_s)
        self._dials.cancel(link.peer)
        link.go_up(now_s)
        self._reports.up(link, replaced, reason)
        if replaced is not None:
            replaced.channel.close(Refusal(RefusalCode.DUPLICATE_LINK, reason), now_s)
            self._switchboard.touch(replaced)
        link.channel.take_frames(now_s)
        self._switchboard.touch(link)

    def _take_down(self, link: Link, code: str, reason: str, *, by_peer: bool) -> None:
        """The current link of a peer is over: tell the observer, then let whoever waited for it in."""
        self._reports.down(link, code, reason, by_peer=by_peer)
        self._judge.gone(link)

    def _dial_ended(self, peer: NodeId, reason: str, purpose: Purpose) -> None:
        """A dial brought no link; that is news only where no other one did."""
        self._judge.own_dial_ended(peer)
        is_linked = self._judge.current(peer) is not None or self._judge.is_judging(peer) or peer in self._dials
        if purpose is Purpose.LINK and not is_linked:
            self._observer.dial_failed(peer, reason)

    # --- leaving ----------------------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        self._switchboard.is_accepting = False
        self._judge.stop()
        self._dials.cancel_all()
        for link in self._switchboard.links():
            if link.stage is Stage.UP:
                link.refuse(Refusal(RefusalCode.LEAVING, "the node stops"), self._clock())
            elif not link.is_closing:
                link.channel.abandon("the node stops")
            self._switchboard.flush(link)
        if self._switchboard.links():
            with anyio.move_on_after(CLOSE_S):
                await self._empty.wait()
