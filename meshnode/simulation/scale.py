"""Scenarios of size: how soon a mesh converges, what gossip costs when nothing happens, a thousand nodes at work.

Targets are the issues': 16 nodes know one another 1.0 s after the last start; steady gossip at most 2 KB/s per node at
16 nodes and 6 KB/s at 1,000; 1,000 nodes through 10 minutes in under 5 minutes of wall time."""

from __future__ import annotations

import math
from dataclasses import replace

from meshnode.simulation.detection import WARM_UP_S, FalseDeaths
from meshnode.simulation.scenario import Scenario, Stage
from meshnode.simulation.world import Plan, World, an_offer

STARTS = 20
WALL_TARGET_S = 300.0


def starts(stage: Stage) -> None:
    """Twenty meshes of 16 nodes, each started within half a second, all knowing one seed."""
    took_s = []
    for run in range(STARTS):
        world = stage.world(Plan(16, stage.seed * 1000 + run))
        world.start_all()
        world.run(world.plan.start_spread_s)
        last_s = max(node.started_s for node in world.running())
        settled = world.settle(10.0, world.introduced, step_s=0.02)
        took_s.append(math.inf if settled is None else world.clock.now_s - last_s)
    stage.report.add_spread("all know all after the last start", took_s, "s", p95_at_most=1.0)


def steady(stage: Stage) -> None:
    """16 nodes at rest for 5 minutes, each with an offer that drifts a little, one that changes each minute."""
    world = stage.world(Plan(16, stage.seed))
    world.start_all()
    world.run(WARM_UP_S)
    world.settle(20.0)
    world.counts.start_over()
    for _ in range(60):
        _drift(world)
        world.run(5.0)
    report = stage.report
    report.add("gossip sent per node", world.counts.gossip_bytes_per_s(16), "B/s", at_most=2000)
    report.add("gossip sent by the busiest node", world.counts.busiest_bytes_per_s(), "B/s")
    report.add("UDP sent per node, estimated", world.counts.udp_bytes_per_s(16), "B/s")
    report.add("probe messages per node", world.counts.probes / 16 / 300.0, "1/s")
    report.add("deaths", len(world.counts.deaths), at_most=0)


def _drift(world: World) -> None:
    """Memory moves by 2 % everywhere, which nobody needs to hear; one node's drops by a third, which all do."""
    now = world.clock.now_s
    for index, node in enumerate(world.running()):
        assert node.machine is not None
        device = node.draft.devices[0]
        factor = world.rng.uniform(0.98, 1.02)
        if index == int(now / 60) % 16 and int(now / 5) % 12 == 0:
            factor = 0.66
        moved = replace(node.draft, devices=(an_offer(24 * factor).devices[0],))
        node.draft = moved if factor == 0.66 else replace(node.draft, devices=(device,))
        node.perform(node.machine.publish_offer(moved, now))


def thousand(stage: Stage, nodes: int = 1000, minutes: float = 10.0) -> None:
    """A thousand nodes start within 10 s, then kills, leaves and returns among them, for ten minutes in all."""
    world = stage.world(Plan(nodes, stage.seed, start_spread_s=10.0, seeds=3))
    false_deaths = FalseDeaths(world)
    world.start_all()
    introduced_s = world.settle(110.0, world.introduced, step_s=2.0)
    report = stage.report
    report.add("all know all after the first start", math.inf if introduced_s is None else introduced_s, "s")
    world.run(120.0 - world.clock.now_s)
    world.counts.start_over()
    world.run(120.0)
    report.add("gossip sent per node at rest", world.counts.gossip_bytes_per_s(nodes), "B/s", at_most=6000)
    report.add("gossip sent by the busiest node at rest", world.counts.busiest_bytes_per_s(), "B/s")
    world.counts.start_over()
    detected_s = _churn(world, 60.0 * minutes - 60.0)
    report.add("gossip sent per node with churn", world.counts.gossip_bytes_per_s(nodes), "B/s", at_most=6000)
    report.add("UDP sent per node with churn, estimated", world.counts.udp_bytes_per_s(nodes), "B/s")
    report.add_spread("kill detected by all", detected_s, "s")
    report.add("false deaths", len(false_deaths.victims), at_most=0)
    for node in world.nodes.values():
        if not node.is_running:
            node.start()
    settled_s = world.settle(60.0 * minutes - world.clock.now_s, world.introduced, step_s=2.0)
    report.add("all know all after churn", math.inf if settled_s is None else settled_s, "s", at_most=60.0)
    world.run(max(0.0, 60.0 * minutes - world.clock.now_s))


def _churn(world: World, until_s: float) -> list[float]:
    """Kills, leaves and returns one after another; how long it took until all held each killed node dead."""
    detected_s = []
    while world.clock.now_s < until_s - 30.0:
        victim = world.nodes[world.rng.choice(world.ids)]
        if not victim.is_running:
            victim.start()
        elif world.rng.random() < 0.5:
            victim.leave()
        else:
            victim.kill()
            took_s = world.settle(25.0, world.statuses_right, step_s=1.0)
            detected_s.append(math.inf if took_s is None else took_s)
        world.run(8.0)
    return detected_s


SCENARIOS = (
    Scenario("start-16", "16 nodes know one another a second after the last start", 16, starts),
    Scenario("steady-16", "16 nodes at rest: at most 2 KB/s of gossip each", 16, steady),
    Scenario("thousand", "1,000 nodes through ten minutes with churn", 1000, thousand),
)
