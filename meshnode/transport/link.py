"""One connection to one node, from its first packet to its end.

What lives here: `Link`: the stages of a connection, who may say what in each, and what it tells its owner. What does
not: queues and bytes (`channel`), the handshake's rules (`handshake`), which of two links stays (`link_table`), sockets
and timers (`switchboard`).

    connecting -> secured -> greeting -> judged -> up
    (TLS)         (race)     (hello..)   (table)

A dialled link is *secured* when TLS proved the pinned key, and waits there until its race lets it lead. *Judged* means
that the peer is authenticated and the link table, or the ping of an older process, is being asked: nothing is
read meanwhile. A member that redeems a token for somebody ends in *served* instead of *up*.
"""

from __future__ import annotations

import asyncio
import itertools
from enum import IntEnum
from typing import Protocol

from meshnode.transport.addresses import SocketName, format_address
from meshnode.transport.channel import Channel, Ended
from meshnode.transport.handshake import (
    AcceptHandshake,
    DialHandshake,
    Proved,
    Refuse,
    Refused,
    Say,
    Welcomed,
)
from meshnode.transport.rate_limit import Overrun
from meshnode.transport.streams import LinkStream
from meshnode.transport.udp import LocalSource, UdpSocket
from proto.errors import WireError
from proto.ids import BootId, NodeId
from proto.messages import Message, Refusal, RefusalCode, SignedChallenge
from proto.registry import HANDSHAKE_MESSAGES
from proto.versions import ProtocolVersion

_numbers = itertools.count(1)


class Stage(IntEnum):
    """How far a link has come; see the module's text."""

    CONNECTING = 0
    SECURED = 1
    GREETING = 2
    JUDGED = 3
    SERVED = 4
    UP = 5


class LinkOwner(Protocol):
    """What a link tells its owner (`reception`), always from within `Channel.receive`, `wake` or `take_frames`."""

    def cid_issued(self, link: Link, cid: bytes) -> None: ...

    def cid_retired(self, link: Link, cid: bytes) -> None: ...

    def secured(self, link: Link) -> None:
        """A dialled link's peer proved the pinned key."""

    def wrong_peer(self, link: Link, answered_as: NodeId | None) -> None:
        """A dialled link's peer proved another key, or none; the link is ending."""

    def progressed(self, link: Link) -> None:
        """The peer answered a step of the handshake."""

    def proved(self, link: Link, proved: Proved) -> None:
        """An inbound link's peer is authenticated; judge it."""

    def welcomed(self, link: Link, welcomed: Welcomed) -> None:
        """A dialled link's peer let this node in; judge it."""

    def refused(self, link: Link, refusal: Refusal, *, by_us: bool) -> None:
        """The link ends with a refusal, whatever its stage."""

    def rejected(self, link: Link, error: WireError) -> None:
        """The peer broke a rule of the wire; a refusal follows."""

    def throttled(self, link: Link, overrun: Overrun) -> None:
        """The peer is over its budget."""

    def answered(self, link: Link, question: int) -> None:
        """The peer gave a sign of life that it was asked for."""

    def message(self, link: Link, message: Message, received_at_s: float) -> None:
        """A control message on a link that is up."""

    def datagram(self, link: Link, message: Message, received_at_s: float) -> None:
        """A datagram message on a link that is up."""

    def stream_opened(self, link: Link, stream: LinkStream) -> None:
        """The peer opened a stream on a link that is up."""


