"""Splits on a running node: drives the pursuits and the reservations, and carries their effects out.

What lives here: `SplitDesk`. What does not: every decision (`pursuit`, `reservation`), the wire and the state directory
(given as callables), the engine (given as `StageRunner`). The daemon makes one, runs `run` in its task group, and hands
it every message of the types in `SPLIT_MESSAGES`.

Messages of this node to itself never touch the wire: its pursuits and its reservations talk directly. One task per
question and per plan; a plan that nobody waits for any more is cancelled, which ends its process.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import anyio
import anyio.abc

from meshnode.events import Event
from meshnode.membership.effects import Emit, Send
from meshnode.membership.view import MeshView
from meshnode.readiness.wait import Clock, MeshFeed
from meshnode.readiness.waiter import AskConfirm, Measure
from meshnode.split.actions import Advertise, Gate, MakePlan, PursuitEffect, RunPlan, SetGate, StopPlan
from meshnode.split.fence import FenceFile
from meshnode.split.planning import PlanJob, PlanOutcome, plan_in_worker
from meshnode.split.pursuit import Pursuit
from meshnode.split.reservation import (
    Held,
    ReservationEffect,
    Reservations,
    ReservedChanged,
    SplitMessage,
    StartStage,
    StopStage,
    StoreFences,
    is_for_worker,
)
from planner.plan import SplitPlan
from proto.ids import NodeId
from proto.messages import Commit, Fence, LeaseRenewal, Message, Prepare, Prepared, Release
from proto.parts import Role

SPLIT_MESSAGES: Final[tuple[type[Message], ...]] = (Prepare, Prepared, Commit, Release, LeaseRenewal)
"""What the daemon hands to `SplitDesk.receive`."""
NO_COORDINATOR: Final = "refused: only a worker coordinates splits, and this node knows the sender as none"


class StageRunner(Protocol):
    """What runs stages and plans: the engine room, or nothing where a node only plans."""

    def start_stage(self, held: Held) -> None:
        """This worker's stage is committed: run it."""

    def stop_stage(self, held: Held, reason: str) -> None:
        """Stop it and free its memory."""

    def run_plan(self, model: str, plan: SplitPlan, fence: Fence) -> None:
        """This coordinator's plan stands: run it."""

    def stop_plan(self, model: str, fence: Fence, reason: str) -> None:
        """Stop what runs under `fence`."""

    def set_gate(self, model: str, gate: Gate) -> None:
        """Serve, hold or refuse requests to `model`."""


@dataclass(frozen=True)
class DeskPorts:
    """What a desk needs of the node around it.

    `post` sends to another node, dropped where there is no path. `store_fences` stores durably before it returns.
    `reserved_changed` gets the bytes held by device, to be offered no more; `advertise` the generation by which this
    node coordinates a model (None: not), to be said in its offer.
    """

    post: Callable[[NodeId, Message], None]
    emit: Callable[[Event], None]
    store_fences: Callable[[FenceFile], None]
    reserved_changed: Callable[[Mapping[str, int]], None]
    advertise: Callable[[str, int | None], None]
    stages: StageRunner
    make_plan: Callable[[PlanJob], Any] = plan_in_worker


