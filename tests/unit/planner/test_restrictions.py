"""What the operator restricts holds in every plan: targets, willingness, stage limits, cuts, RTT caps, devices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from planning_makers import a_node, linked

from planner import (
    CapacityShortfall,
    Constraints,
    DeviceSpec,
    LayerSpec,
    Link,
    LinkMatrix,
    ModelSpec,
    NodeSpec,
    ShortfallReport,
    SplitPlan,
    TargetPolicy,
    Willingness,
    Workload,
    plan_split,
)

GB = 10**9
MODEL = ModelSpec("m", (LayerSpec(count=10, weight_bytes=GB),), hidden_size=1000)


def planned(*nodes: NodeSpec, links: LinkMatrix | None = None, **options: Any) -> SplitPlan:
    asked = {"engine": "chain", **options}
    return plan_split(MODEL, nodes, links or linked(*nodes), Workload(context=0), **asked)


def shortfall(*nodes: NodeSpec, **options: Any) -> ShortfallReport:
    with pytest.raises(CapacityShortfall) as caught:
        planned(*nodes, **options)
    return caught.value.report


A, B, C = a_node("a"), a_node("b"), a_node("c")


# --- targets ---------------------------------------------------------------------------------------


def predicted(plan: SplitPlan) -> float:
    assert plan.prediction is not None
    return plan.prediction.tokens_per_s


def test_target_that_is_met_changes_nothing() -> None:
    free = planned(A, B)
    assert planned(A, B, constraints=Constraints(min_tokens_per_s=predicted(free) * 0.99)).stages == free.stages


def test_target_that_must_be_met_and_is_not_is_a_constraint_shortfall_that_names_the_cause() -> None:
    report = shortfall(A, B, constraints=Constraints(min_tokens_per_s=1000))
    assert (report.kind, report.binds) == ("constraint", "min_tokens_per_s")
    assert report.binds_because is not None
    assert report.binds_because.startswith("memory_bandwidth: ")
    (lower,) = [each for each in report.remedies if each.action == "relax_constraint"]
    assert planned(A, B, constraints=Constraints(min_tokens_per_s=lower.details["value"])).prediction is not None


def test_target_missed_for_its_hops_says_so() -> None:
    report = shortfall(A, B, links=linked(A, B, rtt_ms=5000), constraints=Constraints(min_tokens_per_s=1000))
    assert report.binds_because is not None
    assert report.binds_because.startswith("hops: ")


def test_best_effort_plan_says_by_how_much_the_target_is_missed() -> None:
    plan = planned(A, B, constraints=Constraints(min_tokens_per_s=50, target_policy=TargetPolicy.BEST_EFFORT))
    missed = 50 - predicted(plan)
    assert f"target of 50 tokens/s missed by {missed:.2f} ({predicted(plan):.2f} predicted)" in plan.warnings


def test_target_overrules_an_objective_that_would_miss_it() -> None:
    """The fewest stages are the slow big node's; two fast ones are needed for the speed."""
    big = a_node("big", usable_gb=20, bandwidth_gb_s=10)
    assert planned(A, B, big, objective="fewest").nodes == ("big",)
    plan = planned(A, B, big, objective="fewest", constraints=Constraints(min_tokens_per_s=5))
    assert set(plan.nodes) == {"a", "b"}
    assert predicted(plan) >= 5
    assert any("chosen for throughput" in warning for warning in plan.warnings)


# --- willingness -----------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["latency", "throughput", "fewest", "proportional"])
def test_node_that_is_for_when_needed_is_used_only_when_no_plan_exists_without_it(objective: str) -> None:
    spare = a_node("spare", usable_gb=20, bandwidth_gb_s=1000, willingness=Willingness.WHEN_NEEDED)
    assert "spare" not in planned(A, B, spare, objective=objective).nodes
    assert "spare" in planned(A, spare, objective=objective).nodes


