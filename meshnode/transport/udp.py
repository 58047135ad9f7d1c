"""One UDP socket, read and written the way QUIC and RTT measuring need it.

What lives here: binding, draining many datagrams per wake-up with the time each reached the machine, answering from
the address that was dialled, and the kernel's ICMP error queue. What does not: QUIC. Called by the endpoint only.

Why not asyncio's datagram transport: it reads one datagram per loop pass, so that after a stall of half a second an
overdue timer fires before the 50 queued datagrams are seen, and it cannot tell which local address a datagram was sent
to, so that a wildcard-bound socket answers from another address than the one dialled and the handshake never ends.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from meshnode.transport.addresses import SocketName, canonical, family_of, format_address

MAX_DATAGRAM_READ_BYTES = 2048
"""Larger ones are cut: no peer sends more than 1,200 bytes, and a cut packet does not decrypt."""
ANCILLARY_BYTES = 256
SOCKET_BUFFER_BYTES = 2 * 1024 * 1024
"""What is asked of the kernel, which may give less: room for a burst while the loop is busy."""
STALE_S = 60.0
"""A kernel time stamp further back than this is the wall clock having been set, no queueing."""
OFFSET_TRIES = 3
OFFSET_ERROR_S = 0.00005
"""Two clocks read within this time were read at once; else they are read again."""

_LINUX = sys.platform.startswith("linux")
# Numbers of Linux' and Darwin's headers that the socket module of Python 3.11 does not carry.
_IP_PKTINFO = 8 if _LINUX else 26
_IP_RECVERR = 11
_IPV6_RECVERR = 25
_SO_TIMESTAMPNS = 35
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_WANT = 1
_PMTUDISC_PROBE = 3
_IN_PKTINFO = struct.Struct("=I4s4s")
_IN6_PKTINFO = struct.Struct("=16sI")
_TIMESPEC = struct.Struct("@ll")
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_ORIGIN_LOCAL = 1

# What a send may fail with because of an ICMP answer to an *earlier* datagram to somebody else.
_DEFERRED = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EPROTO})
# What it fails with when the pinned source address is gone.
_SOURCE_GONE = frozenset({errno.EINVAL, errno.EADDRNOTAVAIL})
# A full buffer or a too big datagram is a lost packet, which QUIC repairs.
_LOST = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.EMSGSIZE})


class ListenFailed(OSError):
    """A socket could not be bound. Fields: `address`, `problem` (an errno), `advice`."""

    def __init__(self, address: str, problem: int) -> None:
        self.address = address
        self.problem = problem
        self.advice = _ADVICE.get(problem, "check that the address belongs to this machine")
        super().__init__(problem, f"cannot listen on {address}: {os.strerror(problem)}; {self.advice}")


_ADVICE = {
    errno.EADDRINUSE: "another process has this UDP port: stop it or listen on another port (0 lets the system choose)",
    errno.EACCES: "ports below 1024 need a privilege: listen on a higher one",
    errno.EADDRNOTAVAIL: "no interface of this machine has this address",
    errno.EAFNOSUPPORT: "this machine has no such address family: IPv6 may be switched off",
}


class Received(NamedTuple):
    """One datagram: its bytes, who sent it, the ancillary data that answers from the address it was sent to (None on
    a socket bound to one address), and when it reached this machine (s of the injected clock)."""

    data: bytes
    source: SocketName
    local: LocalSource | None
    at_s: float


class LocalSource(NamedTuple):
    """Ancillary data that makes a datagram leave from one local address: (level, type, bytes)."""

    level: int
    kind: int
    data: bytes


class PathError(NamedTuple):
    """The kernel's word (mostly ICMP) on a datagram sent earlier: a hint that anyone on the path could forge."""

    destination: SocketName
    errno: int

    @property
    def name(self) -> str:
        """The errno's symbol in lower case, such as `econnrefused`."""
        return errno.errorcode.get(self.errno, str(self.errno)).lower()


