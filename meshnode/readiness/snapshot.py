"""The immutable result of waiting: who takes part with which figures, who does not and why, and how it was decided.

What lives here: `SplitParticipantSnapshot`, `QuorumNotReached` which carries one, and `snapshot_now` for questions that
do not wait. What does not: deciding when (`meshnode.readiness.waiter`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from meshnode.membership.view import MeshView
from meshnode.readiness.candidate import Answer
from meshnode.readiness.judge import ALL_PATIENCE_OVER, NO_ANSWERS, judge_mesh
from meshnode.readiness.request import SplitRequest
from meshnode.readiness.verdict import Excluded, Participant, Pending, Verdict, advice_for
from proto.ids import NodeId


class Outcome(StrEnum):
    """How a snapshot was decided: the members settled, the deadline came, or nobody waited."""

    SETTLED = "settled"
    DEADLINE = "deadline"
    IMMEDIATE = "immediate"


@dataclass(frozen=True)
class SplitParticipantSnapshot:
    """Participants and exclusions in node-id order, every node of the view in exactly one of them.

    `generation` is the membership view's. `coordinator` is the node from whose links RTTs are given. `view` is the
    picture that was judged; the planner's input takes the RTTs between participants from it.
    """

    model: str
    coordinator: NodeId
    participants: tuple[Participant, ...]
    exclusions: tuple[Excluded, ...]
    generation: int
    outcome: Outcome
    waited_s: float
    view: MeshView = field(repr=False, compare=False)

    @property
    def usable_bytes(self) -> int:
        """Sum over participants; nothing of an excluded node is in it."""
        return sum(participant.usable_bytes for participant in self.participants)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "model": self.model,
            "coordinator": self.coordinator,
            "outcome": self.outcome.value,
            "waited_s": round(self.waited_s, 3),
            "generation": self.generation,
            "usable_bytes": self.usable_bytes,
            "participants": [participant.to_dict() for participant in self.participants],
            "excluded": [exclusion.to_dict() for exclusion in self.exclusions],
        }


class QuorumNotReached(Exception):
    """The deadline passed with fewer participants than the quorum. `snapshot` says who was seen and why each is out."""

    def __init__(self, quorum: int, snapshot: SplitParticipantSnapshot) -> None:
        self.quorum = quorum
        self.snapshot = snapshot
        super().__init__(self._text())

    def _text(self) -> str:
        seen = self.snapshot
        excluded = ", ".join(exclusion.label for exclusion in seen.exclusions) or "nobody"
        return (
            f"quorum of {self.quorum} not reached for {seen.model} after {seen.waited_s:.1f}s: "
            f"{len(seen.participants)} participant(s), excluded [{excluded}]"
        )


def snapshot_of(
    view: MeshView,
    request: SplitRequest,
    verdicts: Iterable[Verdict],
    outcome: Outcome,
    waited_s: float,
) -> SplitParticipantSnapshot:
    """The snapshot of `verdicts`; those still pending are excluded, for the cause they were pending for."""
    participants: list[Participant] = []
    exclusions: list[Excluded] = []
    for verdict in verdicts:
        if isinstance(verdict, Participant):
            participants.append(verdict)
        else:
            exclusions.append(as_excluded(verdict, request.model) if isinstance(verdict, Pending) else verdict)
    return SplitParticipantSnapshot(
        model=request.model,
        coordinator=request.coordinator or view.local,
        participants=tuple(participants),
        exclusions=tuple(exclusions),
        generation=view.generation,
        outcome=outcome,
        waited_s=waited_s,
        view=view,
    )


def as_excluded(pending: Pending, model: str) -> Excluded:
    """A node that was still pending when it had to be decided."""
    return Excluded(
        pending.node,
        pending.name,
        pending.reason,
        pending.found,
        pending.required,
        advice_for(pending.reason, pending.node, model),
        pending.if_admitted,
    )


def snapshot_now(
    view: MeshView, request: SplitRequest, *, answers: Mapping[NodeId, Answer] = NO_ANSWERS
) -> SplitParticipantSnapshot:
    """The mesh as it is: nobody is waited for, so a node without an RTT takes part with it unknown, and any other
    pending cause excludes. For `plan` and for a replan that can't wait."""
    over = dict.fromkeys(view.nodes, ALL_PATIENCE_OVER)
    verdicts = judge_mesh(view, request, answers=answers, patience_over=over)
    return snapshot_of(view, request, verdicts.values(), Outcome.IMMEDIATE, 0.0)
