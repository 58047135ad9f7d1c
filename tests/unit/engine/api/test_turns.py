"""How many requests one model and one node get at once, and in which order the others come."""

from __future__ import annotations

from contextlib import ExitStack

import anyio
import pytest

from meshnode.engine.api.turns import MAX_REQUESTS, MAX_TUNNELS, OPENS_BURST, Busy, Turns
from meshnode.tunnel import TunnelSettings
from proto.ids import NodeId

ATTIC = NodeId("a" * 52)


def test_model_has_so_many_requests_and_each_gives_its_place_back() -> None:
    turns = Turns()
    with ExitStack() as stack:
        for _ in range(MAX_REQUESTS):
            stack.enter_context(turns.here("m"))
        with pytest.raises(Busy) as busy, turns.here("m"):
            pass
        assert busy.value.count == MAX_REQUESTS
        with turns.here("another"):
            pass
    with turns.here("m"):
        pass


async def test_requests_to_one_node_go_in_the_order_they_came_so_many_at_once() -> None:
    turns, begun, leave = Turns(), list[int](), anyio.Event()

    async def one(number: int) -> None:
        async with turns.towards(ATTIC):
            begun.append(number)
            await leave.wait()

    async with anyio.create_task_group() as tasks:
        for number in range(MAX_REQUESTS):
            tasks.start_soon(one, number)
        await anyio.wait_all_tasks_blocked()
        assert begun == list(range(MAX_TUNNELS))
        with pytest.raises(Busy):
            async with turns.towards(ATTIC):
                pass
        leave.set()
    assert begun == list(range(MAX_REQUESTS))


async def test_who_gives_up_waiting_gives_its_place_back() -> None:
    turns = Turns()

    async def wait_for_ever() -> None:
        async with turns.towards(ATTIC):
            await anyio.sleep_forever()

    for _ in range(2):
        async with anyio.create_task_group() as tasks:
            for _ in range(MAX_REQUESTS):
                tasks.start_soon(wait_for_ever)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()


def test_node_sends_no_more_and_no_faster_than_another_takes() -> None:
    settings = TunnelSettings()
    assert settings.per_peer > MAX_TUNNELS
    assert settings.opens_burst > OPENS_BURST
