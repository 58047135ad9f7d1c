"""The timer of a state machine: when it rings, and what becomes of a fault in what it rings for."""

from __future__ import annotations

import anyio
import pytest

from meshnode.alarm import Alarm


async def test_fault_in_what_is_rung_for_ends_the_alarm() -> None:
    def broken() -> None:
        raise RuntimeError("a fault of the machine")

    alarm = Alarm(lambda: 0.0, lambda: 0.0, broken)
    with anyio.fail_after(10), pytest.raises(RuntimeError, match="a fault of the machine"):
        await alarm.run()
    assert not alarm.is_running


async def test_moment_that_moves_nearer_rings_then() -> None:
    due_s, rung = [3600.0], anyio.Event()

    def ring() -> None:
        due_s[0] = 3600.0
        rung.set()

    alarm = Alarm(lambda: 1.0, lambda: due_s[0], ring)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(alarm.run)
            await anyio.lowlevel.checkpoint()
            due_s[0] = 1.0
            alarm.set()
            await rung.wait()
            tasks.cancel_scope.cancel()


def test_nothing_rings_before_it_runs() -> None:
    alarm = Alarm(lambda: 0.0, lambda: 0.0, lambda: pytest.fail("rang"))
    alarm.set()
    assert not alarm.is_running
