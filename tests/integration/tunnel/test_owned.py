"""The listener that only one process can use, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import anyio.abc
import anyio.to_thread
import pytest
from making_links import DEADLINE_S
from making_tunnels import API, TunnelLab, TunnelNode

from meshnode.events import TunnelDenied
from meshnode.tunnel import Purpose, Tunnel, listen_for_owner, splice
from meshnode.tunnel.owned import owner_problem

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="whose socket it is, only /proc tells")

ENGINE = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.stdin.readline())))
connection.sendall(b"ping")
connection.shutdown(socket.SHUT_WR)
print(b"".join(iter(lambda: connection.recv(100), b"")).decode(), flush=True)
"""


@contextmanager
def a_process() -> Iterator[subprocess.Popen[str]]:
    """Connects to the port it reads, and prints what it is answered."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENGINE], stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def answer_of(process: subprocess.Popen[str], port: int) -> str:
    with anyio.fail_after(DEADLINE_S):
        out, _ = await anyio.to_thread.run_sync(process.communicate, f"{port}\n")
    return out.strip()


async def pong(tunnel: Tunnel) -> None:
    assert b"".join([piece async for piece in tunnel]) == b"ping"
    await tunnel.send(b"pong")
    await tunnel.send_eof()


async def listening(tasks: anyio.abc.TaskGroup, here: TunnelNode, there: TunnelNode, pid: int | None) -> int:
    there.tunnels.offer(Purpose.API, pong, lambda peer, opening: None)
    port = await tasks.start(listen_for_owner, here.tunnels, there.node, API, lambda: pid)
    assert isinstance(port, int)
    return port


async def test_owner_gets_a_tunnel_for_its_connection(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair()
    with a_process() as process:
        async with anyio.create_task_group() as tasks:
            port = await listening(tasks, here, there, process.pid)
            assert await answer_of(process, port) == "pong"
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("owner", ["another process", "a process that ended", "none yet"])
async def test_everybody_else_is_closed_and_reported(tunnels: TunnelLab, owner: str) -> None:
    here, there = await tunnels.pair()
    with a_process() as process, a_process() as other:
        pid = {"another process": other.pid, "a process that ended": 2**22 + 1, "none yet": None}[owner]
        async with anyio.create_task_group() as tasks:
            port = await listening(tasks, here, there, pid)
            assert await answer_of(process, port) == ""
            tasks.cancel_scope.cancel()
    denied = await here.events.one(TunnelDenied)
    assert denied.code == "not_the_owner"
    assert there.taken == []
    assert here.tunnels.status()["open"] == []


async def test_owner_is_hung_up_on_where_the_tunnel_is_refused(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair()
    with a_process() as process:
        async with anyio.create_task_group() as tasks:
            port = await listening(tasks, here, there, process.pid)
            there.tunnels.withdraw(Purpose.API)
            assert await answer_of(process, port) == ""
            tasks.cancel_scope.cancel()


async def test_connection_of_this_very_process_is_told_from_another_s() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, await anyio.connect_tcp("127.0.0.1", port) as connection:
        source = connection.extra(anyio.abc.SocketAttribute.local_port)
        assert owner_problem(os.getpid(), source, port) is None
        with a_process() as other:
            assert f"is not process {other.pid}'s" in (owner_problem(other.pid, source, port) or "")
        assert "is gone" in (owner_problem(os.getpid(), 1, port) or "")


async def test_both_ends_spliced_to_loopback_carry_what_an_engine_says(tunnels: TunnelLab) -> None:
    """The whole way: process, loopback, tunnel, loopback, server; with the server's end closing first."""
    here, there = await tunnels.pair()
    server = await anyio.create_tcp_listener(local_host="127.0.0.1")
    behind = server.extra(anyio.abc.SocketAttribute.local_port)

    async def serve(connection: anyio.abc.SocketStream) -> None:
        async with connection:
            assert await connection.receive() == b"ping"
            await connection.send(b"pong " * 100_000)

    async def reach(tunnel: Tunnel) -> None:
        await splice(await anyio.connect_tcp("127.0.0.1", behind), tunnel)

    with a_process() as process:
        async with server, anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, serve)
            port = await listening(tasks, here, there, process.pid)
            there.tunnels.offer(Purpose.API, reach, lambda peer, opening: None)
            assert await answer_of(process, port) == ("pong " * 100_000).strip()
            tasks.cancel_scope.cancel()
