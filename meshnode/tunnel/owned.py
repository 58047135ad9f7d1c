"""A loopback listener that only one process can use.

What lives here: `listen_for_process`, the same for tunnels (`listen_for_owner`), `owner_problem`. What does not: which
process that is (the engine room knows).

Loopback is no boundary: every user of the machine can connect to a port of 127.0.0.1, and behind this one is another
node's engine, which trusts whoever speaks to it. So the other end of each connection is looked up in /proc/net/tcp, and
its inode among the file descriptors of the owner (proc(5)). Linux only; elsewhere nobody is let in.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
import anyio.to_thread
from anyio.abc import ByteStream

from meshnode.tunnel.opening import Opening, TunnelError, TunnelRefusal
from meshnode.tunnel.ready_socket import LoopbackStream, accepted
from meshnode.tunnel.splicing import splice
from meshnode.tunnel.tunnels import Tunnels
from proto.ids import NodeId

LOOPBACK: Final = "127.0.0.1"
_LOOPBACK_HEX: Final = f"{int.from_bytes(socket.inet_aton(LOOPBACK), sys.byteorder):08X}"


async def listen_for_owner(
    tunnels: Tunnels,
    peer: NodeId,
    opening: Opening,
    owner: Callable[[], int | None],
    *,
    task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """`listen_for_process` for a new tunnel to `peer` each time. Every other connection is reported."""

    async def open_tunnel() -> ByteStream | None:
        try:
            return await tunnels.open(peer, opening)
        except TunnelError:
            return None

    def deny(problem: str) -> None:
        tunnels.deny(peer, opening, TunnelRefusal.NOT_THE_OWNER, problem)

    await listen_for_process(owner, open_tunnel, deny, task_status=task_status)


async def listen_for_process(
    owner: Callable[[], int | None],
    lead: Callable[[], Awaitable[ByteStream | None]],
    deny: Callable[[str], None] = lambda _: None,
    *,
    task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Listen on a free port of 127.0.0.1, which `await tasks.start(...)` returns, and splice each connection of the
    owner's into what `lead` gives, until cancelled. `owner` gives the process id now (None: not started yet, and nobody
    is let in). Every other connection is closed at once, and `deny` told why; and one that is led nowhere."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.setblocking(False)
        listening: int = listener.getsockname()[1]

        async def take(connection: LoopbackStream) -> None:
            async with connection:
                problem = await _problem_of(connection, owner(), listening)
                if problem is not None:
                    deny(problem)
                    return
                if (other := await lead()) is not None:
                    await splice(connection, other)

        async with anyio.create_task_group() as tasks:
            task_status.started(listening)
            while True:
                if (plain := await accepted(listener)) is not None:
                    tasks.start_soon(take, LoopbackStream(plain))


async def _problem_of(connection: LoopbackStream, pid: int | None, listening: int) -> str | None:
    try:
        port = connection.peer_port
    except OSError:
        return "its socket is gone"
    return await anyio.to_thread.run_sync(owner_problem, pid, port, listening)


def owner_problem(pid: int | None, port: int, listening: int) -> str | None:
    """None where the connection from 127.0.0.1:`port` to 127.0.0.1:`listening` belongs to process `pid`, else why it
    is not let in."""
    if pid is None:
        return "the process that this port is for does not run yet"
    if not sys.platform.startswith("linux"):
        return "whose connection it is can be told on Linux only"
    inode = _inode(port, listening)
    if inode is None:
        return f"its socket (port {port}) is gone"
    try:
        owned = _sockets_of(pid)
    except FileNotFoundError:
        return f"process {pid} has ended"
    except PermissionError:
        return f"the file descriptors of process {pid} can't be read: it runs as another user, or forbids it"
    return None if f"socket:[{inode}]" in owned else f"the socket (port {port}) is not process {pid}'s"


def _inode(port: int, listening: int) -> str | None:
    """The inode of the connection's other end: the row whose local end is the peer's."""
    wanted = [f"{_LOOPBACK_HEX}:{port:04X}", f"{_LOOPBACK_HEX}:{listening:04X}"]
    with Path("/proc/net/tcp").open(encoding="ascii") as table:
        for line in table:
            columns = line.split()
            if columns[1:3] == wanted:
                return columns[9]
    return None


def _sockets_of(pid: int) -> set[str]:
    found: set[str] = set()
    with os.scandir(f"/proc/{pid}/fd") as descriptors:
        for descriptor in descriptors:
            try:
                found.add(os.readlink(descriptor.path))
            except FileNotFoundError:
                continue  # closed while we looked
    return found
