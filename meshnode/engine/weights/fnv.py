"""The 64-bit FNV-1a hash by which llama.cpp's RPC server names cached tensors, at memory speed in numpy.

What lives here: `fnv1a_64`. What does not: files (`meshnode.engine.weights.fill_process`). Imported in child
processes only.

FNV-1a is h = (h ^ byte) x p mod 2^64, byte after byte (draft-eastlake-fnv), which a loop in Python does at 5 MB/s. Two
facts let many stretches of the bytes, lanes, be hashed side by side, each numpy call taking one byte of every lane:

- The xor changes only the lowest byte. So with h = H + low, a lane of n bytes takes h to H p^n + g, where g is what it
  makes of `low` alone: once a lane's first lowest byte is known, it can be hashed without what came before.
- The lowest byte alone follows low' = (low ^ byte) x 0xb3 mod 256, and bit k of a product with an odd number is that
  bit of the factor xor something of the lower bits. So a lane that is begun with bit k 0 instead of 1 ends with bit k
  flipped, and with the lower bits as they are: one pass over the bytes for each bit tells all lanes' first bytes.

Overflow of 64-bit integers wraps, which is the arithmetic wanted.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

OFFSET: Final = 0xCBF29CE484222325
PRIME: Final = 0x100000001B3
_LOW_PRIME: Final = PRIME & 0xFF
_MASK: Final = 2**64 - 1
_LANES: Final = 1 << 13
_CHUNK: Final = 1 << 20
"""Bytes at once: what the passes go over stays in the processor's cache."""

_Bytes = npt.NDArray[np.uint8]


def fnv1a_64(content: bytes | memoryview, start: int = OFFSET) -> int:
    """The hash of `content`, going on from `start`."""
    data = np.frombuffer(content, dtype=np.uint8)
    value = start
    for begin in range(0, len(data), _CHUNK):
        value = _advance(value, data[begin : begin + _CHUNK])
    return value


def _advance(value: int, data: _Bytes) -> int:
    steps = len(data) // _LANES
    if steps:
        value = _by_lanes(value, data[: steps * _LANES], steps)
    for byte in data[steps * _LANES :].tolist():
        value = (value ^ byte) * PRIME & _MASK
    return value


def _by_lanes(value: int, data: _Bytes, steps: int) -> int:
    """`value` after `data`, `steps` bytes in each lane."""
    rows = np.ascontiguousarray(data.reshape(_LANES, steps).T)
    firsts = _first_bytes(value & 0xFF, rows)
    hashes = firsts.astype(np.uint64)
    for row in rows:
        np.bitwise_xor(hashes, row, out=hashes)
        np.multiply(hashes, np.uint64(PRIME), out=hashes)
    # Each lane takes h to (h - first) p^steps + hash: a polynomial in p^steps over all lanes.
    over_lane, powers = _powers(steps)
    added = hashes - firsts.astype(np.uint64) * np.uint64(over_lane)
    return (value * pow(over_lane, _LANES, 2**64) + int(np.dot(added, powers))) & _MASK


def _first_bytes(first: int, rows: _Bytes) -> _Bytes:
    """The hash's lowest byte before each lane, given the one before the first lane; bit by bit.

    While bits from k on are still 0 in `firsts`, bit k of a lane's end says whether that lane turns it.
    """
    firsts = np.zeros(_LANES, dtype=np.uint8)
    lows = np.empty(_LANES, dtype=np.uint8)
    for bit in range(8):
        np.copyto(lows, firsts)
        for row in rows:
            np.bitwise_xor(lows, row, out=lows)
            np.multiply(lows, np.uint8(_LOW_PRIME), out=lows)
        turned = np.bitwise_xor.accumulate((lows >> np.uint8(bit)) & np.uint8(1))
        before = np.full(_LANES, (first >> bit) & 1, dtype=np.uint8)
        before[1:] ^= turned[:-1]
        firsts |= before << np.uint8(bit)
    return firsts


@lru_cache(maxsize=4)
def _powers(steps: int) -> tuple[int, npt.NDArray[np.uint64]]:
    """q = p^steps, and q^(lanes - 1), ..., q, 1."""
    over_lane = pow(PRIME, steps, 2**64)
    powers = np.empty(_LANES, dtype=np.uint64)
    value = 1
    for place in range(_LANES - 1, -1, -1):
        powers[place] = value
        value = value * over_lane & _MASK
    return over_lane, powers
