"""Bytes are counted as they would be sent."""

from __future__ import annotations

import pytest

from meshnode.simulation.counts import LENGTH_BYTES, size_bytes
from proto.codec import encode_frame
from proto.ids import node_id_of
from proto.messages import Claim, ClaimKind, Delta, Message, ViewHash
from proto.parts import PartKind, SignedPart

NODE = node_id_of(b"n" * 32)
CLAIM = Claim(ClaimKind.DEAD, NODE, 300, NODE, 1, bytes(64))


def some_parts(count: int) -> tuple[SignedPart, ...]:
    """Of every kind, and of sizes whose headers differ."""
    sizes_bytes = (0, 17, 255, 256, 1000, 16_384)
    kinds = list(PartKind)
    return tuple(
        SignedPart(kinds[number % 3], bytes(sizes_bytes[number % len(sizes_bytes)] if count < 20 else 90), bytes(64))
        for number in range(count)
    )


@pytest.mark.parametrize(
    "message",
    [
        ViewHash(bytes(8), 70_000, bytes(512)),
        *(Delta(some_parts(count), (), urgent=True) for count in (0, 1, 6, 15, 16, 17, 512)),
        Delta(some_parts(6), (CLAIM,) * 3),
        Delta((), (CLAIM,) * 20),
    ],
    ids=lambda message: f"{type(message).__name__} {len(getattr(message, 'parts', ()))}",
)
def test_size_is_that_of_the_frame_sent(message: Message) -> None:
    assert LENGTH_BYTES + size_bytes(message) == len(encode_frame(message))
