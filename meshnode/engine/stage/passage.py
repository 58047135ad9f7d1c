"""The only way to an RPC server: connected sockets, handed over one by one to the node that started it.

llama.cpp's RPC protocol has no authentication, and loopback is open to every user of the machine. So the server listens
in a network namespace of its own where the system allows that, and its companion (`meshnode.engine.stage.process`),
which lives there too, connects on the node's behalf and passes the connected socket over a Unix socket pair that
nobody else holds. Without such a namespace the same passage is used, and the companion looks after `strangers`: the
server is ended as soon as anybody else has come in by its port.

What lives here: both ends of the passage, and reading the kernel's table of TCP sockets (proc(5), /proc/net/tcp). What
does not: when a connection is asked for (`meshnode.engine.stage.stages`).
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Final

import anyio

LOOPBACK: Final = "127.0.0.1"
LISTEN: Final = 0x0A
_ESTABLISHED: Final = 0x01
_ASK, _GIVEN, _REFUSED = b"c", b"k", b"n"
ANSWER_S: Final = 10.0
"""The companion only connects to a listening loopback port: it answers in well under a millisecond, or never."""


class PassageClosed(Exception):
    """No connection can be had: the server or its companion is gone, or does not accept."""


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """One line of the kernel's table: ports of both ends, state, the inode by which processes hold it, and the bytes
    that wait in it to be read."""

    local_port: int
    remote_port: int
    state: int
    inode: int
    unread_bytes: int


class Passage:
    """The node's end."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._lock = anyio.Lock()

    async def connect(self) -> socket.socket:
        """A socket connected to the server. Raises `PassageClosed`."""
        try:
            async with self._lock:
                with anyio.fail_after(ANSWER_S):
                    self._end.send(_ASK)
                    await anyio.wait_readable(self._end)
                    answer, descriptors, _, _ = socket.recv_fds(self._end, 1, 1)
        except (OSError, TimeoutError) as error:
            raise PassageClosed(f"the RPC server can't be reached: {error or 'no answer'}") from error
        if answer != _GIVEN or len(descriptors) != 1:
            raise PassageClosed("the RPC server does not accept a connection")
        connected = socket.socket(fileno=descriptors[0])
        connected.setblocking(False)
        return connected

    def close(self) -> None:
        """The companion ends its server and itself when this end is closed."""
        self._end.close()


class Companion:
    """The companion's end: leads to the server on `port`, and knows the sockets it made for that."""

    def __init__(self, end: socket.socket, port: int) -> None:
        self.end = end
        self._port = port
        self._own: set[int] = set()

    def connect(self) -> socket.socket:
        """A connection to the server. Raises `OSError`."""
        connected = socket.create_connection((LOOPBACK, self._port), timeout=ANSWER_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._own.add(os.fstat(connected.fileno()).st_ino)
        return connected

    def serve_one(self) -> bool:
        """Answers one question. False where the node has closed its end."""
        if not self.end.recv(1):
            return False
        try:
            with self.connect() as connected:
                socket.send_fds(self.end, [_GIVEN], [connected.fileno()])
        except OSError:
            self.end.send(_REFUSED)
        return True

    def unread_bytes(self) -> int:
        """What was sent to the server and not read by it."""
        return sum(
            each.unread_bytes for each in tcp_sockets() if each.local_port == self._port and each.state == _ESTABLISHED
        )

    def strangers(self) -> list[int]:
        """Local ports of connections to the server that somebody else made. An inode of 0 is a socket that its owner
        has closed."""
        return [
            each.local_port
            for each in tcp_sockets()
            if each.remote_port == self._port and each.state == _ESTABLISHED and each.inode not in (0, *self._own)
        ]


def tcp_sockets(table: str = "/proc/self/net/tcp") -> list[TcpSocket]:
    """The IPv4 TCP sockets of this network namespace."""
    with open(table, encoding="ascii") as file:
        lines = file.read().splitlines()[1:]
    return [_tcp_socket(line.split()) for line in lines]


def _tcp_socket(words: list[str]) -> TcpSocket:
    local, remote = (int(end.rpartition(":")[2], 16) for end in words[1:3])
    unread = int(words[4].rpartition(":")[2], 16)
    return TcpSocket(local, remote, int(words[3], 16), int(words[9]), unread)


def listens(pid: int, port: int) -> bool:
    """Whether process `pid` itself listens on `port` of this network namespace."""
    held = _inodes_of(pid)
    return any(each.local_port == port and each.state == LISTEN and each.inode in held for each in tcp_sockets())


def _inodes_of(pid: int) -> frozenset[int]:
    found = set()
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return frozenset()
    for name in names:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return frozenset(found)
