"""aioquic's sans-IO connection as this transport uses it, and the only place that touches its private attributes.

What lives here: `MeshQuicConnection` and the configurations it is made with. What does not: sockets, timers, links.
Called by the endpoint and by links.

aioquic is pinned below 1.8, because it has no public way to do what is needed here:

- *Receive windows.* It doubles its windows for ever and grants them for bytes received, so a peer can make it buffer
  without bound and nothing ever pushes back. Here credit is `consumed + window`: it slides with what the application
  has taken, and a throttled link stops granting (RFC 9000, section 4.1).
- *How much is unacknowledged*, so that frames wait in our own queue, where newer state still can replace them.
- *The peer's certificate*: no event carries it and no verify callback exists. With `CERT_NONE` the handshake still
  proves possession of the key, and certificate dates, which wrong clocks break, don't matter.
- *Datagrams that ask for no acknowledgement.* QUIC counts them as ack-eliciting (RFC 9221, section 5.2), which turns a
  ping and its pong into three packets and two timers. Probes are answered or given up by membership, so that here an
  acknowledgement of them waits for the next packet that goes anyway, and their loss arms no timer. Both ends of every
  link are this class.
- *When the last authenticated packet came*, which is evidence of life, and *that the peer closed*, which is told only
  after three probe time-outs.

`tests/integration/transport/test_quic.py` holds each of these against the installed version.
"""

from __future__ import annotations

import logging
import ssl
from typing import NamedTuple

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.connection import (
    CONNECTION_LIMIT_FRAME_CAPACITY,
    END_STATES,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    QuicConnection,
    QuicConnectionState,
    QuicReceiveContext,
)
from aioquic.quic.packet import QuicFrameType, QuicProtocolVersion
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from meshnode.transport.boundary import LocalIdentity
from meshnode.transport.settings import TransportSettings
from proto.ids import NodeId, node_id_of
from proto.registry import MAX_DATAGRAM_BYTES
from proto.versions import ALPN

# aioquic narrates every connection at info and warning; the event catalogue says what people need, and a hostile peer
# must not be able to fill a disk.
logging.getLogger("quic").setLevel(logging.CRITICAL)

CONNECTION_ID_BYTES = 8
MAX_DATAGRAM_FRAME_BYTES = SMALLEST_MAX_DATAGRAM_SIZE
CONTROL_STREAM = 0
"""The first bidirectional stream a client opens (RFC 9000, section 2.1)."""
FRAME_TYPE_BYTES = 1
"""Every frame type that this transport uses is below 64."""
MAX_UNASKED_PACKETS = 64
"""Sent packets that wait for an acknowledgement which nobody asked for; then a QUIC ping asks, so that what is kept of
them stays bounded. On most links gossip's own acknowledgements come long before."""
SUPPORTED_VERSIONS = [int(QuicProtocolVersion.VERSION_1)]


def dialling_configuration(settings: TransportSettings) -> QuicConfiguration:
    """For connections this node opens. No ticket handlers and so no resumption: a ticket works twice and brings data
    before authentication."""
    return _configuration(settings, is_client=True)


def accepting_configuration(settings: TransportSettings, identity: LocalIdentity) -> QuicConfiguration:
    """For connections opened by others; proves this node's key."""
    configuration = _configuration(settings, is_client=False)
    configuration.certificate = identity.certificate
    configuration.private_key = identity.private_key
    return configuration


def _configuration(settings: TransportSettings, *, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=[ALPN],
        connection_id_length=CONNECTION_ID_BYTES,
        idle_timeout=settings.idle_timeout_s,
        is_client=is_client,
        max_data=settings.unauthenticated_bytes,
        max_stream_data=settings.unauthenticated_bytes,
        max_datagram_frame_size=MAX_DATAGRAM_FRAME_BYTES,
        # No path-MTU discovery exists: 1,200 bytes pass everywhere QUIC does, 1,400 never connect on some paths.
        max_datagram_size=SMALLEST_MAX_DATAGRAM_SIZE,
        supported_versions=SUPPORTED_VERSIONS,
        verify_mode=ssl.CERT_NONE,
    )


class Ending(NamedTuple):
    """Why a connection ends: QUIC's or the application's error code, the phrase that came with it, and which side
    said so (an idle time-out and a protocol error found here are this side's)."""

    error_code: int
    phrase: str
    by_peer: bool


