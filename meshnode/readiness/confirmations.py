"""Asking participants directly: who was asked when, who answered, whose silence counts.

What lives here: `Confirmations`. What does not: what an answer means for a verdict (`meshnode.readiness.candidate`,
rule `stage_control_unreachable`) and the wire (the daemon carries the question and brings the answer).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from meshnode.membership.view import MeshView
from meshnode.readiness.candidate import Answer, AnswerBasis
from meshnode.readiness.request import SettleSettings
from proto.ids import NodeId
from proto.messages import Confirm


class Confirmations:
    """Open questions and the newest answer of each node; times are monotonic seconds."""

    def __init__(self, settings: SettleSettings) -> None:
        self._settings = settings
        self._open: dict[NodeId, tuple[float, AnswerBasis]] = {}
        self._answers: dict[NodeId, Answer] = {}

    @property
    def answers(self) -> Mapping[NodeId, Answer]:
        """The newest answer, or silence, by node."""
        return MappingProxyType(self._answers)

    def ask(self, node: NodeId, view: MeshView, now: float) -> bool:
        """Opens a question to `node`; False where one is open already."""
        if node in self._open:
            return False
        self._open[node] = (now, AnswerBasis.of(view.nodes[node]))
        return True

    def take(self, node: NodeId, confirm: Confirm | None, view: MeshView, now: float) -> None:
        """`node` answered, or is known not to (None). An answer that comes too late still shows that it answers."""
        asked = self._open.pop(node, None)
        if node not in view.nodes or (asked is None and confirm is None):
            return
        asked_s, basis = asked or (now, AnswerBasis.of(view.nodes[node]))
        self._answers[node] = Answer(confirm, basis, asked_s)

    def expire(self, view: MeshView, now: float) -> None:
        """Questions that are open too long become silence; answers about an earlier state of a node are dropped."""
        for node in [node for node in self._open if self._timeout_s(node) <= now]:
            self.take(node, None, view, now)
        for node, answer in list(self._answers.items()):
            if node not in view.nodes or not answer.holds_for(view.nodes[node]):
                del self._answers[node]

    def silence_open(self, view: MeshView, now: float) -> None:
        """No more time: every question still open counts as unanswered."""
        for node in list(self._open):
            self.take(node, None, view, now)

    def is_confirmed(self, node: NodeId, since_s: float) -> bool:
        """Whether `node` answered a question asked at or after `since_s`."""
        answer = self._answers.get(node)
        return answer is not None and answer.confirm is not None and answer.asked_s >= since_s

    def ask_again_due_s(self, node: NodeId) -> float:
        """When a node that was silent, or could not serve, is to be asked again; infinity where that is not so."""
        answer = self._answers.get(node)
        if node in self._open or answer is None or (answer.confirm is not None and answer.confirm.stage_control):
            return math.inf
        return answer.asked_s + self._settings.confirm_s + self._settings.ask_again_s

    def next_timeout_s(self) -> float:
        """When the next open question has waited long enough; infinity where none is open."""
        return min((self._timeout_s(node) for node in self._open), default=math.inf)

    def _timeout_s(self, node: NodeId) -> float:
        return self._open[node][0] + self._settings.confirm_s
