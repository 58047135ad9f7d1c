"""A worker's engine process alone: who reaches it, what it may, and how its end is told."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from engine_meshes import PACKAGE, PROGRAMS, RPC_SERVER, programs

from meshnode.child import child_environment
from meshnode.engine.devices import CPU, engine_environment
from meshnode.engine.found import STAGE_MODULE
from meshnode.engine.native import library_directory
from meshnode.engine.process import EngineProcess, running
from meshnode.engine.stage.hello import ask_version
from meshnode.engine.stage.passage import LISTEN, Passage, tcp_sockets
from meshnode.engine.stage.process import StageOrders
from meshnode.engine.stillness import PATIENCE_S

pytestmark = pytest.mark.engine

Served = dict[str, Any]


@pytest.fixture(params=[PACKAGE, PROGRAMS])
def served_by(request: pytest.FixtureRequest) -> Served:
    """What in the orders says whose server it is."""
    if request.param == PACKAGE:
        return {"libraries": str(library_directory())}
    return {"rpc_server": str(programs() / RPC_SERVER)}


@asynccontextmanager
async def a_stage(
    served_by: Served, *, private_network: bool, patience_s: float = PATIENCE_S
) -> AsyncIterator[tuple[EngineProcess, Passage, int]]:
    """A running stage on the CPU, the way to it, and its server's process id."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        orders = StageOrders(
            (CPU,), 1, theirs.fileno(), private_network=private_network, patience_s=patience_s, **served_by
        )
        command = [sys.executable, "-m", STAGE_MODULE, orders.to_argument()]
        environment = child_environment(engine_environment(()))
        async with running(command, environment, pass_fds=[theirs.fileno()]) as process:
            theirs.close()
            word = await process.words.receive()
            assert word["private_network"] is private_network
            yield process, Passage(ours), int(str(word["pid"]))


@pytest.mark.parametrize("private_network", [True, False])
async def test_node_reaches_its_server_again_and_again(served_by: Served, private_network: bool) -> None:
    async with a_stage(served_by, private_network=private_network) as (_, passage, _pid):
        for _ in range(3):
            with await passage.connect() as connected:
                connected.setblocking(True)
                version = ask_version(connected)
            assert version is not None
            assert version.major >= 7


async def test_server_in_its_own_network_has_no_port_on_this_machine(served_by: Served) -> None:
    async with a_stage(served_by, private_network=True) as (_, _passage, pid):
        theirs = listening_ports(f"/proc/{pid}/net/tcp")
        assert len(theirs) == 1
        assert theirs.isdisjoint(listening_ports("/proc/self/net/tcp"))


async def test_server_without_a_network_of_its_own_ends_when_a_stranger_connects(served_by: Served) -> None:
    async with a_stage(served_by, private_network=False) as (process, _passage, pid):
        (port,) = {each.laddr[1] for each in psutil.Process(pid).net_connections() if each.status == "LISTEN"}
        with socket.create_connection(("127.0.0.1", port)), anyio.fail_after(20):
            ending = await process.wait()
    assert ending.how == "signal SIGKILL"
    assert "another process of this machine has connected" in str(ending)


async def test_server_has_no_rights_beyond_its_user(served_by: Served) -> None:
    async with a_stage(served_by, private_network=True) as (_, _passage, pid):
        status = told_of(pid, "status")
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
        assert status["NoNewPrivs"] == "1"
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)


async def test_server_that_hangs_is_ended_and_one_that_idles_is_not(served_by: Served) -> None:
    async with a_stage(served_by, private_network=True, patience_s=1.0) as (process, passage, pid):
        with await passage.connect() as connected:
            connected.setblocking(True)
            assert ask_version(connected) is not None
            with anyio.move_on_after(3.0):
                await process.wait()
            assert process.is_running
            os.kill(pid, signal.SIGSTOP)
            wait_stopped(pid)
            connected.sendall(b"\0")
            with anyio.fail_after(20):
                ending = await process.wait()
    assert ending.how.startswith("signal SIGKILL")
    assert "it hangs: asked, and idle for 1 s" in str(ending)


async def test_end_of_the_server_is_told_as_it_was(served_by: Served) -> None:
    async with a_stage(served_by, private_network=True) as (process, _passage, pid):
        os.kill(pid, signal.SIGSEGV)
        with anyio.fail_after(20):
            ending = await process.wait()
    assert ending.how == "signal SIGSEGV"


async def test_server_ends_with_whoever_started_it(served_by: Served) -> None:
    async with a_stage(served_by, private_network=True) as (process, _passage, pid):
        server = os.pidfd_open(pid)
        process.kill()
        with anyio.fail_after(20):
            await anyio.wait_readable(server)
        os.close(server)


def wait_stopped(pid: int) -> None:
    """A stopped process may still read what comes before it has stopped."""
    until = time.monotonic() + 20
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < until
        time.sleep(0.01)


def listening_ports(table: str) -> set[int]:
    """Local ports that something listens on."""
    return {each.local_port for each in tcp_sockets(table) if each.state == LISTEN}


def told_of(pid: int, name: str) -> dict[str, str]:
    """The fields of a file of `/proc/PID`."""
    lines = Path(f"/proc/{pid}/{name}").read_text(encoding="ascii").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)