class UdpSocket:
    """A bound, non-blocking UDP socket of one address family."""

    def __init__(self, name: SocketName, clock: Callable[[], float]) -> None:
        """Binds at once. Raises `ListenFailed`."""
        self.family = family_of(name)
        self._clock = clock
        try:
            self._socket = socket.socket(self.family, socket.SOCK_DGRAM)
        except OSError as error:
            raise ListenFailed(format_address(name), error.errno or errno.EAFNOSUPPORT) from error
        try:
            self._prepare()
            self._socket.bind(name)
        except OSError as error:
            self._socket.close()
            raise ListenFailed(format_address(name), error.errno or errno.EINVAL) from error
        self.name: SocketName = canonical(self._socket.getsockname())
        self.is_wildcard = name[0] in ("0.0.0.0", "::")

    def fileno(self) -> int:
        """For `loop.add_reader`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()

    def receive(self, limit: int) -> list[Received]:
        """At most `limit` waiting datagrams, oldest first; fewer where the socket ran dry."""
        found: list[Received] = []
        clock_offset_s = self._clock_offset_s()
        while len(found) < limit:
            try:
                data, ancillary, _, source = self._socket.recvmsg(MAX_DATAGRAM_READ_BYTES, ANCILLARY_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                # An ICMP error of an earlier send, reported once on the next call: the error queue has the details.
                if error.errno in _DEFERRED:
                    continue
                # Out of kernel memory or the like: what is there is still there when the loop comes round.
                break
            local, at_s = self._read_ancillary(ancillary, clock_offset_s)
            found.append(Received(data, canonical(source), local, at_s))
        return found

    def _clock_offset_s(self) -> float:
        """What turns a wall-clock stamp into this clock's time. The wall clock is read first: where the system puts
        another process between the two, a datagram seems to have come later, never earlier, and no path shorter."""
        offset_s = math.inf
        for _ in range(OFFSET_TRIES):
            wall_s = time.time()
            clock_s = self._clock()
            offset_s = min(offset_s, clock_s - wall_s)
            if time.time() - wall_s < OFFSET_ERROR_S:
                break
        return offset_s

    def send(self, data: bytes, to: SocketName, local: LocalSource | None) -> OSError | None:
        """Send one datagram, from `local` where given. Returns the error that concerns *this* destination, if any;
        a datagram lost to a full buffer is no error."""
        ancillary = [local] if local is not None else []
        for attempt in range(3):
            try:
                self._socket.sendmsg([data], ancillary, 0, to)
                return None
            except OSError as error:
                if error.errno in _LOST:
                    return None
                # Newer kernels say ENETUNREACH for a source that is no address of this machine any more, which an
                # earlier datagram's error may be as well: the second one is this datagram's own.
                if ancillary and (error.errno in _SOURCE_GONE or attempt == 1):
                    ancillary = []
                elif error.errno not in _DEFERRED:
                    return error
                failure = error
        return failure

    def send_unfragmented(self, data: bytes, to: SocketName, local: LocalSource | None) -> bool:
        """Send one datagram that arrives whole or not at all, whatever size the kernel believes the path takes (RFC
        8899, section 3). False where this system can't be told so; nothing is sent then."""
        if not _LINUX:
            return False
        ipv6 = self.family == socket.AF_INET6
        level, option = (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER) if ipv6 else (socket.IPPROTO_IP, _IP_MTU_DISCOVER)
        self._socket.setsockopt(level, option, _PMTUDISC_PROBE)
        try:
            self.send(data, to, local)
        finally:
            self._socket.setsockopt(level, option, _PMTUDISC_WANT)
        return True

    def path_errors(self) -> list[PathError]:
        """Drain the kernel's error queue. It must be drained whenever the socket is readable: a queued error keeps
        the socket readable for ever."""
        found: list[PathError] = []
        while _LINUX and len(found) < 64:
            try:
                _, ancillary, _, destination = self._socket.recvmsg(0, ANCILLARY_BYTES, socket.MSG_ERRQUEUE)
            except OSError:
                break
            for _, kind, data in ancillary:
                if kind in (_IP_RECVERR, _IPV6_RECVERR) and len(data) >= _EXTENDED_ERROR.size:
                    number, origin, *_ = _EXTENDED_ERROR.unpack_from(data)
                    if origin != _ORIGIN_LOCAL:
                        found.append(PathError(canonical(destination), number))
        return found

    def _prepare(self) -> None:
        ipv6 = self.family == socket.AF_INET6
        self._socket.setblocking(False)
        if ipv6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
        if _LINUX:
            level, option = (socket.IPPROTO_IPV6, _IPV6_RECVERR) if ipv6 else (socket.IPPROTO_IP, _IP_RECVERR)
            self._socket.setsockopt(level, option, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def _read_ancillary(
        self, ancillary: list[tuple[int, int, bytes]], clock_offset_s: float
    ) -> tuple[LocalSource | None, float]:
        """The local address to answer from and the arrival time. The kernel stamps a datagram when it arrives, so the
        time does not grow with what this process was busy with."""
        now_s = self._clock()
        local: LocalSource | None = None
        at_s = now_s
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack_from(data)
                stamped_s = seconds + nanoseconds * 1e-9 + clock_offset_s
                if now_s - STALE_S < stamped_s < now_s:
                    at_s = stamped_s
            elif self.is_wildcard and level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
                _, address, _ = _IN_PKTINFO.unpack_from(data)
                local = LocalSource(level, kind, _IN_PKTINFO.pack(0, address, b"\0" * 4))
            elif self.is_wildcard and level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                address, interface = _IN6_PKTINFO.unpack_from(data)
                # A link-local address means nothing without its interface.
                interface = interface if address[:2] == b"\xfe\x80" else 0
                local = LocalSource(level, kind, _IN6_PKTINFO.pack(address, interface))
        return local, at_s


def bind_listeners(listen: tuple[SocketName, ...], clock: Callable[[], float]) -> list[UdpSocket]:
    """One socket per listen address, all or none. `[::]` means every address, so it brings an IPv4 socket on the same
    port; where the machine lacks one of the two families, the other one alone will do.

    Raises `ListenFailed`.
    """
    bound: list[UdpSocket] = []
    try:
        for name in listen:
            bound.extend(_bind_both_families(name, clock) if name[0] == "::" else [UdpSocket(name, clock)])
    except ListenFailed:
        for one in bound:
            one.close()
        raise
    return bound


_NO_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
PORT_TRIES = 16


def _bind_both_families(name: SocketName, clock: Callable[[], float]) -> list[UdpSocket]:
    port = name[1]
    for attempt in range(PORT_TRIES):
        try:
            first = UdpSocket(("::", port, 0, 0), clock)
        except ListenFailed as error:
            if error.problem in _NO_FAMILY:
                return [UdpSocket(("0.0.0.0", port), clock)]
            raise
        try:
            return [first, UdpSocket(("0.0.0.0", first.name[1]), clock)]
        except ListenFailed as error:
            if error.problem in _NO_FAMILY:
                return [first]
            first.close()
            # The system chose a port for IPv6 that IPv4 has in use already: let it choose again.
            if port or error.problem != errno.EADDRINUSE or attempt == PORT_TRIES - 1:
                raise
    raise AssertionError("the last attempt returns or raises")
