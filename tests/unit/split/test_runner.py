"""`SplitDesk`: pursuits and reservations on real tasks and the real clock, two nodes wired back to back."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio
import pytest
from driving_splits import a_spec, asked_for
from making_views import GB, MANIFEST, MODEL, a_model, a_node, a_view, an_offer, node_id
from msgspec import structs
from waiting_meshes import QUICK, WaitingMesh, a_mesh

from meshnode.events import Event
from meshnode.membership.view import NodeView, Status
from meshnode.readiness import SplitRequest
from meshnode.split import (
    SPLIT_MESSAGES,
    DeskPorts,
    FenceFile,
    Fences,
    Gate,
    Held,
    Phase,
    Pursuit,
    PursuitSettings,
    Reservations,
    SplitDesk,
)
from planner.plan import SplitPlan
from proto.ids import NodeId
from proto.messages import Commit, Fence, Message, Prepare, Prepared, Release
from proto.parts import Role
from proto.registry import CONTROL_MESSAGES

A, B = node_id("a"), node_id("b")
NODES = (
    a_node("a", offer=an_offer(A, usable_bytes=45 * GB, host_usable_bytes=16 * GB)),
    a_node("b", capacity_gb=45),
)


@dataclass
class Recorder:
    """A `StageRunner`, and what else a desk tells its node."""

    gates: list[Gate] = field(default_factory=list)
    plans: list[Fence] = field(default_factory=list)
    started: list[Held] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    stored: list[FenceFile] = field(default_factory=list)
    reserved: Mapping[str, int] = field(default_factory=dict)
    generation: int | None = None

    def start_stage(self, held: Held) -> None:
        self.started.append(held)

    def stop_stage(self, held: Held, reason: str) -> None:
        self.stopped.append(reason)

    def run_plan(self, model: str, plan: SplitPlan, fence: Fence) -> None:
        self.plans.append(fence)

    def stop_plan(self, model: str, fence: Fence, reason: str) -> None:
        self.plans.remove(fence)

    def set_gate(self, model: str, gate: Gate) -> None:
        self.gates.append(gate)

    def take_reserved(self, reserved: Mapping[str, int]) -> None:
        self.reserved = reserved

    def take_generation(self, model: str, generation: int | None) -> None:
        self.generation = generation


@dataclass
class Bench:
    """Node `a` with its desk and pursuit, and node `b` with its desk."""

    mesh: WaitingMesh
    pursuit: Pursuit
    desk: SplitDesk
    seen: Recorder
    worker: SplitDesk
    worker_seen: Recorder
    wire: list[Message]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Other tasks run until `condition` holds; fails after 20 s."""
        with anyio.fail_after(20):
            while not condition():  # noqa: ASYNC110  the condition is other tasks' state, which has no event
                await anyio.sleep(0.002)


def a_desk(
    node: NodeId, mesh: WaitingMesh, seen: Recorder, post: Callable[[NodeId, Message], None]
) -> tuple[SplitDesk, Fences]:
    fences = Fences()
    reservations = Reservations(node, fences)
    reservations.offer({"gpu0": 45 * GB, "host_memory": 16 * GB}, None)
    ports = DeskPorts(
        post=post,
        emit=seen.events.append,
        store_fences=seen.stored.append,
        reserved_changed=seen.take_reserved,
        advertise=seen.take_generation,
        stages=seen,
    )
    return SplitDesk(node, mesh, time.monotonic, reservations, ports), fences


@asynccontextmanager
async def a_bench(*nodes: NodeView, settings: PursuitSettings) -> AsyncIterator[Bench]:
    mesh, wire = a_mesh(*nodes), []
    seen, worker_seen = Recorder(), Recorder()
    desks: dict[NodeId, SplitDesk] = {}

    def post_from(source: NodeId) -> Callable[[NodeId, Message], None]:
        def post(peer: NodeId, message: Message) -> None:
            assert peer != source, "a node's messages to itself stay inside"
            wire.append(message)
            if peer in desks:
                desks[peer].receive(source, message)

        return post

    desks[A], fences = a_desk(A, mesh, seen, post_from(A))
    desks[B], _ = a_desk(B, mesh, worker_seen, post_from(B))
    request = SplitRequest(MODEL, manifest=MANIFEST, settle=QUICK)
    pursuit = Pursuit(A, request, asked_for(a_spec()), fences, random.Random(1), settings)
    async with anyio.create_task_group() as tasks:
        for desk in desks.values():
            tasks.start_soon(desk.run)
        desks[A].pursue(MODEL, pursuit, QUICK.confirm_s)
        yield Bench(mesh, pursuit, desks[A], seen, desks[B], worker_seen, wire)
        tasks.cancel_scope.cancel()


CARRY_OUT = PursuitSettings(carry_out=True)


def test_split_messages_are_all_known_to_the_wire() -> None:
    assert set(SPLIT_MESSAGES) <= set(CONTROL_MESSAGES)


