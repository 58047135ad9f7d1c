"""Scenarios of failure detection: deaths found soon, the living left alone.

Targets are the issue's: detection at all of 16 nodes under 3 s at p95, no false death at 10 % loss and at most two at
20 %, nobody dead because one node is slow, half of 64 killed at once agreed on in under 6 s.
"""

from __future__ import annotations

import math

from meshnode.events import Event, PeerDead, PeerReturned, PeerSuspect
from meshnode.simulation.paths import Terrain
from meshnode.simulation.report import Report, or_never
from meshnode.simulation.scenario import Scenario, Stage
from meshnode.simulation.world import Plan, SimulatedNode, World
from proto.ids import NodeId

KILLS = 100
"""Fifty would do for a median; the 95th percentile of fifty still moves by 0.2 s from seed to seed."""
WARM_UP_S = 12.0
"""Every link has its RTT samples by then."""


class FalseDeaths:
    """Counts verdicts against nodes that run, and how long each takes to heal. A listener of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._open: dict[tuple[NodeId, NodeId], float] = {}
        self.victims: set[NodeId] = set()
        self.verdicts = 0
        self.healed_s: list[float] = []
        world.listeners.append(self)

    def __call__(self, observer: SimulatedNode, event: Event) -> None:
        now = self._world.clock.now_s
        if isinstance(event, PeerDead) and self._world.nodes[NodeId(event.peer)].is_running:
            self.verdicts += 1
            self.victims.add(NodeId(event.peer))
            self._open[(observer.node, NodeId(event.peer))] = now
        elif isinstance(event, PeerReturned):
            began_s = self._open.pop((observer.node, NodeId(event.peer)), None)
            if began_s is not None:
                self.healed_s.append(now - began_s)

    @property
    def longest_s(self) -> float:
        """The longest false death; infinite where one has not healed."""
        return math.inf if self._open else max(self.healed_s, default=0.0)


class Notices:
    """When each observer held a victim dead. A listener of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.at_s: dict[tuple[NodeId, NodeId], float] = {}
        world.listeners.append(self)

    def __call__(self, observer: SimulatedNode, event: Event) -> None:
        if isinstance(event, PeerDead):
            self.at_s[(observer.node, NodeId(event.peer))] = self._world.clock.now_s

    def of(self, victim: NodeId) -> list[float]:
        """The moments at which running nodes noticed, in order."""
        return sorted(at for (observer, dead), at in self.at_s.items() if dead == victim)


def kills(stage: Stage, icmp: bool) -> None:
    """A hundred nodes killed one after another, each restarted once all have noticed."""
    world = stage.world(Plan(16, stage.seed, icmp=icmp))
    notices, false_deaths = Notices(world), FalseDeaths(world)
    world.start_all()
    world.run(WARM_UP_S)
    first_s: list[float] = []
    all_s: list[float] = []
    for _ in range(KILLS):
        world.run(world.rng.uniform(1.0, 3.0))
        victim = world.nodes[world.rng.choice(world.ids)]
        killed_s = world.clock.now_s
        victim.kill()
        noticed = world.settle(30.0, world.statuses_right)
        moments = [at - killed_s for at in notices.of(victim.node) if at >= killed_s]
        first_s.append(min(moments, default=math.inf))
        all_s.append(max(moments, default=math.inf) if noticed is not None else math.inf)
        victim.start()
        world.settle(10.0)
    stage.report.add_spread("detected by the first", first_s, "s")
    stage.report.add_spread("detected by all", all_s, "s", p95_at_most=3.0)
    stage.report.add("false deaths", len(false_deaths.victims), at_most=0)


def lossy(stage: Stage, loss: float, deaths_at_most: int) -> None:
    """Ten minutes of 64 nodes while each packet is lost with this probability."""
    world = stage.world(Plan(64, stage.seed, terrain=Terrain(loss=loss)))
    false_deaths = FalseDeaths(world)
    world.start_all()
    world.run(20.0)
    world.counts.start_over()
    before = len(false_deaths.victims), world.counts.by_event["peer.suspect"]
    world.run(600.0)
    report = stage.report
    report.add("false deaths", len(false_deaths.victims) - before[0], at_most=deaths_at_most)
    report.add("longest false death", false_deaths.longest_s, "s", at_most=5.0)
    report.add("suspicions held by anybody", world.counts.by_event["peer.suspect"] - before[1])
    _add_traffic(report, world, 64, None)
    world.paths.loss = 0.0
    settled_s = world.settle(30.0)
    report.add("all know all after the loss ends", math.inf if settled_s is None else settled_s, "s", at_most=10.0)


