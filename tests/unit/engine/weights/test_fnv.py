"""The hash by which llama.cpp names cached tensors, against its definition and published values."""

from __future__ import annotations

import random

import pytest

from meshnode.engine.weights.fnv import OFFSET, PRIME, fnv1a_64


def by_definition(content: bytes, value: int = OFFSET) -> int:
    """draft-eastlake-fnv, section 2, byte after byte."""
    for byte in content:
        value = (value ^ byte) * PRIME % 2**64
    return value


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)],
)
def test_published_values(content: bytes, expected: int) -> None:
    assert fnv1a_64(content) == expected


@pytest.mark.parametrize("count", [1, 2, 1000, 8191, 8192, 8193, 65_537, 1_048_575, 1_048_576, 1_056_769])
def test_any_length_is_as_defined(count: int) -> None:
    content = random.Random(count).randbytes(count)
    assert fnv1a_64(content) == by_definition(content)


@pytest.mark.parametrize("content", [bytes(70_000), b"\xff" * 70_000, bytes(range(256)) * 300])
def test_regular_content_is_as_defined(content: bytes) -> None:
    assert fnv1a_64(content) == by_definition(content)


def test_pieces_give_what_the_whole_gives() -> None:
    content = random.Random(1).randbytes(200_001)
    value = OFFSET
    for begin in range(0, len(content), 7_777):
        value = fnv1a_64(content[begin : begin + 7_777], value)
    assert value == fnv1a_64(content)