async def test_split_is_waited_for_planned_reserved_and_run() -> None:
    async with a_bench(*NODES, settings=CARRY_OUT) as bench:
        await bench.until(lambda: bench.seen.gates == [Gate.OPEN])
        await bench.until(lambda: len(bench.worker_seen.started) == 1)
        assert [held.fence for held in bench.seen.started] == bench.seen.plans == [Fence(1, A)]
        assert bench.seen.generation == 1
        assert bench.worker_seen.reserved["gpu0"] >= 40 * GB
        assert bench.seen.stored
        assert bench.worker_seen.stored
        assert [entry["phase"] for entry in bench.desk.status()] == ["running", "stage"]
        assert [entry["phase"] for entry in bench.worker.status()] == ["stage"]


async def test_shortfall_is_planned_anew_when_a_node_arrives() -> None:
    async with a_bench(NODES[0], a_node("b", capacity_gb=20), settings=PursuitSettings()) as bench:
        await bench.until(lambda: bench.pursuit.phase is Phase.SHORT)
        grown = (NODES[0], a_node("b", capacity_gb=20), a_node("c", capacity_gb=45))
        bench.mesh.latest.publish(a_view(*grown, generation=2))
        await bench.until(lambda: bench.pursuit.phase is Phase.PLANNED)
        names = [event.name for event in bench.seen.events]
        assert names.index("split.shortfall") < names.index("split.planned")
        assert not any(isinstance(message, Prepare) for message in bench.wire)


async def test_death_of_a_stage_closes_the_gate_and_gives_the_rest_back() -> None:
    async with a_bench(*NODES, settings=CARRY_OUT) as bench:
        await bench.until(lambda: bench.seen.gates == [Gate.OPEN] and len(bench.worker_seen.started) == 1)
        dead = replace(NODES[1], status=Status.DEAD, link=None, rtt=None)
        bench.mesh.latest.publish(a_view(NODES[0], dead, generation=2))
        await bench.until(lambda: bench.pursuit.phase is not Phase.RUNNING and bench.seen.reserved == {})
        assert bench.seen.gates == [Gate.OPEN, Gate.CLOSED]
        assert bench.seen.plans == []
        assert bench.seen.generation is None


async def test_dropping_a_model_releases_its_workers_and_ends_its_planning() -> None:
    async with a_bench(*NODES, settings=CARRY_OUT) as bench:
        await bench.until(lambda: len(bench.worker_seen.started) == 1)
        bench.desk.drop(MODEL, "no longer wanted")
        await bench.until(lambda: bench.worker_seen.stopped == ["no longer wanted"])
        assert any(isinstance(message, Release) for message in bench.wire)
        assert bench.desk.status() == []


async def test_stopping_node_gives_back_what_it_holds_for_others() -> None:
    async with a_bench(*NODES, settings=CARRY_OUT) as bench:
        await bench.until(lambda: len(bench.worker_seen.started) == 1)
        bench.worker.stop("node stops")
        assert bench.worker_seen.reserved == {}
        assert bench.worker_seen.stopped == ["node stops"]


async def test_removed_coordinator_loses_its_stages_at_once() -> None:
    async with a_bench(*NODES, settings=CARRY_OUT) as bench:
        await bench.until(lambda: len(bench.worker_seen.started) == 1)
        bench.worker.removed(frozenset({A}))
        assert bench.worker_seen.stopped == ["removed"]


async def test_client_of_the_mesh_gets_no_stage() -> None:
    guest, stranger = a_node("g", role=Role.CLIENT), node_id("s")
    lacking = a_node("b", offer=an_offer(B, models=(structs.replace(a_model(), wanted=False),)))
    async with a_bench(lacking, guest, settings=CARRY_OUT) as bench:
        for peer in (guest.node, stranger):
            bench.wire.clear()
            bench.worker.receive(peer, Prepare(7, "any", Fence(1, peer), 0, 1, (("gpu0", GB),), (("gpu0", 0, 1),)))
            bench.worker.receive(peer, Commit("any", Fence(1, peer)))
            (answer,) = bench.wire
            assert isinstance(answer, Prepared)
            assert not answer.accepted
            assert "only a worker" in answer.reason
        assert bench.worker_seen.started == []
        assert bench.worker_seen.reserved == {}


async def test_desk_sleeps_while_nothing_happens() -> None:
    lacking = structs.replace(a_model(), wanted=False)
    nodes = tuple(a_node(name, offer=an_offer(node_id(name), models=(lacking,))) for name in "ab")
    async with a_bench(*nodes, settings=CARRY_OUT) as bench:
        await anyio.wait_all_tasks_blocked()
        before = bench.mesh.looked
        bench.mesh.latest.publish(a_view(*nodes, generation=2))
        await anyio.wait_all_tasks_blocked()
        assert bench.mesh.looked - before <= 4  # each desk looks once for the new view, and not again


async def test_model_is_pursued_once() -> None:
    async with a_bench(*NODES, settings=CARRY_OUT) as bench:
        with pytest.raises(ValueError, match="pursued already"):
            bench.desk.pursue(MODEL, bench.pursuit, 1.0)
