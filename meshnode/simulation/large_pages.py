"""Memory of a large simulated mesh in large pages: a thousand nodes fill a gigabyte, and touch all of it all the time.

With pages of 4 KiB the processor spends a quarter of the run looking up where they lie. Linux puts what a process has
into pages of 2 MiB on request (madvise(2), `MADV_COLLAPSE`, since 6.1). Elsewhere, or where that is forbidden, the run
only takes longer: nothing here changes what is simulated.

What lives here: `LargePages`, used by a `World` of many nodes.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

MADV_COLLAPSE = 25
LARGE_PAGE_BYTES = 2 << 20
STEPS_BETWEEN = 100_000
_MAPS = Path("/proc/self/maps")


class LargePages:
    """Asks for large pages again whenever a simulation has done enough to have grown."""

    def __init__(self) -> None:
        self._asked_at = 0
        self._advise = _madvise()

    def grown(self, steps: int) -> None:
        """`steps` were done since the start: asks where that is many more than last time."""
        if self._advise is None or steps - self._asked_at < STEPS_BETWEEN:
            return
        self._asked_at = steps
        for start, end in _own_memory():
            self._advise(start, end - start, MADV_COLLAPSE)


def _madvise() -> ctypes._NamedFuncPointer | None:
    if not sys.platform.startswith("linux") or not _MAPS.exists():
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return advise


def _own_memory() -> Iterator[tuple[int, int]]:
    """Start and end of every whole run of large pages in private writable memory that belongs to no file."""
    for line in _MAPS.read_text().splitlines():
        span, permissions, _, _, inode, *name = line.split()
        if permissions != "rw-p" or inode != "0" or (name and name[0] != "[heap]"):
            continue
        low, high = (int(address, 16) for address in span.split("-"))
        start, end = -(-low // LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES, high // LARGE_PAGE_BYTES * LARGE_PAGE_BYTES
        if start < end:
            yield start, end
