"""What a pursuit lost while its plan ran: the cause that is told, the nodes to leave out, the engines that ended.

What lives here: `Losses`. What does not: noticing a loss (`standing`), and what follows (`pursuit`).

A loss stays the cause of all that follows until another plan stands or all is given back. `MAX_FAULTS` ends of engines
within `FAULTS_S` are too many: an engine that always runs out of memory must not be started for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from meshnode.membership.view import MeshView
from meshnode.readiness.candidate import Answer, AnswerBasis
from meshnode.split.standing import Lost
from proto.ids import NodeId

MAX_FAULTS: Final = 3
FAULTS_S: Final = 120.0


class Losses:
    """Of one pursuit. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._lost: Lost | None = None
        self._silent: dict[NodeId, Answer] = {}
        self._faults: list[float] = []

    @property
    def cause(self) -> str | None:
        """Why the plan that ran must be replaced; None where it need not be."""
        return None if self._lost is None else self._lost.cause

    @property
    def node(self) -> NodeId | None:
        """Whose stage was lost."""
        return None if self._lost is None else self._lost.node

    @property
    def left_out(self) -> Mapping[NodeId, Answer]:
        """The nodes that the next plan does without, as if they had not answered."""
        return self._silent

    def lost(self, lost: Lost) -> None:
        """A stage's node is lost. While a plan is made anew, what it was made anew for stays the cause."""
        self._lost = self._lost or (lost if lost.ran else None)

    def leave_out(self, node: NodeId, view: MeshView, now: float) -> None:
        """Plan without `node` of `view`."""
        self._silent[node] = Answer(None, AnswerBasis.of(view.nodes[node]), now)

    def fault(self, now: float) -> bool:
        """An engine's process ended, or could not begin: whether that were too many by now."""
        self._faults = [fault for fault in self._faults if now - fault < FAULTS_S] + [now]
        return len(self._faults) >= MAX_FAULTS

    def after(self, outcome: str) -> str:
        """`outcome`, with the loss that it comes of."""
        return outcome if self._lost is None else f"{outcome} after a loss: {self._lost.cause}"

    def made_good(self) -> None:
        """Another plan stands, or nothing is held any more. Ends of engines still count."""
        self._lost = None
        self._silent = {}
