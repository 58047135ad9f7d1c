"""This machine's CPU behind an RPC server of its own, for a `llama-server` that can't hold those layers itself.

What lives here: `offer_own_cpu`. What does not: the processes (`meshnode.engine.stage.process`), who needs it
(`meshnode.engine.commands.cpu_needs_server`). A coordinator's own server, led to as other nodes' are, but not over a
tunnel.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import anyio
import anyio.abc
from anyio.abc import ByteStream

from meshnode.child import child_environment
from meshnode.engine.devices import CPU, engine_environment
from meshnode.engine.found import Engine, stage_command
from meshnode.engine.process import running
from meshnode.engine.stage.passage import Passage, PassageClosed
from meshnode.engine.stage.process import START_S, StageOrders
from meshnode.tunnel import LoopbackStream, listen_for_process


class OwnServerEnded(Exception):
    """The server ended, or did not come up: how, and its last words."""


async def offer_own_cpu(
    engine: Engine,
    threads: int,
    owner: Callable[[], int | None],
    started: Callable[[int | None], None],
    *,
    task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Run an RPC server for the CPU until cancelled; a port of 127.0.0.1, which `await tasks.start(...)` returns, leads
    the process `owner` to it. `started` is told the server's process id, and None at its end. Raises `OwnServerEnded`,
    and `OSError` where it can't be started."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        orders = StageOrders((CPU,), threads, theirs.fileno(), rpc_server=str(engine.rpc_server), reach=engine.reach)
        environment = child_environment(engine_environment(()))
        problem = "did not start"
        async with running(stage_command(orders), environment, pass_fds=[theirs.fileno()]) as process:
            theirs.close()
            with anyio.move_on_after(START_S + 30), suppress(anyio.EndOfStream):
                word = await process.words.receive()
                pid = word.get("pid")
                started(pid if isinstance(pid, int) else None)
                problem = "ended"
            if problem == "ended":
                passage = Passage(ours)
                async with anyio.create_task_group() as tasks:
                    task_status.started(await tasks.start(listen_for_process, owner, lambda: _way_in(passage)))
                    await process.wait()
                    tasks.cancel_scope.cancel()
                started(None)
            process.kill()
            ending = await process.wait()
        raise OwnServerEnded(f"the own CPU's RPC server {problem}: {ending}")


async def _way_in(passage: Passage) -> ByteStream | None:
    try:
        return LoopbackStream(await passage.connect())
    except PassageClosed:
        return None
