"""A TLS connection read and written straight from its socket.

What lives here: `TlsSocket`. What does not: contexts and pins (`tls`), the end of a stream (`framing`).

Why not asyncio's or anyio's TLS: both decrypt through memory buffers, one 16 KiB record and one pass of the loop at a
time, and reached 185 to 220 MiB/s where this reached 370. Here OpenSSL reads and writes the socket itself, as often as
it can without waiting.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Callable

import anyio

from meshnode.tunnel.tls import TUNNEL_ALPN

SILENCE_S = 15
"""After this long without an acknowledgement of what was sent, or an answer to keep-alives, the connection is over."""


class TlsSocket:
    """One connection. One reader and one writer at a time. Every method raises `BrokenResourceError` where the
    connection is over, on either side."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, *, is_server: bool) -> None:
        """Takes the connected, non-blocking socket over. Raises `OSError` where the peer is gone already."""
        _tune(plain)
        self._loop = asyncio.get_running_loop()
        self._socket = context.wrap_socket(
            plain, server_side=is_server, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        self._number = self._socket.fileno()
        self._waiting: set[asyncio.Future[None]] = set()

    def certificate(self) -> bytes | None:
        """The peer's, in DER."""
        return self._socket.getpeercert(binary_form=True)

    async def handshake(self) -> bool:
        """Do it; False where the other side speaks another protocol inside."""
        await self._when_ready(self._socket.do_handshake)
        return self._socket.selected_alpn_protocol() == TUNNEL_ALPN

    async def read(self, into: memoryview) -> int:
        """Fill `into` as far as it goes without waiting, but with one byte at least; how many."""
        filled = 0
        while filled < len(into):
            rest = into[filled:]
            try:
                count = self._socket.recv_into(rest)
            except ssl.SSLWantReadError:
                if filled:
                    break
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
                continue
            except (OSError, ValueError) as error:  # ValueError: closed here
                raise anyio.BrokenResourceError from error
            if count == 0:
                raise anyio.BrokenResourceError
            filled += count
        return filled

    async def read_exactly(self, count: int) -> bytes:
        """The next `count` bytes, and not one more."""
        data = bytearray(count)
        with memoryview(data) as room:
            filled = 0
            while filled < count:
                filled += await self.read(room[filled:])
        return bytes(data)

    async def write(self, data: bytes) -> None:
        """Write all of it."""
        rest = memoryview(data)
        while rest:
            rest = rest[await self._when_ready(self._socket.send, rest) :]

    def close(self) -> None:
        """Close it without a word: what has a proper end says so inside. Idempotent."""
        for future in self._waiting:
            if not future.done():
                future.set_exception(anyio.BrokenResourceError())
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._number)
            self._loop.remove_writer(self._number)
            self._socket.close()

    async def _when_ready(self, act: Callable[..., int | None], *what: memoryview) -> int:
        while True:
            try:
                return act(*what) or 0
            except ssl.SSLWantReadError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except ssl.SSLWantWriteError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
            except (OSError, ValueError) as error:
                raise anyio.BrokenResourceError from error

    async def _ready(self, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
        if self._socket.fileno() < 0:
            raise anyio.BrokenResourceError
        future = self._loop.create_future()
        self._waiting.add(future)
        add(self._number, _resolve, future)
        try:
            await future
        finally:
            self._waiting.discard(future)
            # After closing, the number may be another socket's.
            if self._socket.fileno() >= 0:
                remove(self._number)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _tune(plain: socket.socket) -> None:
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform.startswith("linux"):
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * SILENCE_S)
