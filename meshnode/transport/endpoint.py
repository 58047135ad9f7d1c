"""The transport's face: one node's links to its peers.

What lives here: `Endpoint`: what the daemon asks for: dialling, sending, closing, redeeming. What does not: what
happens on links (`reception`), and the parts: packets and timers (`switchboard`), one connection (`link`, `channel`,
`handshake`), one dial (`dialling`), which of two links stays (`judge`, `link_table`), two processes with one key
(`doubles`), invites (`redemption`).

Used as `async with Endpoint(...) as endpoint:`. Everything runs in the event loop's thread, in callbacks; no task is
started. Leaving the block says `leaving` on every link, waits until that is read or `CLOSE_S` is over, and frees the
sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

import anyio

from meshnode.transport.addresses import SocketName, parse_address
from meshnode.transport.boundary import AdmissionGate, LinkObserver, LocalIdentity
from meshnode.transport.clock import boottime_s
from meshnode.transport.counters import Counters
from meshnode.transport.dial_book import UNREACHABLE
from meshnode.transport.dialling import Purpose
from meshnode.transport.handshake import LocalSide
from meshnode.transport.link import Stage
from meshnode.transport.reception import Reception
from meshnode.transport.redemption import Redeemed, Redemption
from meshnode.transport.settings import TransportSettings
from meshnode.transport.streams import LinkStream
from meshnode.transport.trial import SIZED, TrialWatch, trial_packet
from proto.ids import MeshId, NodeId
from proto.messages import Message, Refusal, RefusalCode
from proto.parts import Role
from proto.versions import OURS, VersionRange

CLOSE_S = 0.6
"""Longest time that closing takes, whatever the peers do."""


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
        local = LocalSide(
            node=identity.node,
            boot_id=identity.boot_id,
            mesh=mesh,
            software=software,
            versions=versions,
            sign=identity.sign,
            own_chain=gate.own_chain,
            check_chain=gate.check_chain,
        )
        self._reception = Reception(
            identity, local, gate, settings, observer, clock, send=self.send, own_addresses=lambda: self.bound_addresses
        )
        self.bound_addresses: tuple[str, ...] = ()
        """Where it listens, with the ports the system chose; known inside the block."""

    async def __aenter__(self) -> Self:
        """Bind and listen. Raises `ListenFailed`."""
        self.bound_addresses = self._reception.open(self._listen)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close cleanly, within `CLOSE_S`."""
        with anyio.CancelScope(shield=True):
            try:
                await self._leave()
            finally:
                self._reception.switchboard.shut()

    # --- what the daemon asks ---------------------------------------------------------------------------------------

    @property
    def counters(self) -> Counters:
        """Totals since the start."""
        return self._reception.switchboard.counters

    @property
    def half_open(self) -> int:
        """Inbound links that are not authenticated yet."""
        return self._reception.switchboard.guard_size

    @property
    def open_links(self) -> int:
        """Connections in any stage: dialling, half-open, up, closing."""
        return len(self._reception.switchboard.links())

    def peers(self) -> tuple[NodeId, ...]:
        """Every node with a link that is up."""
        return self._reception.judge.peers()

    def heard_at_s(self, peer: NodeId) -> float | None:
        """When the last authenticated packet of `peer` came; None where there is no link."""
        link = self._reception.judge.current(peer)
        return None if link is None else link.channel.connection.heard_at_s()

    def send(self, peer: NodeId, message: Message, coalesce: str | None = None) -> None:
        """Queue a control message; dropped where no link is up. `coalesce` names a slot in which a newer message takes
        an older one's place. Raises `WireError` for one that is larger than its type allows."""
        link = self._reception.judge.current(peer)
        if link is not None:
            link.channel.send(message, coalesce, self._clock())
            self._reception.switchboard.touch(link)

    def send_datagram(self, peer: NodeId, message: Message) -> float | None:
        """Send a probe at once, best effort; dropped where no link is up. Returns the moment it was handed to the
        kernel (s of the clock); None where that has not happened: it was dropped, or congestion control holds it back.
        Raises `WireError` for one that is none or is larger than 1,100 bytes."""
        link = self._reception.judge.current(peer)
        if link is None or not link.channel.send_datagram(message):
            return None
        sent_at_s = self._reception.switchboard.flush(link)
        return None if link.channel.connection.pending_datagrams else sent_at_s

    def open_stream(self, peer: NodeId) -> LinkStream | None:
        """A new stream on the link to `peer`; None where no link is up, or the peer allows no more streams. `peer`
        hears of it with its first byte."""
        link = self._reception.judge.current(peer)
        return None if link is None else link.channel.streams.open()

    def take_streams(self, take: Callable[[NodeId, LinkStream], None]) -> None:
        """Hand every stream that a peer opens to `take`, from within the loop; until then they are cancelled."""
        self._reception.take_stream = take

    @property
    def trials(self) -> TrialWatch:
        """Where trial packets are expected and counted."""
        return self._reception.switchboard.trials

    def send_trials(self, peer: NodeId, nonce: bytes, sizes_bytes: Sequence[int]) -> bool:
        """Send trial packets of these sizes along the link to `peer`, none of them in fragments. False where there is
        no link or this system can't do it."""
        link = self._reception.judge.current(peer)
        if link is None:
            return False
        packets = (trial_packet(nonce, SIZED, size) for size in sizes_bytes)
        return all(link.socket.send_unfragmented(packet, link.address, link.local) for packet in packets)

    def take_calls(self, take: Callable[[bytes, SocketName], None]) -> None:
        """Hand every call on the local network to `take`, with where it came from; until then they are dropped."""
        self._reception.take_call = take

    def call(self, data: bytes, targets: Sequence[tuple[str, int]]) -> int:
        """Send a call to these broadcast addresses; how many were sent, none where this node would hear none itself."""
        return self._reception.switchboard.call(data, targets)

    def dial(self, peer: NodeId, addresses: Iterable[str]) -> None:
        """Try to link to `peer` at `addresses`, best first. The outcome comes as `link_up` or `dial_failed`; nothing
        happens where a link is up or a dial under way."""
        if (
            self._reception.judge.current(peer) is not None
            or peer in self._reception.dials
            or self._reception.judge.is_judging(peer)
        ):
            return
        targets = self._reception.dials.targets(peer, addresses)
        if peer == self._identity.node or self._gate.is_revoked(peer) or not targets:
            self._observer.dial_failed(peer, RefusalCode.REMOVED if self._gate.is_revoked(peer) else UNREACHABLE)
        elif (
            len(self._reception.dials) >= self._settings.max_dials
            or len(self._reception.judge) >= self._settings.max_links
        ):
            self._observer.dial_failed(peer, RefusalCode.LINK_LIMIT)
        else:
            self._reception.dials.start(peer, targets, Purpose.LINK)

    def close(self, peer: NodeId, code: RefusalCode, text: str) -> None:
        """End the link to `peer`, telling it why. `link_down` is called before this returns."""
        link = self._reception.judge.current(peer)
        if link is not None:
            link.refuse(Refusal(code, text), self._clock())
            self._reception.switchboard.touch(link)

    async def redeem(self, token: str, role: Role | None = None) -> Redeemed:
        """Ask the members that `token` pins to let this node in, with `role` (None: the token's).

        The link is closed again: the node comes back as a member. Raises `JoinRefused`.
        """
        return await self._reception.dials.redeem(Redemption.of_invite(token, role, self._identity.node, self._mesh))

    async def apply(self, text: str, role: Role | None, member: NodeId, addresses: Sequence[str]) -> Redeemed:
        """Say `text` to `member`, whose key is pinned, as one says a token: a step of asking for approval. Raises
        `JoinRefused`, with `approval_pending` where the next step is due."""
        return await self._reception.dials.redeem(Redemption.at(text, role, member, addresses))

    # --- leaving ----------------------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        self._reception.switchboard.is_accepting = False
        self._reception.judge.stop()
        self._reception.dials.cancel_all()
        for link in self._reception.switchboard.links():
            if link.stage is Stage.UP:
                link.refuse(Refusal(RefusalCode.LEAVING, "the node stops"), self._clock())
            elif not link.is_closing:
                link.channel.abandon("the node stops")
            self._reception.switchboard.flush(link)
        if self._reception.switchboard.links():
            with anyio.move_on_after(CLOSE_S):
                await self._reception.empty.wait()
