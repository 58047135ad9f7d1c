"""The worker's side of a split: reserve exact bytes, hold them under a lease, give them back.

What lives here: `Reservations`, a state machine. What does not: who asks (`meshnode.split.holding`), the order of plans
(`meshnode.split.fence`), starting engines (`meshnode.engine` carries out `StartStage` and `StopStage`).

    Prepare ──> reserved ──Commit──> running          any: Release, a higher fence, a removed coordinator ──> given back
                  │ 10 s without renewal    │ 15 s without renewal ──> given back

A worker holds one fence per model at most, so two coordinators can't both hold it. It answers for its own state only: a
renewal is echoed with `held` false when the fence is not the one it holds. The coordinator stops serving 10 s after the
last renewal it *sent* that was echoed (`LEASE_S`), the worker stops 15 s after the last it *received*
(`WORKER_PATIENCE_S`): whatever the network did, the coordinator has stopped first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from meshnode.events import SplitFenced, SplitReleased, SplitReserved, WireRejected
from meshnode.membership.effects import Emit, Send
from meshnode.split.fence import FenceFile, FenceRefused, Fences
from proto.ids import NodeId
from proto.messages import Commit, Fence, LeaseRenewal, Message, Prepare, Prepared, Release

LEASE_S: Final = 10.0
"""A reservation without a commit lapses this long after the last sign of its coordinator."""
WORKER_PATIENCE_S: Final = 15.0
"""A committed stage is stopped this long after the last renewal: later than its coordinator stops serving
(`LEASE_S`), so that no request meets a stage that is gone."""
MAX_REASON: Final = 500


@dataclass(frozen=True, slots=True)
class Held:
    """What this worker holds for one model. `ranges` are (device, layer_start, layer_end)."""

    model: str
    fence: Fence
    layer_start: int
    layer_end: int
    ranges: tuple[tuple[str, int, int], ...]
    reserved: tuple[tuple[str, int], ...]
    committed: bool
    renewed_s: float

    @property
    def reserved_bytes(self) -> int:
        """Sum over devices."""
        return sum(count for _, count in self.reserved)

    @property
    def lapses_s(self) -> float:
        """When it is given back if nothing more is heard."""
        return self.renewed_s + (WORKER_PATIENCE_S if self.committed else LEASE_S)


@dataclass(frozen=True, slots=True)
class StoreFences:
    """Store these promises durably before any later effect of the same batch."""

    file: FenceFile


@dataclass(frozen=True, slots=True)
class ReservedChanged:
    """What is reserved changed: offer less (or more) from now on. Bytes by device, all splits together."""

    reserved: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class StartStage:
    """The plan stands: run this stage."""

    held: Held


@dataclass(frozen=True, slots=True)
class StopStage:
    """Stop this stage and free its memory, before anything of a later effect starts."""

    held: Held
    reason: str


ReservationEffect = StoreFences | ReservedChanged | StartStage | StopStage | Send | Emit

SplitMessage = Prepare | Prepared | Commit | Release | LeaseRenewal


def is_for_worker(peer: NodeId, message: SplitMessage) -> bool:
    """Whether a split message from *another* node, `peer`, is for this node as a worker; else it answers this node as
    coordinator. A renewal goes to the worker where its sender is the fence's coordinator, and is an echo otherwise."""
    if isinstance(message, LeaseRenewal):
        return message.fence.coordinator == peer
    return not isinstance(message, Prepared)