class MeshQuicConnection(QuicConnection):
    """A `QuicConnection` with one control stream, sliding receive credit, and a few questions answered."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        *,
        original_destination_cid: bytes | None = None,
        retry_source_cid: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_destination_cid,
            retry_source_connection_id=retry_source_cid,
        )
        self._window_bytes: int = configuration.max_data
        self._stream_window_bytes = 0
        self._consumed_bytes = 0
        self._consumed_by_stream: dict[int, int] = {}
        self._unasking_bytes = 0
        # The dialler opens the control stream; nobody opens anything else until the peer is authenticated.
        self._local_max_streams_bidi.value = self._local_max_streams_bidi.sent = 0 if configuration.is_client else 1
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = 0

    # --- receive credit ---------------------------------------------------------------------------------------------

    def widen_window(self, window_bytes: int) -> None:
        """Let the peer have this much on the way from now on; it was `unauthenticated_bytes` so far."""
        self._window_bytes = window_bytes

    def allow_streams(self, count: int, window_bytes: int) -> None:
        """Let the peer have `count` streams of its own open at once, each with this much on the way, whoever opened
        it. Call it once."""
        self._local_max_streams_bidi.value += count
        self._stream_window_bytes = window_bytes

    def consume(self, stream_id: int, count: int) -> None:
        """The application took `count` bytes of the stream: the peer may send as many more on it."""
        self._consumed_by_stream[stream_id] = self._consumed_by_stream.get(stream_id, 0) + count
        if stream_id == CONTROL_STREAM:
            self._consumed_bytes += count

    def take_in(self, count: int) -> None:
        """`count` bytes of streams besides the control stream came: the connection may carry as many more, whether
        they are read or not. Each stream has its own bound."""
        self._consumed_bytes += count

    def forgive(self, stream_id: int) -> None:
        """The peer reset the stream: what it sent and will not be delivered counts as taken in (RFC 9000, section
        4.5), or each cancelled stream would cost the connection some of its credit for ever."""
        if (stream := self._streams.get(stream_id)) is not None:
            self._consumed_bytes += stream.receiver.highest_offset - stream.receiver.starting_offset()

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        self._local_max_data.value = self._slide(
            self._local_max_data.value, self._consumed_bytes, self._window_bytes + self._stream_window_bytes
        )
        for limit in (self._local_max_data, self._local_max_streams_bidi, self._local_max_streams_uni):
            if limit.value == limit.sent:
                continue
            frame = builder.start_frame(
                limit.frame_type,
                capacity=CONNECTION_LIMIT_FRAME_CAPACITY,
                handler=self._on_connection_limit_delivery,
                handler_args=(limit,),
            )
            frame.push_uint_var(limit.value)
            limit.sent = limit.value

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        stream_id = stream.stream_id
        if stream_id is None or not stream.max_stream_data_local:
            return
        stream.max_stream_data_local = self._slide_stream(stream_id, stream)
        if stream.max_stream_data_local_sent == stream.max_stream_data_local:
            return
        frame = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
            handler=self._on_max_stream_data_delivery,
            handler_args=(stream,),
        )
        frame.push_uint_var(stream_id)
        frame.push_uint_var(stream.max_stream_data_local)
        stream.max_stream_data_local_sent = stream.max_stream_data_local

    def _slide_stream(self, stream_id: int, stream: QuicStream) -> int:
        window_bytes = self._window_bytes if stream_id == CONTROL_STREAM else self._stream_window_bytes
        consumed_bytes = self._consumed_by_stream.get(stream_id, 0)
        return self._slide(stream.max_stream_data_local, consumed_bytes, window_bytes)

    @staticmethod
    def _slide(granted_bytes: int, consumed_bytes: int, window_bytes: int) -> int:
        """The new credit limit: raised in steps of half a window, so that not every packet carries an update."""
        wanted_bytes = consumed_bytes + window_bytes
        return wanted_bytes if wanted_bytes - granted_bytes >= max(1, window_bytes // 2) else granted_bytes

    # --- streams beside the control stream --------------------------------------------------------------------------

    def next_stream(self) -> int | None:
        """The number of a stream that this side may open now; None where the peer allows no more."""
        number: int = self.get_next_available_stream_id()
        return number if number // 4 < self._remote_max_streams_bidi else None

    def opened_here(self, stream_id: int) -> bool:
        """Whether this side opened the stream (RFC 9000, section 2.1: the lowest bit is the server's)."""
        return (stream_id % 2 == 0) is self._is_client

    def cancel_stream(self, stream_id: int, error_code: int, *, reset: bool, stop: bool) -> None:
        """Give up what was to be sent on the stream (`reset`), what was to come (`stop`), or both."""
        self._consumed_by_stream.pop(stream_id, None)
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if reset:
            stream.sender.reset(error_code)
        if stop and not stream.receiver.is_finished:
            stream.receiver.stop(error_code)

    # --- datagrams without acknowledgements -------------------------------------------------------------------------

    def _write_datagram_frame(self, builder: QuicPacketBuilder, data: bytes, frame_type: QuicFrameType) -> bool:
        packet = builder._packet
        assert packet is not None, "frames are written into a packet"
        asked_before = packet.is_ack_eliciting, packet.in_flight
        written: bool = super()._write_datagram_frame(builder, data, frame_type)
        packet.is_ack_eliciting, packet.in_flight = asked_before
        space = self._spaces[tls.Epoch.ONE_RTT]
        if len(space.sent_packets) >= MAX_UNASKED_PACKETS and not space.ack_eliciting_in_flight:
            self._probe_pending = True
        return written

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        self._unasking_bytes = 0
        is_ack_eliciting, is_probing = super()._payload_received(context, plain, crypto_frame_required)
        return is_ack_eliciting and self._unasking_bytes < len(plain), is_probing

    def _handle_datagram_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell() - FRAME_TYPE_BYTES
        super()._handle_datagram_frame(context, frame_type, buf)
        self._unasking_bytes += buf.tell() - start

    def _handle_ack_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell() - FRAME_TYPE_BYTES
        super()._handle_ack_frame(context, frame_type, buf)
        self._unasking_bytes += buf.tell() - start

    # --- questions --------------------------------------------------------------------------------------------------

    @property
    def peer_node(self) -> NodeId | None:
        """The node id whose key the other side proved in TLS; None where it has shown no Ed25519 certificate (the
        dialling side never does)."""
        certificate = self.tls._peer_certificate
        key = None if certificate is None else certificate.public_key()
        return node_id_of(key.public_bytes_raw()) if isinstance(key, Ed25519PublicKey) else None

    @property
    def takes_datagrams(self) -> bool:
        """False where a datagram would make the peer close the connection."""
        limit = self._remote_max_datagram_frame_size
        return limit is not None and limit >= MAX_DATAGRAM_BYTES + 3

    @property
    def pending_datagrams(self) -> int:
        """Datagrams that congestion control still holds back."""
        return len(self._datagrams_pending)

    def has_stream(self, stream_id: int) -> bool:
        """True from the stream's first byte, in either direction, until both sides have ended it."""
        return stream_id in self._streams

    def end_stream(self, stream_id: int, data: bytes) -> bool:
        """Write `data` as the stream's last bytes; False where it has ended already."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.sender._buffer_fin is not None:
            return False
        self.send_stream_data(stream_id, data, end_stream=True)
        return True

    def unacknowledged_bytes(self, stream_id: int) -> int:
        """Bytes written to the stream that the peer has not acknowledged yet."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else len(stream.sender._buffer)

    def heard_at_s(self) -> float | None:
        """When the last authenticated packet with the highest number came; None before the first."""
        space = self._spaces.get(tls.Epoch.ONE_RTT)
        return None if space is None else space.largest_received_time

    @property
    def ending(self) -> Ending | None:
        """How the connection is ending, as soon as that is certain; None while it lives. The event for it comes only
        after three probe time-outs (RFC 9000, section 10.2), which can be seconds on a path that lost packets."""
        if self._state not in END_STATES or self._close_event is None:
            return None
        by_peer = self._state is QuicConnectionState.DRAINING
        return Ending(self._close_event.error_code, self._close_event.reason_phrase, by_peer)

    def release(self) -> None:
        """Forget everything; nothing may be asked of this connection afterwards. aioquic's parts refer to one another
        in rings, which the collector opens seldom: the dead connections of a flood would lie about by the hundred."""
        self.__dict__.clear()

    def acknowledge_now(self, now_s: float) -> None:
        """Let a due acknowledgement leave with the next packet. aioquic would wait a millisecond for company, and then
        send it with a timer, a wake-up and a packet of its own; here everything that came in one wake-up is
        acknowledged at its end."""
        space = self._spaces.get(tls.Epoch.ONE_RTT)
        if space is not None and space.ack_at is not None and space.ack_at > now_s:
            space.ack_at = now_s

    def is_quiet(self) -> bool:
        """True where building packets would yield none, which costs as much as building one. Half of all wake-ups of
        an idle link only bring an acknowledgement."""
        return (
            self._handshake_confirmed
            and self._state is QuicConnectionState.CONNECTED
            and not self._close_pending
            and not self._pending_frames()
            and not any(map(_has_something_to_send, self._streams.values()))
            and not self._credit_is_due()
        )

    def _pending_frames(self) -> bool:
        path = self._network_paths[0]
        return bool(
            self._datagrams_pending
            or self._ping_pending
            or self._probe_pending
            or self._retire_connection_ids
            or self._handshake_done_pending
            or self._streams_blocked_pending
            or len(self._network_paths) > 1
            or not path.is_validated
            or path.remote_challenges
            or self._remote_preferred_address is not None
            or self._spaces[tls.Epoch.ONE_RTT].ack_at is not None
            or not self._crypto_streams[tls.Epoch.ONE_RTT].sender.buffer_is_empty
            or not all(cid.was_sent for cid in self._host_cids)
        )

    def _credit_is_due(self) -> bool:
        limit = self._local_max_data
        window_bytes = self._window_bytes + self._stream_window_bytes
        if limit.sent != self._slide(limit.value, self._consumed_bytes, window_bytes):
            return True
        if self._local_max_streams_bidi.sent != self._local_max_streams_bidi.value:
            return True
        return any(
            stream.max_stream_data_local_sent != self._slide_stream(number, stream)
            for number, stream in self._streams.items()
        )


def _has_something_to_send(stream: QuicStream) -> bool:
    sender = stream.sender
    return not sender.buffer_is_empty or sender.reset_pending or stream.receiver.stop_pending or stream.is_finished
