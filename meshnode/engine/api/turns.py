"""Whose turn it is: how many requests one model has at once, and how fast one node sends them to another.

What lives here: `Turns`. What does not: answering (`meshnode.engine.api.gateway`), the order in which a model's process
takes what it was given (its own: first come, first served). Where there is no more room a request is told so at once;
who waited a minute to be refused would have done better to come back.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final

import anyio

from proto.ids import NodeId

MAX_REQUESTS: Final = 64
"""Of one model, those that are being answered included."""
MAX_TUNNELS: Final = 24
"""To one node at once, below what it takes (`TunnelSettings.per_peer`, tickets included)."""
OPENS_PER_S: Final = 15.0
OPENS_BURST: Final = 40.0
"""Below what a node takes from another (`TunnelSettings.opens_per_s`): a request that comes too fast waits here."""


class Busy(Exception):
    """There are `count` requests already."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(f"{count} requests are waiting for it already")


@dataclass
class _Way:
    """The requests on their way to one node."""

    tunnels: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(MAX_TUNNELS))
    requests: int = 0
    due_s: float = 0.0

    async def pace(self) -> None:
        """Wait until the next tunnel may be asked for."""
        now_s = time.monotonic()
        self.due_s = max(self.due_s, now_s - OPENS_BURST / OPENS_PER_S) + 1 / OPENS_PER_S
        await anyio.sleep(max(0.0, self.due_s - now_s))


class Turns:
    """All requests of one node's gateway."""

    def __init__(self) -> None:
        self._here: Counter[str] = Counter()
        self._ways: dict[NodeId, _Way] = {}

    @contextmanager
    def here(self, model: str) -> Iterator[None]:
        """A request to a model that runs here, from whichever node. Raises `Busy`."""
        if self._here[model] >= MAX_REQUESTS:
            raise Busy(self._here[model])
        self._here[model] += 1
        try:
            yield
        finally:
            self._here[model] -= 1
            if not self._here[model]:
                del self._here[model]

    @asynccontextmanager
    async def towards(self, node: NodeId) -> AsyncIterator[None]:
        """A request to a model that runs on `node`; in it once its tunnel may be opened. Raises `Busy`."""
        way = self._ways.setdefault(node, _Way())
        if way.requests >= MAX_REQUESTS:
            raise Busy(way.requests)
        way.requests += 1
        try:
            async with way.tunnels:
                await way.pace()
                yield
        finally:
            way.requests -= 1
