"""Answers that go on for as long as somebody reads them, bounded in number and in patience.

What lives here: `Slots` and `BoundedStream`. What does not: what is streamed (`meshnode.control.app`, `live`). A reader
that stops reading costs one write buffer and, after `STALL_S`, nothing; one more reader than there are slots is told so
at once, so that readers can't use up what a question needs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from meshnode.control.surface import ControlError

MAX_STREAMS: Final = 64
"""Readers of one listener at once. A mesh's owner has a few pages and scripts open; a thousand is a fault."""
STALL_S: Final = 30.0
"""So long one write may wait for its reader. A stream carries something at least every 15 s."""
EVENT_STREAM: Final = "text/event-stream"


class Slots:
    """How many streams may run at once."""

    def __init__(self, count: int = MAX_STREAMS) -> None:
        self._count = count
        self.taken = 0

    def take(self) -> None:
        """Take one. Raises `ControlError` where none is free."""
        if self.taken >= self._count:
            advice = "close one of them, or read /v1/events?follow=0"
            raise ControlError(503, "too_many_streams", f"{self._count} streams are being read already", advice=advice)
        self.taken += 1

    def give_back(self) -> None:
        """Let another have it."""
        self.taken -= 1


class BoundedStream(StreamingResponse):
    """`content` as an event stream that holds one of `slots` from now until it ends. Raises `ControlError`."""

    def __init__(self, content: AsyncIterator[bytes], slots: Slots, headers: Mapping[str, str] | None = None) -> None:
        slots.take()
        self._slots = slots
        super().__init__(content, media_type=EVENT_STREAM, headers={"Cache-Control": "no-store", **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the content ends, the reader goes, or it stops reading."""
        try:
            with anyio.CancelScope() as whole:

                async def within_patience(message: Message) -> None:
                    with anyio.move_on_after(STALL_S) as patience:
                        await send(message)
                    if patience.cancelled_caught:
                        whole.cancel()

                await super().__call__(scope, receive, within_patience)
        finally:
            self._slots.give_back()
