"""The plan that is being made for a pursuit: one at a time, told apart by its ticket.

What lives here: `Tickets` and `Asked`. What does not: the planner's input (`planning`), and what follows from a plan
(`pursuit`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from meshnode.readiness.snapshot import SplitParticipantSnapshot
from meshnode.split.actions import MakePlan, PlanKind
from meshnode.split.planning import PlanAsked, plan_job
from planner.plan import SplitPlan


@dataclass(frozen=True)
class Asked:
    """A plan that is being made."""

    ticket: int
    kind: PlanKind
    snapshot: SplitParticipantSnapshot


class Tickets:
    """`planning` is what is planned for all of them. `pin_coordinator`: see `plan_job`. `margin`: see
    `PursuitSettings.improve_margin`."""

    def __init__(self, planning: PlanAsked, *, pin_coordinator: bool, margin: float) -> None:
        self._planning = planning
        self._pin_coordinator = pin_coordinator
        self._margin = margin
        self._newest = 0
        self._asked: Asked | None = None

    @property
    def is_open(self) -> bool:
        """Whether a plan is being made."""
        return self._asked is not None

    def ask(self, kind: PlanKind, snapshot: SplitParticipantSnapshot, running: SplitPlan | None) -> MakePlan:
        """Have a plan made, in place of any that is being made. What is `running` counts where it is to be replaced."""
        self._newest += 1
        self._asked = Asked(self._newest, kind, snapshot)
        job = plan_job(self._planning, snapshot, pin_coordinator=self._pin_coordinator)
        if kind in (PlanKind.REPLAN, PlanKind.IMPROVE) and running is not None:
            job = replace(job, running=running, margin=self._margin)
        return MakePlan(self._newest, kind, job, snapshot)

    def take(self, ticket: int) -> Asked | None:
        """What `ticket`'s plan was asked for; None where that is void."""
        if self._asked is None or self._asked.ticket != ticket:
            return None
        asked, self._asked = self._asked, None
        return asked

    def drop(self) -> None:
        """Whatever is being made is void."""
        self._asked = None

    def make_first(self) -> None:
        """What ran is withdrawn: the plan that is being made replaces nothing any more."""
        if self._asked is not None:
            self._asked = replace(self._asked, kind=PlanKind.SPLIT)
