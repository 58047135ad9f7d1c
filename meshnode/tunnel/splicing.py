"""Joining two byte streams.

What lives here: `splice`. What does not: where the streams come from.
"""

from __future__ import annotations

import contextlib

import anyio
from anyio.abc import ByteStream

CHUNK_BYTES = 256 * 1024


async def splice(left: ByteStream, right: ByteStream) -> None:
    """Carry bytes both ways until both sides have ended, then close both.

    The end of one direction is passed on (half-close) while the other goes on. Nothing is buffered but one chunk of at
    most 256 KiB a direction: a reader that stalls stops the writer at the other end. A broken stream, or cancellation,
    cancels both; a broken one is no error here, since both ends have seen it. For a plain socket, accepted or handed
    over, take a `LoopbackStream`: anyio's own reads ahead without bound until its first `receive` has had to wait. What
    `anyio.connect_unix` gives does not, and may be spliced as it is.
    """
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_carry, left, right, tasks.cancel_scope)
            tasks.start_soon(_carry, right, left, tasks.cancel_scope)
    finally:
        with anyio.CancelScope(shield=True):
            await left.aclose()
            await right.aclose()


async def _carry(source: ByteStream, target: ByteStream, both: anyio.CancelScope) -> None:
    try:
        while True:
            await target.send(await source.receive(CHUNK_BYTES))
    except anyio.EndOfStream:
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await target.send_eof()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        both.cancel()
