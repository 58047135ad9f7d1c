"""One HTTP connection, bounded where uvicorn is not: the time a request's head may take, and how many there may be.

What lives here: `Connection`. What does not: HTTP itself (uvicorn, h11), bodies (bounded by `meshnode.control.app`) and
answers that go on (`streams`). Who sends a request byte by byte, or connects and says nothing, is cut off after
`HEAD_S`; where a listener has `MAX_CONNECTIONS`, the one that has been idle longest makes room for the next, so that
nobody can take all of them and keep them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S: Final = 10.0
MAX_CONNECTIONS: Final = 256


class Connection(H11Protocol):
    """uvicorn's connection with these bounds."""

    _deadline: asyncio.TimerHandle | None = None
    _made_s = 0.0

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401  # uvicorn narrows asyncio's own type
        """A client connected: its first request is due."""
        self._make_room()
        super().connection_made(transport)
        self._made_s = self.loop.time()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ended, by either side."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """More of a request, or the beginning of the next."""
        super().data_received(data)
        if self.is_idle:
            self._await_head()
        else:
            self._stop_waiting()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def is_closing(self) -> bool:
        """Whether it ends by itself soon."""
        return self.transport.is_closing()

    def _await_head(self) -> None:
        """From its first byte on a head has `HEAD_S`, however many bytes come meanwhile."""
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.is_idle:
            self.transport.abort()

    def _make_room(self) -> None:
        """The oldest of the idle ones goes; where all are busy, uvicorn's own limit refuses the next requests."""
        standing = [each for each in self.connections if isinstance(each, Connection) and not each.is_closing]
        if len(standing) < MAX_CONNECTIONS:
            return
        oldest = min((each for each in standing if each.is_idle), key=lambda each: each._made_s, default=None)
        if oldest is not None:
            oldest.transport.abort()