def slow_node(stage: Stage) -> None:
    """One of 16 nodes does not run for 1 s in every 3, for two minutes."""
    world = stage.world(Plan(16, stage.seed))
    false_deaths = FalseDeaths(world)
    suspects: dict[NodeId, int] = {}

    def listen(_: SimulatedNode, event: Event) -> None:
        if isinstance(event, PeerSuspect):
            suspects[NodeId(event.peer)] = suspects.get(NodeId(event.peer), 0) + 1

    world.listeners.append(listen)
    world.start_all()
    world.run(WARM_UP_S)
    slow = world.nodes[world.ids[7]]
    for _ in range(40):
        slow.block(1.0)
        world.run(3.0)
    report = stage.report
    report.add("deaths of anybody", len(false_deaths.victims), at_most=0)
    report.add("suspicions of the slow node", suspects.pop(slow.node, 0))
    report.add("suspicions of others", sum(suspects.values()))


def half_killed(stage: Stage) -> None:
    """Half of 64 nodes die in the same moment."""
    world = stage.world(Plan(64, stage.seed))
    false_deaths = FalseDeaths(world)
    world.start_all()
    world.run(WARM_UP_S)
    for node in world.rng.sample(world.ids, 32):
        world.nodes[node].kill()
    agreed_s = world.settle(30.0, world.statuses_right)
    stage.report.add("the rest agree", math.inf if agreed_s is None else agreed_s, "s", at_most=6.0)
    stage.report.add("false deaths", len(false_deaths.victims), at_most=0)
    stage.report.add("one view", or_never(world.settle(10.0)), "s", at_most=10.0)


def slow_path(stage: Stage) -> None:
    """One of 16 nodes lies behind 200 ms with spikes above 10 s on a twentieth of its packets (Mesh-LLM 697)."""
    world = stage.world(Plan(16, stage.seed))
    false_deaths = FalseDeaths(world)
    world.start_all()
    far = world.ids[3]
    world.paths.far_away(far, 0.1)
    world.run(WARM_UP_S)
    world.paths.spike(far, 0.05, 12.0)
    world.run(300.0)
    stage.report.add("deaths of anybody", len(false_deaths.victims), at_most=0)
    stage.report.add("suspicions held", world.counts.by_event["peer.suspect"])


def one_blip(stage: Stage) -> None:
    """One of 16 nodes is unreachable for 400 ms, fifty times (Mesh-LLM 405)."""
    world = stage.world(Plan(16, stage.seed))
    false_deaths = FalseDeaths(world)
    world.start_all()
    world.run(WARM_UP_S)
    back_s = []
    for _ in range(50):
        blinking = world.rng.choice(world.ids)
        world.paths.partition({blinking: 1})
        world.run(0.4)
        world.paths.heal()
        back_s.append(or_never(world.settle(5.0, world.statuses_right)))
        world.run(2.0)
    stage.report.add("false deaths", len(false_deaths.victims), at_most=0)
    stage.report.add("held alive by all again, maximum", max(back_s), "s", at_most=1.0)


def _add_traffic(report: Report, world: World, nodes: int, at_most: float | None) -> None:
    report.add("gossip sent per node", world.counts.gossip_bytes_per_s(nodes), "B/s", at_most)
    report.add("gossip sent by the busiest node", world.counts.busiest_bytes_per_s(), "B/s")
    report.add("UDP sent per node, estimated", world.counts.udp_bytes_per_s(nodes), "B/s")


SCENARIOS = (
    Scenario("kills-16", "100 kills among 16 nodes; nothing answers for the dead", 16, lambda s: kills(s, icmp=False)),
    Scenario("kills-16-icmp", "the same where the host refuses at once, as on loopback", 16, lambda s: kills(s, True)),
    Scenario("loss-64-10", "64 nodes, 10 minutes, 10 % loss: nobody dies", 64, lambda s: lossy(s, 0.10, 0)),
    Scenario("loss-64-20", "64 nodes, 10 minutes, 20 % loss: at most 2 die, for 5 s", 64, lambda s: lossy(s, 0.20, 2)),
    Scenario("slow-node", "one node blocked 1 s of every 3: nobody dies", 16, slow_node),
    Scenario("half-killed-64", "half of 64 nodes die at once: the rest agree in 6 s", 64, half_killed),
    Scenario("slow-path", "200 ms and spikes above 10 s: suspect at most", 16, slow_path),
    Scenario("one-blip", "unreachable for one probe: alive again, never dead", 16, one_blip),
)