class Reservations:
    """One worker's reservations, for all models. Times are monotonic seconds."""

    def __init__(self, node: NodeId, fences: Fences) -> None:
        self._node = node
        self._fences = fences
        self._usable: dict[str, int] = {}
        self._refuses: str | None = "its memory has not been looked at yet"
        self._held: dict[str, Held] = {}

    # --- what it has ---

    def offer(self, usable: Mapping[str, int], refuses: str | None) -> None:
        """What stages may fill, by device, `HOST_MEMORY` included, before reservations. `refuses` says why no layers
        are taken (draining, never willing, no engine); None where they are. Host memory for this node's own
        coordinating is no stage. What is held stays held, also where less is usable now."""
        self._usable = dict(usable)
        self._refuses = refuses

    def reserved(self) -> dict[str, int]:
        """Reserved bytes by device, over all models."""
        total: dict[str, int] = {}
        for held in self._held.values():
            for device, count in held.reserved:
                total[device] = total.get(device, 0) + count
        return total

    def held(self) -> tuple[Held, ...]:
        """What is held, by model name."""
        return tuple(self._held[model] for model in sorted(self._held))

    # --- inputs ---

    def receive(self, peer: NodeId, message: Message, now: float) -> list[ReservationEffect]:
        """A message of a coordinator. One that speaks for another node's fence is dropped and reported."""
        if not isinstance(message, Prepare | Commit | Release | LeaseRenewal):
            return []
        if message.fence.coordinator != peer:
            return [_impostor(peer, message)]
        match message:
            case Prepare():
                return self._prepare(peer, message, now)
            case Commit():
                return self._commit(message, now)
            case Release():
                return self._release(message)
            case LeaseRenewal():
                return self._renew(peer, message, now)

    def removed(self, nodes: Iterable[NodeId]) -> list[ReservationEffect]:
        """These members were removed: what they coordinate is stopped at once."""
        gone = set(nodes)
        return self._give_back([held for held in self._held.values() if held.fence.coordinator in gone], "removed")

    def stop(self, reason: str) -> list[ReservationEffect]:
        """This node stops: everything is given back."""
        return self._give_back(list(self._held.values()), reason)

    def poll(self, now: float) -> list[ReservationEffect]:
        """Time passed."""
        return self._give_back([held for held in self._held.values() if held.lapses_s <= now], "lease lapsed")

    def next_wakeup(self) -> float:
        """When `poll` must be called at the latest; infinity while nothing is held."""
        return min((held.lapses_s for held in self._held.values()), default=math.inf)

    def refuse(self, peer: NodeId, message: Prepare, reason: str) -> list[ReservationEffect]:
        """Refuse a plan for a reason of the node's that is none of the reservations'. Nothing is promised by it."""
        return [self._refuse(peer, message, reason)]

    # --- prepare ---

    def _prepare(self, peer: NodeId, message: Prepare, now: float) -> list[ReservationEffect]:
        before = self._held.get(message.model)
        try:
            self._fences.check(message.model, message.fence)
            if before is not None and message.fence < before.fence:
                raise FenceRefused(f"fenced: generation {before.fence.generation} is held", before.fence)
        except FenceRefused as refused:
            return [self._fenced(message.model, message.fence), self._refuse(peer, message, refused.reason)]
        if before is not None and before.fence == message.fence:
            return self._prepare_again(peer, message, before, now)
        problem = self._problem_with(message)
        if problem is not None:
            return [self._refuse(peer, message, problem)]
        effects: list[ReservationEffect] = []
        if self._fences.promise(message.model, message.fence):
            effects.append(StoreFences(self._fences.as_file()))
        if before is not None:
            effects += self._give_back([before], "superseded by a newer plan")
        held = _held_of(message, now)
        self._held[message.model] = held
        effects += [ReservedChanged(self.reserved()), _reserved_event(held)]
        return [*effects, self._accept(peer, message)]

    def _prepare_again(self, peer: NodeId, message: Prepare, held: Held, now: float) -> list[ReservationEffect]:
        """The same fence: the answer was lost, and it is given again. Another stage under a used fence is a fault."""
        if replace(_held_of(message, now), committed=held.committed) != replace(held, renewed_s=now):
            return [self._refuse(peer, message, "malformed: this fence was used for another stage")]
        self._held[message.model] = replace(held, renewed_s=now)
        return [self._accept(peer, message)]

    def _problem_with(self, message: Prepare) -> str | None:
        if self._refuses is not None and (message.ranges or message.layer_start < message.layer_end):
            return f"refused: {self._refuses}"
        devices = [device for device, _ in message.reserve]
        if len(set(devices)) != len(devices):
            return "malformed: a device is named twice"
        if message.layer_start > message.layer_end:
            return f"malformed: layers {message.layer_start} to {message.layer_end}"
        # The engine is started with these names; another's word is none of them.
        unknown = [device for device, _, _ in message.ranges if device not in self._usable]
        if unknown:
            return f"no_room: there is no device {unknown[0]}"
        others = self._reserved_by_others(message.model)
        for device, asked in message.reserve:
            if device not in self._usable:
                return f"no_room: there is no device {device}"
            free = max(0, self._usable[device] - others.get(device, 0))
            if asked > free:
                return f"no_room: {asked} bytes asked on {device}, {free} free"
        return None

    def _reserved_by_others(self, model: str) -> dict[str, int]:
        total = self.reserved()
        for device, count in self._held[model].reserved if model in self._held else ():
            total[device] -= count
        return total

    def _accept(self, peer: NodeId, message: Prepare) -> Send:
        return Send(peer, Prepared(message.nonce, accepted=True, reason="", highest=message.fence))

    def _refuse(self, peer: NodeId, message: Prepare, reason: str) -> Send:
        highest = self._fences.highest(message.model) or Fence(0, self._node)
        return Send(peer, Prepared(message.nonce, accepted=False, reason=reason[:MAX_REASON], highest=highest))

    # --- commit, renewal, release ---

    def _commit(self, message: Commit, now: float) -> list[ReservationEffect]:
        held = self._held.get(message.model)
        if held is None or held.fence != message.fence:
            return self._reported_if_fenced(message.model, message.fence)
        self._held[message.model] = running = replace(held, committed=True, renewed_s=now)
        return [] if held.committed else [StartStage(running)]

    def _renew(self, peer: NodeId, message: LeaseRenewal, now: float) -> list[ReservationEffect]:
        held = self._held.get(message.model)
        holds = held is not None and held.fence == message.fence
        if held is not None and holds:
            self._held[message.model] = replace(held, renewed_s=now)
        return [Send(peer, LeaseRenewal(message.nonce, message.model, message.fence, held=holds))]

    def _release(self, message: Release) -> list[ReservationEffect]:
        held = self._held.get(message.model)
        if held is None or held.fence != message.fence:
            return []
        return self._give_back([held], message.reason or "released")

    def _give_back(self, gone: list[Held], reason: str) -> list[ReservationEffect]:
        effects: list[ReservationEffect] = []
        for held in gone:
            del self._held[held.model]
            if held.committed:
                effects.append(StopStage(held, reason))
            effects.append(Emit(SplitReleased(held.model, held.fence.generation, reason, held.reserved_bytes)))
        return [*effects, ReservedChanged(self.reserved())] if gone else []

    # --- reporting ---

    def _reported_if_fenced(self, model: str, fence: Fence) -> list[ReservationEffect]:
        highest = self._fences.highest(model)
        return [self._fenced(model, fence)] if highest is not None and fence < highest else []

    def _fenced(self, model: str, fence: Fence) -> Emit:
        highest = self._fences.highest(model)
        reached = 0 if highest is None else highest.generation
        return Emit(SplitFenced(model, fence.coordinator, fence.generation, reached))


def _held_of(message: Prepare, now: float) -> Held:
    return Held(
        model=message.model,
        fence=message.fence,
        layer_start=message.layer_start,
        layer_end=message.layer_end,
        ranges=message.ranges,
        reserved=message.reserve,
        committed=False,
        renewed_s=now,
    )


def _reserved_event(held: Held) -> Emit:
    return Emit(
        SplitReserved(
            model=held.model,
            coordinator=held.fence.coordinator,
            generation=held.fence.generation,
            layer_start=held.layer_start,
            layer_end=held.layer_end,
            reserved_bytes=held.reserved_bytes,
        )
    )


def _impostor(peer: NodeId, message: Prepare | Commit | Release | LeaseRenewal) -> Emit:
    return Emit(
        WireRejected(
            peer=peer,
            address="",
            message=type(message).__name__,
            field="fence.coordinator",
            found=message.fence.coordinator,
            expected=f"the sender's own id, {peer}",
        )
    )
