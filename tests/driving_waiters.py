"""A waiter in virtual time: a mesh that changes at given moments, and peers that answer at once, later, or never.

`Drive` never sleeps: it moves `now` to whatever comes first, the next change, the next answer, or the waiter's own
wake-up, and feeds the real `Waiter`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from making_views import a_confirm

from meshnode.events import Event
from meshnode.membership.effects import Emit
from meshnode.membership.view import MeshView
from meshnode.readiness import AskConfirm, Failed, Finished, Measure, SplitRequest, Waiter, WaiterEffect
from proto.ids import NodeId
from proto.messages import Confirm

Answering = Callable[[NodeId, MeshView, float], tuple[float, Confirm | None]]
"""(asked node, view, now) -> (delay in s, answer)."""


def answers_at_once(node: NodeId, view: MeshView, now: float) -> tuple[float, Confirm | None]:
    """Every node confirms what it offers."""
    return 0.0, a_confirm(view.nodes[node])


@dataclass
class Drive:
    """Runs one waiter to its end; `at_s` is when it ended, `over` how."""

    request: SplitRequest
    views: list[tuple[float, MeshView]]
    answering: Answering = answers_at_once
    at_s: float = 0.0
    over: Finished | Failed | None = None
    events: list[tuple[float, Event]] = field(default_factory=list)
    asked: list[tuple[float, NodeId]] = field(default_factory=list)
    measured: list[tuple[float, NodeId]] = field(default_factory=list)
    steps: int = 0

    def run(self, until_s: float = math.inf) -> Drive:
        """To the end, or to `until_s`."""
        waiter = Waiter(self.request, 0.0)
        self._answers: list[tuple[float, NodeId, Confirm | None]] = []
        coming = sorted(self.views, key=lambda entry: entry[0])
        self._view = coming[0][1]
        while self.over is None:
            self.steps += 1
            assert self.steps < 20_000, "the waiter asks to be woken without end"
            answer_s = min((entry[0] for entry in self._answers), default=math.inf)
            view_s = coming[0][0] if coming else math.inf
            now = min(view_s, answer_s, waiter.next_wakeup())
            if now > until_s:
                return self
            assert now < math.inf, "the waiter waits for nothing"
            self.at_s = now = max(now, self.at_s)
            if view_s <= now:
                self._view = coming.pop(0)[1]
                self._take(waiter.observe(self._view, now), now)
            elif answer_s <= now:
                entry = min(self._answers, key=lambda entry: entry[0])
                self._answers.remove(entry)
                self._take(waiter.confirmed(entry[1], entry[2], now), now)
            else:
                self._take(waiter.poll(now), now)
        return self

    def _take(self, effects: list[WaiterEffect], now: float) -> None:
        for effect in effects:
            match effect:
                case AskConfirm(node, _):
                    self.asked.append((now, node))
                    delay_s, confirm = self.answering(node, self._view, now)
                    if delay_s < math.inf:
                        self._answers.append((now + delay_s, node, confirm))
                case Measure(nodes):
                    self.measured.extend((now, node) for node in nodes)
                case Emit(event):
                    self.events.append((now, event))
                case Finished() | Failed():
                    self.over = effect

    def named(self, name: str) -> list[tuple[float, Event]]:
        """The events of that name."""
        return [(at, event) for at, event in self.events if event.name == name]
