"""A split's whole life in virtual time: real pursuits, real reservations, the real planner; see `driving_splits`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from driving_splits import LAYER_BYTES, QUICK, World, WorldNode, a_spec
from making_views import GB, node_id

from meshnode.events import SplitPlanned, SplitShortfall
from meshnode.split import Gate, Phase, PursuitSettings
from planner import SplitPlan
from planner.shortfall import ShortfallReport
from proto.ids import short
from proto.parts import Role

PLANS_ONLY = PursuitSettings(carry_out=False)


def a_pair(**options: object) -> World:
    """Two workers that hold 8 layers of 10 GB only together; `a` has the larger host budget and coordinates."""
    world = World(**options)  # type: ignore[arg-type]
    world.add("a", gb=45, host_gb=16)
    world.add("b", gb=45)
    return world


def phase_of(node: WorldNode) -> Phase:
    """Read anew: it changes while the world runs."""
    return node.pursuit.phase


def stage_count(node: WorldNode) -> int:
    """Stages of the plan that runs."""
    assert node.runs is not None
    return len(node.runs.plan.stages)


def outcome_of(node: WorldNode) -> object:
    """The newest plan or shortfall."""
    assert node.pursuit.result is not None
    return node.pursuit.result.outcome


# --- plan or shortfall ---------------------------------------------------------------------------


def test_settled_members_are_planned_reserved_and_run() -> None:
    world = a_pair()
    world.run(10)
    a, b = world.nodes["a"], world.nodes["b"]
    assert (a.pursuit.phase, a.gate) == (Phase.RUNNING, Gate.OPEN)
    assert a.runs is not None
    assert set(a.runs.plan.nodes) == {node_id("a"), node_id("b")}
    assert a.stage is not None
    assert b.stage is not None
    assert b.reservations.reserved()["gpu0"] >= 4 * LAYER_BYTES
    assert b.pursuit.phase is Phase.WATCHING


def test_only_the_bytes_of_the_plan_are_reserved() -> None:
    world = a_pair()
    world.run(10)
    runs = world.nodes["a"].runs
    assert runs is not None
    for name in "ab":
        stages = [stage for stage in runs.plan.stages if stage.node == node_id(name)]
        assert world.nodes[name].reservations.reserved()["gpu0"] == sum(stage.bytes.total for stage in stages)


def test_shortfall_is_reported_and_a_node_that_arrives_turns_it_into_a_plan() -> None:
    world = World(settings=PLANS_ONLY)
    world.add("a", gb=25, host_gb=16)
    world.add("b", gb=25)
    world.run(14)
    a = world.nodes["a"]
    ((_, event),) = a.named("split.shortfall")
    assert isinstance(event, SplitShortfall)
    assert (event.kind, phase_of(a)) == ("aggregate", Phase.SHORT)
    assert isinstance(outcome_of(a), ShortfallReport)
    world.add("c", gb=45)
    world.run(30)
    assert phase_of(a) is Phase.PLANNED
    assert isinstance(outcome_of(a), SplitPlan)
    assert len(a.named("split.planned")) == 1


def test_node_that_arrives_while_a_shortfall_is_worked_out_is_not_overlooked() -> None:
    world = World(settings=PLANS_ONLY, planning_s=5.0)
    world.add("a", gb=25, host_gb=16)
    world.add("b", gb=25)
    world.run(4)
    assert phase_of(world.nodes["a"]) is Phase.PLANNING
    world.add("c", gb=45)
    world.run(30)
    assert phase_of(world.nodes["a"]) is Phase.PLANNED


def test_node_that_arrives_while_a_plan_is_made_makes_the_next_one_better() -> None:
    world = World(planning_s=5.0)
    world.add("a", gb=31, host_gb=16)
    world.add("b", gb=31)
    world.add("d", gb=31)
    world.run(4)
    assert phase_of(world.nodes["a"]) is Phase.PLANNING
    world.add("c", gb=61)
    world.run(40)
    assert stage_count(world.nodes["a"]) == 2


def test_same_shortfall_is_not_reported_twice() -> None:
    world = World(settings=PLANS_ONLY)
    world.add("a", gb=25, host_gb=16)
    world.add("b", gb=25)
    world.run(10)
    world.add("c", gb=1, role=Role.CLIENT)
    world.run(100)
    assert len(world.nodes["a"].named("split.shortfall")) == 1


def test_planning_alone_reserves_nothing() -> None:
    world = a_pair(settings=PLANS_ONLY)
    world.run(20)
    assert world.nodes["a"].pursuit.phase is Phase.PLANNED
    assert all(node.reservations.reserved() == {} for node in world.nodes.values())


def test_model_that_fits_the_local_node_runs_solo_without_waiting_for_others() -> None:
    world = World()
    world.add("a", gb=100, host_gb=16)
    world.add("b", gb=100)
    world.run(2)
    a = world.nodes["a"]
    assert a.runs is not None
    assert a.runs.plan.nodes == (node_id("a"),)
    assert a.named("split.waiting") == []


def test_forced_split_waits_for_others_although_it_would_fit() -> None:
    world = World(settings=PursuitSettings(carry_out=True, force_split=True))
    world.add("a", gb=100, host_gb=16)
    world.run(10)
    assert world.nodes["a"].runs is None
    assert world.nodes["a"].pursuit.phase is Phase.WAITING


def test_below_the_quorum_it_waits_on_and_begins_anew_when_somebody_comes() -> None:
    world = World()
    world.add("a", gb=45, host_gb=16)
    world.run(25)
    a = world.nodes["a"]
    assert phase_of(a) is Phase.BELOW_QUORUM
    assert len(a.named("split.quorum_failed")) == 1
    world.add("b", gb=45)
    world.run(35)
    assert phase_of(a) is Phase.RUNNING


def test_without_any_complete_package_the_verdicts_say_who_lacks_what() -> None:
    world = World()
    world.add("a", gb=45, host_gb=16, holds_package=False)
    world.add("b", gb=45, holds_package=False)
    world.run(5)
    a = world.nodes["a"]
    assert a.pursuit.phase is Phase.NO_SOURCE
    (_, event) = a.named("split.candidates")[-1]
    assert event.fields()["excluded"] == tuple(f"{node_id(n)}:missing_model_source" for n in "ab")
    assert world.nodes["b"].named("split.candidates") == []


def test_client_never_coordinates_and_holds_no_stage() -> None:
    world = World()
    world.add("a", gb=45, host_gb=99, role=Role.CLIENT)
    world.add("b", gb=45, host_gb=16)
    world.add("c", gb=45)
    world.run(10)
    runs = world.nodes["b"].runs
    assert runs is not None
    assert set(runs.plan.nodes) == {node_id("b"), node_id("c")}


# --- leases ------------------------------------------------------------------------------------------


def test_leases_are_renewed_for_as_long_as_it_runs() -> None:
    world = a_pair()
    world.run(600)
    assert world.nodes["a"].gate is Gate.OPEN
    assert len(world.nodes["b"].named("split.reserved")) == 1
    assert world.nodes["b"].named("split.released") == []


def test_silent_link_stops_the_coordinator_before_the_worker_gives_up() -> None:
    world = a_pair()
    world.run(10)
    gates: list[tuple[float, Gate]] = []
    stages: list[tuple[float, bool]] = []
    world.checks.append(lambda seen: gates.append((seen.now, seen.nodes["a"].gate)))
    world.checks.append(lambda seen: stages.append((seen.now, seen.nodes["b"].stage is not None)))
    world.loss = 1.0  # membership does not notice
    world.run(40)
    closed_s = next(at for at, gate in gates if gate is Gate.CLOSED)
    stopped_s = next(at for at, runs in stages if not runs)
    assert closed_s <= 10.0 + 10.0
    assert closed_s + 3.0 <= stopped_s <= 10.0 + 15.1


def test_worker_gives_its_stage_back_15_seconds_after_its_coordinator_died() -> None:
    world = a_pair()
    world.run(10)
    world.kill("a")
    world.run(30)
    b = world.nodes["b"]
    assert b.stage is None
    assert b.reservations.reserved() == {}
    ((released_s, event),) = b.named("split.released")
    assert event.fields()["reason"] == "lease lapsed"
    assert 22 <= released_s <= 25.5


# --- suspicion, death, replan, withdrawal ----------------------------------------------------------------


def test_suspected_stage_holds_new_requests_and_a_refutation_serves_them() -> None:
    world = a_pair()
    world.run(10)
    world.suspect("b", True)
    world.run(11)
    assert (world.nodes["a"].gate, world.nodes["a"].pursuit.phase) == (Gate.HOLD, Phase.RUNNING)
    world.suspect("b", False)
    world.run(12)
    assert world.nodes["a"].gate is Gate.OPEN


def test_dead_stage_is_replanned_at_once_onto_those_that_live() -> None:
    world = a_pair()
    world.add("c", gb=45)
    world.run(10)
    dead = next(name for name in "bc" if world.nodes[name].stage is not None)
    spare = "c" if dead == "b" else "b"
    world.kill(dead)
    world.run(11.5)
    a = world.nodes["a"]
    assert a.runs is not None
    assert set(a.runs.plan.nodes) == {node_id("a"), node_id(spare)}
    assert a.gate is Gate.OPEN
    ((_, event),) = a.named("split.replanned")
    told = event.fields()
    assert (told["cause"], told["node"]) == (f"{short(node_id(dead))} is dead", node_id(dead))
    assert len(told["lost"]) == 1
    assert {stage.split("/")[0] for stage in told["stages"]} == {node_id("a"), node_id(spare)}
    assert a.pursuit.status()["replanned"]["cause"] == told["cause"]
    assert a.named("split.withdrawn") == []


def test_survivor_keeps_what_it_held_until_the_newer_plan_takes_it_over() -> None:
    world = a_pair()
    world.add("c", gb=45)
    world.run(10)
    dead = next(name for name in "bc" if world.nodes[name].stage is not None)
    world.kill(dead)
    world.run(12)
    (_, released) = world.nodes["a"].named("split.released")[0]
    assert released.fields()["reason"] == "superseded by a newer plan"


def test_without_a_valid_plan_it_is_withdrawn_within_5_seconds_and_waits_on() -> None:
    world = a_pair()
    world.run(10)
    world.kill("b")
    world.run(10.3)
    a = world.nodes["a"]
    assert a.gate is Gate.CLOSED
    world.run(15.2)
    ((withdrawn_s, _),) = a.named("split.withdrawn")
    assert withdrawn_s - 10.2 <= 5.0
    assert len(a.named("split.shortfall")) == 1
    assert a.reservations.reserved() == {}
    world.restart("b")
    world.run(30)
    assert (a.pursuit.phase, a.gate) == (Phase.RUNNING, Gate.OPEN)


def test_worker_that_restarts_unnoticed_is_soon_part_of_a_plan_again() -> None:
    world = World()
    # It coordinates and holds no layer: nothing of its own that it gets back makes it look again.
    world.add("a", gb=1, host_gb=16)
    world.add("b", gb=95, wants=False, holds_package=False)
    world.run(10)
    world.restart("b")
    world.run(25)
    a = world.nodes["a"]
    ((_, withdrawn),) = a.named("split.withdrawn")
    assert "holds the reservation no more" in str(withdrawn.fields()["cause"])
    assert a.pursuit.phase is Phase.RUNNING


def test_planner_that_takes_too_long_does_not_delay_the_withdrawal() -> None:
    world = a_pair(planning_s=8.0)
    world.run(20)
    world.kill("b")
    world.run(26)
    ((withdrawn_s, event),) = world.nodes["a"].named("split.withdrawn")
    assert str(event.fields()["cause"]).startswith("no new plan in time after a loss: ")
    assert withdrawn_s == pytest.approx(25.2, abs=0.1)


def test_clean_stop_gives_everything_back() -> None:
    world = a_pair()
    world.run(10)
    a = world.nodes["a"]
    world.perform(a, a.pursuit.stop("node stops"))
    world.run(11)
    assert (phase_of(a), a.gate, a.runs) == (Phase.STOPPED, Gate.CLOSED, None)
    assert world.nodes["b"].reservations.reserved() == {}


# --- a better plan -----------------------------------------------------------------------------------------


def test_running_split_moves_to_a_better_plan_when_the_mesh_grows() -> None:
    world = World()
    for name, gb in (("a", 31), ("b", 31), ("c", 31)):
        world.add(name, gb=gb, host_gb=16 if name == "a" else 8)
    world.run(10)
    a = world.nodes["a"]
    assert stage_count(a) == 3
    world.add("d", gb=61)
    world.run(20)
    assert stage_count(a) == 2
    ((_, event),) = a.named("split.replanned")
    assert (event.fields()["cause"], event.fields()["node"], event.fields()["lost"]) == ("better plan", None, ())
    assert event.fields()["moved_bytes"] > 0


def test_running_split_stays_where_the_gain_is_small() -> None:
    world = a_pair()
    world.run(10)
    world.add("c", gb=60)
    world.run(40)
    assert world.nodes["a"].named("split.replanned") == []
    assert world.nodes["a"].gate is Gate.OPEN


# --- coordinators --------------------------------------------------------------------------------------------


def test_coordinator_that_dies_is_followed_by_the_next_with_a_higher_generation() -> None:
    world = a_pair()
    world.add("c", gb=45)
    world.run(10)
    world.kill("a")
    world.run(30)
    b = world.nodes["b"]
    assert b.runs is not None
    assert b.runs.fence.generation > 1
    assert set(b.runs.plan.nodes) == {node_id("b"), node_id("c")}


def test_coordinator_that_returns_finds_the_newer_plan_and_watches() -> None:
    world = a_pair()
    world.add("c", gb=45)
    world.run(10)
    world.kill("a")
    world.run(30)
    world.restart("a")
    world.run(60)
    assert world.nodes["a"].pursuit.phase is Phase.WATCHING
    assert world.nodes["b"].gate is Gate.OPEN


def test_restarted_coordinator_never_uses_a_fence_twice() -> None:
    world = a_pair()
    world.run(10)
    first = world.nodes["a"].runs
    world.kill("a")
    world.run(11)
    world.restart("a")
    world.run(40)
    second = world.nodes["a"].runs
    assert first is not None
    assert second is not None
    assert second.fence > first.fence


def test_two_halves_run_two_splits_and_after_healing_one_of_them_gives_way() -> None:
    world = World()
    for name in "abcd":
        world.add(name, gb=45, host_gb=16 if name == "a" else 8)
    world.run(10)
    world.partition(a=0, b=0, c=1, d=1)
    world.run(60)
    running = {name for name, node in world.nodes.items() if node.gate is Gate.OPEN}
    assert running == {"a", "c"}
    world.heal()
    world.run(90)
    running = {name for name, node in world.nodes.items() if node.gate is Gate.OPEN}
    assert len(running) == 1
    watching = ({"a", "c"} - running).pop()
    assert world.nodes[watching].pursuit.phase is Phase.WATCHING


def test_model_too_large_for_any_single_node_but_the_mesh_reports_the_layers_short() -> None:
    world = World(spec=a_spec(layers=3, layer_bytes=30 * GB), settings=PLANS_ONLY)
    world.add("a", gb=50, host_gb=16)
    world.add("b", gb=50)
    world.run(10)
    ((_, event),) = world.nodes["a"].named("split.shortfall")
    assert isinstance(event, SplitShortfall)
    assert (event.kind, event.short_layers) == ("placement", 1)


def test_quorum_of_one_runs_alone_after_settling() -> None:
    world = World(settle=replace(QUICK, quorum=1), settings=PursuitSettings(carry_out=True, force_split=True))
    world.add("a", gb=100, host_gb=16)
    world.run(10)
    assert world.nodes["a"].runs is not None


def test_plan_event_names_stages_coordinator_and_generation() -> None:
    world = a_pair()
    world.run(10)
    ((_, event),) = world.nodes["a"].named("split.planned")
    assert isinstance(event, SplitPlanned)
    assert (event.generation, event.coordinator, event.objective) == (1, node_id("a"), "fewest")
    assert len(event.stages) == 2


def test_status_is_plain_json() -> None:
    import json

    world = a_pair()
    world.run(1)
    waiting = json.loads(json.dumps(world.nodes["a"].pursuit.status()))
    world.run(10)
    running = json.loads(json.dumps(world.nodes["a"].pursuit.status()))
    assert (waiting["phase"], len(waiting["candidates"])) == ("waiting", 2)
    assert (running["phase"], running["generation"], running["coordinator"]) == ("running", 1, node_id("a"))
    assert running["result"]["result"] == "plan"
