"""Byte streams of a link beside its control stream, with back-pressure in both directions.

What lives here: `LinkStream` and `Streams`, the table of one channel's. What does not: what they carry (the tunnel
room). Called by the channel; made by the endpoint for whoever opens or accepts one.

QUIC itself pushes back on nobody here: it buffers what it is given to send, and grants credit for what it received.
So a writer waits while `stream_unacknowledged_bytes` of its bytes are unacknowledged, and a stream's credit grows only
with what its reader took: at most `stream_window_bytes` wait for a reader that stalls, and the writer at the other end
stalls with it. The connection's own credit does not wait for readers, or one of them would stop the control stream.

Ending: `send_eof` is QUIC's FIN. Closing a stream that has not ended in both directions cancels it (RFC 9000, sections
2.4 and 3.5): a RESET_STREAM for what was to be sent, a STOP_SENDING for what was to come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream

from meshnode.transport.quic import MeshQuicConnection
from meshnode.transport.settings import TransportSettings

CANCELLED = 0x6E
"""The one application error code of a stream that was cancelled."""


class LinkStream(ByteStream):
    """One bidirectional stream; see the module's text. One reader and one writer at a time."""

    def __init__(self, streams: Streams, number: int) -> None:
        self._streams = streams
        self._number = number
        self._chunks: deque[bytes] = deque()
        self._changed: anyio.Event | None = None
        """What a reader or writer waits for; made by who waits, since packets are far more than waits."""
        self._sent_eof = False
        self._received_eof = False
        self._is_broken = False
        self._is_closed = False

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """The next bytes. Raises `EndOfStream` after the peer's last, `BrokenResourceError` where it cancelled or the
        link ended, `ClosedResourceError` after `aclose`."""
        await anyio.lowlevel.checkpoint()
        while not self._chunks:
            if self._received_eof and not self._is_closed:
                raise anyio.EndOfStream
            self._check_open()
            await self._change()
        data = self._take(max_bytes)
        self._streams.taken(self._number, len(data))
        return data

    async def send(self, item: bytes) -> None:
        """Give QUIC all of `item`, as the peer takes it. Raises as `receive` does."""
        await anyio.lowlevel.checkpoint()
        rest = memoryview(item)
        while rest:
            self._check_open()
            if self._sent_eof:
                raise anyio.ClosedResourceError
            room_bytes = self._streams.room_bytes(self._number)
            if room_bytes > 0:
                self._streams.write(self._number, bytes(rest[:room_bytes]))
                rest = rest[room_bytes:]
            else:
                await self._change()

    async def send_eof(self) -> None:
        """Nothing more will be sent. Idempotent."""
        self._check_open()
        if not self._sent_eof:
            self._sent_eof = True
            self._streams.write(self._number, b"", end=True)
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """End both directions; cancel what has not ended. Idempotent."""
        self.abandon()
        await anyio.lowlevel.checkpoint()

    def abandon(self) -> None:
        """`aclose`, from a callback."""
        if self._is_closed:
            return
        self._is_closed = True
        self._chunks.clear()
        self._wake()
        self._streams.closed(self._number, reset=not self._sent_eof, stop=not self._received_eof)

    # --- told by the table ---

    def arrived(self, data: bytes, *, end: bool) -> None:
        """Bytes of this stream came, in order."""
        if data:
            self._chunks.append(data)
        self._received_eof = self._received_eof or end
        self._wake()

    def broke(self) -> None:
        """The peer cancelled, or the link ended. What came before is not handed out any more where it is half of
        something; what had come to its end still can be read."""
        self._is_broken = True
        if not self._received_eof:
            self._chunks.clear()
        self._wake()

    def acknowledged(self) -> None:
        """There may be room again."""
        if self._changed is not None and self._streams.has_room(self._number):
            self._wake()

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def _check_open(self) -> None:
        if self._is_closed:
            raise anyio.ClosedResourceError
        if self._is_broken:
            raise anyio.BrokenResourceError

    def _take(self, max_bytes: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while self._chunks and size < max_bytes:
            piece = self._chunks.popleft()
            if size + len(piece) > max_bytes:
                self._chunks.appendleft(piece[max_bytes - size :])
                piece = piece[: max_bytes - size]
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)


class Streams:
    """The streams of one channel. `opened` is told of each that the peer opens; `touch` makes the channel flush."""

    def __init__(
        self,
        connection: MeshQuicConnection,
        settings: TransportSettings,
        opened: Callable[[LinkStream], None],
        touch: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._opened = opened
        self._touch = touch
        self._open: dict[int, LinkStream] = {}
        self._is_over = False

    def __len__(self) -> int:
        return len(self._open)

    def open(self) -> LinkStream | None:
        """A new stream; None where the peer allows no more, or the link is over. The peer hears of it with the first
        byte."""
        number = None if self._is_over else self._connection.next_stream()
        if number is None:
            return None
        stream = self._open[number] = LinkStream(self, number)
        self._connection.send_stream_data(number, b"")
        return stream

    # --- told by the channel ---

    def data(self, number: int, data: bytes, *, end: bool) -> None:
        """Bytes came for a stream that is not the control stream."""
        self._connection.take_in(len(data))
        stream = self._open.get(number)
        if stream is None:
            if self._connection.opened_here(number) or not self._connection.has_stream(number):
                return
            stream = self._open[number] = LinkStream(self, number)
            stream.arrived(data, end=end)
            self._opened(stream)
        else:
            stream.arrived(data, end=end)

    def reset(self, number: int) -> None:
        """The peer cancelled what it was sending."""
        self._connection.forgive(number)
        self._break(number)

    def stopped(self, number: int) -> None:
        """The peer does not want what is being sent; QUIC has reset that direction already."""
        self._break(number)

    def progressed(self) -> None:
        """Packets came: some may have been acknowledgements."""
        for stream in self._open.values():
            stream.acknowledged()

    def end(self) -> None:
        """The link is over. Idempotent."""
        self._is_over = True
        for stream in self._open.values():
            stream.broke()
        self._open.clear()

    def _break(self, number: int) -> None:
        if (stream := self._open.get(number)) is not None:
            stream.broke()

    # --- asked by streams ---

    def has_room(self, number: int) -> bool:
        """True where a waiting writer is worth waking."""
        return self.room_bytes(number) >= self._settings.stream_unacknowledged_bytes // 2

    def room_bytes(self, number: int) -> int:
        """What QUIC may be given now."""
        if self._is_over:
            return 0
        return self._settings.stream_unacknowledged_bytes - self._connection.unacknowledged_bytes(number)

    def write(self, number: int, data: bytes, *, end: bool = False) -> None:
        """Give QUIC these bytes."""
        if not self._is_over:
            self._connection.send_stream_data(number, data, end_stream=end)
            self._touch()

    def taken(self, number: int, count: int) -> None:
        """The reader took so many bytes."""
        if not self._is_over:
            self._connection.consume(number, count)
            self._touch()

    def closed(self, number: int, *, reset: bool, stop: bool) -> None:
        """Its user is done with it. What still comes is dropped, without credit for more."""
        if self._open.pop(number, None) is None or self._is_over:
            return
        self._connection.cancel_stream(number, CANCELLED, reset=reset, stop=stop)
        self._touch()
