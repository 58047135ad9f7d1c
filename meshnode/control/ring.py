"""The recent past of the event stream: a ring that readers follow with a cursor of their own.

What lives here: `EventRing`. What does not: HTTP (`meshnode.control.app`) and the log (`meshnode.logs`) that feeds it.

Nothing grows with the number or the slowness of readers: there is one ring, a reader holds a number, and one that falls
behind by more than the ring is told how many it missed instead of being waited for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import anyio

from meshnode.logs import Record

CAPACITY = 4096
"""Records kept: about 2 MB, and four seconds of a storm of 1,000 events per second."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record with its number; numbers start at 1 with each start of the daemon and have no holes."""

    number: int
    record: Record


@dataclass(frozen=True, slots=True)
class Missed:
    """A reader fell behind: `count` records up to and including `upto` are gone."""

    count: int
    upto: int


class EventRing:
    """Bounded history that readers can wait on. All calls from the event loop's thread."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._entries: deque[Entry] = deque(maxlen=capacity)
        self._next = 1
        self._more = anyio.Event()
        self._closed = False

    def add(self, record: Record) -> None:
        """Append one record and wake the readers."""
        self._entries.append(Entry(self._next, record))
        self._next += 1
        self._wake()

    def close(self) -> None:
        """Nothing comes any more: readers end once they have read what is there."""
        self._closed = True
        self._wake()

    def since(self, number: int, at_most: int = 500) -> list[Entry | Missed]:
        """Up to `at_most` entries after `number`, oldest first, led by a `Missed` where some of them are gone."""
        if not self._entries or number >= self._next - 1:
            return []
        oldest = self._entries[0].number
        found: list[Entry | Missed] = []
        if number < oldest - 1:
            found.append(Missed(oldest - 1 - number, oldest - 1))
        start = max(0, number + 1 - oldest)
        stop = min(len(self._entries), start + at_most)
        found.extend(self._entries[index] for index in range(start, stop))
        return found

    def records(self) -> list[Record]:
        """Everything that is kept, oldest first."""
        return [entry.record for entry in self._entries]

    @property
    def newest(self) -> int:
        """The number of the newest record; 0 before the first."""
        return self._next - 1

    @property
    def closed(self) -> bool:
        """True once nothing will be added any more."""
        return self._closed

    async def wait_beyond(self, number: int) -> None:
        """Return when there is a record after `number`, or the ring is closed."""
        while number >= self.newest and not self._closed:
            await self._more.wait()

    def _wake(self) -> None:
        self._more.set()
        self._more = anyio.Event()


def number_of(found: Entry | Missed) -> int:
    """Where a reader stands after `found`."""
    return found.upto if isinstance(found, Missed) else found.number
