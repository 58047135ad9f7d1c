"""Waiting for a split's participants, as a state machine without clock or socket.

What lives here: `Waiter`. What does not: the rules (`rules`), the parts it is composed of (`patience`, `settling`,
`confirmations`), and carrying out what it asks for (`wait`, or `meshnode.split.pursuit` which holds one).

    view ──> verdicts ──> members settled? ──yes──> ask each participant ──all confirmed──> Finished (settled)
               ^                │ no                      │ another figure, no answer
               └────────────────┴─────────────────────────┘
    at the deadline: one fresh look ──quorum──> Finished (deadline)      ──below──> Failed (QuorumNotReached)

Inputs are `observe` (a newer view), `confirmed` (an answer) and `poll` (time passed); each returns effects. Between
inputs nothing happens before `next_wakeup`. In the last `confirm_s` before the deadline participants are asked whether
settled or not, so that what is returned at the deadline is confirmed too; nobody who did not answer is in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from meshnode.events import SplitCandidates, SplitQuorumFailed, SplitReady, SplitWaiting
from meshnode.membership.effects import Emit
from meshnode.membership.view import MeshView
from meshnode.readiness.confirmations import Confirmations
from meshnode.readiness.judge import judge_mesh
from meshnode.readiness.patience import Patience
from meshnode.readiness.reasons import ReasonCode
from meshnode.readiness.request import SplitRequest
from meshnode.readiness.settling import Settling
from meshnode.readiness.snapshot import Outcome, QuorumNotReached, SplitParticipantSnapshot, snapshot_of
from meshnode.readiness.verdict import Excluded, Participant, Pending, Verdict
from proto.ids import NodeId
from proto.messages import Confirm

PROGRESS_S = 10.0
"""Between two `split.waiting` events: often enough to see that it lives, seldom enough for a log."""
REMEASURE_S = 5.5
"""Between two requests to measure: samples must spread over 5 s (`rtt_spread_s`) to corroborate one another."""
_MEASURABLE = (ReasonCode.RTT_UNMEASURED, ReasonCode.MISSING_STAGE_PATH)


@dataclass(frozen=True, slots=True)
class AskConfirm:
    """Ask `node` directly for its figures for `model`; the answer comes back through `confirmed`."""

    node: NodeId
    model: str


@dataclass(frozen=True, slots=True)
class Measure:
    """Take RTT samples to these nodes now (and link to them first where there is no link)."""

    nodes: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The wait is over, with at least the quorum."""

    snapshot: SplitParticipantSnapshot


@dataclass(frozen=True, slots=True)
class Failed:
    """The deadline passed below the quorum."""

    error: QuorumNotReached


WaiterEffect = AskConfirm | Measure | Finished | Failed | Emit


