"""The plan that stands, and the one that is to replace it: reservations, the gate for requests, loss, withdrawal.

What lives here: `Standing`, a state machine without a view of its own. What does not: which plan (`pursuit` decides and
hands it over) and the single reservation (`holding`).

    reserve ──> holding prepares ──Stands──> running ──Lost──> broken ──reserve──> ... ──Stands──> running
                    └──NotReserved                                └── no new plan in WITHDRAW_S ──Overdue

At most one plan runs and one is being reserved. A broken plan's workers keep what they hold until a newer plan takes it
over or it is withdrawn, so that a replan moves as little as it can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from meshnode.events import SplitWithdrawn
from meshnode.membership.effects import Emit, Send
from meshnode.membership.view import MeshView, Status
from meshnode.readiness.snapshot import SplitParticipantSnapshot
from meshnode.split.actions import Gate, RunPlan, SetGate, StopPlan
from meshnode.split.holding import Committed, Holding, HoldingEffect, PrepareFailed, StageLost
from planner.plan import SplitPlan
from proto.ids import NodeId, short
from proto.messages import LeaseRenewal, Prepared

WITHDRAW_S: Final = 5.0
"""After the loss of a stage: withdrawn if no new plan stands by then: clients are told, not kept waiting."""
_GONE = {None: "is gone", Status.DEAD: "is dead", Status.LEFT: "has left"}


@dataclass(frozen=True)
class Run:
    """A plan and the reservations it stands on, or is to stand on. `cause`: why it replaces an earlier one, else None.
    `tries` counts the fences used up for it."""

    plan: SplitPlan
    holding: Holding
    snapshot: SplitParticipantSnapshot
    cause: str | None
    tries: int = 1


@dataclass(frozen=True)
class Stands:
    """Every worker holds its stage: `run` is what runs from now on; `old` what ran before."""

    run: Run
    old: Run | None


@dataclass(frozen=True)
class NotReserved:
    """A worker refused or did not answer; what was prepared has been released."""

    run: Run
    failed: PrepareFailed


@dataclass(frozen=True)
class Lost:
    """A stage's node is lost. `ran`: a plan ran on it (or on the plan before); else it was only being reserved."""

    cause: str
    node: NodeId
    ran: bool


@dataclass(frozen=True)
class Overdue:
    """A broken plan was not replaced in time."""


Order = Send | Emit | SetGate | RunPlan | StopPlan
"""What goes straight out."""
StandingEffect = Order | Stands | NotReserved | Lost | Overdue


