"""The recent past of the event stream."""

from __future__ import annotations

import anyio
import anyio.lowlevel
from hypothesis import given
from hypothesis import strategies as st

from meshnode.control.ring import Entry, EventRing, Missed, number_of


def a_ring(records: int, capacity: int = 4) -> EventRing:
    ring = EventRing(capacity)
    for number in range(1, records + 1):
        ring.add({"event": f"e{number}"})
    return ring


def test_reader_gets_what_came_after_its_cursor() -> None:
    assert [number_of(found) for found in a_ring(3).since(1)] == [2, 3]


def test_reader_at_the_end_gets_nothing() -> None:
    assert a_ring(3).since(3) == []


def test_reader_that_fell_behind_is_told_how_many_it_missed() -> None:
    found = a_ring(10).since(2)
    assert found[0] == Missed(count=4, upto=6)
    assert [number_of(entry) for entry in found[1:]] == [7, 8, 9, 10]


def test_cursor_of_an_earlier_start_of_the_daemon_gets_nothing_until_numbers_reach_it() -> None:
    assert a_ring(3).since(1000) == []


@given(st.integers(0, 30), st.integers(1, 6), st.integers(0, 30), st.integers(1, 5))
def test_reading_in_pages_accounts_for_every_record(records: int, capacity: int, after: int, page: int) -> None:
    ring, number, seen = a_ring(records, capacity), after, 0
    while batch := ring.since(number, at_most=page):
        seen += sum(found.count if isinstance(found, Missed) else 1 for found in batch)
        assert number_of(batch[-1]) > number
        number = number_of(batch[-1])
    assert seen == max(0, records - after)


async def test_waiting_reader_wakes_with_the_next_record() -> None:
    ring = a_ring(1)
    found: list[Entry | Missed] = []

    async def read() -> None:
        await ring.wait_beyond(1)
        found.extend(ring.since(1))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.lowlevel.checkpoint()
            ring.add({"event": "e2"})
    assert found == [Entry(2, {"event": "e2"})]


async def test_closing_ends_the_wait() -> None:
    ring = a_ring(1)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ring.wait_beyond, 1)
            await anyio.lowlevel.checkpoint()
            ring.close()
