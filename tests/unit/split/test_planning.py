"""From a snapshot to the planner and back: the same figures, the same exclusions, nothing counted that is left out."""

from __future__ import annotations

import json
import pickle
import time
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from making_views import GB, MANIFEST, MODEL, a_model, a_node, a_view, an_offer, an_rtt, node_id
from waiting_meshes import QUICK, a_mesh

from meshnode.events import Event
from meshnode.membership.view import MeshView, NodeView, RttSource, Status
from meshnode.readiness import Eligibility, Purpose, SplitParticipantSnapshot, SplitRequest, snapshot_now
from meshnode.split import HOST_MEMORY, PlanAsked, PlanRefused, PlanResult, plan_now, wait_and_plan
from meshnode.split.inquiring import plan_alone
from meshnode.split.planning import PlanJob, links_between, notes_on, plan_here, plan_in_worker, plan_job, stage_orders
from planner import (
    CHAIN,
    LLAMA_CPP_RPC,
    Constraints,
    EngineProfile,
    LayerSpec,
    ModelSpec,
    Objective,
    SplitPlan,
    Workload,
)
from planner.nodes import Willingness as PlannerWillingness
from planner.shortfall import RemedyAction, ShortfallReport
from proto.ids import NodeId
from proto.parts import DeviceOffer, Role, Willingness

A, B, C = node_id("a"), node_id("b"), node_id("c")
RUN = SplitRequest(MODEL, manifest=MANIFEST)
PLAN = SplitRequest(MODEL, purpose=Purpose.PLAN)


def a_spec(*, layers: int = 8, layer_gb: float = 10) -> ModelSpec:
    return ModelSpec(MODEL, (LayerSpec(layers, round(layer_gb * GB)),), hidden_size=64, vocabulary=1000)


def asked(**more: Any) -> PlanAsked:
    options = {"objective": Objective.FEWEST, **more}
    return PlanAsked(options.pop("spec", a_spec()), Workload(context=256), **options)


def a_snapshot(
    *nodes: NodeView, request: SplitRequest = PLAN, view: MeshView | None = None
) -> SplitParticipantSnapshot:
    return snapshot_now(view or a_view(*nodes), request)


def job_of(*nodes: NodeView, request: SplitRequest = PLAN, pin: bool = False, **more: Any) -> PlanJob:
    return plan_job(asked(**more), a_snapshot(*nodes, request=request), pin_coordinator=pin)


# --- inputs ---------------------------------------------------------------------------------------


def test_participant_keeps_its_figures_to_the_byte() -> None:
    devices = (
        DeviceOffer("gpu0", "cuda", "one", 24 * GB, 21 * GB, 1 * GB, 10**12, "nameplate", 10**14),
        DeviceOffer("cpu", "cpu", "RAM", 64 * GB, 50 * GB),
    )
    offer = an_offer(A, devices=devices, host_usable_bytes=3 * GB, willingness=Willingness.WHEN_NEEDED)
    (node,) = job_of(a_node("a", offer=offer)).nodes
    assert [(device.id, device.capacity_bytes, device.usable_bytes) for device in node.devices] == [
        ("gpu0", 24 * GB, 20 * GB),
        ("cpu", 64 * GB, 50 * GB),
    ]
    assert [device.memory_bandwidth_bytes_per_s for device in node.devices] == [10**12, None]
    assert node.devices[0].compute_flops == 10**14
    assert (node.host_usable_bytes, node.willingness) == (3 * GB, PlannerWillingness.WHEN_NEEDED)


def test_excluded_node_is_handed_over_with_its_facts_and_what_it_would_bring() -> None:
    job = job_of(a_node("a"), a_node("b", capacity_gb=80, role=Role.CLIENT))
    assert [node.id for node in job.nodes] == [A]
    (exclusion,) = job.excluded
    assert (exclusion.node_id, exclusion.reason, exclusion.found) == (B, "client", "role client")
    assert exclusion.node is not None
    assert exclusion.node.usable_bytes == 80 * GB


def test_excluded_node_of_which_nothing_is_known_brings_nothing() -> None:
    job = job_of(a_node("a"), replace(a_node("b", status=Status.DEAD), offer=None))
    assert job.excluded[0].node is None


def test_files_are_known_to_the_planner_in_a_run_and_not_asked_for_in_a_plan() -> None:
    nodes = (a_node("a"), a_node("b", offer=an_offer(B, models=())))
    run = {node.id: node for node in job_of(*nodes, request=RUN).nodes}
    assert (run[A].has_package, run[B].has_package, run[B].cached_bytes) == (True, False, 0)
    assert {node.has_package for node in job_of(*nodes, request=PLAN).nodes} == {None}


