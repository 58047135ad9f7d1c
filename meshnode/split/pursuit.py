"""One model's life on its coordinator: wait, plan, reserve, run, replan, withdraw, wait again.

What lives here: `Pursuit`, a state machine. What does not: the parts it drives (the waiter of `meshnode.readiness`, the
planner in its process by `tickets`, `standing` for what is held and runs, `losses` for what ran and was lost,
`reconsidering` for when it looks again), and carrying out its effects (`meshnode.split.runner`).

    watching ──chosen as coordinator──> [solo?] ──> waiting ──settled──> planning ──plan──> reserving ──> running
       ^                                             ^    │deadline          │shortfall        │refused       │lost
       └── another coordinates                       │    v                  v                 v              v
                                                     └── below_quorum ───── short            waiting      replanning
                                                          (members change)                         plan: reserving
                                                                                             none in 5 s: withdrawn

Where nothing is carried out (a profile, or `carry_out` off) a plan ends in `planned` instead of `reserving`; a change
of members waits and plans anew. Every node that wants the model has a pursuit; all but the coordinator's watch.

Lost means: a stage's node dead or left, or its lease lapsed. A suspected one only holds new requests. A replan takes
the mesh as it is, without dwelling and below the quorum too.

A plan that stands may still not run: an engine process ends. That is a loss too; a worker whose engine ended is left
out of the replan. After too many of them the pursuit rests in `failed` with the reason, until members change or a
minute has passed.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any, Final

from meshnode.events import SplitCandidates, SplitPlanned, SplitShortfall
from meshnode.membership.effects import Emit
from meshnode.membership.view import MeshView, Status
from meshnode.readiness.reasons import ReasonCode
from meshnode.readiness.request import SplitRequest
from meshnode.readiness.settling import Members, members_of
from meshnode.readiness.snapshot import SplitParticipantSnapshot, snapshot_now
from meshnode.readiness.waiter import Failed, Finished, Waiter, WaiterEffect
from meshnode.split.actions import Advertise, Gate, PlanKind, PursuitEffect
from meshnode.split.coordinator import Chosen, NoSource, advertised_generation, can_coordinate, choose_coordinator
from meshnode.split.fence import Fences
from meshnode.split.holding import Holding
from meshnode.split.losses import MAX_FAULTS, Losses
from meshnode.split.moving import gains_enough
from meshnode.split.phase import DEFAULTS, Phase, PursuitSettings
from meshnode.split.planning import PlanAsked, PlanOutcome, PlanResult, alone_in, notes_on, stage_orders
from meshnode.split.reconsidering import RECHECK_S, Reconsidering
from meshnode.split.reporting import planned_event, replanned_event, shortfall_event
from meshnode.split.reservation import StoreFences
from meshnode.split.standing import Lost, NotReserved, Overdue, Run, Standing, StandingEffect, Stands
from meshnode.split.tickets import Asked, Tickets
from planner.plan import SplitPlan
from planner.transfers import moved_bytes
from proto.ids import NodeId, short
from proto.messages import Confirm, Fence, LeaseRenewal, Prepared

MAX_FENCE_TRIES: Final = 3
"""Fences used for one plan; a worker that names ever higher ones is at fault, and the plan is made anew."""


_DECIDED = (Phase.PLANNED, Phase.SHORT, Phase.BELOW_QUORUM, Phase.FAILED)
_HELD = (Phase.RESERVING, Phase.RUNNING, Phase.REPLANNING)


class Pursuit:
    """Pursues `request.model` as `local`. Every input returns effects, to be carried out in order.

    `fences` are shared with this node's `Reservations`. Times are monotonic seconds.
    """

    def __init__(
        self,
        local: NodeId,
        request: SplitRequest,
        asked: PlanAsked,
        fences: Fences,
        rng: random.Random,
        settings: PursuitSettings = DEFAULTS,
    ) -> None:
        self._local = local
        self._request = request
        self._planning = asked
        self._fences = fences
        self._rng = rng
        self._settings = settings
        self.phase = Phase.WATCHING
        self.result: PlanResult | None = None
        """The newest plan or shortfall; None before the first."""
        self._view: MeshView | None = None
        self._looked_at = -1
        self._planning_only = True
        self._waiter: Waiter | None = None
        self._tickets = Tickets(asked, pin_coordinator=not request.is_profile, margin=settings.improve_margin)
        self._standing = Standing(request.model)
        self._reconsidering = Reconsidering(request.settle.drift)
        self._losses = Losses()
        self._said: object = None
        self._seen_generation = 0
        self.problem = ""
        """Why it rests in `failed`."""
        self._replanned: dict[str, Any] | None = None
        """The newest replan, for its status."""

    # --- inputs ---

    def observe(self, view: MeshView, now: float) -> list[PursuitEffect]:
        """A newer view of the mesh."""
        self._view = view
        effects = self._of_waiter(self._waiter.observe(view, now), now) if self._waiter is not None else []
        if view.generation != self._looked_at and self.phase is not Phase.STOPPED:
            self._looked_at = view.generation
            effects += self._mesh_changed(view, now)
        return effects

    def confirmed(self, node: NodeId, confirm: Confirm | None, now: float) -> list[PursuitEffect]:
        """The answer to an `AskConfirm`."""
        return [] if self._waiter is None else self._of_waiter(self._waiter.confirmed(node, confirm, now), now)

    def receive(self, peer: NodeId, message: Prepared | LeaseRenewal, now: float) -> list[PursuitEffect]:
        """A worker's answer, from another node or from this one."""
        return self._of_standing(self._standing.receive(peer, message, now), now)

    def planned(self, ticket: int, outcome: PlanOutcome, now: float) -> list[PursuitEffect]:
        """The outcome of a `MakePlan`; that of an older ticket says nothing."""
        asked = self._tickets.take(ticket)
        if asked is None:
            return []
        result = PlanResult(asked.snapshot, outcome, notes_on(asked.snapshot))
        if isinstance(outcome, SplitPlan):
            return self._plan_found(asked, outcome, result, now)
        return self._no_plan(asked, result, now)

    def run_failed(self, fence: Fence, node: NodeId, reason: str, now: float) -> list[PursuitEffect]:
        """What runs under `fence` can't any more: the engine's part on `node` ended, or could not begin."""
        run = self._standing.running
        if run is None or run.holding.fence != fence or self._standing.is_broken:
            return []
        if not self._losses.fault(now):
            return self._of_standing(self._standing.failed(node, f"{short(node)}: {reason}", now), now)
        self.problem = f"{short(node)}: {reason}"
        effects = self._withdraw(f"it failed {MAX_FAULTS} times: {self.problem}")
        self._rest(Phase.FAILED, run.snapshot, now)
        self._reconsidering.look_again(now + RECHECK_S)
        return effects

    def poll(self, now: float) -> list[PursuitEffect]:
        """Time passed."""
        effects = [] if self._waiter is None else self._of_waiter(self._waiter.poll(now), now)
        effects += self._of_standing(self._standing.poll(now), now)
        if self._reconsidering.take_due(now):
            effects += self._choose_anew(now)
        return effects

    def next_wakeup(self) -> float:
        """When `poll` must be called at the latest."""
        waiter_s = math.inf if self._waiter is None else self._waiter.next_wakeup()
        return min(waiter_s, self._standing.next_wakeup(), self._reconsidering.next_wakeup())

    def stop(self, reason: str) -> list[PursuitEffect]:
        """The pursuit ends (the node stops, or the model is no longer wanted): everything is given back."""
        effects = self._stand_down(reason)
        self.phase = Phase.STOPPED
        return effects

    # --- what it knows ---

    @property
    def gate(self) -> Gate:
        """What becomes of requests now."""
        return self._standing.gate

    def status(self) -> dict[str, Any]:
        """Plain JSON for `/v1/splits`."""
        run = self._standing.current
        choice = None if self._view is None else choose_coordinator(self._view, self._request.model)
        return {
            "model": self._request.model,
            "phase": self.phase.value,
            "gate": self.gate.value,
            "generation": None if run is None else run.holding.fence.generation,
            "problem": self._problem(),
            "replanned": None if run is None else self._replanned,
            "coordinator": choice.node if isinstance(choice, Chosen) else None,
            "candidates": [] if self._waiter is None else [verdict.to_dict() for verdict in self._waiter.verdicts],
            "result": None if self.result is None else self.result.to_dict(),
        }

    def _problem(self) -> str:
        if self.phase is Phase.REPLANNING and self._losses.cause is not None:
            return self._losses.cause
        return self.problem if self.phase is Phase.FAILED else ""

    # --- the mesh ---

    def _mesh_changed(self, view: MeshView, now: float) -> list[PursuitEffect]:
        effects = self._check_role(view, now)
        effects += self._of_standing(self._standing.look(view, now), now)
        if self.phase in _DECIDED and self._is_news(view):
            effects += self._begin(view, now)
        elif self.phase is Phase.RUNNING and self._waiter is None and not self._tickets.is_open:
            effects += self._look_for_better(view, now)
        return effects

    def _check_role(self, view: MeshView, now: float) -> list[PursuitEffect]:
        """Begins when chosen, stands down when another is; while it holds a plan only for one that runs a newer one."""
        choice = choose_coordinator(view, self._request.model)
        if isinstance(choice, Chosen) and choice.node == self._local:
            self._planning_only = choice.planning_only or not self._settings.carry_out
            idle = self.phase in (Phase.WATCHING, Phase.NO_SOURCE) and not self._reconsidering.gives_way
            return self._begin(view, now) if idle else []
        if isinstance(choice, NoSource) and choice.speaker == self._local and self.phase not in _HELD:
            return self._report_no_source(view)
        keeps = self.phase in _HELD and not (isinstance(choice, Chosen) and choice.runs_already)
        return [] if keeps or self.phase is Phase.WATCHING else self._stand_down("another node coordinates")

    def _choose_anew(self, now: float) -> list[PursuitEffect]:
        if self._view is None:
            return []
        if self.phase is Phase.RUNNING and self._waiter is None and not self._tickets.is_open:
            return self._look_for_better(self._view, now)
        return self._begin(self._view, now) if self.phase in _DECIDED else self._check_role(self._view, now)

    def _report_no_source(self, view: MeshView) -> list[PursuitEffect]:
        """Nobody holds the model: the verdicts say who has what (`missing_model_source`)."""
        effects = [] if self.phase is Phase.NO_SOURCE else self._stand_down("nobody holds the complete package")
        self.phase = Phase.NO_SOURCE
        snapshot = snapshot_now(view, self._request)
        excluded = tuple(exclusion.label for exclusion in snapshot.exclusions)
        participants = tuple(participant.node for participant in snapshot.participants)
        return effects + self._say(SplitCandidates(self._request.model, participants, (), excluded))

    def _is_news(self, view: MeshView) -> bool:
        """Whether what was decided should be thought over. What a failed run gives back is no news of the mesh: only
        another set of members is, after a failure."""
        members = self._members(view)
        if self.phase is Phase.FAILED:
            return self._reconsidering.are_others(members)
        return self._reconsidering.is_news(members)

    def _members(self, view: MeshView) -> Members:
        return members_of(snapshot_now(view, self._asking()).participants)

    def _asking(self) -> SplitRequest:
        """The request, with what this split holds counted as free for itself."""
        return replace(self._request, own_reserved=self._standing.reserved())

    # --- waiting ---

    def _begin(self, view: MeshView, now: float) -> list[PursuitEffect]:
        """Solo where the local node may hold it alone, unless a split is forced; else wait for participants."""
        self._reconsidering.look_again(math.inf)
        alone = None if self._settings.force_split else alone_in(view, self._request, self._planning.model)
        return self._wait(view, now) if alone is None else self._make_plan(PlanKind.SOLO, alone)

    def _wait(self, view: MeshView, now: float) -> list[PursuitEffect]:
        self._tickets.drop()
        self.phase = Phase.WAITING
        self._waiter = Waiter(self._request, now)
        return self._of_waiter(self._waiter.observe(view, now), now)

    def _of_waiter(self, effects: list[WaiterEffect], now: float) -> list[PursuitEffect]:
        out: list[PursuitEffect] = []
        for effect in effects:
            if isinstance(effect, Finished):
                self._waiter = None
                kind = PlanKind.IMPROVE if self.phase is Phase.RUNNING else PlanKind.SPLIT
                out += self._make_plan(kind, effect.snapshot)
            elif isinstance(effect, Failed):
                self._waiter = None
                if self.phase is Phase.WAITING:
                    self._rest(Phase.BELOW_QUORUM, effect.error.snapshot, now)
            else:
                out.append(effect)
        return out

    def _rest(self, phase: Phase, snapshot: SplitParticipantSnapshot, now: float) -> None:
        """Rests in `phase` until the members differ from those it was decided for, which they may do already. After a
        failed run only those of now count."""
        self.phase = phase
        view = self._view or snapshot.view
        self._reconsidering.considered(self._members(view if phase is Phase.FAILED else snapshot.view))
        unreachable = any(each.reason is ReasonCode.STAGE_CONTROL_UNREACHABLE for each in snapshot.exclusions)
        look_s = now if self._is_news(view) else now + RECHECK_S if unreachable else math.inf
        self._reconsidering.look_again(look_s)

    def _look_for_better(self, view: MeshView, now: float) -> list[PursuitEffect]:
        """The mesh of a running split changed: wait until it settles, then see whether a better plan is worth it."""
        members = self._members(view)
        if not self._reconsidering.is_news(members):
            return []
        self._reconsidering.considered(members)
        self._waiter = Waiter(self._asking(), now)
        return self._of_waiter(self._waiter.observe(view, now), now)

    # --- planning ---

    def _make_plan(self, kind: PlanKind, snapshot: SplitParticipantSnapshot) -> list[PursuitEffect]:
        if self.phase not in _HELD:
            self.phase = Phase.PLANNING
        run = self._standing.running
        return [self._tickets.ask(kind, snapshot, None if run is None else run.plan)]

    def _replan(self, view: MeshView) -> list[PursuitEffect]:
        """On the mesh as it is, without those that were lost or did not answer; a smaller plan is a plan."""
        self.phase = Phase.REPLANNING
        self._waiter = None
        return self._make_plan(PlanKind.REPLAN, snapshot_now(view, self._asking(), answers=self._losses.left_out))

    def _plan_found(self, asked: Asked, plan: SplitPlan, result: PlanResult, now: float) -> list[PursuitEffect]:
        view = self._view or asked.snapshot.view
        if any(not _lives(view, NodeId(node)) for node in plan.nodes):
            return self._plan_overtaken(asked, view, now)
        if asked.kind is PlanKind.IMPROVE:
            running = self._standing.running
            if running is None or not gains_enough(running.plan, plan, self._settings.improve_margin):
                return self._stay(now)
            return self._reserve(plan, result, "better plan", now)
        if self._planning_only:
            self.result = result
            self._rest(Phase.PLANNED, result.snapshot, now)
            return self._say(planned_event(plan, 0))
        return self._reserve(plan, result, self._losses.cause, now)

    def _plan_overtaken(self, asked: Asked, view: MeshView, now: float) -> list[PursuitEffect]:
        """A node of the plan went while it was made."""
        if asked.kind is PlanKind.IMPROVE:
            return self._stay(now)
        return self._replan(view) if asked.kind is PlanKind.REPLAN else self._begin(view, now)

    def _no_plan(self, asked: Asked, result: PlanResult, now: float) -> list[PursuitEffect]:
        if asked.kind is PlanKind.IMPROVE:
            return self._stay(now)
        if asked.kind is PlanKind.SOLO:
            return self._wait(self._view or asked.snapshot.view, now)
        lost = frozenset(self._losses.left_out) if asked.kind is PlanKind.REPLAN else frozenset()
        effects = self._withdraw(self._losses.after("no valid plan is left")) if asked.kind is PlanKind.REPLAN else []
        self.result = result
        self._rest(Phase.SHORT, asked.snapshot, now)
        if any(_lives(self._view or asked.snapshot.view, node) for node in lost):
            # What it lost is no verdict on the node: one that restarted is asked at once, not when silence would be.
            self._reconsidering.look_again(now)
        return effects + self._say(shortfall_event(self._request.model, result.outcome))

    def _stay(self, now: float) -> list[PursuitEffect]:
        """The running plan stays; whoever came while a better one was looked for is looked at next."""
        if self._view is not None and self._reconsidering.is_news(self._members(self._view)):
            self._reconsidering.look_again(now)
        return []

    def _say(self, event: SplitCandidates | SplitPlanned | SplitShortfall) -> list[PursuitEffect]:
        """Reports what was decided, unless it is what was reported last."""
        if event == self._said:
            return []
        self._said = event
        return [Emit(event)]

    # --- reserving and running ---

    def _reserve(
        self, plan: SplitPlan, result: PlanResult, cause: str | None, now: float, tries: int = 1
    ) -> list[PursuitEffect]:
        """Promises a new fence to itself first, so that it is never used twice, and asks the workers."""
        model = self._request.model
        advertised = 0 if self._view is None else advertised_generation(self._view, model)
        fence = self._fences.above(model, self._local, max(self._seen_generation, advertised))
        self._fences.promise(model, fence)
        self.result = result
        self.phase = Phase.RESERVING if self._standing.running is None else Phase.REPLANNING
        run = Run(plan, Holding(model, fence, stage_orders(plan), self._rng), result.snapshot, cause, tries)
        announced: list[PursuitEffect] = [StoreFences(self._fences.as_file()), Advertise(fence.generation)]
        return announced + self._of_standing(self._standing.reserve(run, now), now)

    def _of_standing(self, effects: list[StandingEffect], now: float) -> list[PursuitEffect]:
        out: list[PursuitEffect] = []
        for effect in effects:
            match effect:
                case Stands(run, old):
                    out += self._stands(run, old, now)
                case NotReserved():
                    out += self._not_reserved(effect, now)
                case Lost():
                    out += self._lost(effect, now)
                case Overdue():
                    out += self._overdue(now)
                case _:
                    out.append(effect)
        return out

    def _stands(self, run: Run, old: Run | None, now: float) -> list[PursuitEffect]:
        self.phase = Phase.RUNNING
        lost_node = self._losses.node
        self._losses.made_good()
        members, considered = self._members(self._view or run.snapshot.view), self._members(run.snapshot.view)
        self._reconsidering.considered({node: member for node, member in members.items() if node in considered})
        self._stay(now)
        generation = run.holding.fence.generation
        effects = self._say(planned_event(run.plan, generation))
        if old is not None:
            moved = moved_bytes(self._planning.model, self._planning.engine, old.plan, run.plan)
            event = replanned_event(
                run.plan, generation, before=old.plan, cause=run.cause or "replaced",
                lost_node=lost_node, moved_bytes=moved,
            )  # fmt: skip
            self._replanned = {name: event.fields()[name] for name in ("generation", "cause", "node", "lost")}
            effects.append(Emit(event))
        return effects

    def _not_reserved(self, effect: NotReserved, now: float) -> list[PursuitEffect]:
        run, failed = effect.run, effect.failed
        view = self._view or run.snapshot.view
        if failed.fenced and failed.highest is not None:
            self._seen_generation = max(self._seen_generation, failed.highest.generation)
            other = NodeId(failed.highest.coordinator)
            if other != self._local and can_coordinate(view, self._request.model, other):
                # Its offer will say that it coordinates; until that has come nobody is served by taking turns.
                self._reconsidering.give_way(now)
                return self._stand_down(f"{other} coordinates a newer plan")
            if run.tries < MAX_FENCE_TRIES:
                result = PlanResult(run.snapshot, run.plan, notes_on(run.snapshot))
                return self._reserve(run.plan, result, run.cause, now, run.tries + 1)
        return self._start_over(failed.node, view, now)

    def _lost(self, lost: Lost, now: float) -> list[PursuitEffect]:
        self._losses.lost(lost)
        return [] if self._view is None else self._start_over(lost.node, self._view, now)

    def _start_over(self, node: NodeId, view: MeshView, now: float) -> list[PursuitEffect]:
        """Where a plan ran: a new one at once, without `node`. Where none did: wait for participants again."""
        if self._standing.running is None:
            return [Advertise(None), *self._wait(view, now)]
        if node in view.nodes and node != self._local:
            self._losses.leave_out(node, view, now)
        return self._replan(view)

    def _overdue(self, now: float) -> list[PursuitEffect]:
        """No new plan stands in time: everything is given back. A plan that is still being made goes on."""
        effects = self._withdraw(self._losses.after("no new plan in time"))
        if self._tickets.is_open:
            self._tickets.make_first()
            self.phase = Phase.PLANNING
            return effects
        return effects if self._view is None else effects + self._wait(self._view, now)

    def _withdraw(self, cause: str) -> list[PursuitEffect]:
        held = self._standing.current is not None
        effects: list[PursuitEffect] = [*self._standing.withdraw(cause)]
        self._losses.made_good()
        self._replanned = None
        if held:
            self._said = None
            effects.append(Advertise(None))
        return effects

    def _stand_down(self, reason: str) -> list[PursuitEffect]:
        """Back to watching: nothing is waited for, planned or held any more."""
        effects = self._withdraw(reason)
        self.phase = Phase.WATCHING
        self._waiter = None
        self._tickets.drop()
        self._reconsidering.look_again(math.inf)
        return effects


def _lives(view: MeshView, node: NodeId) -> bool:
    shown = view.nodes.get(node)
    return shown is not None and shown.status is Status.ALIVE
