"""The 64-bit FNV-1a hash by which llama.cpp's RPC server names cached tensors, at memory speed in numpy.

What lives here: `fnv1a_64`. What does not: files (`meshnode.engine.weights_process`). Imported in child processes only.

FNV-1a is h = (h ^ byte) x p mod 2^64, byte after byte (draft-eastlake-fnv), which a loop in Python does at 5 MB/s. Two
facts make it parallel:

- The xor changes only the lowest byte: h ^ b = h + d with d = (low ^ b) - low, low the lowest byte of h. So over n
  bytes h_n = h_0 p^n + sum of d_i p^(n-i): a dot product.
- The lowest byte alone follows low' = (low ^ b) x 0xb3 mod 256, and bit k of a product with an odd number is that bit
  of the factor xor something of the lower bits. So once bits below k are known everywhere, bit k is a running xor.

Overflow of 64-bit integers wraps, which is the arithmetic wanted.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

OFFSET: Final = 0xCBF29CE484222325
PRIME: Final = 0x100000001B3
_LOW_PRIME: Final = PRIME & 0xFF
_MASK: Final = 2**64 - 1
_CHUNK: Final = 1 << 16
"""Bytes at once: every array of the steps stays in the processor's cache."""


def fnv1a_64(content: bytes | memoryview, start: int = OFFSET) -> int:
    """The hash of `content`, going on from `start`."""
    data = np.frombuffer(content, dtype=np.uint8)
    value = start
    for begin in range(0, len(data), _CHUNK):
        value = _advance(value, data[begin : begin + _CHUNK])
    return value


def _advance(value: int, data: npt.NDArray[np.uint8]) -> int:
    low = _low_bytes(value & 0xFF, data)
    step = (low ^ data).astype(np.int64) - low
    powers = _powers()[_CHUNK - len(data) :]
    mixed = int(np.dot(step.view(np.uint64), powers))
    return (value * pow(PRIME, len(data), 2**64) + mixed) & _MASK


def _low_bytes(first: int, data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The hash's lowest byte before each byte of `data`, given the one before the first; bit by bit.

    While bits from k on are still 0 in `low`, bit k of (low ^ data) x 0xb3 is what turns bit k from one byte to the
    next: what the lower bits carry into it, and the byte's own bit.
    """
    low = np.zeros(len(data), dtype=np.uint8)
    for bit in range(8):
        turns = ((low ^ data) * np.uint8(_LOW_PRIME)) & np.uint8(1 << bit)
        low |= _running_xor(turns, (first >> bit) & 1) << np.uint8(bit)
    return low


def _running_xor(turns: npt.NDArray[np.uint8], first: int) -> npt.NDArray[np.uint8]:
    """Bits that begin with `first` and flip after each turn that is not 0. Within words of 64 by doubling shifts, then
    with what the words before came to."""
    words = np.zeros(-(-len(turns) // 64), dtype="<u8")
    packed = np.packbits(turns != 0, bitorder="little")
    words.view(np.uint8)[: len(packed)] = packed
    for shift in (1, 2, 4, 8, 16, 32):
        words ^= words << np.uint64(shift)
    ends = np.bitwise_xor.accumulate(words >> np.uint64(63))
    words[1:] ^= np.uint64(0) - ends[:-1]
    # Bit i now says what all turns up to i came to; the bit before turn i is asked for.
    before = words << np.uint64(1)
    before[1:] |= words[:-1] >> np.uint64(63)
    if first:
        before ^= np.uint64(_MASK)
    return np.unpackbits(before.view(np.uint8), count=len(turns), bitorder="little")


@cache
def _powers() -> npt.NDArray[np.uint64]:
    """p^CHUNK, ..., p^2, p^1."""
    powers = np.empty(_CHUNK, dtype=np.uint64)
    value = 1
    for place in range(_CHUNK - 1, -1, -1):
        value = value * PRIME & _MASK
        powers[place] = value
    return powers
