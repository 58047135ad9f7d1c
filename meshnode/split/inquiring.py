"""Asking for a plan: of the mesh as it is, or of the mesh once it has settled. Nothing is reserved.

What lives here: `plan_now`, `wait_and_plan`. What does not: carrying a plan out (`meshnode.split.pursuit`). Called by
the daemon for `meshnode plan` and `meshnode split`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import anyio.to_thread

from meshnode.events import Event
from meshnode.membership.view import MeshView
from meshnode.readiness.request import SplitRequest
from meshnode.readiness.snapshot import SplitParticipantSnapshot, snapshot_now
from meshnode.readiness.wait import Clock, MeshFeed, wait_for_split_participants
from meshnode.split.planning import PlanAsked, PlanResult, notes_on, plan_in_worker, plan_job
from meshnode.split.reporting import planned_event, shortfall_event
from planner.plan import SplitPlan


async def plan_now(view: MeshView, request: SplitRequest, asked: PlanAsked) -> PlanResult:
    """The plan or shortfall for `view`; nobody is waited for. `request.purpose` should be `plan`."""
    return await plan_of(snapshot_now(view, request), request, asked)


async def wait_and_plan(
    request: SplitRequest,
    mesh: MeshFeed,
    asked: PlanAsked,
    clock: Clock,
    emit: Callable[[Event], None],
) -> PlanResult:
    """Waits for participants, then plans. Emits the `split.*` events of both. Raises `QuorumNotReached`."""
    snapshot = await wait_for_split_participants(request, mesh, clock, emit)
    result = await plan_of(snapshot, request, asked)
    if isinstance(result.outcome, SplitPlan):
        emit(planned_event(result.outcome, 0))
    else:
        emit(shortfall_event(request.model, result.outcome))
    return result


async def plan_of(snapshot: SplitParticipantSnapshot, request: SplitRequest, asked: PlanAsked) -> PlanResult:
    """The plan or shortfall for `snapshot`. Every eligible participant is tried as coordinator, unless `asked` pins
    one or `request` names the one that will carry the plan out."""
    # In a large mesh the RTTs of all pairs are some seconds of work, which must not stop the event loop.
    job = await anyio.to_thread.run_sync(
        partial(plan_job, asked, snapshot, pin_coordinator=request.coordinator is not None)
    )
    return PlanResult(snapshot, await plan_in_worker(job), notes_on(snapshot))
