"""A loopback listener that only one process can use.

What lives here: `listen_for_owner`. What does not: which process that is (the engine room knows). Loopback is no
boundary: every user of the machine can connect to a port of 127.0.0.1, and behind this one is another node's engine,
which trusts whoever speaks to it. So each connection's other end is looked up in /proc/net/tcp, and its inode among
the file descriptors of the owner (Linux only; elsewhere nothing is accepted).
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.abc

from meshnode.tunnel.opening import Opening
from meshnode.tunnel.tunnels import Tunnels
from proto.ids import NodeId


async def listen_for_owner(
    tunnels: Tunnels,
    peer: NodeId,
    opening: Opening,
    owner: Callable[[], int | None],
    *,
    task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Listen on a free port of 127.0.0.1, which `await tasks.start(listen_for_owner, ...)` returns, and splice each
    connection of the owner's into a new tunnel to `peer`, until cancelled. `owner` gives the process id now (None: not
    started yet, and nobody is let in). A connection whose tunnel is refused is closed at once."""
    raise NotImplementedError
