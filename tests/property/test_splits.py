"""Whatever partitions, deaths, losses and restarts do: no worker is held twice, no fence used twice, all ends well.

The worlds assert on every step that a worker never starts a stage over another and a coordinator never runs a plan over
another; the checks below add what must hold across nodes. See `driving_splits`.
"""

from __future__ import annotations

from collections.abc import Callable

from driving_splits import World
from hypothesis import given, settings
from hypothesis import strategies as st
from making_views import MODEL, node_id

from meshnode.membership.effects import Send
from meshnode.split import Fences, Gate, Phase, Reservations
from meshnode.split.reservation import LEASE_S, StartStage, StopStage
from proto.ids import NodeId
from proto.messages import Commit, Fence, LeaseRenewal, Prepare, Prepared, Release

NAMES = "abcd"
Step = Callable[[World], None]


def reserved_is_never_more_than_usable(world: World) -> None:
    for node in world.nodes.values():
        assert node.reservations.reserved().get("gpu0", 0) <= node.usable_bytes


class PromisesOnlyRise:
    """What a node stored is never followed by less, also over restarts; no fence runs two plans."""

    def __init__(self) -> None:
        self._highest: dict[str, Fence] = {}
        self._plans: dict[Fence, object] = {}

    def __call__(self, world: World) -> None:
        for name, node in world.nodes.items():
            stored = None if node.stored is None else node.stored.promised.get(MODEL)
            if stored is not None:
                assert stored >= self._highest.get(name, stored)
                self._highest[name] = stored
            if node.runs is not None:
                assert self._plans.setdefault(node.runs.fence, node.runs.plan) == node.runs.plan


class NobodyServesALostWorkerForLong:
    """A coordinator that serves on a worker which holds another fence, or nothing, notices within a lease."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str, Fence], float] = {}

    def __call__(self, world: World) -> None:
        stale = set()
        for name, node in world.nodes.items():
            if not node.up or node.runs is None or node.gate is Gate.CLOSED:
                continue
            for planned in node.runs.plan.nodes:
                worker = next(each for each in world.nodes.values() if node_id(each.name) == planned)
                held = {entry.fence for entry in worker.reservations.held() if entry.model == MODEL}
                if not worker.up or node.runs.fence not in held:
                    stale.add((name, worker.name, node.runs.fence))
        self._since = {key: self._since.get(key, world.now) for key in stale}
        for since_s in self._since.values():
            assert world.now - since_s <= LEASE_S + 0.1


def kill(name: str) -> Step:
    return lambda world: world.kill(name) if world.nodes[name].up else world.restart(name)


def split_off(names: frozenset[str]) -> Step:
    return lambda world: world.partition(**{name: int(name in names) for name in NAMES})


def lose(share: float) -> Step:
    def step(world: World) -> None:
        world.loss = share

    return step


steps = st.one_of(
    st.sampled_from(NAMES).map(kill),
    st.frozensets(st.sampled_from(NAMES), max_size=3).map(split_off),
    st.sampled_from([0.0, 0.0, 0.3, 1.0]).map(lose),
    st.sampled_from(NAMES).map(lambda name: lambda world: world.suspect(name, not world.nodes[name].suspect)),
)


@given(
    seed=st.integers(0, 2**16),
    story=st.lists(st.tuples(st.floats(0.1, 12.0), steps), max_size=10),
    sizes=st.tuples(*(st.sampled_from([25, 45, 60]) for _ in NAMES)),
)
@settings(max_examples=60, deadline=None)
def test_no_worker_is_ever_held_twice_and_the_mesh_comes_to_rest(
    seed: int, story: list[tuple[float, Step]], sizes: tuple[int, ...]
) -> None:
    world = World(seed=seed)
    world.checks += [reserved_is_never_more_than_usable, PromisesOnlyRise(), NobodyServesALostWorkerForLong()]
    for name, gb in zip(NAMES, sizes, strict=True):
        world.add(name, gb=gb, host_gb=16 if name == "a" else 8)
    for pause_s, step in story:
        world.run(world.now + pause_s)
        step(world)
    world.loss = 0.0
    world.heal()
    for name in NAMES:
        world.suspect(name, False)
        if not world.nodes[name].up:
            world.restart(name)
    world.run(world.now + 120.0)
    serving = [node for node in world.nodes.values() if node.gate is Gate.OPEN]
    assert len(serving) == 1
    assert serving[0].pursuit.phase is Phase.RUNNING
    assert serving[0].runs is not None
    fence = serving[0].runs.fence
    for node in world.nodes.values():
        assert {entry.fence for entry in node.reservations.held()} <= {fence}


@given(seed=st.integers(0, 2**16), cut_s=st.floats(0.5, 20.0), healed_after_s=st.floats(0.5, 40.0))
@settings(max_examples=60, deadline=None)
def test_two_coordinators_in_two_halves_never_both_hold_a_worker(
    seed: int, cut_s: float, healed_after_s: float
) -> None:
    """Both halves can hold the model; `a` and `c` coordinate them. A worker's own state is what it is held by."""
    world = World(seed=seed)
    world.checks += [reserved_is_never_more_than_usable, PromisesOnlyRise(), NobodyServesALostWorkerForLong()]

    def one_owner_each(seen: World) -> None:
        for node in seen.nodes.values():
            assert len(node.reservations.held()) <= 1

    world.checks.append(one_owner_each)
    for name in NAMES:
        world.add(name, gb=45, host_gb=16 if name == "a" else 8)
    world.run(cut_s)
    world.partition(a=0, b=0, c=1, d=1)
    world.run(cut_s + healed_after_s)
    world.heal()
    world.run(cut_s + healed_after_s + 90.0)
    assert [node.name for node in world.nodes.values() if node.gate is Gate.OPEN] in (["a"], ["c"])


messages = st.one_of(
    st.builds(
        lambda fence, count: Prepare(1, MODEL, fence, 0, 4, (("gpu0", count),)),
        st.builds(Fence, st.integers(1, 4), st.sampled_from([node_id("a"), node_id("b")])),
        st.sampled_from([1, 10, 25]),
    ),
    *(
        st.builds(make, st.builds(Fence, st.integers(1, 4), st.sampled_from([node_id("a"), node_id("b")])))
        for make in (
            lambda fence: Commit(MODEL, fence),
            lambda fence: Release(MODEL, fence, "released"),
            lambda fence: LeaseRenewal(1, MODEL, fence, held=True),
        )
    ),
)


@given(script=st.lists(st.tuples(st.floats(0.0, 8.0), messages), max_size=30))
@settings(max_examples=300, deadline=None)
def test_worker_accepts_rising_fences_only_and_runs_one_stage_at_a_time(
    script: list[tuple[float, Prepare | Commit | Release | LeaseRenewal]],
) -> None:
    worker = Reservations(node_id("d"), Fences())
    worker.offer({"gpu0": 20}, None)
    now, highest, running = 0.0, Fence(0, node_id("a")), 0
    for pause_s, message in script:
        now += pause_s
        effects = [*worker.poll(now), *worker.receive(NodeId(message.fence.coordinator), message, now)]
        for effect in effects:
            running += isinstance(effect, StartStage) - isinstance(effect, StopStage)
            assert running in (0, 1)
            if isinstance(effect, Send) and isinstance(effect.message, Prepared) and effect.message.accepted:
                assert message.fence >= highest
                highest = message.fence
        held = worker.held()
        assert len(held) <= 1
        assert all(entry.fence == highest for entry in held)
        assert worker.reserved().get("gpu0", 0) == sum(entry.reserved_bytes for entry in held) <= 20
