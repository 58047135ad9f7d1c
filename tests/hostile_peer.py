"""A QUIC peer that does what no node does: raw bytes, floods, silence. For tests of how real endpoints bear it.

`RawPeer` drives aioquic's own `QuicConnection` (with its ever-growing windows and no limits) over an asyncio datagram
transport. `authenticate` makes it a proper member first; from then on it may misbehave as one.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import anyio
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from meshnode.identity import Identity
from meshnode.state import StateDirectory
from meshnode.transport.addresses import parse_address
from meshnode.transport.clock import boottime_s
from meshnode.transport.handshake import DialHandshake, LocalSide, Say, Welcomed
from proto.codec import FrameDecoder, decode_datagram, encode_frame
from proto.ids import MeshId, NodeId
from proto.messages import Message, Refusal
from proto.versions import ALPN, OURS


def raw_configuration() -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=[ALPN], is_client=True, verify_mode=ssl.CERT_NONE, max_datagram_frame_size=65_536
    )


def an_initial() -> bytes:
    """The first packet of a connection that nobody means to finish."""
    connection = QuicConnection(configuration=raw_configuration())
    connection.connect(("127.0.0.1", 1), boottime_s())
    packets: list[tuple[bytes, Any]] = connection.datagrams_to_send(boottime_s())
    return packets[0][0]


def the_member_in(state: Path, copied: Path) -> tuple[Identity, MeshId, tuple[bytes, ...]]:
    """Key, mesh and credential of a node that does not run, read from a copy of its state directory."""
    shutil.copytree(state, copied)
    with StateDirectory.open(copied) as directory:
        credential = directory.credential()
        assert credential is not None, "it is a member"
        return directory.identity(), MeshId(credential.mesh), credential.chain


class RawPeer(asyncio.DatagramProtocol):
    """One connection to `address`. `received` holds the messages that came on the control stream, `datagrams` those of
    datagram frames, `closed` the phrase of the close that ended it, `resets` the streams that were reset. `deaf` drops
    whatever arrives, and `missed` counts it; `sent` holds every UDP datagram that left."""

    def __init__(self, address: str, configuration: QuicConfiguration | None = None) -> None:
        self._to = parse_address(address)
        self.connection = QuicConnection(configuration=configuration or raw_configuration())
        self.received: list[Message] = []
        self.datagrams: list[Message | None] = []
        self.closed: str | None = None
        self.secured = False
        self.deaf = False
        self.missed = 0
        self.resets: set[int] = set()
        self.sent: list[bytes] = []
        self._decoder = FrameDecoder()
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._news = anyio.Event()

    async def open(self) -> RawPeer:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.connection.connect(self._to, boottime_s())
        self.transmit()
        await self.until(lambda: self.secured or self.closed is not None, "TLS done")
        return self

    def shut(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()

    async def until(self, condition: Callable[[], Any], what: str, deadline_s: float = 30.0) -> None:
        with anyio.move_on_after(deadline_s):
            while not condition():
                await self._news.wait()
        assert condition(), f"{what}: not within {deadline_s} s; closed={self.closed!r} received={self.received}"

    async def authenticate(self, identity: Identity, mesh: MeshId, chain: tuple[bytes, ...], peer: NodeId) -> None:
        """Do the handshake as a member does it."""
        local = LocalSide(
            node=identity.node,
            boot_id=identity.boot_id,
            mesh=mesh,
            software="raw",
            versions=OURS,
            sign=identity.sign,
            own_chain=lambda: chain,
            check_chain=lambda _node, _chain: None,
        )
        handshake = DialHandshake(local, peer)
        self.say(handshake.start())
        for _ in range(2):
            await self.until(lambda: self.received, "the acceptor's answer")
            step = handshake.receive(self.received.pop(0))
            assert isinstance(step, Say | Welcomed), step
            if isinstance(step, Say):
                self.say(step.message)

    def grant_no_credit(self) -> None:
        """From now on the other side may send only what it may already."""
        self.connection._write_connection_limits = lambda **_: None  # type: ignore[method-assign]
        self.connection._write_stream_limits = lambda **_: None  # type: ignore[method-assign]

    def replay(self) -> None:
        """Send everything that was ever sent once more, byte for byte."""
        for data in tuple(self.sent):
            self.put(data)

    def put(self, data: bytes) -> None:
        """Send these bytes as they are."""
        assert self._transport is not None
        self._transport.sendto(data, self._to)

    def say(self, message: Message) -> None:
        self.write(encode_frame(message))

    def write(self, data: bytes, stream: int = 0) -> None:
        """Raw bytes on a stream."""
        self.connection.send_stream_data(stream, data)
        self.transmit()

    def write_datagram(self, data: bytes) -> None:
        self.connection.send_datagram_frame(data)
        self.transmit()

    def refusal(self) -> Refusal | None:
        """The refusal that came on the stream, if one did."""
        return next((message for message in self.received if isinstance(message, Refusal)), None)

    def transmit(self) -> None:
        now_s = boottime_s()
        for data, to in self.connection.datagrams_to_send(now_s):
            if self._transport is not None and not self._transport.is_closing():
                self.sent.append(data)
                self._transport.sendto(data, to)
        if self._timer is not None:
            self._timer.cancel()
        due_s = self.connection.get_timer()
        if due_s is not None:
            self._timer = asyncio.get_running_loop().call_later(max(due_s - now_s, 0.001), self._wake)

    def _wake(self) -> None:
        self.connection.handle_timer(boottime_s())
        self._take_events()
        self.transmit()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: Any) -> None:
        if self.deaf:
            self.missed += 1
            self._tell()
            return
        self.connection.receive_datagram(data, address, boottime_s())
        self._take_events()
        self.transmit()

    def _take_events(self) -> None:
        while (event := self.connection.next_event()) is not None:
            if isinstance(event, events.HandshakeCompleted):
                self.secured = True
            elif isinstance(event, events.StreamDataReceived):
                self.received.extend(self._decoder.feed(event.data))
            elif isinstance(event, events.DatagramFrameReceived):
                self.datagrams.append(decode_datagram(event.data))
            elif isinstance(event, events.StreamReset):
                self.resets.add(event.stream_id)
            elif isinstance(event, events.ConnectionTerminated):
                self.closed = event.reason_phrase
        # The event of a close comes only after three probe time-outs.
        if self.connection._close_event is not None:
            self.closed = self.connection._close_event.reason_phrase
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()
