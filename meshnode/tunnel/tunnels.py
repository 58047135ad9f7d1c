"""The tunnels of one node: asking for them, offering them, keeping count of them.

What lives here: `Tunnels`. What does not: how bytes travel (the carriers), what is at the ends (the engine, the API's
gateway), who is a member (the link is authenticated before anything here is heard).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc

from meshnode.tunnel.opening import Opening, Purpose
from meshnode.tunnel.tunnel import Tunnel
from proto.ids import NodeId
from proto.messages import Fence

Handler = Callable[[Tunnel], Awaitable[None]]
"""Serves one tunnel to its end. It is closed when the handler returns, and cut where it raises."""
Admit = Callable[[NodeId, Opening], str | None]
"""None where this peer may have this tunnel, else why not, for people. Asked when a tunnel is requested and again when
its ticket is shown, since a plan may be replaced in between."""


class Tunnels:
    """One per daemon. `run` in the daemon's task group; everything from the event loop's thread."""

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Listen for TCP, serve what is offered, until cancelled. Started once listening."""
        raise NotImplementedError

    async def open(self, peer: NodeId, opening: Opening) -> Tunnel:
        """A tunnel to `peer` (not to this node itself). Raises `TunnelRefused` or `TunnelUnavailable`."""
        raise NotImplementedError

    def offer(self, purpose: Purpose, handler: Handler, admit: Admit) -> None:
        """Take tunnels for `purpose` from now on; a later call replaces an earlier one."""
        raise NotImplementedError

    def withdraw(self, purpose: Purpose) -> None:
        """Take no more of them. Those that are open go on."""
        raise NotImplementedError

    def cut(
        self, reason: str, *, peer: NodeId | None = None, model: str | None = None, fence: Fence | None = None
    ) -> int:
        """End every tunnel that fits all that is given, with its tickets; how many. Both ends see it broken."""
        raise NotImplementedError

    def status(self) -> dict[str, Any]:
        """Plain JSON: where it listens, totals by carrier, and each open tunnel with its bytes."""
        raise NotImplementedError