class Standing:
    """What one model's split holds in the mesh. Times are monotonic seconds."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._withdraw_s = math.inf
        self._stopped = True
        self.running: Run | None = None
        self.reserving: Run | None = None
        self.gate = Gate.CLOSED

    # --- what it holds ---

    @property
    def is_broken(self) -> bool:
        """Whether what ran is stopped and its reservations wait for a newer plan."""
        return self.running is not None and self._stopped

    @property
    def current(self) -> Run | None:
        """The plan that is being reserved, else the one that runs."""
        return self.reserving or self.running

    def reserved(self) -> dict[NodeId, Mapping[str, int]]:
        """Bytes held by node and device, of the running plan and the one being reserved; a worker holds one of them."""
        held: dict[NodeId, Mapping[str, int]] = {}
        for run in (self.running, self.reserving):
            held.update({} if run is None else run.holding.reserved())
        return held

    def next_wakeup(self) -> float:
        """When `poll` must be called at the latest."""
        holdings = [run.holding.next_wakeup() for run in (self.reserving, self.running) if run is not None]
        return min([self._withdraw_s, *holdings])

    # --- inputs ---

    def reserve(self, run: Run, now: float) -> list[StandingEffect]:
        """Reserve `run`. What runs is stopped first: its workers would have to give up what they hold to prepare."""
        effects: list[StandingEffect] = []
        if self.running is not None:
            effects += self._set_gate(Gate.CLOSED if self._stopped else Gate.HOLD)
            effects += self._stop_running(run.cause or "replaced")
            self._withdraw_s = min(self._withdraw_s, now + WITHDRAW_S)
        self.reserving = run
        return effects + self._of(run, run.holding.begin(now), now)

    def receive(self, peer: NodeId, message: Prepared | LeaseRenewal, now: float) -> list[StandingEffect]:
        """A worker's answer. Nonce and fence tell whose it is."""
        effects: list[StandingEffect] = []
        for run in (self.reserving, self.running):
            if run is None:
                continue
            if isinstance(message, Prepared):
                effects += self._of(run, run.holding.prepared(peer, message, now), now)
            elif message.model == self._model:
                effects += self._of(run, run.holding.renewed(peer, message, now), now)
        return effects

    def look(self, view: MeshView, now: float) -> list[StandingEffect]:
        """The mesh changed: a node of the current plan that is gone loses it, a suspected one holds new requests."""
        run = self.current
        if run is None:
            return []
        states = {node: _status_of(view, node) for node in run.holding.nodes}
        gone = next((node for node, status in states.items() if status in _GONE), None)
        if gone is not None:
            return self._lose(f"{short(gone)} {_GONE[states[gone]]}", gone, now)
        if self.reserving is not None or self._stopped:
            return []
        return [*self._set_gate(Gate.HOLD if Status.SUSPECT in states.values() else Gate.OPEN)]

    def failed(self, node: NodeId, cause: str, now: float) -> list[StandingEffect]:
        """What runs can't any more: the engine's part on `node` ended."""
        return [] if self.reserving is not None else self._lose(cause, node, now)

    def poll(self, now: float) -> list[StandingEffect]:
        """Time passed."""
        effects: list[StandingEffect] = []
        for run in (self.reserving, self.running):
            if run is not None:
                effects += self._of(run, run.holding.poll(now), now)
        if self._withdraw_s <= now:
            self._withdraw_s = math.inf
            effects.append(Overdue())
        return effects

    def withdraw(self, cause: str) -> list[Order]:
        """Gives everything back; says so where something ran."""
        effects = self._set_gate(Gate.CLOSED)
        if self.running is not None:
            effects += self._stop_running(cause)
            generation = self.running.holding.fence.generation
            effects.append(Emit(SplitWithdrawn(self._model, generation, cause)))
        for run in (self.reserving, self.running):
            if run is not None:
                effects += _sends(run.holding.abandon((), cause))
        self.reserving = self.running = None
        self._withdraw_s = math.inf
        return effects

    # --- steps ---

    def _of(self, run: Run, effects: list[HoldingEffect], now: float) -> list[StandingEffect]:
        out: list[StandingEffect] = []
        for effect in effects:
            match effect:
                case Send():
                    out.append(effect)
                case Committed():
                    out += self._stand(run)
                case PrepareFailed():
                    self.reserving = None
                    out.append(NotReserved(run, effect))
                case StageLost(node, reason):
                    out += self._lose(f"{short(node)}: {reason}", node, now)
        return out

    def _stand(self, run: Run) -> list[StandingEffect]:
        old, self.running, self.reserving = self.running, run, None
        superseded = [] if old is None else _sends(old.holding.abandon(run.holding.nodes, "superseded by a newer plan"))
        self._stopped = False
        self._withdraw_s = math.inf
        opened = self._set_gate(Gate.OPEN)
        return [*superseded, Stands(run, old), RunPlan(run.plan, run.holding.fence), *opened]

    def _lose(self, cause: str, node: NodeId, now: float) -> list[StandingEffect]:
        if self.reserving is not None:
            sends = _sends(self.reserving.holding.abandon((), cause))
            self.reserving = None
            return [*sends, Lost(cause, node, ran=self.running is not None)]
        if self.running is None or self._stopped:
            return []
        self._withdraw_s = now + WITHDRAW_S
        return [*self._set_gate(Gate.CLOSED), *self._stop_running(cause), Lost(cause, node, ran=True)]

    def _stop_running(self, reason: str) -> list[Order]:
        if self.running is None or self._stopped:
            return []
        self._stopped = True
        return [StopPlan(self.running.holding.fence, reason)]

    def _set_gate(self, gate: Gate) -> list[Order]:
        if gate is self.gate:
            return []
        self.gate = gate
        return [SetGate(gate)]


def _status_of(view: MeshView, node: NodeId) -> Status | None:
    shown = view.nodes.get(node)
    return None if shown is None else shown.status


def _sends(effects: list[HoldingEffect]) -> list[Order]:
    """What `abandon` returns: messages only."""
    return [effect for effect in effects if isinstance(effect, Send)]
