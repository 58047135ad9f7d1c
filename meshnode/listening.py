"""Where a node listens: at the configured port, or, where that is 0, at the one the system chose last time.

What lives here: `listening`. What does not: binding (`meshnode.transport`), storing (`meshnode.state`). Called by the
node when it starts.

Members keep each other's addresses for their next start. Were each to come back at a new port after a power cut, nobody
would be where the others look. So the port that the system chose is asked for again; it is nobody's by right, and where
it can't be had, another one must do: the members that run learn it. A configured port is never stored: whoever goes
from a port to 0 may need that port for something else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

from meshnode.config.values import SocketAddress, socket_address
from meshnode.durable import StateError
from meshnode.events import Event, NodePortChanged, StateUnsaved
from meshnode.state import StateDirectory
from meshnode.transport.endpoint import Endpoint
from meshnode.transport.udp import ListenFailed

CHANGED_ADVICE: Final = (
    "members that run learn the new port; one that is down now will look at the old one, until another member tells it"
    " better: a fixed port for `listen` spares that"
)


async def listening(
    stack: AsyncExitStack,
    listen: SocketAddress,
    state: StateDirectory,
    endpoint_at: Callable[[SocketAddress], Endpoint],
    emit: Callable[[Event], None],
) -> Endpoint:
    """The endpoint that `endpoint_at` makes for an address, bound until `stack` ends. Raises `ListenFailed`."""
    kept = state.chosen_port()
    if listen.port or kept is None:
        endpoint = await stack.enter_async_context(endpoint_at(listen))
    else:
        try:
            endpoint = await stack.enter_async_context(endpoint_at(replace(listen, port=kept)))
        except ListenFailed as error:
            # Whatever is wrong with that port, it is none that the operator asked for.
            endpoint = await stack.enter_async_context(endpoint_at(listen))
            emit(NodePortChanged(kept, _port_of(endpoint), os.strerror(error.problem), CHANGED_ADVICE))
    if not listen.port:
        try:
            state.keep_chosen_port(_port_of(endpoint))
        except StateError as error:
            emit(StateUnsaved(path=str(error.path), problem=error.found, advice=error.fix))
    return endpoint


def _port_of(endpoint: Endpoint) -> int:
    return socket_address(endpoint.bound_addresses[0]).port