class Waiter:
    """One wait. `started_s` is when its times begin to count (monotonic seconds, like every `now`)."""

    def __init__(self, request: SplitRequest, started_s: float) -> None:
        settings = request.settle
        self._request = request
        self._started_s = started_s
        self._deadline_s = started_s + settings.deadline_s
        self._last_stretch_s = max(started_s, self._deadline_s - settings.confirm_s)
        self._patience = Patience(settings.pending_s)
        self._settling = Settling(settings)
        self._confirmations = Confirmations(settings)
        self._view: MeshView | None = None
        self._verdicts: dict[NodeId, Verdict] = {}
        self._said: tuple[tuple[str, ...], ...] | None = None
        self._progress_due_s = started_s
        self._asking_since_s: float | None = None
        self._measured_s: dict[NodeId, float] = {}
        self._done = False

    # --- inputs ---

    def observe(self, view: MeshView, now: float) -> list[WaiterEffect]:
        """A newer view of the mesh."""
        self._view = view
        return self._advance(view, now)

    def confirmed(self, node: NodeId, confirm: Confirm | None, now: float) -> list[WaiterEffect]:
        """`node` answered an `AskConfirm`, or (None) will not."""
        if self._view is None:
            return []
        self._confirmations.take(node, confirm, self._view, now)
        return self._advance(self._view, now)

    def poll(self, now: float) -> list[WaiterEffect]:
        """Time passed."""
        return [] if self._view is None else self._advance(self._view, now)

    def next_wakeup(self) -> float:
        """When `poll` must be called at the latest; infinity once it is over."""
        if self._done:
            return math.inf
        return min(
            self._deadline_s,
            self._last_stretch_s if self._asking_since_s is None else math.inf,
            self._settling.due_s if self._asking_since_s is None and not self._pending() else math.inf,
            self._patience.next_due_s(),
            self._confirmations.next_timeout_s(),
            self._progress_due_s,
            min(map(self._confirmations.ask_again_due_s, self._unreachable()), default=math.inf),
            min(map(self._measure_due_s, self._unmeasured()), default=math.inf),
        )

    # --- what it holds ---

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict on every node of the last view, in node-id order."""
        return tuple(self._verdicts.values())

    @property
    def is_done(self) -> bool:
        """Whether it has finished or failed."""
        return self._done

    # --- one step ---

    def _advance(self, view: MeshView, now: float) -> list[WaiterEffect]:
        if self._done:
            return []
        self._confirmations.expire(view, now)
        self._judge(view, now)
        self._settling.note(self._participants(), now)
        effects = self._report(now)
        effects += self._measure(now)
        effects += self._ask_unreachable(view, now)
        effects += self._confirm_or_finish(view, now)
        if not self._done and now >= self._deadline_s:
            effects += self._decide(view, now)
        return effects

    def _judge(self, view: MeshView, now: float) -> None:
        """Judges until no patience ends at this very moment; each round ends at least one, so it ends."""
        while True:
            over = self._patience.over(view, now)
            answers = self._confirmations.answers
            self._verdicts = judge_mesh(view, self._request, answers=answers, patience_over=over)
            if not self._patience.note(self._pending(), view, now):
                return

    def _confirm_or_finish(self, view: MeshView, now: float) -> list[WaiterEffect]:
        settled = self._settling.due_s <= now and not self._pending()
        if not settled and now < self._last_stretch_s:
            self._asking_since_s = None
            return []
        if self._asking_since_s is None:
            self._asking_since_s = now
        since_s = self._asking_since_s
        nodes = [participant.node for participant in self._participants()]
        unconfirmed = [node for node in nodes if not self._confirmations.is_confirmed(node, since_s)]
        if settled and not unconfirmed:
            return self._finish(view, Outcome.SETTLED, now)
        return [self._question(node) for node in unconfirmed if self._confirmations.ask(node, view, now)]

    def _decide(self, view: MeshView, now: float) -> list[WaiterEffect]:
        """The deadline: a fresh look, in which silence counts; never the best set ever seen: it may be dead."""
        self._confirmations.silence_open(view, now)
        self._judge(view, now)
        self._settling.note(self._participants(), now)
        effects = self._report_candidates()
        if self._settling.has_quorum:
            return effects + self._finish(view, Outcome.DEADLINE, now)
        self._done = True
        quorum, waited_s = self._request.settle.quorum, now - self._started_s
        snapshot = self._snapshot(view, Outcome.DEADLINE, waited_s)
        participants, excluded = _labels(snapshot)
        event = SplitQuorumFailed(self._request.model, quorum, participants, excluded, round(waited_s, 3))
        return [*effects, Emit(event), Failed(QuorumNotReached(quorum, snapshot))]

    def _finish(self, view: MeshView, outcome: Outcome, now: float) -> list[WaiterEffect]:
        self._done = True
        snapshot = self._snapshot(view, outcome, now - self._started_s)
        participants, excluded = _labels(snapshot)
        waited_s = round(snapshot.waited_s, 3)
        event = SplitReady(self._request.model, participants, excluded, outcome, waited_s, snapshot.generation)
        return [Emit(event), Finished(snapshot)]

    def _snapshot(self, view: MeshView, outcome: Outcome, waited_s: float) -> SplitParticipantSnapshot:
        return snapshot_of(view, self._request, self._verdicts.values(), outcome, waited_s)

    # --- asking and measuring ---

    def _question(self, node: NodeId) -> AskConfirm:
        return AskConfirm(node, self._request.model)

    def _ask_unreachable(self, view: MeshView, now: float) -> list[WaiterEffect]:
        due = [node for node in self._unreachable() if self._confirmations.ask_again_due_s(node) <= now]
        return [self._question(node) for node in due if self._confirmations.ask(node, view, now)]

    def _measure(self, now: float) -> list[WaiterEffect]:
        due = tuple(node for node in self._unmeasured() if self._measure_due_s(node) <= now)
        self._measured_s.update(dict.fromkeys(due, now))
        return [Measure(due)] if due else []

    def _measure_due_s(self, node: NodeId) -> float:
        return self._measured_s.get(node, -math.inf) + REMEASURE_S

    # --- views of the verdicts ---

    def _participants(self) -> list[Participant]:
        return [verdict for verdict in self._verdicts.values() if isinstance(verdict, Participant)]

    def _pending(self) -> list[Pending]:
        return [verdict for verdict in self._verdicts.values() if isinstance(verdict, Pending)]

    def _excluded(self) -> list[Excluded]:
        return [verdict for verdict in self._verdicts.values() if isinstance(verdict, Excluded)]

    def _unreachable(self) -> list[NodeId]:
        reason = ReasonCode.STAGE_CONTROL_UNREACHABLE
        return [verdict.node for verdict in self._excluded() if verdict.reason is reason]

    def _unmeasured(self) -> list[NodeId]:
        """Nodes that a measurement (and the link it needs) may turn into participants."""
        held_back: list[Pending | Excluded] = [*self._pending(), *self._excluded()]
        return [verdict.node for verdict in held_back if verdict.reason in _MEASURABLE]

    # --- reporting ---

    def _report(self, now: float) -> list[WaiterEffect]:
        effects = self._report_candidates()
        if now < self._progress_due_s:
            return effects
        self._progress_due_s = now + PROGRESS_S
        settings = self._request.settle
        event = SplitWaiting(
            model=self._request.model,
            quorum=settings.quorum,
            deadline_s=settings.deadline_s,
            waited_s=round(now - self._started_s, 3),
            participants=len(self._participants()),
            pending=len(self._pending()),
            excluded=len(self._excluded()),
        )
        return [Emit(event), *effects]

    def _report_candidates(self) -> list[WaiterEffect]:
        said = (
            tuple(verdict.node for verdict in self._participants()),
            tuple(verdict.label for verdict in self._pending()),
            tuple(verdict.label for verdict in self._excluded()),
        )
        if said == self._said:
            return []
        self._said = said
        return [Emit(SplitCandidates(self._request.model, *said))]


def _labels(snapshot: SplitParticipantSnapshot) -> tuple[tuple[str, ...], tuple[str, ...]]:
    participants = tuple(participant.node for participant in snapshot.participants)
    return participants, tuple(exclusion.label for exclusion in snapshot.exclusions)
