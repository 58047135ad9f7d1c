"""The measuring half of `bandwidth`, run as a child process of its own because it needs numpy and a lot of memory.

STREAM's copy and triad (McCalpin, 1995) over arrays far larger than any cache, one set per thread (numpy releases the
interpreter lock inside these loops). Bytes are counted as STREAM counts them: what the program reads and writes,
without the cache's own write-allocate traffic. The best of several rounds counts: noise only ever slows a round down.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias

from meshnode.child import Json, serve

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    Arrays: TypeAlias = tuple[
        numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]
    ]

_ITEM_BYTES = 8


def main(argument: Json) -> Json:
    """`[threads, array_bytes, rounds]` -> `[copy_bytes_per_s, triad_bytes_per_s]`."""
    match argument:
        case [int(threads), int(array_bytes), int(rounds)]:
            return list(measure(threads, array_bytes, rounds))
    raise ValueError(f"expected [threads, array_bytes, rounds], got {argument!r}")


def measure(threads: int, array_bytes: int, rounds: int) -> tuple[int, int]:
    """(copy, triad) in bytes per second, all threads together."""
    items = max(1, array_bytes // _ITEM_BYTES)
    arrays = [_arrays(items) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        copy_s = _best_seconds(pool, _copy, arrays, rounds)
        triad_s = _best_seconds(pool, _triad, arrays, rounds)
    moved_once = items * _ITEM_BYTES * threads
    # Copy reads one and writes one array. Triad in numpy is two passes: multiply (2 arrays), add (3 arrays).
    return int(2 * moved_once / copy_s), int(5 * moved_once / triad_s)


def _arrays(items: int) -> Arrays:
    import numpy

    return numpy.zeros(items), numpy.full(items, 1.5), numpy.full(items, 2.5)


def _copy(arrays: Arrays) -> None:
    import numpy

    numpy.copyto(arrays[0], arrays[1])


def _triad(arrays: Arrays) -> None:
    import numpy

    target, first, second = arrays
    numpy.multiply(second, 3.0, out=target)
    numpy.add(target, first, out=target)


def _best_seconds(
    pool: ThreadPoolExecutor, kernel: Callable[[Arrays], None], arrays: list[Arrays], rounds: int
) -> float:
    best = float("inf")
    for _ in range(rounds + 1):  # the first round also touches the pages and is as good as any if it wins
        started = time.perf_counter()
        list(pool.map(kernel, arrays))
        best = min(best, time.perf_counter() - started)
    return best


if __name__ == "__main__":
    serve(main)
