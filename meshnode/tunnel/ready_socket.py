"""A non-blocking socket that is read and written as far as it goes, and waited for else.

What lives here: `ReadySocket`, `LoopbackStream` (a byte stream over a plain one), `accepted`. What does not: TLS
(`tls_socket`).

Why not asyncio's transports or anyio's streams: they read ahead of whoever asked. An accepted anyio stream reads until
its first `receive` has had to wait, so that an engine which writes faster than a tunnel carries fills this process's
memory. Here nothing is read that nobody asked for: the kernel's buffers fill, and the writer stalls.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream

_NOT_READABLE = (BlockingIOError, InterruptedError, ssl.SSLWantReadError)
_NOT_WRITABLE = (BlockingIOError, InterruptedError, ssl.SSLWantWriteError)
ACCEPT_PAUSE_S: Final = 0.1
"""After the system had no room for one more connection (file descriptors, memory)."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing resets the connection."""


class ReadySocket:
    """One connection. One reader and one writer at a time. Every method raises `BrokenResourceError` where the
    connection is over, here or at the other side."""

    def __init__(self, plain: socket.socket) -> None:
        """Takes the connected, non-blocking socket over."""
        self._loop = asyncio.get_running_loop()
        self._socket = plain
        self._number = plain.fileno()
        self._waiting: set[asyncio.Future[None]] = set()

    async def read(self, into: memoryview) -> int:
        """Fill `into` as far as it goes without waiting, but with one byte at least; how many. 0 at the end."""
        filled = 0
        while filled < len(into):
            try:
                count = self._socket.recv_into(into[filled:])
            except _NOT_READABLE:
                if filled:
                    break
                await self._readable()
                continue
            except (OSError, ValueError) as error:  # ValueError: closed here
                raise anyio.BrokenResourceError from error
            if count == 0:
                break
            filled += count
        return filled

    async def write(self, data: bytes) -> None:
        """Write all of it."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except _NOT_WRITABLE:
                await self._writable()
            except (OSError, ValueError) as error:
                raise anyio.BrokenResourceError from error

    def close(self) -> None:
        """Close it. Idempotent. Who waits in `read` or `write` is woken with the error."""
        for future in self._waiting:
            if not future.done():
                future.set_exception(anyio.BrokenResourceError())
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._number)
            self._loop.remove_writer(self._number)
            self._socket.close()

    async def _readable(self) -> None:
        await self._ready(self._loop.add_reader, self._loop.remove_reader)

    async def _writable(self) -> None:
        await self._ready(self._loop.add_writer, self._loop.remove_writer)

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


class LoopbackStream(ByteStream):
    """The byte stream of a plain connection to a process of this machine. Closed before both directions have ended, it
    is reset: that process must not take half of something for all of it."""

    def __init__(self, plain: socket.socket) -> None:
        """Takes the connected socket over."""
        plain.setblocking(False)
        if plain.family != socket.AF_UNIX:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._plain = plain
        self._socket = ReadySocket(plain)
        self._buffer = bytearray()
        self._sent_eof = self._received_eof = self._is_closed = False

    @property
    def peer_port(self) -> int:
        """The other end's port. Raises `OSError` where it is gone."""
        port: int = self._plain.getpeername()[1]
        return port

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """See `Tunnel.receive`."""
        await anyio.lowlevel.checkpoint()
        self._check_open()
        if self._received_eof:
            raise anyio.EndOfStream
        if len(self._buffer) < max_bytes:
            self._buffer = bytearray(max_bytes)
        with memoryview(self._buffer) as room:
            count = await self._socket.read(room[:max_bytes])
            if count == 0:
                self._received_eof = True
                raise anyio.EndOfStream
            return bytes(room[:count])

    async def send(self, item: bytes) -> None:
        """See `Tunnel.send`."""
        await anyio.lowlevel.checkpoint()
        self._check_open()
        await self._socket.write(item)

    async def send_eof(self) -> None:
        """See `Tunnel.send_eof`."""
        self._check_open()
        if not self._sent_eof:
            self._sent_eof = True
            with contextlib.suppress(OSError):  # the other side is gone: reading says so
                self._plain.shutdown(socket.SHUT_WR)
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """See `Tunnel.aclose`."""
        self.abandon()
        await anyio.lowlevel.checkpoint()

    def abandon(self) -> None:
        """Close it from a callback."""
        if not self._is_closed:
            self._is_closed = True
            if not (self._sent_eof and self._received_eof):
                with contextlib.suppress(OSError):
                    self._plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._socket.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise anyio.ClosedResourceError


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def accepted(listener: socket.socket) -> socket.socket | None:
    """The next connection; None where it was gone at once, or, after a pause, where the system had no room for it."""
    try:
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
    except OSError as error:
        if error.errno != errno.ECONNABORTED:
            await anyio.sleep(ACCEPT_PAUSE_S)
        return None
    return connection