@dataclass
class _Pursued:
    """A pursuit and its running tasks. `planning` ends the plan in work when a newer one is asked for."""

    pursuit: Pursuit
    confirm_s: float
    planning: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class SplitDesk:
    """All splits of one node. All calls from the event loop's thread; times come from `clock` (monotonic seconds)."""

    def __init__(
        self, local: NodeId, mesh: MeshFeed, clock: Clock, reservations: Reservations, ports: DeskPorts
    ) -> None:
        self._local = local
        self._mesh = mesh
        self._clock = clock
        self._reservations = reservations
        self._ports = ports
        self._pursued: dict[str, _Pursued] = {}
        self._effects: deque[tuple[str | None, PursuitEffect | ReservationEffect]] = deque()
        self._performing = False
        self._stirred = anyio.Event()
        self._tasks: anyio.abc.TaskGroup | None = None

    # --- what the daemon tells it ---

    def pursue(self, model: str, pursuit: Pursuit, confirm_s: float) -> None:
        """Pursue `model` from now on, or once `run` runs. Raises `ValueError` where it is pursued already."""
        if model in self._pursued:
            raise ValueError(f"{model} is pursued already")
        self._pursued[model] = _Pursued(pursuit, confirm_s)
        self._stirred.set()

    def drop(self, model: str, reason: str) -> None:
        """Pursue `model` no more; what it holds is given back."""
        pursued = self._pursued.get(model)
        if pursued is not None:
            self._perform(model, pursued.pursuit.stop(reason))
            pursued.planning.cancel()
            del self._pursued[model]

    def receive(self, peer: NodeId, message: Message) -> None:
        """A split message of another node."""
        if not isinstance(message, Prepare | Prepared | Commit | Release | LeaseRenewal):
            return
        if isinstance(message, Prepare) and not self._may_coordinate(peer):
            self._perform(None, self._reservations.refuse(peer, message, NO_COORDINATOR))
        elif is_for_worker(peer, message):
            self._perform(None, self._reservations.receive(peer, message, self._clock()))
        else:
            self._answered(peer, message)
        self._stirred.set()

    def removed(self, nodes: frozenset[NodeId]) -> None:
        """These members were removed from the mesh."""
        self._perform(None, self._reservations.removed(nodes))

    def stop(self, reason: str) -> None:
        """The node stops: every split is given back, those it coordinates and those it holds stages of."""
        for model in list(self._pursued):
            self.drop(model, reason)
        self._perform(None, self._reservations.stop(reason))

    def run_failed(self, model: str, fence: Fence, node: NodeId, reason: str) -> None:
        """What runs of `model` under `fence` ended by itself, by the engine's part on `node`."""
        pursued = self._pursued.get(model)
        if pursued is not None:
            self._perform(model, pursued.pursuit.run_failed(fence, node, reason, self._clock()))
            self._stirred.set()

    def status(self) -> list[dict[str, Any]]:
        """Plain JSON of every pursuit, and of every stage held for another coordinator."""
        shown = [pursued.pursuit.status() for _, pursued in sorted(self._pursued.items())]
        return shown + [
            {
                "model": held.model,
                "phase": "stage",
                "generation": held.fence.generation,
                "coordinator": held.fence.coordinator,
                "layer_start": held.layer_start,
                "layer_end": held.layer_end,
                "reserved_bytes": held.reserved_bytes,
                "committed": held.committed,
            }
            for held in self._reservations.held()
        ]

    # --- the loop ---

    async def run(self) -> None:
        """Drives everything until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._follow_views, self._mesh.view())
            while True:
                self._stirred = anyio.Event()
                self._poll()
                await self._sleep()

    async def _follow_views(self, seen: MeshView) -> None:
        """Every view newer than `seen` wakes the loop, which looks at the newest."""
        while True:
            seen = await self._mesh.newer_view(seen)
            self._stirred.set()

    def _poll(self) -> None:
        """Each on the newest view: a deadline is decided on how the mesh is, not on how it was."""
        view = self._mesh.view()
        for model, pursued in list(self._pursued.items()):
            effects = pursued.pursuit.observe(view, self._clock())
            self._perform(model, effects + pursued.pursuit.poll(self._clock()))
        self._perform(None, self._reservations.poll(self._clock()))

    async def _sleep(self) -> None:
        wakeups = [pursued.pursuit.next_wakeup() for pursued in self._pursued.values()]
        wakeup_s = min(self._reservations.next_wakeup(), *wakeups, math.inf)
        timeout_s = None if math.isinf(wakeup_s) else max(0.0, wakeup_s - self._clock())
        with anyio.move_on_after(timeout_s):
            await self._stirred.wait()

    # --- effects ---

    def _perform(self, model: str | None, effects: list[Any]) -> None:
        """Carries effects out in order; those of messages to this node itself queue up behind."""
        self._effects.extend((model, effect) for effect in effects)
        if self._performing:
            return
        self._performing = True
        try:
            while self._effects:
                self._carry_out(*self._effects.popleft())
        finally:
            self._performing = False

    def _carry_out(self, model: str | None, effect: PursuitEffect | ReservationEffect) -> None:
        ports = self._ports
        match effect:
            case Send(peer, message):
                self._send(model, peer, message)
            case Emit(event):
                ports.emit(event)
            case StoreFences(file):
                ports.store_fences(file)
            case ReservedChanged(reserved):
                ports.reserved_changed(reserved)
            case StartStage(held):
                ports.stages.start_stage(held)
            case StopStage(held, reason):
                ports.stages.stop_stage(held, reason)
            case _:
                assert model is not None, "the rest are effects of pursuits"
                self._carry_out_for(model, effect)

    def _carry_out_for(self, model: str, effect: PursuitEffect | ReservationEffect) -> None:
        ports = self._ports
        match effect:
            case AskConfirm(node, ref):
                self._start(self._ask, model, node, ref)
            case Measure(nodes):
                self._mesh.measure(nodes)
            case MakePlan():
                self._start(self._plan, model, effect)
            case SetGate(gate):
                ports.stages.set_gate(model, gate)
            case RunPlan(plan, fence):
                ports.stages.run_plan(model, plan, fence)
            case StopPlan(fence, reason):
                ports.stages.stop_plan(model, fence, reason)
            case Advertise(generation):
                ports.advertise(model, generation)

    def _send(self, model: str | None, peer: NodeId, message: Message) -> None:
        """To another node over the mesh. To this node: from a pursuit to the reservations, and back."""
        if peer != self._local:
            self._ports.post(peer, message)
        elif model is not None:
            self._perform(None, self._reservations.receive(peer, message, self._clock()))
        elif isinstance(message, Prepared | LeaseRenewal):
            self._answered(peer, message)

    def _may_coordinate(self, peer: NodeId) -> bool:
        """Whoever holds a stage here can run code in its engine (docs/security.md): a client's credential does not go
        that far."""
        known = self._mesh.view().nodes.get(peer)
        return known is not None and known.role is Role.WORKER

    def _answered(self, peer: NodeId, message: SplitMessage) -> None:
        """An answer to one of the pursuits; nonce and fence tell which."""
        if not isinstance(message, Prepared | LeaseRenewal):
            return
        for model, pursued in list(self._pursued.items()):
            self._perform(model, pursued.pursuit.receive(peer, message, self._clock()))

    # --- tasks ---

    def _start(self, task: Callable[..., Any], *arguments: object) -> None:
        assert self._tasks is not None, "pursuits are driven by `run` only"
        self._tasks.start_soon(task, *arguments)

    async def _ask(self, model: str, node: NodeId, ref: str) -> None:
        pursued = self._pursued.get(model)
        confirm = None
        if pursued is None:
            return
        with anyio.move_on_after(pursued.confirm_s):
            confirm = await self._mesh.ask_confirm(node, ref)
        if self._pursued.get(model) is pursued:
            self._perform(model, pursued.pursuit.confirmed(node, confirm, self._clock()))
            self._stirred.set()

    async def _plan(self, model: str, asked: MakePlan) -> None:
        pursued = self._pursued.get(model)
        if pursued is None:
            return
        pursued.planning.cancel()
        pursued.planning = scope = anyio.CancelScope()
        with scope:
            outcome: PlanOutcome = await self._ports.make_plan(asked.job)
            if self._pursued.get(model) is pursued:
                self._perform(model, pursued.pursuit.planned(asked.ticket, outcome, self._clock()))
                self._stirred.set()
