from __future__ import annotations

import subprocess

import anyio
import pytest

from meshnode.child import ChildFailed, call_in_child, call_in_child_blocking

WORKER = "meshnode.resources.bandwidth_worker"


async def test_child_answers() -> None:
    answer = await call_in_child(WORKER, [1, 4096, 1])
    assert isinstance(answer, list)
    assert all(isinstance(figure, int) and figure > 0 for figure in answer)


async def test_child_that_dies_says_why() -> None:
    with pytest.raises(ChildFailed, match=r"exit code 1: ValueError: expected \[threads"):
        await call_in_child(WORKER, "nonsense")


async def test_cancelling_kills_the_child() -> None:
    with anyio.move_on_after(0.2) as scope:
        await call_in_child(WORKER, [1, 64 * 2**20, 10**6])
    assert scope.cancelled_caught


def test_blocking_call_has_a_deadline() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        call_in_child_blocking(WORKER, [1, 64 * 2**20, 10**6], timeout_s=0.2)


def test_missing_module_is_a_failed_child() -> None:
    with pytest.raises(ChildFailed, match="No module named"):
        call_in_child_blocking("meshnode.no_such_room", None)