def test_unknown_rtt_stays_unknown_although_the_matrix_has_a_figure() -> None:
    b = replace(a_node("b"), rtt=an_rtt(corroborated=False, samples=1))
    view = a_view(a_node("a"), b, rtt={(A, B): an_rtt(1.0), (B, A): an_rtt(1.0)})
    snapshot = a_snapshot(view=view, request=RUN)
    assert snapshot.participants[1].rtt_ms is None
    assert links_between(view, [A, B], snapshot).get(A, B) is None


def test_links_between_others_come_from_the_matrix_with_estimates_marked() -> None:
    rtt = {(B, C): an_rtt(7.0, source=RttSource.REPORTED), (C, B): an_rtt(9.0, source=RttSource.ESTIMATED)}
    view = a_view(a_node("a", rtt_ms=1.0), a_node("b", rtt_ms=2.0), a_node("c", rtt_ms=3.0), rtt=rtt)
    links = plan_job(asked(), a_snapshot(view=view), pin_coordinator=False).links
    assert [links.get(*pair) is None for pair in ((A, B), (B, A), (B, C), (C, B))] == [False] * 4
    forth, back = links.get(B, C), links.get(C, B)
    assert forth is not None
    assert back is not None
    assert (forth.rtt_ms, forth.estimated, forth.bandwidth_bytes_per_s) == (7.0, False, None)
    assert (back.rtt_ms, back.estimated) == (9.0, True)


@pytest.mark.parametrize("engine", [LLAMA_CPP_RPC, CHAIN], ids=["star", "chain"])
def test_plan_of_a_snapshot_is_timed_by_its_bandwidths_and_rtts(engine: EngineProfile) -> None:
    """8 layers of 10 GB at 1000 GB/s take 80 ms; b, 2 ms away, is used and c, 50 ms away, is not."""
    devices = (DeviceOffer("gpu0", "cuda", "one", 50 * GB, 50 * GB, 0, 1000 * GB, "nameplate"),)
    away_ms = {"a": 0.0, "b": 2.0, "c": 50.0}
    nodes = [a_node(name, rtt_ms=ms, offer=an_offer(node_id(name), devices=devices)) for name, ms in away_ms.items()]
    rtt = {pair: an_rtt(50.0 if C in pair else 2.0) for pair in permutations((A, B, C), 2)}
    snapshot = a_snapshot(view=a_view(*nodes, rtt=rtt), request=RUN)
    plan = plan_here(plan_job(asked(objective=Objective.LATENCY, engine=engine), snapshot, pin_coordinator=True))
    assert isinstance(plan, SplitPlan)
    assert (plan.capacity_only, plan.coordinator.node, set(plan.nodes)) == (False, A, {A, B})
    assert plan.prediction is not None
    assert {hop.rtt_ms for hop in plan.hops} == {2.0}
    assert 0.082 < plan.prediction.latency_s < 0.084


def test_excluded_nodes_have_links_so_that_admitting_them_can_be_timed() -> None:
    rtt = {(A, B): an_rtt(5.0), (B, A): an_rtt(5.0)}
    view = a_view(a_node("a"), a_node("b", offer=an_offer(B, draining=True)), rtt=rtt)
    assert plan_job(asked(), a_snapshot(view=view), pin_coordinator=False).links.get(A, B) is not None


def test_pinned_coordinator_that_gives_no_compute_joins_without_devices() -> None:
    unwilling = a_node("a", capacity_gb=500, offer=an_offer(A, usable_bytes=500 * GB, willingness=Willingness.NEVER))
    job = job_of(unwilling, a_node("b", capacity_gb=50), a_node("c", capacity_gb=50), request=RUN, pin=True)
    own = next(node for node in job.nodes if node.id == A)
    assert (own.devices, own.host_usable_bytes) == ((), 8 * GB)
    plan = plan_here(job)
    assert isinstance(plan, SplitPlan)
    assert (plan.coordinator.node, plan.coordinator.is_stage, set(plan.nodes)) == (A, False, {B, C})


@pytest.mark.parametrize("figure", [10**17])
def test_absurd_claim_of_one_peer_does_not_stop_the_plan_of_all(figure: int) -> None:
    liar = a_node("b", offer=an_offer(B, devices=(DeviceOffer("gpu0", "\x00", "", figure, figure),)))
    assert isinstance(plan_here(job_of(a_node("a", capacity_gb=100), liar)), SplitPlan)


