"""What follows when a plan that stands can't be run; see `driving_splits`."""

from __future__ import annotations

from driving_splits import World, WorldNode
from making_views import node_id

from meshnode.events import SplitWithdrawn
from meshnode.split import Gate, Phase
from meshnode.split.losses import MAX_FAULTS
from meshnode.split.reconsidering import RECHECK_S

OUT_OF_MEMORY = "the engine ended while loading: signal SIGKILL"


def a_running_world(*more: str) -> World:
    """`a` coordinates a plan over itself and `b`; `more` could take `b`'s place."""
    world = World()
    world.add("a", gb=45, host_gb=16)
    for name in ("b", *more):
        world.add(name, gb=45)
    world.run(12)
    assert world.nodes["a"].runs is not None
    return world


def fail(world: World, name: str, after_s: float) -> None:
    """The engine's part on `name` ends now; the world goes on for `after_s`."""
    a = world.nodes["a"]
    assert a.runs is not None
    world.perform(a, a.pursuit.run_failed(a.runs.fence, node_id(name), OUT_OF_MEMORY, world.now))
    world.run(world.now + after_s)


def phase_of(node: WorldNode) -> Phase:
    """Read anew: it changes while the world runs."""
    return node.pursuit.phase


def test_worker_whose_engine_ended_is_left_out_of_the_replan() -> None:
    world = a_running_world("c")
    a = world.nodes["a"]
    assert a.runs is not None
    lost = next(name for name in "bc" if node_id(name) in a.runs.plan.nodes)
    fail(world, lost, 5)
    assert phase_of(a) is Phase.RUNNING
    assert a.runs is not None
    assert node_id(lost) not in a.runs.plan.nodes
    assert a.gate is Gate.OPEN


def test_coordinators_own_engine_is_started_again_with_the_next_generation() -> None:
    world = a_running_world()
    a = world.nodes["a"]
    assert a.runs is not None
    before = a.runs.fence
    fail(world, "a", 5)
    assert phase_of(a) is Phase.RUNNING
    assert a.runs.fence > before


def test_engine_that_ends_again_and_again_is_given_up_with_its_reason_and_tried_again_later() -> None:
    world = a_running_world()
    a = world.nodes["a"]
    for _ in range(MAX_FAULTS):
        fail(world, "a", 5)
    assert (phase_of(a), a.gate) == (Phase.FAILED, Gate.CLOSED)
    assert OUT_OF_MEMORY in a.pursuit.status()["problem"]
    (_, event) = a.named("split.withdrawn")[-1]
    assert isinstance(event, SplitWithdrawn)
    assert OUT_OF_MEMORY in event.cause
    assert world.nodes["b"].reservations.reserved() == {}
    world.run(world.now + RECHECK_S + 15)
    assert phase_of(a) is Phase.RUNNING


def test_fault_of_an_earlier_generation_changes_nothing() -> None:
    world = a_running_world()
    a = world.nodes["a"]
    assert a.runs is not None
    old = a.runs.fence
    fail(world, "a", 5)
    assert a.runs is not None
    now_runs = a.runs.fence
    assert a.pursuit.run_failed(old, node_id("b"), OUT_OF_MEMORY, world.now) == []
    assert a.runs.fence == now_runs
