"""A world of nodes in virtual time, each with its real pursuit and reservations, and the real planner.

Only the mesh between them is made up: who is alive, who reaches whom, how long a message takes. Membership is taken to
be right after `GOSSIP_S`. Nothing sleeps: `run` moves `now` from event to event. Invariants that must hold in every run
are checked as it goes (`World.check`).
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from making_views import GB, MANIFEST, MESH, MODEL, a_boot, a_link, a_model, an_identity, an_offer, an_rtt, node_id
from msgspec import structs

from meshnode.events import Event
from meshnode.membership.effects import Emit, Send
from meshnode.membership.view import MeshView, NodeView, Status
from meshnode.readiness import AskConfirm, Measure, SettleSettings, SplitRequest
from meshnode.split import HOST_MEMORY, FenceFile, Fences, Gate, PlanAsked, Pursuit, PursuitSettings, Reservations
from meshnode.split.actions import Advertise, MakePlan, PursuitEffect, RunPlan, SetGate, StopPlan
from meshnode.split.planning import plan_here
from meshnode.split.reservation import (
    Held,
    ReservationEffect,
    ReservedChanged,
    SplitMessage,
    StartStage,
    StopStage,
    StoreFences,
    is_for_worker,
)
from planner import LayerSpec, ModelSpec, Objective, Workload
from proto.ids import NodeId
from proto.messages import Confirm, DeviceFigure, LeaseRenewal, Message, Prepared
from proto.parts import Role

GOSSIP_S = 0.2
LAYER_BYTES = 10 * GB
QUICK = SettleSettings(dwell_s=2.0, first_quorum_window_s=2.0, deadline_s=20.0, pending_s=3.0, confirm_s=1.0)


def a_spec(layers: int = 8, layer_bytes: int = LAYER_BYTES) -> ModelSpec:
    """A model of equal layers without cache or endpoints."""
    return ModelSpec(MODEL, (LayerSpec(layers, layer_bytes),), hidden_size=64, vocabulary=1000, native_context=1024)


def asked_for(spec: ModelSpec) -> PlanAsked:
    """The fewest stages that hold it, at a small context."""
    return PlanAsked(spec, Workload(context=256), objective=Objective.FEWEST)


@dataclass
class WorldNode:
    """One node: what it gives, and its machines. `stored` is what its state directory holds."""

    name: str
    usable_bytes: int
    host_bytes: int
    holds_package: bool
    wants: bool
    role: Role
    pursuit: Pursuit
    reservations: Reservations
    stored: FenceFile | None = None
    up: bool = True
    suspect: bool = False
    start: int = 0
    incarnation: int = 1
    version: int = 1
    generation: int | None = None
    gate: Gate = Gate.CLOSED
    runs: RunPlan | None = None
    stage: Held | None = None
    events: list[tuple[float, Event]] = field(default_factory=list)

    def named(self, name: str) -> list[tuple[float, Event]]:
        """Its events of that name."""
        return [(at, event) for at, event in self.events if event.name == name]


class World:
    """Nodes, messages in flight, and time. `latency_s` and `loss` may be changed while it runs."""

    def __init__(
        self,
        *,
        seed: int = 1,
        spec: ModelSpec | None = None,
        settle: SettleSettings = QUICK,
        settings: PursuitSettings = PursuitSettings(carry_out=True),  # noqa: B008
        planning_s: float = 0.3,
    ) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self.spec = spec or a_spec()
        self.settle = settle
        self.settings = settings
        self.planning_s = planning_s
        self.loss = 0.0
        self.nodes: dict[str, WorldNode] = {}
        self.half: dict[str, int] = {}
        self.changes = 0
        self.checks: list[Callable[[World], None]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    # --- what happens to it ---

    def add(
        self,
        name: str,
        *,
        gb: float,
        host_gb: float = 8,
        holds_package: bool = True,
        wants: bool = True,
        role: Role = Role.WORKER,
    ) -> WorldNode:
        """A node starts."""
        pursuit, reservations = self._machines(name, Fences(), gb, host_gb)
        node = WorldNode(name, round(gb * GB), round(host_gb * GB), holds_package, wants, role, pursuit, reservations)
        self.nodes[name] = node
        self.half[name] = 0
        self._mesh_changed()
        return node

    def kill(self, name: str) -> None:
        """Kill -9: its machines are gone, what it stored stays."""
        self.nodes[name].up = False
        self.nodes[name].runs = self.nodes[name].stage = None
        self.nodes[name].gate = Gate.CLOSED
        self._mesh_changed()

    def restart(self, name: str) -> None:
        """It starts again with what it stored; unnoticed where nobody saw it go."""
        node = self.nodes[name]
        node.runs = node.stage = None
        node.gate = Gate.CLOSED
        fences = Fences(node.stored)
        node.pursuit, node.reservations = self._machines(name, fences, node.usable_bytes / GB, node.host_bytes / GB)
        node.up, node.generation = True, None
        node.start += 1
        node.incarnation += 1
        self._mesh_changed()

    def suspect(self, name: str, is_suspect: bool) -> None:
        """Everybody suspects it, or no more."""
        self.nodes[name].suspect = is_suspect
        self._mesh_changed()

    def partition(self, **half: int) -> None:
        """Each named node is in that half now; halves do not reach each other."""
        self.half.update(half)
        self._mesh_changed()

    def heal(self) -> None:
        """All reach all."""
        self.half = dict.fromkeys(self.half, 0)
        self._mesh_changed()

    def at(self, at_s: float, action: Callable[[], None]) -> None:
        """Do `action` at a moment."""
        heapq.heappush(self._events, (max(at_s, self.now), next(self._order), action))

    def run(self, until_s: float) -> None:
        """Up to `until_s`."""
        for _ in range(200_000):
            wakeup_s, node = min(
                ((self._wakeup(node), node.name) for node in self.nodes.values()), default=(math.inf, "")
            )
            event_s = self._events[0][0] if self._events else math.inf
            if min(wakeup_s, event_s) > until_s:
                self.now = until_s
                return
            if event_s <= wakeup_s:
                self.now = max(self.now, event_s)
                heapq.heappop(self._events)[2]()
            else:
                self.now = max(self.now, wakeup_s)
                self._poll(self.nodes[node])
            for check in self.checks:
                check(self)
        raise AssertionError("something asks to be woken without end")

    # --- what is seen of it ---

    def view(self, name: str) -> MeshView:
        """The mesh as `name` sees it."""
        own = node_id(name)
        shown = {node_id(other.name): self._node_view(name, other) for other in self.nodes.values()}
        shown[own] = replace(shown[own], link=None, rtt=None)
        return MeshView(MESH, own, self.changes, self.now, shown, {})

    def _node_view(self, observer: str, node: WorldNode) -> NodeView:
        reachable = node.up and self.half[node.name] == self.half[observer]
        status = Status.DEAD if not reachable else Status.SUSPECT if node.suspect else Status.ALIVE
        own = node_id(node.name)
        model = a_model(
            complete=node.holds_package, cached_bytes=80 * GB if node.holds_package else 0, wanted=node.wants
        )
        offer = an_offer(
            own,
            usable_bytes=node.usable_bytes,
            reserved_bytes=node.reservations.reserved().get("gpu0", 0),
            host_usable_bytes=node.host_bytes - node.reservations.reserved().get(HOST_MEMORY, 0),
            models=(structs.replace(model, generation=node.generation),),
            incarnation=node.incarnation,
            version=node.version,
        )
        return NodeView(
            node=own, role=node.role, status=status, incarnation=node.incarnation,
            boot_id=a_boot(own, node.start), status_since_s=0.0,
            identity=an_identity(own, incarnation=node.incarnation), offer=offer, network=None,
            link=a_link() if reachable else None, rtt=an_rtt(1.0) if reachable else None,
            last_contact_age_s=0.1, record_age_s=1.0,
        )  # fmt: skip

    # --- inside ---

    def _machines(self, name: str, fences: Fences, gb: float, host_gb: float) -> tuple[Pursuit, Reservations]:
        own = node_id(name)
        reservations = Reservations(own, fences)
        reservations.offer({"gpu0": round(gb * GB), HOST_MEMORY: round(host_gb * GB)}, None)
        request = SplitRequest(MODEL, manifest=MANIFEST, settle=self.settle)
        rng = random.Random(self.rng.getrandbits(32))
        return Pursuit(own, request, asked_for(self.spec), fences, rng, self.settings), reservations

    def _mesh_changed(self) -> None:
        self.changes += 1
        self.at(self.now + GOSSIP_S, self._observe_all)

    def _observe_all(self) -> None:
        for node in list(self.nodes.values()):
            if node.up:
                self.perform(node, node.pursuit.observe(self.view(node.name), self.now))

    def _wakeup(self, node: WorldNode) -> float:
        return min(node.pursuit.next_wakeup(), node.reservations.next_wakeup()) if node.up else math.inf

    def _poll(self, node: WorldNode) -> None:
        self.perform(node, node.pursuit.observe(self.view(node.name), self.now))
        self.perform(node, node.pursuit.poll(self.now))
        self.perform(node, node.reservations.poll(self.now), from_worker=True)

    def perform(
        self, node: WorldNode, effects: list[PursuitEffect] | list[ReservationEffect], *, from_worker: bool = False
    ) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._post(node.name, effect.peer, effect.message, to_worker=not from_worker)
            else:
                self._carry_out(node, effect)

    def _carry_out(self, node: WorldNode, effect: PursuitEffect | ReservationEffect) -> None:
        match effect:
            case Emit(event):
                node.events.append((self.now, event))
            case StoreFences(file):
                node.stored = file
            case ReservedChanged():
                node.version += 1
                self._mesh_changed()
            case Advertise(generation):
                node.generation = generation
                node.version += 1
                self._mesh_changed()
            case AskConfirm(peer, _):
                self._ask(node, peer)
            case MakePlan():
                plan = effect
                start, pursuit = node.start, node.pursuit
                self.at(self.now + self.planning_s, lambda: self._planned(node, pursuit, start, plan))
            case SetGate(gate):
                node.gate = gate
            case RunPlan():
                assert node.runs is None, "a plan is started over another"
                node.runs = effect
            case StopPlan(fence, _):
                assert node.runs is not None
                assert node.runs.fence == fence
                node.runs = None
            case StartStage(held):
                assert node.stage is None, "a stage is started while another of the model runs here"
                node.stage = held
            case StopStage(held, _):
                assert node.stage is not None
                assert node.stage.fence == held.fence
                node.stage = None
            case Measure():
                pass

    def _planned(self, node: WorldNode, pursuit: Pursuit, start: int, asked: MakePlan) -> None:
        if node.up and node.start == start:
            self.perform(node, pursuit.planned(asked.ticket, plan_here(asked.job), self.now))

    def _ask(self, node: WorldNode, peer: NodeId) -> None:
        start = node.start

        def answer() -> None:
            if node.up and node.start == start:
                self.perform(node, node.pursuit.confirmed(peer, self._confirm(node.name, peer), self.now))

        self.at(self.now + 2 * self._latency(), answer)

    def _confirm(self, asker: str, peer: NodeId) -> Confirm | None:
        other = self._named(peer)
        if not other.up or self.half[other.name] != self.half[asker]:
            return None
        reserved = other.reservations.reserved()
        figure = DeviceFigure("gpu0", other.usable_bytes, reserved.get("gpu0", 0))
        missing = 0 if other.holds_package else 80 * GB
        return Confirm(1, (figure,), other.host_bytes, False, True, 80 * GB - missing, missing, MANIFEST)

    def _post(self, source: str, peer: NodeId, message: Message, *, to_worker: bool) -> None:
        target = self._named(peer)
        if source != target.name:
            assert isinstance(message, SplitMessage)
            assert is_for_worker(node_id(source), message) == to_worker, "the real routing finds the way by itself"
        if source != target.name and self.rng.random() < self.loss:
            return
        delay_s = 0.0 if source == target.name else self._latency()
        start = target.start

        def deliver() -> None:
            same = self.half[source] == self.half[target.name]
            if target.up and target.start == start and (source == target.name or same):
                self._deliver(target, node_id(source), message, to_worker)

        self.at(self.now + delay_s, deliver)

    def _deliver(self, target: WorldNode, peer: NodeId, message: Message, to_worker: bool) -> None:
        if to_worker:
            self.perform(target, target.reservations.receive(peer, message, self.now), from_worker=True)
        else:
            assert isinstance(message, Prepared | LeaseRenewal)
            self.perform(target, target.pursuit.receive(peer, message, self.now))

    def _latency(self) -> float:
        return self.rng.uniform(0.001, 0.05)

    def _named(self, node: NodeId) -> WorldNode:
        return next(entry for entry in self.nodes.values() if node_id(entry.name) == node)
