"""One open tunnel: a byte stream with a name.

What lives here: `Tunnel`, and `TunnelStream`, which each carrier makes. What does not: the carriers, and how a tunnel
came to be (`tunnels`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import anyio
from anyio.abc import ByteStream

from meshnode.tunnel.opening import Carrier, Opening, Purpose
from proto.ids import NodeId
from proto.messages import Fence

BROKEN = "broken off by the peer, or its path was lost"
CLOSED = "closed"


class TunnelStream(Protocol):
    """What a carrier gives: an anyio byte stream that can also be ended from a callback."""

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """See `Tunnel`."""

    async def send(self, item: bytes) -> None:
        """See `Tunnel`."""

    async def send_eof(self) -> None:
        """See `Tunnel`."""

    async def aclose(self) -> None:
        """See `Tunnel`."""

    def abandon(self) -> None:
        """End both directions now, unfinished ones by cancelling them. Idempotent. Who waits in `receive` or `send`
        is woken with an error."""


class Tunnel(ByteStream):
    """A byte stream to `peer` with back-pressure in both directions. Whoever has it owns it, and closes it.

    - `receive` raises `anyio.EndOfStream` once the peer has sent its last byte (`send_eof`), and
      `anyio.BrokenResourceError` where the tunnel was cut, cancelled by the peer, or its carrier failed: an engine must
      not take half an answer for a whole one.
    - `send` returns when the bytes are on their way, and waits while the peer does not read.
    - `aclose` before both sides have ended cancels: the peer sees `BrokenResourceError`.
    """

    def __init__(
        self,
        stream: TunnelStream,
        peer: NodeId,
        opening: Opening,
        carrier: Carrier,
        *,
        opened_here: bool,
        ended: Callable[[Tunnel, str], None],
    ) -> None:
        """`ended` is called once, with the reason, when the tunnel is over."""
        self._stream = stream
        self._ended = ended
        self._reason: str | None = None
        self._is_over = False
        self._sent_eof = False
        self._received_eof = False
        self.peer = peer
        self.opening = opening
        self.carrier = carrier
        self.opened_here = opened_here
        """Whether this node asked for it."""
        self.sent_bytes = 0
        self.received_bytes = 0

    @property
    def purpose(self) -> Purpose:
        """What it carries."""
        return self.opening.purpose

    @property
    def model(self) -> str:
        """Whose engine or service it is for."""
        return self.opening.model

    @property
    def fence(self) -> Fence | None:
        """The plan it belongs to."""
        return self.opening.fence

    @property
    def stage(self) -> int:
        """The stage's place in the plan."""
        return self.opening.stage

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """The next bytes, at most `max_bytes`. See the class for what it raises."""
        try:
            data = await self._stream.receive(max_bytes)
        except anyio.EndOfStream:
            self._received_eof = True
            raise
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise self._broken() from error
        self.received_bytes += len(data)
        return data

    async def send(self, item: bytes) -> None:
        """Send all of `item`, in order. Raises `anyio.BrokenResourceError` where the tunnel is over."""
        try:
            await self._stream.send(item)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise self._broken() from error
        self.sent_bytes += len(item)

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; what the peer still sends can be read. Idempotent."""
        if self._sent_eof:
            return
        self._sent_eof = True
        try:
            await self._stream.send_eof()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise self._broken() from error

    async def aclose(self) -> None:
        """End it. Idempotent."""
        try:
            await self._stream.aclose()
        finally:
            cancelled = not (self._sent_eof and self._received_eof)
            self._finish("cancelled here" if cancelled and self._reason is None else self._reason or CLOSED)

    def cut(self, reason: str) -> None:
        """End it because it must not go on; whoever reads or writes it gets `BrokenResourceError`."""
        if self._reason is None:
            self._reason = reason
        self._stream.abandon()
        self._finish(self._reason)

    def _broken(self) -> anyio.BrokenResourceError:
        if self._reason is None:
            self._reason = BROKEN
        return anyio.BrokenResourceError(f"tunnel: {self._reason}")

    def _finish(self, reason: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._ended(self, reason)