@pytest.mark.parametrize("ids", [("", "x"), ("same", "same"), ("bad\x1b[2J", "x")])
def test_malformed_device_of_one_peer_is_left_out_and_its_others_are_counted(ids: tuple[str, str]) -> None:
    devices = tuple(DeviceOffer(device, "cuda", "", 24 * GB, 24 * GB) for device in ids)
    job = job_of(a_node("a", capacity_gb=10), a_node("b", offer=an_offer(B, devices=devices)))
    assert [len(node.devices) for node in job.nodes] == [1, 1]


# --- outcomes ------------------------------------------------------------------------------------------


def test_shortfall_names_participants_exclusions_and_the_peer_that_would_fix_it() -> None:
    nodes = (a_node("a", capacity_gb=45), a_node("b", offer=an_offer(B, usable_bytes=45 * GB, draining=True)))
    report = plan_here(job_of(*nodes))
    assert isinstance(report, ShortfallReport)
    assert (report.required_bytes, report.available_bytes, report.short_by_bytes) == (80 * GB, 45 * GB, 35 * GB)
    assert f"excluded [{B[:10]}:draining]" in report.message
    admit = next(remedy for remedy in report.remedies if remedy.action is RemedyAction.ADMIT_PEER)
    assert admit.sufficient


def test_input_that_no_plan_can_be_made_from_is_a_refusal_that_names_the_field() -> None:
    pinned = Constraints(coordinator="nobody")
    refused = plan_here(job_of(a_node("a"), constraints=pinned))
    assert isinstance(refused, PlanRefused)
    assert (refused.field, refused.found) == ("constraints.coordinator", "nobody")


@pytest.mark.parametrize("gigabytes", [100, 10], ids=["plan", "shortfall"])
async def test_worker_process_comes_to_what_this_process_does(gigabytes: float) -> None:
    job = job_of(a_node("a", capacity_gb=gigabytes), a_node("b", role=Role.CLIENT))
    here, there = plan_here(job), await plan_in_worker(job)
    assert there == here


def test_jobs_and_reports_can_be_sent_between_processes() -> None:
    job = job_of(a_node("a", capacity_gb=10), a_node("b", role=Role.CLIENT))
    assert pickle.loads(pickle.dumps(job)) == job
    report = plan_here(job)
    assert pickle.loads(pickle.dumps(report)) == report


def test_rtt_limit_of_the_operator_reaches_the_planner_as_an_exclusion() -> None:
    request = replace(PLAN, eligibility=Eligibility(max_stage_rtt_ms=10))
    job = job_of(a_node("a"), a_node("b", rtt_ms=50), request=request)
    assert [(entry.node_id, entry.reason) for entry in job.excluded] == [(B, "stage_path_too_slow")]


# --- after the plan ----------------------------------------------------------------------------------------


def test_stage_orders_hold_exactly_the_bytes_of_the_plan_and_the_coordinators_host_memory() -> None:
    spec = ModelSpec(MODEL, (LayerSpec(8, 10 * GB),), embedding_bytes=GB, output_bytes=GB, hidden_size=64, vocabulary=9)
    plan = plan_here(job_of(a_node("a", capacity_gb=50), a_node("b", capacity_gb=50), pin=True, request=RUN, spec=spec))
    assert isinstance(plan, SplitPlan)
    orders = {order.node: order for order in stage_orders(plan)}
    assert dict(orders[A].reserve)[HOST_MEMORY] == plan.coordinator.host_bytes >= GB
    for node, order in orders.items():
        stages = [stage for stage in plan.stages if stage.node == node]
        assert dict(order.reserve)["gpu0"] == sum(stage.bytes.total for stage in stages)
        assert order.ranges == tuple((stage.device, stage.layer_start, stage.layer_end) for stage in stages)


def test_coordinator_without_a_stage_still_reserves_its_host_memory() -> None:
    unwilling = a_node("a", offer=an_offer(A, willingness=Willingness.NEVER))
    spec = ModelSpec(MODEL, (LayerSpec(8, 10 * GB),), embedding_bytes=GB, hidden_size=64, vocabulary=9)
    job = job_of(unwilling, a_node("b", capacity_gb=99), request=RUN, pin=True, spec=spec)
    plan = plan_here(job)
    assert isinstance(plan, SplitPlan)
    own = stage_orders(plan)[0]
    assert (own.node, own.layer_start, own.layer_end) == (A, 0, 0)
    assert [device for device, _ in own.reserve] == [HOST_MEMORY]


