"""The end of a stream, said inside TLS.

What lives here: `FramedStream`. What does not: the connection (`tls_socket`).

A tunnel needs each direction's end by itself, and proof that it is the end: a FIN of TCP can be forged, and Python's
ssl module can't say TLS's own close in one direction only. So the bytes come in frames, each a length (u32, big-endian)
and as many bytes; length 0 is the direction's end. A connection that closes without it is broken.
"""

from __future__ import annotations

import struct

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream

from meshnode.tunnel.tls_socket import TlsSocket

LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 2**24
"""No buffer is made of this size; a larger length is no frame but noise."""


class FramedStream(ByteStream):
    """A tunnel's stream over `connection`, whose ticket is settled."""

    def __init__(self, connection: TlsSocket) -> None:
        self._connection = connection
        self._header = bytearray()
        self._rest_bytes = 0
        self._buffer = bytearray()
        self._received_eof = False
        self._sent_eof = False
        self._is_closed = False

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """See `Tunnel.receive`."""
        await anyio.lowlevel.checkpoint()
        self._check_open()
        if self._rest_bytes == 0 and not self._received_eof:
            await self._begin_frame()
        if self._received_eof:
            raise anyio.EndOfStream
        wanted_bytes = min(max_bytes, self._rest_bytes)
        if len(self._buffer) < wanted_bytes:
            self._buffer = bytearray(wanted_bytes)
        with memoryview(self._buffer) as room:
            count = await self._connection.read(room[:wanted_bytes])
            self._rest_bytes -= count
            return bytes(room[:count])

    async def send(self, item: bytes) -> None:
        """See `Tunnel.send`."""
        await anyio.lowlevel.checkpoint()
        self._check_open()
        if self._sent_eof:
            raise anyio.ClosedResourceError
        for start in range(0, len(item), MAX_FRAME_BYTES):
            piece = item[start : start + MAX_FRAME_BYTES]
            await self._write(LENGTH.pack(len(piece)) + piece)

    async def send_eof(self) -> None:
        """See `Tunnel.send_eof`."""
        self._check_open()
        if not self._sent_eof:
            self._sent_eof = True
            await self._write(LENGTH.pack(0))

    async def aclose(self) -> None:
        """Close the connection; the peer sees it broken unless both directions had ended."""
        self.abandon()
        await anyio.lowlevel.checkpoint()

    def abandon(self) -> None:
        """See `TunnelStream`."""
        self._is_closed = True
        self._connection.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise anyio.ClosedResourceError

    async def _write(self, frame: bytes) -> None:
        """A frame of which only a part went out can't be taken up again: cancelled, it ends the stream."""
        try:
            await self._connection.write(frame)
        except BaseException:
            self.abandon()
            raise

    async def _begin_frame(self) -> None:
        # Byte by byte into a field, so that a cancelled receive loses nothing of it.
        while len(self._header) < LENGTH.size:
            self._header += await self._connection.read_some(LENGTH.size - len(self._header))
        (self._rest_bytes,) = LENGTH.unpack(self._header)
        self._header.clear()
        self._received_eof = self._rest_bytes == 0
        if self._rest_bytes > MAX_FRAME_BYTES:
            raise anyio.BrokenResourceError
