"""Scenarios of partitions: each part goes on alone, and all are one again by themselves, 10 s after the link is back.

What a part missed meanwhile must reach it, and nothing it remembers may come back to life: `stale_parts` counts that.
"""

from __future__ import annotations

import math

from meshnode.events import Event, PeerDead
from meshnode.membership.view import Status
from meshnode.simulation.detection import WARM_UP_S
from meshnode.simulation.report import or_never
from meshnode.simulation.scenario import Scenario, Stage
from meshnode.simulation.world import Plan, SimulatedNode, World, an_offer
from proto.ids import NodeId
from proto.parts import PartKind

HEAL_AT_MOST_S = 10.0
CUT_OFF_AT_MOST_S = 12.0
"""Until a small part holds everybody else dead: plans made there must not count who can't be reached."""

ALIVE = frozenset({Status.ALIVE})
LIVE = frozenset({Status.ALIVE, Status.SUSPECT})


def partition(stage: Stage) -> None:
    """64 nodes fall into two halves for 30 s; then the link is back."""
    world = stage.world(Plan(64, stage.seed))
    world.start_all()
    world.run(WARM_UP_S)
    half = set(world.ids[:32])
    world.paths.partition(dict.fromkeys(half, 1))
    world.run(30.0)
    sees_itself = sum(
        _sees_exactly(world, node, half if node.node in half else set(world.ids) - half) for node in world.running()
    )
    stage.report.add("nodes that do not see exactly their half", 64 - sees_itself, at_most=0)
    _heal(stage, world)


def partition_of_three(stage: Stage) -> None:
    """24 nodes fall into parts of 2, 5 and 17. Meanwhile in each one somebody leaves, dies or comes back with another
    offer: of what the other parts remember of them nothing may be left afterwards."""
    world = stage.world(Plan(24, stage.seed))
    world.start_all()
    world.run(WARM_UP_S)
    parts = (world.ids[:2], world.ids[2:7], world.ids[7:])
    world.paths.partition({node: number for number, part in enumerate(parts) for node in part})
    cut_at_s = world.clock.now_s
    for part in reversed(parts):
        found = world.settle(60.0, lambda part=part: _all_see_exactly(world, part), step_s=0.25)  # type: ignore[misc]
        alone_s = math.inf if found is None else world.clock.now_s - cut_at_s
        stage.report.add(f"part of {len(part)} sees only itself after", alone_s, "s", at_most=CUT_OFF_AT_MOST_S)
    world.nodes[parts[1][0]].leave()
    world.nodes[parts[1][1]].kill()
    for part in parts:
        returns = world.nodes[part[-1]]
        returns.kill()
        returns.draft = an_offer(48)
        returns.start()
    world.run(20.0)
    _heal(stage, world)


def partition_one_way(stage: Stage) -> None:
    """Of 16 nodes 6 are not heard by the other 10 for 30 s, though they hear them."""
    world = stage.world(Plan(16, stage.seed))
    world.start_all()
    world.run(WARM_UP_S)
    for mute in world.ids[:6]:
        for deaf in world.ids[6:]:
            world.paths.break_path(mute, deaf, both_ways=False)
    world.run(30.0)
    stage.report.add("verdicts while it lasts", len(world.counts.deaths))
    _heal(stage, world)


def flapping(stage: Stage) -> None:
    """The path between two halves of 16 nodes comes and goes 12 times, then stays."""
    world = stage.world(Plan(16, stage.seed))
    world.start_all()
    world.run(WARM_UP_S)
    for _ in range(12):
        world.paths.heal()
        world.run(world.rng.uniform(0.2, 4.0))
        world.paths.partition(dict.fromkeys(world.ids[:8], 1))
        world.run(world.rng.uniform(0.2, 9.0))
    deaths = world.counts.by_event["peer.dead"]
    _heal(stage, world)
    # Suspects of whom nothing was heard when their time is over: the far end had given up the link already.
    stage.report.add("deaths before all are whole again", world.counts.by_event["peer.dead"] - deaths)
    deaths = world.counts.by_event["peer.dead"]
    world.run(60.0)
    stage.report.add("deaths after that", world.counts.by_event["peer.dead"] - deaths, at_most=0)


def isolated_of_three(stage: Stage) -> None:
    """One of three nodes is cut off for 20 s (hashicorp/serf 627)."""
    world = stage.world(Plan(3, stage.seed))
    world.start_all()
    world.run(WARM_UP_S)
    alone = world.ids[2]
    world.paths.partition({alone: 1})
    world.run(20.0)
    sees = [_sees_exactly(world, world.nodes[alone], {alone})]
    sees += [_sees_exactly(world, world.nodes[node], set(world.ids) - {alone}) for node in world.ids[:2]]
    stage.report.add("nodes with a wrong view of their side", sees.count(False), at_most=0)
    _heal(stage, world)


