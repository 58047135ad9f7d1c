"""A request's body, bounded in bytes and time: nobody fills this process's memory, or holds a handler, by sending.

What lives here: `read_bounded` and its error. What does not: what a body means, and the shape of an error's answer
(`meshnode.control.app`, `meshnode.engine.api.gateway`).
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable

import anyio


class BodyRefused(Exception):
    """It is too large, or came too slowly: the HTTP `status` and the `code` of the answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message
        super().__init__(message)


async def read_bounded(
    pieces: AsyncIterable[bytes],
    into: bytearray,
    *,
    most_bytes: int,
    within_s: float,
    taken: Callable[[int], None] = lambda _: None,
) -> None:
    """Read `pieces` into `into`. `taken` is asked for room for so many bytes before each, and may raise. Raises
    `BodyRefused`; what was read by then is in `into`."""
    with anyio.move_on_after(within_s) as deadline:
        async for piece in pieces:
            if len(into) + len(piece) > most_bytes:
                raise BodyRefused(413, "too_large", f"the body is over {most_bytes} bytes")
            taken(len(piece))
            into += piece
    if deadline.cancelled_caught:
        raise BodyRefused(408, "too_slow", f"the body did not arrive within {within_s:g} s")
