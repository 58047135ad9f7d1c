"""Two connections joined, over real loopback sockets."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from meshnode.tunnel import LoopbackStream, splice

DEADLINE_S = 10.0


def a_pair() -> tuple[LoopbackStream, LoopbackStream]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return LoopbackStream(one), LoopbackStream(listener.accept()[0])


@asynccontextmanager
async def spliced() -> AsyncIterator[tuple[LoopbackStream, LoopbackStream]]:
    """The far ends of two connections whose near ends are spliced; the splice has ended when the block is left."""
    left_far, left = a_pair()
    right, right_far = a_pair()
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(splice, left, right)
            yield left_far, right_far
        for near in (left, right):
            with pytest.raises(anyio.ClosedResourceError):
                await near.send(b"closed")


async def test_bytes_pass_and_each_direction_ends_by_itself() -> None:
    async with spliced() as (left, right):
        await left.send(b"question")
        await left.send_eof()
        assert b"".join([piece async for piece in right]) == b"question"
        await right.send(b"answer")
        await right.send_eof()
        assert b"".join([piece async for piece in left]) == b"answer"


async def test_end_that_breaks_is_broken_for_the_other_too() -> None:
    async with spliced() as (left, right):
        await left.send(b"half")
        assert await right.receive() == b"half"
        await left.aclose()
        with pytest.raises(anyio.BrokenResourceError):
            await right.receive()


async def test_cancelled_splice_closes_both() -> None:
    left_far, left = a_pair()
    right, right_far = a_pair()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(splice, left, right)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    with anyio.fail_after(DEADLINE_S):
        for far in (left_far, right_far):
            with pytest.raises(anyio.BrokenResourceError):
                await far.receive()


async def test_stalled_reader_stops_the_writer() -> None:
    left_far, left = a_pair()
    right, right_far = a_pair()
    sent_bytes = 0
    async with right_far, anyio.create_task_group() as tasks:
        tasks.start_soon(splice, left, right)
        with anyio.move_on_after(0.3) as waiting:
            while True:
                await left_far.send(bytes(65_536))
                sent_bytes += 65_536
        tasks.cancel_scope.cancel()
    assert waiting.cancelled_caught
    assert sent_bytes < 32 << 20, "the kernel's buffers, and one chunk"