class Link:
    """See the module's text. `expected` is the node that was dialled; None makes an inbound link."""

    def __init__(
        self, owner: LinkOwner, socket: UdpSocket, address: SocketName, expected: NodeId | None, now_s: float
    ) -> None:
        self.number = next(_numbers)
        self.socket = socket
        self.address = address
        self.local: LocalSource | None = None
        """Where answers must come from, on a socket bound to every address."""
        self.expected = expected
        self.stage = Stage.CONNECTING
        self.peer: NodeId | None = expected
        """Who it is: dialled links from the start, inbound ones once proved."""
        self.boot_id = BootId(b"")
        self.version: ProtocolVersion | None = None
        self.opened_s = now_s
        self.up_since_s = now_s
        self.deadline_s = float("inf")
        """When an unfinished handshake ends."""
        self.cids: set[bytes] = set()
        self.timer: asyncio.TimerHandle | None = None
        self.timer_at_s = float("inf")
        self.moved_hint_s = float("-inf")
        self.own_floor = 0
        """The highest incarnation of this node that the peer remembers."""
        self.observed_address: str | None = None
        """Where the peer sees this node; dialled links are told."""
        self._owner = owner
        self._handshake: DialHandshake | AcceptHandshake | None = None
        self._channel: Channel | None = None

    def carry(self, channel: Channel) -> None:
        """Use `channel`, whose user this link is."""
        self._channel = channel

    @property
    def channel(self) -> Channel:
        """The connection's queues."""
        assert self._channel is not None, "a link carries its channel from the moment it is made"
        return self._channel

    @property
    def dialled_by_us(self) -> bool:
        """Whether this node opened the connection."""
        return self.expected is not None

    @property
    def ended(self) -> Ended | None:
        """How it ended; None while it lives."""
        return self.channel.ended

    @property
    def is_closing(self) -> bool:
        """True from the moment that its end is decided."""
        return self.channel.is_closing

    def claimed_peer(self) -> NodeId | None:
        """Who an inbound link's dialler says it is, before it has proved it; for reports only."""
        return self._handshake.claimed_peer if isinstance(self._handshake, AcceptHandshake) else None

    def signed_challenge(self) -> SignedChallenge | None:
        """What an inbound link's dialler signed to prove its key."""
        return self._handshake.signed if isinstance(self._handshake, AcceptHandshake) else None

    def address_text(self) -> str:
        """Where the peer is, as on the wire."""
        return format_address(self.address)

    # --- steps the endpoint takes -----------------------------------------------------------------------------------

    def expect_hello(self, handshake: AcceptHandshake) -> None:
        """Inbound: what to answer the dialler with."""
        self._handshake = handshake
        self.stage = Stage.GREETING

    def lead(self, handshake: DialHandshake, now_s: float) -> None:
        """Dialled: this link carries its race's handshake; say hello."""
        self._handshake = handshake
        self.stage = Stage.GREETING
        self.channel.send(handshake.start(), None, now_s)

    def welcome(self, *, peer_floor: int, now_s: float, issued_chain: tuple[bytes, ...] | None = None) -> None:
        """Inbound, judged: let the peer in, as a member or, with `issued_chain`, as one that comes back as one."""
        assert isinstance(self._handshake, AcceptHandshake), "only an inbound link welcomes"
        message = self._handshake.welcome(
            observed_address=self.address_text(), peer_floor=peer_floor, issued_chain=issued_chain
        )
        self.channel.send(message, None, now_s)
        if issued_chain is not None:
            self.stage = Stage.SERVED
            self.channel.reading = True

    def go_up(self, now_s: float) -> None:
        """Judged and installed: from now on everything is read, beginning with `Channel.take_frames`."""
        self.stage = Stage.UP
        self.up_since_s = now_s
        self.deadline_s = float("inf")
        self.channel.authenticate()
        self.channel.reading = True

    def refuse(self, refusal: Refusal, now_s: float) -> None:
        """Say `refusal` as the last frame and end."""
        if not self.is_closing:
            self.channel.close(refusal, now_s)
            self._owner.refused(self, refusal, by_us=True)

    # --- ChannelUser ------------------------------------------------------------------------------------------------

    def cid_issued(self, cid: bytes) -> None:
        """See `ChannelUser`."""
        self._owner.cid_issued(self, cid)

    def cid_retired(self, cid: bytes) -> None:
        """See `ChannelUser`."""
        self._owner.cid_retired(self, cid)

    def secured(self, now_s: float) -> None:
        """See `ChannelUser`."""
        if not self.channel.connection.takes_datagrams:
            self.refuse(Refusal(RefusalCode.PROTOCOL_ERROR, "the peer takes no datagrams"), now_s)
            return
        if self.expected is None:
            return
        answered_as = self.channel.connection.peer_node
        if answered_as != self.expected:
            self.channel.abandon("answered as another node")
            self._owner.wrong_peer(self, answered_as)
            return
        self.stage = Stage.SECURED
        self._owner.secured(self)

    def frame(self, message: Message, received_at_s: float, now_s: float) -> None:
        """See `ChannelUser`."""
        if self.stage is Stage.GREETING:
            self._greet(message, now_s)
        elif isinstance(message, Refusal):
            self.channel.concede(message)
            self._owner.refused(self, message, by_us=False)
        elif self.stage is Stage.UP and type(message) not in HANDSHAKE_MESSAGES:
            self._owner.message(self, message, received_at_s)
        else:
            found = str(message.__struct_config__.tag)
            self.violated(
                WireError("frame", "type", found, f"a message of a link that is {self.stage.name.lower()}"), now_s
            )

    def datagram(self, message: Message, received_at_s: float) -> None:
        """See `ChannelUser`."""
        if self.stage is Stage.UP:
            self._owner.datagram(self, message, received_at_s)

    def violated(self, error: WireError, now_s: float) -> None:
        """See `ChannelUser`."""
        self._owner.rejected(self, error)
        place = f"{error.message}.{error.field}" if error.field else error.message
        self.refuse(Refusal(RefusalCode.PROTOCOL_ERROR, place, error.found, error.expected), now_s)

    def throttled(self, overrun: Overrun) -> None:
        """See `ChannelUser`."""
        self._owner.throttled(self, overrun)

    def overwhelmed(self, code: RefusalCode, text: str, now_s: float) -> None:
        """See `ChannelUser`."""
        self.refuse(Refusal(code, text), now_s)

    def answered(self, question: int) -> None:
        """See `ChannelUser`."""
        self._owner.answered(self, question)

    def stream_opened(self, stream: LinkStream) -> None:
        """See `ChannelUser`."""
        self._owner.stream_opened(self, stream)

    def _greet(self, message: Message, now_s: float) -> None:
        assert self._handshake is not None, "a greeting link has a handshake"
        step = self._handshake.receive(message)
        match step:
            case Say():
                self.channel.send(step.message, None, now_s)
                self._owner.progressed(self)
            case Refuse():
                self.refuse(step.refusal, now_s)
            case Refused():
                self.channel.concede(step.refusal)
                self._owner.refused(self, step.refusal, by_us=False)
            case Proved() | Welcomed():
                self.stage = Stage.JUDGED
                self.channel.reading = False
                self.peer, self.boot_id, self.version = step.peer, step.boot_id, step.version
                self.own_floor = step.own_floor
                if isinstance(step, Proved):
                    self._owner.proved(self, step)
                else:
                    self.observed_address = step.observed_address
                    self._owner.welcomed(self, step)
