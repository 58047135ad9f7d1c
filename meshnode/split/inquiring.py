"""Asking for a plan: of the mesh as it is, or of the mesh once it has settled. Nothing is reserved.

What lives here: `plan_now`, `plan_alone`, `wait_and_plan`. What does not: carrying a plan out
(`meshnode.split.pursuit`). Called by the daemon for `meshnode plan` and `meshnode split`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import anyio.to_thread

from meshnode.events import Event
from meshnode.membership.view import MeshView
from meshnode.readiness.request import SplitRequest
from meshnode.readiness.snapshot import SplitParticipantSnapshot, snapshot_now
from meshnode.readiness.wait import Clock, MeshFeed, wait_for_split_participants
from meshnode.split.planning import PlanAsked, PlanResult, alone_in, notes_on, plan_in_worker, plan_job
from meshnode.split.reporting import planned_event, shortfall_event
from planner.plan import SplitPlan

ALONE = "this node holds it alone; --force-split plans it over the mesh"


async def plan_now(view: MeshView, request: SplitRequest, asked: PlanAsked) -> PlanResult:
    """The plan or shortfall for `view`; nobody is waited for. `request.purpose` should be `plan`."""
    return await plan_of(snapshot_now(view, request), request, asked)


async def wait_and_plan(
    request: SplitRequest,
    mesh: MeshFeed,
    asked: PlanAsked,
    clock: Clock,
    emit: Callable[[Event], None],
    *,
    force_split: bool = False,
) -> PlanResult:
    """Solo at once where the local node holds the model alone, unless `force_split`; else waits for participants, then
    plans. Emits the `split.*` events of it. Raises `QuorumNotReached`."""
    result = None if force_split else await plan_alone(mesh.view(), request, asked)
    if result is None:
        result = await plan_of(await wait_for_split_participants(request, mesh, clock, emit), request, asked)
    if isinstance(result.outcome, SplitPlan):
        emit(planned_event(result.outcome, 0))
    else:
        emit(shortfall_event(request.model, result.outcome))
    return result


async def plan_alone(view: MeshView, request: SplitRequest, asked: PlanAsked) -> PlanResult | None:
    """The plan that puts everything on the local node, or None where it can't: it is excluded, lacks memory, another
    node is to coordinate, or more stages are asked for."""
    if request.coordinator not in (None, view.local):
        return None
    snapshot = alone_in(view, request, asked.model)
    if snapshot is None:
        return None
    result = await plan_of(snapshot, request, asked)
    if not isinstance(result.outcome, SplitPlan):
        return None
    return replace(result, notes=(*result.notes, ALONE))


async def plan_of(snapshot: SplitParticipantSnapshot, request: SplitRequest, asked: PlanAsked) -> PlanResult:
    """The plan or shortfall for `snapshot`. Every eligible participant is tried as coordinator, unless `asked` pins
    one or `request` names the one that will carry the plan out."""
    # In a large mesh the RTTs of all pairs are some seconds of work, which must not stop the event loop.
    job = await anyio.to_thread.run_sync(
        partial(plan_job, asked, snapshot, pin_coordinator=request.coordinator is not None)
    )
    return PlanResult(snapshot, await plan_in_worker(job), notes_on(snapshot))
