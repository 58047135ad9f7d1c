"""`wait_for_split_participants`: the waiter driven by real tasks and the real clock, with short times."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import anyio
import pytest
from making_views import MANIFEST, MODEL, a_node, a_view, an_rtt, node_id
from waiting_meshes import QUICK, a_mesh

from meshnode.events import Event
from meshnode.membership.view import MeshView, Status
from meshnode.readiness import (
    LatestView,
    Outcome,
    QuorumNotReached,
    SettleSettings,
    SplitRequest,
    wait_for_split_participants,
)

A, B, C = node_id("a"), node_id("b"), node_id("c")
RUN = SplitRequest(MODEL, manifest=MANIFEST, settle=QUICK)
PAIR = (a_node("a"), a_node("b"))
TRIO = (*PAIR, a_node("c"))


async def moved_on(condition: Callable[[], bool]) -> None:
    """Lets other tasks run until `condition` holds; the caller's deadline bounds it."""
    while not condition():  # noqa: ASYNC110  it is the other task's state that is waited for, it has no event
        await anyio.sleep(0.001)


async def test_settled_mesh_returns_its_confirmed_participants() -> None:
    mesh = a_mesh(*PAIR)
    events: list[Event] = []
    snapshot = await wait_for_split_participants(RUN, mesh, time.monotonic, events.append)
    assert [each.node for each in snapshot.participants] == [A, B]
    assert snapshot.outcome is Outcome.SETTLED
    assert mesh.asked == [A, B]
    assert [event.name for event in events] == ["split.waiting", "split.candidates", "split.ready"]


async def test_late_node_is_taken_in_as_soon_as_its_view_comes() -> None:
    mesh = a_mesh(a_node("a"))
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:

            async def arrive() -> None:
                await moved_on(lambda: mesh.looked > 0)
                mesh.latest.publish(a_view(a_node("a"), a_node("b"), generation=2))

            tasks.start_soon(arrive)
            snapshot = await wait_for_split_participants(RUN, mesh, time.monotonic)
    assert ([each.node for each in snapshot.participants], snapshot.generation) == ([A, B], 2)
    assert snapshot.outcome is Outcome.SETTLED


async def test_below_quorum_it_raises_the_error_itself_and_not_a_group() -> None:
    request = replace(RUN, settle=replace(QUICK, deadline_s=0.2))
    with pytest.raises(QuorumNotReached) as caught:
        await wait_for_split_participants(request, a_mesh(a_node("a")), time.monotonic)
    assert [each.node for each in caught.value.snapshot.participants] == [A]


async def test_node_that_never_answers_cannot_hold_it_beyond_the_deadline() -> None:
    request = replace(RUN, settle=replace(QUICK, deadline_s=0.5, confirm_s=0.1))
    snapshot = await wait_for_split_participants(request, a_mesh(*TRIO, mute=frozenset({C})), time.monotonic)
    assert [each.node for each in snapshot.participants] == [A, B]
    assert [each.label for each in snapshot.exclusions] == [f"{C}:stage_control_unreachable"]


async def test_unmeasured_candidates_are_measured() -> None:
    request = replace(RUN, settle=replace(QUICK, pending_s=0.05))
    mesh = a_mesh(a_node("a"), a_node("b", rtt=an_rtt(corroborated=False)))
    await wait_for_split_participants(request, mesh, time.monotonic)
    assert mesh.measured == [B]


async def test_it_sleeps_while_nothing_happens() -> None:
    request = replace(RUN, settle=SettleSettings(deadline_s=0.4, confirm_s=0.1))
    mesh = a_mesh(a_node("a"))
    with pytest.raises(QuorumNotReached):
        await wait_for_split_participants(request, mesh, time.monotonic)
    assert mesh.looked <= 8  # start, follower, last stretch, answer, deadline: no polling


async def test_cancelled_wait_leaves_no_task_behind() -> None:
    before = len(anyio.get_running_tasks())
    mesh = a_mesh(*PAIR, mute=frozenset({B}))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_for_split_participants, RUN, mesh, time.monotonic)
        with anyio.fail_after(5):
            await moved_on(lambda: B in mesh.asked)
        tasks.cancel_scope.cancel()
    assert len(anyio.get_running_tasks()) == before


async def test_latest_view_wakes_everybody_and_none_misses_the_newest() -> None:
    latest = LatestView(a_view(a_node("a")))
    first, newest = latest.view(), a_view(a_node("a"), a_node("b", status=Status.DEAD), generation=3)
    got: list[MeshView] = []

    async def follow() -> None:
        got.append(await latest.newer_view(first))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            latest.publish(a_view(a_node("a"), generation=2))
            latest.publish(newest)
    assert got == [newest, newest]