def test_notes_say_what_is_declared_unknown_and_estimated() -> None:
    declared = (DeviceOffer("gpu0", "cuda", "", 24 * GB, 24 * GB, declared=True),)
    nodes = (
        a_node("a", offer=an_offer(A, devices=declared)),
        replace(a_node("b"), rtt=None),
        a_node("c", rtt=an_rtt(30.0, corroborated=False, source=RttSource.ESTIMATED)),
    )
    notes = notes_on(a_snapshot(*nodes))
    assert [note.split(":")[0] for note in notes] == [
        "usable memory is declared by the operator, not measured",
        "RTT unknown",
        "RTT estimated from coordinates, not measured",
    ]
    assert [node[:10] in note for node, note in zip((A, B, C), notes, strict=True)] == [True] * 3


# --- asking ---------------------------------------------------------------------------------------------------


async def test_plan_now_answers_for_the_mesh_as_it_is() -> None:
    view = a_view(a_node("a", capacity_gb=45), a_node("b", capacity_gb=45), a_node("c", role=Role.CLIENT))
    result = await plan_now(view, PLAN, asked())
    plain = json.loads(json.dumps(result.to_dict()))
    assert (plain["result"], plain["outcome"]) == ("plan", "immediate")


async def test_plan_of_a_client_is_made_for_the_workers_it_sees() -> None:
    nodes = (a_node("a", role=Role.CLIENT), a_node("b", capacity_gb=45), a_node("c", capacity_gb=45))
    matrix = {(x, y): an_rtt(1.0, source=RttSource.REPORTED) for x in (B, C) for y in (B, C) if x != y}
    result = await plan_now(a_view(*nodes, rtt=matrix), PLAN, asked(engine=CHAIN))
    assert isinstance(result.outcome, SplitPlan)
    assert set(result.outcome.nodes) == {B, C}


def test_result_as_json_marks_declared_participants() -> None:
    declared = (DeviceOffer("gpu0", "cuda", "", 99 * GB, 99 * GB, declared=True),)
    snapshot = a_snapshot(a_node("a", offer=an_offer(A, devices=declared)), a_node("b"))
    outcome = plan_here(plan_job(asked(), snapshot, pin_coordinator=False))
    assert PlanResult(snapshot, outcome, notes_on(snapshot)).to_dict()["declared"] == [A]


async def test_waiting_and_planning_report_every_step() -> None:
    events: list[Event] = []
    mesh = a_mesh(a_node("a", capacity_gb=45), a_node("b", capacity_gb=20))
    request = replace(RUN, settle=QUICK)
    result = await wait_and_plan(request, mesh, asked(), time.monotonic, events.append)
    assert isinstance(result.outcome, ShortfallReport)
    names = [event.name for event in events]
    assert names == ["split.waiting", "split.candidates", "split.ready", "split.shortfall"]


async def test_model_that_the_local_node_holds_alone_is_planned_there_at_once() -> None:
    mesh = a_mesh(a_node("a", capacity_gb=95), a_node("b", capacity_gb=95))
    events: list[Event] = []
    result = await wait_and_plan(RUN, mesh, asked(), time.monotonic, events.append)
    assert isinstance(result.outcome, SplitPlan)
    assert result.outcome.nodes == (A,)
    assert any("alone" in note for note in result.notes)
    assert [event.name for event in events] == ["split.planned"]
    assert mesh.asked == []


async def test_forced_split_waits_for_the_mesh_though_the_local_node_holds_it_alone() -> None:
    mesh = a_mesh(a_node("a", capacity_gb=95), a_node("b", capacity_gb=95))
    events: list[Event] = []
    request = replace(RUN, settle=QUICK)
    await wait_and_plan(request, mesh, asked(), time.monotonic, events.append, force_split=True)
    assert events[0].name == "split.waiting"
    assert set(mesh.asked) == {A, B}


@pytest.mark.parametrize(
    ("local", "coordinator", "constraints"),
    [
        (a_node("a", capacity_gb=45), None, Constraints()),
        (a_node("a", role=Role.CLIENT), None, Constraints()),
        (a_node("a", capacity_gb=95), B, Constraints()),
        (a_node("a", capacity_gb=95), None, Constraints(min_stages=2)),
    ],
    ids=("too small", "a client", "another coordinates", "two stages asked for"),
)
async def test_nothing_is_planned_on_the_local_node_alone_where_it_may_not(
    local: NodeView, coordinator: NodeId | None, constraints: Constraints
) -> None:
    view = a_view(local, a_node("b", capacity_gb=95))
    request = replace(RUN, coordinator=coordinator)
    assert await plan_alone(view, request, asked(constraints=constraints)) is None


def test_model_entry_of_another_name_is_no_interest_of_this_split() -> None:
    other = a_model(ref="other")
    (node,) = job_of(a_node("a", offer=an_offer(A, models=(other,)))).nodes
    assert node.cached_bytes == 0
