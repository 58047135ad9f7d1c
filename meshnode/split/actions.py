"""What a pursuit asks the outside to do, besides sending messages: plan, serve or not, run or stop an engine.

What lives here: these effects, as plain data. What does not: when they happen (`meshnode.split.pursuit`) and who
carries them out (`meshnode.split.runner`, and for `RunPlan`, `StopPlan` and `SetGate` the engine room).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from meshnode.membership.effects import Emit, Send
from meshnode.readiness.snapshot import SplitParticipantSnapshot
from meshnode.readiness.waiter import AskConfirm, Measure
from meshnode.split.planning import PlanJob
from meshnode.split.reservation import StoreFences
from planner.plan import SplitPlan
from proto.messages import Fence


class PlanKind(StrEnum):
    """Why a plan is made."""

    SOLO = "solo"
    """Does the local node hold it alone?"""
    SPLIT = "split"
    REPLAN = "replan"
    """A running split lost a stage."""
    IMPROVE = "improve"
    """A running split's mesh has grown."""


@dataclass(frozen=True)
class MakePlan:
    """Plan `job` in a worker process; the outcome comes back through `planned` with the same `ticket`. A newer ticket
    makes an older one void."""

    ticket: int
    kind: PlanKind
    job: PlanJob
    snapshot: SplitParticipantSnapshot


class Gate(StrEnum):
    """What becomes of requests to the model."""

    OPEN = "open"
    HOLD = "hold"
    """New requests wait: a stage's node is suspected."""
    CLOSED = "closed"
    """503 at once."""


@dataclass(frozen=True, slots=True)
class SetGate:
    """Requests are served, held or refused from now on."""

    gate: Gate


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Every worker holds its stage under `fence`: run the plan."""

    plan: SplitPlan
    fence: Fence


@dataclass(frozen=True, slots=True)
class StopPlan:
    """Stop what runs under `fence`, before anything of a later effect starts."""

    fence: Fence
    reason: str


@dataclass(frozen=True, slots=True)
class Advertise:
    """Say in this node's offer that it coordinates the model by this generation; None: that it does not."""

    generation: int | None


PursuitEffect = AskConfirm | Measure | Emit | Send | MakePlan | StoreFences | SetGate | RunPlan | StopPlan | Advertise
