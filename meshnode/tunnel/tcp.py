"""Tunnels over TCP: listening for them and dialling them.

What lives here: `TcpCarrier`, `TcpFailed`. What does not: TLS itself (`tls`, `tls_socket`), what a ticket is worth
(`tickets`, asked through `show`).

    client                                    server
      | -- TCP, TLS 1.3 -----------------------> |   proves its node key; the client compares it, or hangs up
      | -- ticket, 32 bytes -------------------> |   known, fresh, unused, or hang up
      | <- one byte ---------------------------- |
      | == frames (`framing`), both ways ======= |

Before the ticket nothing else is read, for `greeting_s` at most; so many such connections at once, and so many a second
from one network. Whoever hangs up says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Final

import anyio
import anyio.abc
import anyio.lowlevel

from meshnode.transport.addresses import SocketName, canonical, family_of, parse_address, source_prefix
from meshnode.transport.rate_limit import SourceRates, TokenBucket
from meshnode.tunnel.framing import FramedStream
from meshnode.tunnel.ready_socket import accepted
from meshnode.tunnel.settings import TunnelSettings
from meshnode.tunnel.tickets import TICKET_BYTES, Granted
from meshnode.tunnel.tls import dialling_context, node_of
from meshnode.tunnel.tls_socket import TlsSocket
from proto.ids import NodeId, short

WELCOME: Final = b"\x01"
BACKLOG: Final = 64
TRACKED_SOURCES: Final = 256

Show = Callable[[bytes], Granted | None]
Taken = Callable[[Granted, FramedStream], None]


class TcpFailed(Exception):
    """TCP to the peer does not work: `text` says why."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


class TicketRefused(TcpFailed):
    """TCP works, and the peer hung up on the ticket: it is too old, or what it stood for is over."""


class WrongNode(TcpFailed):
    """Another node, or none, answered at the peer's address: the ticket was not shown."""