def cut_off(stage: Stage, nodes: int, times: int) -> None:
    """One node, then another two, are cut off over and over: until they hold all others dead, and for 3 to 8 s."""
    world = stage.world(Plan(nodes, stage.seed))
    world.start_all()
    world.run(WARM_UP_S)
    strays: list[NodeId] = []
    within_a_part = 0

    def listen(observer: SimulatedNode, event: Event) -> None:
        nonlocal within_a_part
        if isinstance(event, PeerDead):
            within_a_part += (observer.node in strays) == (event.peer in strays)

    world.listeners.append(listen)
    doubted_s, dead_s, healed_s = [], [], []
    for time in range(times):
        strays[:] = world.rng.sample(world.ids, 1 + time % 2)
        others = [node for node in world.ids if node not in strays]
        world.paths.partition(dict.fromkeys(strays, 1))
        took_s = world.settle(60.0, lambda: not _hold_any(world, strays, others, ALIVE), step_s=0.1)  # noqa: B023
        more_s = world.settle(60.0, lambda: not _hold_any(world, strays, others, LIVE), step_s=0.1)  # noqa: B023
        doubted_s.append(or_never(took_s))
        dead_s.append(or_never(took_s) + or_never(more_s))
        healed_s.append(_mend(world))
        world.paths.partition(dict.fromkeys(strays, 1))
        world.run(world.rng.uniform(3.0, 8.0))
        healed_s.append(_mend(world))
    report = stage.report
    report.add_spread("all others suspect or dead to those cut off", doubted_s, "s", p95_at_most=CUT_OFF_AT_MOST_S)
    report.add_spread("all others dead to them", dead_s, "s", p95_at_most=CUT_OFF_AT_MOST_S)
    report.add("all hold all alive after healing, maximum", max(healed_s), "s", at_most=HEAL_AT_MOST_S)
    report.add("deaths within a part", within_a_part, at_most=0)


def _mend(world: World) -> float:
    """The path is back: until all hold all alive. Then whoever doubts itself gets well."""
    world.paths.heal()
    took_s = or_never(world.settle(60.0, world.statuses_right))
    world.run(15.0)
    return took_s


def long_partition(stage: Stage) -> None:
    """Two halves of 8 for two hours: healing is no slower after a long time."""
    world = stage.world(Plan(8, stage.seed))
    world.start_all()
    world.run(WARM_UP_S)
    world.paths.partition(dict.fromkeys(world.ids[:4], 1))
    world.run(7200.0)
    _heal(stage, world)


def _heal(stage: Stage, world: World) -> None:
    world.paths.heal()
    alive_s = world.settle(60.0, world.statuses_right)
    stage.report.add("all hold all alive after healing", or_never(alive_s), "s", at_most=HEAL_AT_MOST_S)
    stage.report.add("one view after that", or_never(world.settle(30.0)), "s", at_most=HEAL_AT_MOST_S)
    stage.report.add("records held that are not their owner's newest", stale_parts(world), at_most=0)


def stale_parts(world: World) -> int:
    """How many parts are held anywhere in another version than their owner holds."""
    machines = {node.node: node.machine for node in world.running() if node.machine is not None}
    return sum(
        observer.holds(owner, kind) != said.holds(owner, kind)
        for observer in machines.values()
        for owner, said in machines.items()
        for kind in PartKind
    )


def _sees_exactly(world: World, observer: SimulatedNode, alive: set[NodeId]) -> bool:
    assert observer.machine is not None
    return {node for node in world.ids if observer.machine.status_of(node) is Status.ALIVE} == alive


def _hold_any(world: World, observers: list[NodeId], others: list[NodeId], statuses: frozenset[Status]) -> bool:
    """Whether anybody of `observers` holds one of `others` as one of these."""
    machines = [machine for node in observers if (machine := world.nodes[node].machine) is not None]
    return any(machine.status_of(node) in statuses for machine in machines for node in others)


def _all_see_exactly(world: World, part: list[NodeId]) -> bool:
    return all(_sees_exactly(world, world.nodes[node], set(part)) for node in part)


SCENARIOS = (
    Scenario("partition-64", "two halves for 30 s, whole again within 10 s", 64, partition),
    Scenario("partition-three", "parts of 2, 5 and 17 that change meanwhile: the same", 24, partition_of_three),
    Scenario("partition-one-way", "6 of 16 go unheard for 30 s, though they hear", 16, partition_one_way),
    Scenario("flapping", "halves that fall apart and meet 12 times, then nobody dies", 16, flapping),
    Scenario("isolated-of-three", "one of three cut off for 20 s", 3, isolated_of_three),
    Scenario("cut-off-4", "one or two of 4 cut off: all others dead to them in 12 s", 4, lambda s: cut_off(s, 4, 6)),
    Scenario("cut-off-16", "one or two of 16 cut off: the same", 16, lambda s: cut_off(s, 16, 6)),
    Scenario("cut-off-64", "one or two of 64 cut off: the same", 64, lambda s: cut_off(s, 64, 2)),
    Scenario("long-partition", "two halves of 8 for two hours", 8, long_partition),
)