@pytest.mark.parametrize("cap_ms", [None, 5.0])
def test_node_that_is_for_when_needed_coordinates_only_where_nobody_else_can(cap_ms: float | None) -> None:
    spare = a_node("spare", usable_gb=20, host_usable_bytes=99 * GB, willingness=Willingness.WHEN_NEEDED)
    able = a_node("able", usable_gb=20, host_usable_bytes=GB)
    model = replace(MODEL, embedding_bytes=GB // 2)

    def coordinator(*nodes: NodeSpec) -> str:
        limits = Constraints(max_stage_rtt_ms=cap_ms)
        return plan_split(model, nodes, linked(*nodes), Workload(context=0), constraints=limits).coordinator.node

    assert coordinator(able, spare) == "able"
    assert coordinator(replace(able, host_usable_bytes=0), spare) == "spare"


def test_of_the_nodes_for_when_needed_no_more_are_used_than_needed() -> None:
    spares = [a_node(f"s{n}", willingness=Willingness.WHEN_NEEDED) for n in range(4)]
    assert len([name for name in planned(A, *spares).nodes if name.startswith("s")]) == 1


def test_node_that_is_never_willing_holds_no_stage_but_may_coordinate() -> None:
    laptop = a_node("laptop", usable_gb=20, bandwidth_gb_s=1000, willingness=Willingness.NEVER)
    limits = Constraints(coordinator="laptop")
    plan = planned(A, B, laptop, engine="llama_cpp_rpc", constraints=limits)
    assert "laptop" not in plan.nodes
    assert (plan.coordinator.node, plan.coordinator.is_stage) == ("laptop", False)


def test_shortfall_counts_nothing_of_an_unwilling_node_and_offers_to_admit_it() -> None:
    laptop = a_node("laptop", usable_gb=20, willingness=Willingness.NEVER)
    report = shortfall(A, laptop)
    assert report.available_bytes == 6 * GB
    assert [each.node_id for each in report.excluded] == ["laptop"]
    (admit,) = [each for each in report.remedies if each.action == "admit_peer"]
    assert admit.sufficient


def test_shortfall_tells_each_participants_rtt_from_who_would_coordinate() -> None:
    small = [a_node(name, usable_gb=1) for name in "abc"]
    links = LinkMatrix({("b", "a"): Link(7.0), ("a", "b"): Link(7.0), ("a", "c"): Link(3.0)})
    report = shortfall(*small, links=links, constraints=Constraints(coordinator="b"))
    assert [each.rtt_ms for each in report.participants] == [7.0, 0.0, None]
    assert "a:1.0GB cached=unknown missing=unknown rtt=7.0ms" in report.headline
    assert {each.rtt_ms for each in shortfall(*small, links=LinkMatrix()).participants} == {None}


def test_estimated_rtt_of_a_participant_is_marked_and_says_nothing_below_5_ms() -> None:
    small = [a_node(name, usable_gb=1) for name in "abc"]
    links = LinkMatrix({("a", "b"): Link(31.25, estimated=True), ("a", "c"): Link(0.4, estimated=True)})
    report = shortfall(*small, links=links, constraints=Constraints(coordinator="a"))
    assert [each.rtt_estimated for each in report.participants] == [False, True, True]
    assert "rtt=~31.2ms" in report.headline
    assert "rtt=~<5ms" in report.headline


# --- stages, cuts, RTT -----------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["latency", "throughput", "fewest"])
@pytest.mark.parametrize("engine", ["chain", "llama_cpp_rpc"])
@pytest.mark.parametrize(("least", "most"), [(1, 2), (3, 3), (2, 4), (4, None)])
def test_stage_limits_hold(objective: str, engine: str, least: int, most: int | None) -> None:
    nodes = A, B, C, a_node("d")
    limits = Constraints(min_stages=least, max_stages=most)
    plan = planned(*nodes, objective=objective, engine=engine, constraints=limits)
    assert least <= len(plan.stages) <= (most or 4)


@pytest.mark.parametrize("objective", ["latency", "throughput", "fewest", "proportional"])
def test_no_stage_begins_at_a_forbidden_boundary(objective: str) -> None:
    forbidden = frozenset({4, 5})
    plan = planned(A, B, objective=objective, constraints=Constraints(forbidden_boundaries=forbidden))
    assert {stage.layer_start for stage in plan.stages}.isdisjoint(forbidden)


@pytest.mark.parametrize("engine", ["chain", "llama_cpp_rpc"])
def test_no_stage_is_farther_from_the_coordinator_than_the_cap(engine: str) -> None:
    far = a_node("far", usable_gb=20, bandwidth_gb_s=10_000)
    nodes = A, B, far
    links = linked(*nodes, far=3.0)
    pinned = Constraints(coordinator="a", max_stage_rtt_ms=2.0)
    plan = planned(*nodes, links=links, engine=engine, constraints=pinned)
    assert set(plan.nodes) == {"a", "b"}
    without = planned(*nodes, links=links, engine=engine, constraints=Constraints(coordinator="a"))
    assert "far" in without.nodes


def test_cap_that_alone_prevents_a_plan_is_named_with_the_rtt_that_would_do() -> None:
    links = linked(A, B, rtt_ms=7.5)
    report = shortfall(A, B, links=links, constraints=Constraints(coordinator="a", max_stage_rtt_ms=2.0))
    assert (report.kind, report.binds) == ("constraint", "max_stage_rtt_ms")
    relax = next(each for each in report.remedies if each.action == "relax_constraint")
    assert relax.details["value"] == 7.5


def test_restrictions_that_only_together_prevent_a_plan_are_lifted_together() -> None:
    nodes = [a_node(name, usable_gb=4) for name in "abc"]
    limits = Constraints(max_stages=2, max_stage_rtt_ms=1.0, forbidden_boundaries=frozenset({1}))
    report = shortfall(*nodes, links=linked(*nodes, rtt_ms=9.0), constraints=limits)
    assert (report.kind, report.binds) == ("constraint", "several_constraints")
    (together,) = [each for each in report.remedies if each.action == "combine"]
    assert together.sufficient
    assert [part["constraint"] for part in together.details["parts"]] == ["max_stages", "max_stage_rtt_ms"]


def test_hole_in_the_rtt_matrix_is_never_crossed_by_a_timed_plan() -> None:
    links = LinkMatrix({pair: link for pair, link in linked(A, B, C).links.items() if set(pair) != {"a", "b"}})
    plan = planned(A, B, C, links=links)
    assert not plan.capacity_only
    assert all({hop.source, hop.target} != {"a", "b"} for hop in plan.hops)


def test_without_any_known_link_the_plan_is_labelled_capacity_only() -> None:
    plan = planned(A, B, links=LinkMatrix())
    assert plan.capacity_only
    assert plan.prediction is None
    assert any("RTT from a to b" in warning or "RTT from b to a" in warning for warning in plan.warnings)


# --- several devices -------------------------------------------------------------------------------


def a_box(name: str, *sizes_gb: float, bandwidth_gb_s: float = 100) -> NodeSpec:
    devices = tuple(
        DeviceSpec(f"gpu{n}", capacity_bytes=round(size * GB), declared_usable_bytes=round(size * GB),
                   memory_bandwidth_bytes_per_s=bandwidth_gb_s * 1e9)
        for n, size in enumerate(sizes_gb)
    )  # fmt: skip
    return NodeSpec(name, devices=devices)


@pytest.mark.parametrize("engine", ["chain", "llama_cpp_rpc"])
def test_passing_between_devices_of_one_node_costs_nothing(engine: str) -> None:
    box = a_box("box", 6, 6)
    plan = planned(box, engine=engine)
    assert [(stage.node, stage.device) for stage in plan.stages] == [("box", "gpu0"), ("box", "gpu1")]
    assert plan.hops == ()
    assert plan.value == pytest.approx(0.1)


def test_devices_of_one_node_are_preferred_to_a_second_node_as_fast() -> None:
    plan = planned(a_box("box", 6, 6), a_node("other", usable_gb=6))
    assert plan.nodes == ("box",)


def test_slow_ram_of_a_machine_is_filled_last() -> None:
    machine = NodeSpec(
        "machine",
        devices=(
            DeviceSpec("gpu", 7 * GB, declared_usable_bytes=7 * GB, memory_bandwidth_bytes_per_s=1e12),
            DeviceSpec("ram", 64 * GB, kind="ram", declared_usable_bytes=64 * GB, memory_bandwidth_bytes_per_s=5e10),
        ),
    )
    plan = planned(machine)
    assert {stage.device: stage.layers for stage in plan.stages} == {"gpu": 7, "ram": 3}


def test_device_of_unknown_bandwidth_is_left_out_and_named_where_the_others_hold_the_model() -> None:
    plan = planned(A, B, a_node("dark", usable_gb=20, bandwidth_gb_s=None))
    assert "dark" not in plan.nodes
    assert "dark was left out: its memory bandwidth is unknown" in plan.warnings
