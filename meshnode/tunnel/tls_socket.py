"""A TLS connection read and written straight from its socket.

What lives here: `TlsSocket`. What does not: contexts and pins (`tls`), the end of a stream (`framing`).

Why not asyncio's or anyio's TLS: both decrypt through memory buffers, one 16 KiB record and one pass of the loop at a
time, and reached 185 to 220 MiB/s where this reached 370. Here OpenSSL reads and writes the socket itself, as often as
it can without waiting.
"""

from __future__ import annotations

import socket
import ssl
import sys

import anyio

from meshnode.tunnel.ready_socket import ReadySocket
from meshnode.tunnel.tls import TUNNEL_ALPN

SILENCE_S = 15
"""After this long without an acknowledgement of what was sent, or an answer to keep-alives, the connection is over."""


class TlsSocket(ReadySocket):
    """See `ReadySocket`; the end of the connection is no end of a stream here, but a break."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, *, is_server: bool) -> None:
        """Takes the connected, non-blocking socket over. Raises `OSError` where the peer is gone already."""
        _tune(plain)
        self._tls = context.wrap_socket(
            plain, server_side=is_server, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        super().__init__(self._tls)

    def certificate(self) -> bytes | None:
        """The peer's, in DER."""
        return self._tls.getpeercert(binary_form=True)

    async def handshake(self) -> bool:
        """Do it; False where the other side speaks another protocol inside."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._readable()
            except ssl.SSLWantWriteError:
                await self._writable()
            except (OSError, ValueError) as error:
                raise anyio.BrokenResourceError from error
            else:
                return self._tls.selected_alpn_protocol() == TUNNEL_ALPN

    async def read(self, into: memoryview) -> int:
        """See `ReadySocket`; never 0."""
        count = await super().read(into)
        if count == 0:
            raise anyio.BrokenResourceError
        return count

    async def read_exactly(self, count: int) -> bytes:
        """The next `count` bytes, and not one more. Cancelled, it loses what it has read."""
        data = b""
        while len(data) < count:
            data += await self.read_some(count - len(data))
        return data

    async def read_some(self, most: int) -> bytes:
        """At least one byte and at most `most`."""
        data = bytearray(most)
        with memoryview(data) as room:
            count = await self.read(room)
        return bytes(data[:count])


def _tune(plain: socket.socket) -> None:
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform.startswith("linux"):
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * SILENCE_S)
