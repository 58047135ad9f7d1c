"""The coordinator's side of one plan's reservations: prepare in node-id order, commit, renew, notice a loss.

What lives here: `Holding`, a state machine for one fence. What does not: the worker's side
(`meshnode.split.reservation`) and what to do when a plan can't be held (`meshnode.split.pursuit`).

    begin ──> Prepare to the first ──accepted──> ... to the last ──> Commit to all ──> held ──Release to all──> over
                 │ refused, or silent after 3 tries                    │ a worker says it holds no more, or no echo 10 s
                 └──> PrepareFailed (release what was prepared)         └──> StageLost

Asking one worker after the other, in node-id order, means that two coordinators that want the same workers meet at the
first of them and not half way, each holding what the other needs. What is prepared already is renewed meanwhile. After
the commit each round sends commit and renewal, so that a commit lost with its link is made good by the next round.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from meshnode.membership.effects import Send
from meshnode.split.reservation import LEASE_S, MAX_REASON
from proto.ids import NodeId
from proto.messages import Commit, Fence, LeaseRenewal, Prepare, Prepared, Release

RENEWAL_S: Final = 3.0
"""Between two renewals: three chances within a lease of 10 s (`LEASE_S`)."""
PREPARE_S: Final = 2.0
"""Time for an answer to one prepare."""
PREPARE_TRIES: Final = 3
JITTER: Final = 0.1
"""Renewals and retries vary by this share, so that coordinators do not fall into step."""


@dataclass(frozen=True, slots=True)
class StageOrder:
    """What one worker is to hold: its layers (hull, and by device) and exact bytes by device."""

    node: NodeId
    layer_start: int
    layer_end: int
    ranges: tuple[tuple[str, int, int], ...]
    reserve: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Committed:
    """Every worker holds its stage; the plan stands."""


@dataclass(frozen=True, slots=True)
class PrepareFailed:
    """`node` refused, or did not answer (`highest` None). `fenced`: a higher fence is promised there."""

    node: NodeId
    reason: str
    highest: Fence | None
    fenced: bool


@dataclass(frozen=True, slots=True)
class StageLost:
    """`node` holds its stage no more, or has not echoed a renewal for the length of a lease."""

    node: NodeId
    reason: str


HoldingEffect = Send | Committed | PrepareFailed | StageLost


class Phase(StrEnum):
    """Where a holding is."""

    PREPARING = "preparing"
    HELD = "held"
    OVER = "over"


@dataclass
class _Worker:
    """One worker as the coordinator knows it; times are when *it* sent what was answered."""

    order: StageOrder
    prepared: bool = False
    confirmed_s: float = -math.inf
    open_renewals: dict[int, float] = field(default_factory=dict)


class Holding:
    """One plan's reservations. Build it, then `begin`. Times are monotonic seconds."""

    def __init__(self, model: str, fence: Fence, orders: tuple[StageOrder, ...], rng: random.Random) -> None:
        self.model = model
        self.fence = fence
        self.phase = Phase.PREPARING
        self._rng = rng
        self._workers = {order.node: _Worker(order) for order in sorted(orders, key=lambda order: order.node)}
        self._asked: NodeId | None = None
        self._nonce = 0
        self._asked_s = 0.0
        self._tries = 0
        self._retry_s = math.inf
        self._renew_s = math.inf

    # --- what it knows ---

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """The workers, in node-id order."""
        return tuple(self._workers)

    def reserved(self) -> dict[NodeId, dict[str, int]]:
        """Bytes that workers have said they hold, by node and device."""
        return {node: dict(worker.order.reserve) for node, worker in self._workers.items() if worker.prepared}

    # --- inputs ---

    def begin(self, now: float) -> list[HoldingEffect]:
        """Asks the first worker."""
        self._renew_s = now + self._jittered(RENEWAL_S)
        return self._ask_next(now)

    def prepared(self, peer: NodeId, message: Prepared, now: float) -> list[HoldingEffect]:
        """An answer to a prepare; one to an earlier try or from somebody else says nothing."""
        if self.phase is not Phase.PREPARING or peer != self._asked or message.nonce != self._nonce:
            return []
        worker = self._workers[peer]
        if not message.accepted:
            return self._fail(peer, message.reason, message.highest)
        worker.prepared = True
        worker.confirmed_s = self._asked_s
        return self._ask_next(now)

    def renewed(self, peer: NodeId, message: LeaseRenewal, now: float) -> list[HoldingEffect]:
        """An echo of a renewal. What counts is when the renewal was sent, not when the echo came."""
        worker = self._workers.get(peer)
        if self.phase is Phase.OVER or worker is None or message.fence != self.fence:
            return []
        sent_s = worker.open_renewals.pop(message.nonce, None)
        if sent_s is None or not worker.prepared:
            return []
        if not message.held:
            worker.prepared = False
            return self._lose(peer, "the worker holds the reservation no more")
        worker.confirmed_s = max(worker.confirmed_s, sent_s)
        return []

    def poll(self, now: float) -> list[HoldingEffect]:
        """Time passed: retries, renewals, lapsed leases."""
        effects: list[HoldingEffect] = []
        for node, worker in self._workers.items():
            if self.phase is not Phase.OVER and worker.prepared and worker.confirmed_s + LEASE_S <= now:
                effects += self._lose(node, f"no renewal echoed for {LEASE_S:g}s")
        if self.phase is Phase.PREPARING and self._asked is not None:
            effects += self._pursue_answer(self._asked, now)
        if self.phase is not Phase.OVER and self._renew_s <= now:
            self._renew_s = now + self._jittered(RENEWAL_S)
            effects += self._renew_all(now)
        return effects

    def release(self, reason: str) -> list[HoldingEffect]:
        """Gives everything back: also to the worker that was asked and has not answered. Nothing follows."""
        if self.phase is Phase.OVER:
            return []
        self.phase = Phase.OVER
        return self._release_to(lambda node, worker: worker.prepared or node == self._asked, reason)

    def abandon(self, kept: tuple[NodeId, ...], reason: str) -> list[HoldingEffect]:
        """A newer plan took over: only workers that are not in it (`kept`) are released; the others supersede."""
        self.phase = Phase.OVER
        return self._release_to(lambda node, worker: worker.prepared and node not in kept, reason)

    def next_wakeup(self) -> float:
        """When `poll` must be called at the latest; infinity once it is over."""
        if self.phase is Phase.OVER:
            return math.inf
        lapses = (worker.confirmed_s + LEASE_S for worker in self._workers.values() if worker.prepared)
        answer_s = math.inf
        if self.phase is Phase.PREPARING and self._asked is not None:
            answer_s = min(self._retry_s, self._asked_s + PREPARE_S if math.isinf(self._retry_s) else math.inf)
        return min(self._renew_s, answer_s, *lapses)

    # --- preparing ---

    def _ask_next(self, now: float) -> list[HoldingEffect]:
        node = next((node for node, worker in self._workers.items() if not worker.prepared), None)
        if node is None:
            self._asked = None
            self.phase = Phase.HELD
            commits = [Send(node, Commit(self.model, self.fence)) for node in self._workers]
            return [*commits, Committed()]
        self._tries = 0
        return self._ask(node, now)

    def _ask(self, node: NodeId, now: float) -> list[HoldingEffect]:
        order = self._workers[node].order
        self._asked, self._asked_s, self._retry_s = node, now, math.inf
        self._tries += 1
        self._nonce = self._rng.getrandbits(52)
        return [
            Send(
                node,
                Prepare(
                    nonce=self._nonce,
                    model=self.model,
                    fence=self.fence,
                    layer_start=order.layer_start,
                    layer_end=order.layer_end,
                    reserve=order.reserve,
                    ranges=order.ranges,
                ),
            )
        ]

    def _pursue_answer(self, node: NodeId, now: float) -> list[HoldingEffect]:
        """After `PREPARE_S` without an answer: a short random pause, then again, a few times."""
        if self._retry_s <= now:
            return self._ask(node, now)
        if not math.isinf(self._retry_s) or self._asked_s + PREPARE_S > now:
            return []
        if self._tries >= PREPARE_TRIES:
            return self._fail(node, f"no answer to {PREPARE_TRIES} requests", None)
        self._retry_s = now + self._rng.uniform(0.0, 2 * JITTER)
        return []

    def _fail(self, node: NodeId, reason: str, highest: Fence | None) -> list[HoldingEffect]:
        fenced = highest is not None and highest > self.fence
        return [*self.release(f"abort: {reason}"), PrepareFailed(node, reason, highest, fenced)]

    # --- holding ---

    def _renew_all(self, now: float) -> list[HoldingEffect]:
        effects: list[HoldingEffect] = []
        for node, worker in self._workers.items():
            if not worker.prepared:
                continue
            nonce = self._rng.getrandbits(52)
            worker.open_renewals = {key: sent for key, sent in worker.open_renewals.items() if now - sent < LEASE_S}
            worker.open_renewals[nonce] = now
            if self.phase is Phase.HELD:
                effects.append(Send(node, Commit(self.model, self.fence)))
            effects.append(Send(node, LeaseRenewal(nonce, self.model, self.fence, held=True)))
        return effects

    def _lose(self, node: NodeId, reason: str) -> list[HoldingEffect]:
        """A lost stage ends the plan; what the others hold is kept until the pursuit has decided (`abandon`)."""
        if self.phase is Phase.PREPARING:
            return self._fail(node, reason, None)
        self.phase = Phase.OVER
        return [StageLost(node, reason)]

    def _release_to(self, which: Callable[[NodeId, _Worker], bool], reason: str) -> list[HoldingEffect]:
        message = Release(self.model, self.fence, reason[:MAX_REASON])
        return [Send(node, message) for node, worker in self._workers.items() if which(node, worker)]

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)
