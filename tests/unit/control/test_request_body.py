"""Reading a request's body within bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from meshnode.request_body import BodyRefused, read_bounded


async def pieces(*given: bytes, then_stall: bool = False) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece
    if then_stall:
        await anyio.sleep_forever()


async def test_body_is_read_up_to_its_bound_and_no_further() -> None:
    whole, over = bytearray(), bytearray()
    await read_bounded(pieces(b"ab", b"cd"), whole, most_bytes=4, within_s=60)
    assert whole == b"abcd"
    with pytest.raises(BodyRefused) as refused:
        await read_bounded(pieces(b"ab", b"cde"), over, most_bytes=4, within_s=60)
    assert (refused.value.status, refused.value.code, bytes(over)) == (413, "too_large", b"ab")


async def test_body_that_does_not_end_is_refused_in_time() -> None:
    read = bytearray()
    with pytest.raises(BodyRefused) as refused:
        await read_bounded(pieces(b"ab", then_stall=True), read, most_bytes=4, within_s=0.01)
    assert (refused.value.status, refused.value.code) == (408, "too_slow")


async def test_room_is_asked_for_before_each_piece() -> None:
    taken: list[int] = []

    def take(size_bytes: int) -> None:
        if sum(taken) + size_bytes > 3:
            raise MemoryError
        taken.append(size_bytes)

    read = bytearray()
    with pytest.raises(MemoryError):
        await read_bounded(pieces(b"ab", b"cd"), read, most_bytes=100, within_s=60, taken=take)
    assert (taken, bytes(read)) == ([2], b"ab")