class TcpCarrier:
    """One node's TCP. Listens only once `listen` was called."""

    def __init__(self, settings: TunnelSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._dialling = dialling_context()
        self._accepting: ssl.SSLContext | None = None
        self._listener: socket.socket | None = None
        self._sources = SourceRates(
            settings.greetings_per_source_per_s, settings.greetings_per_source_burst, TRACKED_SOURCES
        )
        self._all = TokenBucket(settings.greetings_per_s, settings.greetings_per_s, clock())
        self._greeting: dict[TlsSocket, anyio.CancelScope] = {}
        self.port: int | None = None
        """Where it listens; None where it does not."""
        self.shed = 0
        """Connections closed unheard, for want of room or over a source's rate."""

    @property
    def greeting_count(self) -> int:
        """Connections without a ticket, now."""
        return len(self._greeting)

    # --- accepting ---

    def listen(self, name: SocketName, context: ssl.SSLContext) -> None:
        """Listen at `name`, or at any other port where that one is taken; `[::]` means both families. Raises
        `OSError`."""
        try:
            self._listener = _listening(name[0], name[1])
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES) or name[1] == 0:
                raise
            self._listener = _listening(name[0], 0)
        self._listener.setblocking(False)
        self._accepting = context
        self.port = self._listener.getsockname()[1]

    async def serve(self, show: Show, taken: Taken) -> None:
        """Take connections until cancelled; `taken` gets those with a good ticket."""
        if self._listener is None:
            return
        with self._listener as listener:
            async with anyio.create_task_group() as tasks:
                while True:
                    if (connection := await accepted(listener)) is not None:
                        self._receive(connection, tasks, show, taken)
                    await anyio.lowlevel.checkpoint()

    def _receive(self, plain: socket.socket, tasks: anyio.abc.TaskGroup, show: Show, taken: Taken) -> None:
        assert self._accepting is not None, "it listens"
        try:
            now_s = self._clock()
            if not (self._sources.take(_source_of(plain.getpeername()), now_s) and self._all.take(1.0, now_s)):
                self.shed += 1
                plain.close()
                return
            plain.setblocking(False)
            connection = TlsSocket(plain, self._accepting, is_server=True)
        except OSError:
            plain.close()
            return
        if len(self._greeting) >= self._settings.greeting_cap:
            self.shed += 1
            next(iter(self._greeting.values())).cancel()
        tasks.start_soon(self._greet, connection, show, taken)

    async def _greet(self, connection: TlsSocket, show: Show, taken: Taken) -> None:
        admitted = False
        try:
            with (
                anyio.move_on_after(self._settings.greeting_s) as scope,
                contextlib.suppress(anyio.BrokenResourceError),
            ):
                self._greeting[connection] = scope
                admitted = await self._hear_ticket(connection, show, taken)
        finally:
            self._greeting.pop(connection, None)
            if not admitted:
                connection.close()

    @staticmethod
    async def _hear_ticket(connection: TlsSocket, show: Show, taken: Taken) -> bool:
        if not await connection.handshake():
            return False
        granted = show(await connection.read_exactly(TICKET_BYTES))
        if granted is None:
            return False
        await connection.write(WELCOME)
        taken(granted, FramedStream(connection))
        return True

    # --- dialling ---

    async def dial(self, peer: NodeId, address: str, port: int, ticket: bytes) -> FramedStream:
        """A stream to `peer` at the host of `address`. Raises `TcpFailed`."""
        host = parse_address(address)
        name = (host[0], port, *host[2:])
        with anyio.move_on_after(self._settings.connect_s):
            return await self._connect(peer, name, ticket)
        raise TcpFailed(f"no answer on TCP port {port} within {self._settings.connect_s:g} s")

    async def _connect(self, peer: NodeId, name: SocketName, ticket: bytes) -> FramedStream:
        with _closed_on_failure(socket.socket(family_of(name), socket.SOCK_STREAM)) as plain:
            plain.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(plain, name)
            except OSError as error:
                raise TcpFailed(f"TCP port {name[1]}: {os.strerror(error.errno or 0).lower()}") from error
            try:
                connection = TlsSocket(plain, self._dialling, is_server=False)
            except OSError as error:
                raise TcpFailed(f"TCP port {name[1]}: {error}") from error
        with _closed_on_failure(connection):
            try:
                await self._show_ticket(connection, peer, ticket)
            except anyio.BrokenResourceError as error:
                raise TcpFailed(f"the connection to TCP port {name[1]} was closed before the tunnel stood") from error
            return FramedStream(connection)

    @staticmethod
    async def _show_ticket(connection: TlsSocket, peer: NodeId, ticket: bytes) -> None:
        speaks = await connection.handshake()
        answered = node_of(connection.certificate())
        if answered != peer:
            raise WrongNode(f"{'no node' if answered is None else short(answered)} answered in its place")
        if not speaks:
            raise TcpFailed("the other side speaks another protocol")
        await connection.write(ticket)
        try:
            welcome = await connection.read_exactly(len(WELCOME))
        except anyio.BrokenResourceError as error:
            raise TicketRefused("the peer hung up on the ticket") from error
        if welcome != WELCOME:
            raise TcpFailed("the ticket was answered with something else than a welcome")


def _listening(host: str, port: int) -> socket.socket:
    if host != "::":
        family = family_of((host, port))
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    return socket.create_server(("0.0.0.0", port), backlog=BACKLOG)


def _source_of(name: SocketName) -> str:
    # A socket of both families shows IPv4 sources as ::ffff:192.0.2.1, which would all be one /64.
    mapped = ipaddress.ip_address(name[0].partition("%")[0])
    if isinstance(mapped, ipaddress.IPv6Address) and mapped.ipv4_mapped is not None:
        return source_prefix((str(mapped.ipv4_mapped), name[1]))
    return source_prefix(canonical(name))


@contextlib.contextmanager
def _closed_on_failure(what: socket.socket | TlsSocket) -> Iterator[socket.socket]:
    try:
        yield what  # type: ignore[misc]
    except BaseException:
        what.close()
        raise
