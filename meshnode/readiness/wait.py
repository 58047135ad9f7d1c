"""`wait_for_split_participants`: the waiter driven by a real mesh and a real clock.

What lives here: the function, the `MeshFeed` it needs, and `LatestView`, a feed's simplest source of views. What does
not: every decision (`meshnode.readiness.waiter`). It sleeps until the view changes, an answer comes, or the waiter's
next time is due; it never polls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from meshnode.events import Event
from meshnode.membership.effects import Emit
from meshnode.membership.view import MeshView
from meshnode.readiness.request import SplitRequest
from meshnode.readiness.snapshot import SplitParticipantSnapshot
from meshnode.readiness.waiter import AskConfirm, Failed, Finished, Measure, Waiter, WaiterEffect
from proto.ids import NodeId
from proto.messages import Confirm

Clock = Callable[[], float]
"""Monotonic seconds."""


class MeshFeed(Protocol):
    """The mesh as a waiting split sees it; the daemon implements it over membership and its links."""

    def view(self) -> MeshView:
        """The newest view; the same object as long as nothing changed."""

    async def newer_view(self, seen: MeshView) -> MeshView:
        """Returns a view that is not `seen` as soon as there is one: any change of nodes, offers, links or RTTs."""

    async def ask_confirm(self, node: NodeId, model: str) -> Confirm | None:
        """Asks `node` over its link for its figures (the local node: from its own state); None where none came."""

    def measure(self, nodes: Sequence[NodeId]) -> None:
        """Takes RTT samples to `nodes` now, linking to them first where needed."""


class LatestView:
    """Holds the newest view and wakes those who wait for a newer one. Several may wait; none misses the newest."""

    def __init__(self, view: MeshView) -> None:
        self._view = view
        self._changed = anyio.Event()

    def publish(self, view: MeshView) -> None:
        """`view` is the newest now."""
        if view is not self._view:
            self._view = view
            self._changed.set()
            self._changed = anyio.Event()

    def view(self) -> MeshView:
        """The newest view."""
        return self._view

    async def newer_view(self, seen: MeshView) -> MeshView:
        """The newest view, once it is not `seen`."""
        while self._view is seen:
            await self._changed.wait()
        return self._view


async def wait_for_split_participants(
    request: SplitRequest,
    mesh: MeshFeed,
    clock: Clock,
    emit: Callable[[Event], None] = lambda event: None,
) -> SplitParticipantSnapshot:
    """Waits until the mesh's members have settled, and returns who takes part.

    Returns at the deadline at the latest. Raises `QuorumNotReached` (with the same snapshot) where fewer than the
    quorum take part by then. Cancelling it leaves nothing behind.
    """
    drive = _Drive(request, mesh, clock, emit)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drive.follow_views)
        await drive.until_over(tasks)
        tasks.cancel_scope.cancel()
    return drive.result()


class _Drive:
    """Carries one waiter's effects out."""

    def __init__(self, request: SplitRequest, mesh: MeshFeed, clock: Clock, emit: Callable[[Event], None]) -> None:
        self._waiter = Waiter(request, clock())
        self._confirm_s = request.settle.confirm_s
        self._mesh = mesh
        self._clock = clock
        self._emit = emit
        self._answers: list[tuple[NodeId, Confirm | None]] = []
        self._stirred = anyio.Event()
        self._over: Finished | Failed | None = None
        self._first_view = mesh.view()

    def result(self) -> SplitParticipantSnapshot:
        """The snapshot, or raises."""
        assert self._over is not None, "until_over has returned"
        if isinstance(self._over, Failed):
            raise self._over.error
        return self._over.snapshot

    async def follow_views(self) -> None:
        """Stirs the loop at every view newer than the first: one that comes before this task runs counts too."""
        seen = self._first_view
        while True:
            seen = await self._mesh.newer_view(seen)
            self._stir()

    async def until_over(self, tasks: TaskGroup) -> None:
        """One step per change or due time, each on the newest view."""
        while True:
            self._stirred = anyio.Event()
            for effect in self._step():
                self._carry_out(effect, tasks)
            if self._over is not None:
                return
            await self._sleep()

    def _step(self) -> list[WaiterEffect]:
        effects = self._waiter.observe(self._mesh.view(), self._clock())
        answers, self._answers = self._answers, []
        for node, confirm in answers:
            effects += self._waiter.confirmed(node, confirm, self._clock())
        return effects

    def _carry_out(self, effect: WaiterEffect, tasks: TaskGroup) -> None:
        match effect:
            case AskConfirm(node, model):
                tasks.start_soon(self._ask, node, model)
            case Measure(nodes):
                self._mesh.measure(nodes)
            case Emit(event):
                self._emit(event)
            case Finished() | Failed():
                self._over = effect

    async def _ask(self, node: NodeId, model: str) -> None:
        confirm = None
        with anyio.move_on_after(self._confirm_s):
            confirm = await self._mesh.ask_confirm(node, model)
        self._answers.append((node, confirm))
        self._stir()

    async def _sleep(self) -> None:
        wakeup_s = self._waiter.next_wakeup()
        timeout_s = None if math.isinf(wakeup_s) else max(0.0, wakeup_s - self._clock())
        with anyio.move_on_after(timeout_s):
            await self._stirred.wait()

    def _stir(self) -> None:
        self._stirred.set()
