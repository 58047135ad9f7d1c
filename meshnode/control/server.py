"""Listening: the application on a Unix socket and, where the operator asks, on loopback TCP.

What lives here: `ControlServer`, `tcp_listener`. What does not: routes (`meshnode.control.app`). uvicorn does HTTP;
what it would do to the process is taken from it: it neither grabs signals (the daemon leaves the mesh first) nor wakes
up ten times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from meshnode.control.connection import MAX_CONNECTIONS, Connection

MAX_HEAD_BYTES = 16 * 1024
GRACE_S = 1
"""Seconds that open requests have at the end."""


class _Server(uvicorn.Server):
    def __init__(self, app: ASGIApp) -> None:
        config = uvicorn.Config(
            app, loop="none", http=Connection, ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, date_header=False, proxy_headers=False, timeout_keep_alive=30,
            timeout_graceful_shutdown=GRACE_S, h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            limit_concurrency=2 * MAX_CONNECTIONS,  # with those that are just ending
        )  # fmt: skip
        super().__init__(config)
        self._quit = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        # uvicorn polls ten times a second for its date header and its request limit; neither is in use here.
        await self._quit.wait()

    def quit(self) -> None:
        self._quit.set()


class ControlServer:
    """One application on one listening socket. `serve()` ends after `quit()`; the socket is closed then."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        self._server = _Server(app)
        self._listener = listener

    async def serve(self) -> None:
        """Answer requests until `quit` is called."""
        try:
            await self._server.serve(sockets=[self._listener])
        finally:
            self._listener.close()

    def quit(self) -> None:
        """Stop accepting; open requests have `GRACE_S` seconds."""
        self._server.quit()


def tcp_listener(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
