"""Scenarios of restarts, sleep, broken paths, NAT and hostile members: everybody finds back, nobody lies.

Each is a situation from `tests/cases/membership.json` or the issue's list; the rules (`rules`) are checked all along.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from meshnode.events import Event, PeerRefuted, PeerSuspect, RecordRejected
from meshnode.membership.settings import LAN
from meshnode.membership.trust import UNSIGNED
from meshnode.membership.view import PathKind, Status
from meshnode.simulation.detection import WARM_UP_S, FalseDeaths
from meshnode.simulation.hostile import BOAST_BYTES, HostileMember
from meshnode.simulation.partitions import stale_parts
from meshnode.simulation.paths import Terrain
from meshnode.simulation.report import or_never
from meshnode.simulation.scenario import Scenario, Stage
from meshnode.simulation.world import Plan, SimulatedNode, World
from proto.ids import NodeId
from proto.messages import Claim, ClaimKind, Delta


def sleeping(stage: Stage) -> None:
    """One of 16 nodes is stopped for 60 s and continued (slackhq/nebula 1287)."""
    world = stage.world(Plan(16, stage.seed))
    world.start_all()
    world.run(WARM_UP_S)
    sleeper = world.nodes[world.ids[5]]
    accused: list[str] = []

    def listen(observer: SimulatedNode, event: Event) -> None:
        if isinstance(event, PeerSuspect) and event.accuser == sleeper.node:
            accused.append(event.peer)

    sleeper.block(60.0)
    world.run(60.0 + 1e-6)
    world.listeners.append(listen)
    back_s = world.settle(30.0, world.statuses_right)
    stage.report.add("back everywhere after waking", or_never(back_s), "s", at_most=5.0)
    stage.report.add("suspicions it raised", len(accused), at_most=0)


def mass_restart(stage: Stage) -> None:
    """All 16 restart at once; each comes back with a worse idea of the others' incarnations (memberlist 311)."""
    world = stage.world(Plan(16, stage.seed))
    world.start_all()
    world.run(WARM_UP_S)
    for _ in range(3):
        for node in world.running():
            node.kill()
        world.run(0.5)
        for node in world.nodes.values():
            node.start()
            if world.rng.random() < 0.3:
                # A state directory restored from an old backup: the mesh knows higher numbers.
                node.persisted_incarnation = max(0, node.persisted_incarnation - 2)
        world.run(0.2)
    settings = world.plan.settings
    stage.report.add("all know all", or_never(world.settle(30.0)), "s", at_most=10.0)
    stage.report.add("sync interval", settings.sync_interval_s, "s")


def leave_and_return(stage: Stage) -> None:
    """Nodes leave and come back, after seconds and after their tombstones have gone (memberlist 140)."""
    world = stage.world(Plan(8, stage.seed, settings=replace(LAN, tombstone_s=90.0)))
    world.start_all()
    world.run(WARM_UP_S)
    back_s = []
    for away_s in (0.2, 2.0, 20.0, 300.0):
        leaver = world.nodes[world.rng.choice(world.ids)]
        leaver.leave()
        world.run(away_s + 0.1)
        left = [node.machine.status_of(leaver.node) for node in world.running() if node.machine is not None]
        stage.report.add(
            f"held other than left or forgotten after {away_s:g} s",
            sum(status not in (Status.LEFT, None) for status in left),
            at_most=0,
        )
        leaver.start()
        back_s.append(or_never(world.settle(10.0, world.statuses_right)))
    stage.report.add("back everywhere, maximum", max(back_s), "s", at_most=2.0)
    stage.report.add("suspicions", world.counts.by_event["peer.suspect"], at_most=0)


def return_from_elsewhere(stage: Stage) -> None:
    """Nodes die and come back from another address, after seconds, days and weeks (time is shortened: tombstones for
    90 s), with their stored incarnation and known peers as of long ago, or with no incarnation at all."""
    world = stage.world(Plan(8, stage.seed, settings=replace(LAN, tombstone_s=90.0)))
    world.start_all()
    world.run(WARM_UP_S)
    back_s = []
    for number, (away_s, is_incarnation_lost) in enumerate(
        ((10.0, False), (10.0, True), (300.0, False), (300.0, True))
    ):
        node = world.nodes[world.rng.choice(world.ids)]
        node.kill()
        world.run(away_s)
        node.addresses = (f"10.9.9.{number}:4411",)
        if is_incarnation_lost:
            node.persisted_incarnation = 0
        node.start()
        back_s.append(or_never(world.settle(20.0, world.statuses_right)))
        world.run(10.0)
    stage.report.add("back everywhere, maximum", max(back_s), "s", at_most=2.0)
    stage.report.add("returns reported", world.counts.by_event["peer.returned"])
    stage.report.add("one view", or_never(world.settle(10.0)), "s", at_most=10.0)
    stage.report.add("records held that are not their owner's newest", stale_parts(world), at_most=0)


def false_accuser(stage: Stage) -> None:
    """One of 16 nodes can't reach one healthy peer and keeps saying so (Mesh-LLM 417)."""
    world = stage.world(Plan(16, stage.seed))
    false_deaths = FalseDeaths(world)
    held_dead: list[NodeId] = []
    world.start_all()
    world.run(WARM_UP_S)
    accuser, accused = world.nodes[world.ids[4]], world.ids[9]
    suspicions: dict[NodeId, int] = {}
    refuted = 0

    def listen(observer: SimulatedNode, event: Event) -> None:
        nonlocal refuted
        if isinstance(event, PeerSuspect) and event.peer == accused:
            suspicions[observer.node] = suspicions.get(observer.node, 0) + 1
        elif isinstance(event, PeerRefuted) and (event.peer, event.accuser) == (accused, accuser.node):
            refuted += 1

    world.listeners.append(listen)
    world.paths.break_path(accuser.node, accused)
    health = 0
    for _ in range(120):
        _accuse(world, accuser, accused)
        world.run(1.0)
        assert world.nodes[accused].machine is not None
        health = max(health, world.nodes[accused].machine.awareness.score)  # type: ignore[union-attr]
        held_dead += [
            n.node for n in world.running() if n.machine is not None and n.machine.status_of(accused) is Status.DEAD
        ]
    report = stage.report
    report.add("deaths of anybody", len(false_deaths.victims), at_most=0)
    report.add("suspicions held by the accuser", suspicions.pop(accuser.node, 0))
    report.add("suspicions held by others", sum(suspicions.values()), at_most=0)
    report.add("refutations that name the accuser", refuted)
    report.add("worst health score of the accused", health, at_most=4)
    report.add("observers that ever held it dead", len(set(held_dead)), at_most=0)
    world.paths.heal()
    report.add(
        "linked again after the path is mended", or_never(_until_linked(world, accuser, accused)), "s", at_most=60.0
    )


def _accuse(world: World, accuser: SimulatedNode, accused: NodeId) -> None:
    """Says so to every peer, whatever its own machine finds out through others."""
    machine = world.nodes[accused].machine
    assert machine is not None
    claim = Claim(ClaimKind.SUSPECT, accused, machine.incarnation, accuser.node, 1, UNSIGNED)
    message = Delta((), (accuser.member.trust.sign_claim(claim),), urgent=True)
    for peer in list(accuser.links):
        world.wire.control(accuser, peer, message)


def reachable_from_one(stage: Stage) -> None:
    """One of 8 nodes is reachable from a single peer only (hashicorp/serf 185)."""
    world = stage.world(Plan(8, stage.seed))
    false_deaths = FalseDeaths(world)
    remote, door = world.ids[6], world.ids[2]
    for node in world.ids:
        if node not in (remote, door):
            world.paths.break_path(node, remote)
    world.nodes[remote].known[door] = world.nodes[door].addresses
    world.start_all()
    world.run(60.0)
    before = len(world.counts.suspicions)
    world.run(240.0)
    report = stage.report
    report.add("deaths of anybody", len(false_deaths.victims), at_most=0)
    report.add("suspicions in 4 minutes", len(world.counts.suspicions) - before, at_most=0)
    kinds = []
    for observer in world.running():
        assert observer.machine is not None
        if observer.node not in (remote, door):
            link = observer.machine.view(world.clock.now_s).nodes[remote].link
            kinds.append(None if link is None else link.path)
    report.add("observers without a relayed path to it", sum(kind is not PathKind.RELAYED for kind in kinds), at_most=0)


def behind_nat(stage: Stage) -> None:
    """Of 12 nodes 5 can dial out but not be dialled: they reach each other through the others."""
    world = stage.world(Plan(12, stage.seed))
    hidden = world.ids[7:]
    for node in hidden:
        world.nodes[node].accepts_dials = False
    world.start_all()
    world.run(60.0)
    before = len(world.counts.suspicions)
    world.run(120.0)
    report = stage.report
    report.add("all know all", or_never(world.settle(5.0)), "s", at_most=5.0)
    report.add("suspicions in 2 minutes", len(world.counts.suspicions) - before, at_most=0)
    unreached = 0
    for node in hidden:
        machine = world.nodes[node].machine
        assert machine is not None
        view = machine.view(world.clock.now_s)
        unreached += sum(view.nodes[other].link is None for other in world.ids if other != node)
    report.add("pairs without any path", unreached, at_most=0)


def hostile(stage: Stage) -> None:
    """A member replays old records, forges others', claims impossible incarnations and 10^18 bytes, accuses all."""
    world = stage.world(Plan(12, stage.seed))
    false_deaths = FalseDeaths(world)
    world.start_all()
    world.run(WARM_UP_S)
    villain = HostileMember(world, world.nodes[world.ids[3]])
    reasons: Counter[str] = Counter()

    def listen(_: SimulatedNode, event: Event) -> None:
        if isinstance(event, RecordRejected):
            reasons[event.reason.split()[0]] += 1

    world.listeners.append(listen)
    for _ in range(120):
        villain.act()
        world.run(0.5)
    report = stage.report
    report.add("deaths of others", len(false_deaths.victims - {villain.node}), at_most=0)
    for reason, count in sorted(reasons.items()):
        report.add(f"rejected by name: {reason}", count)
    report.add("nodes that believe in 10^18 bytes", _believers(world, villain.node), at_most=0)
    report.add("all know all", or_never(world.settle(30.0)), "s", at_most=10.0)


def _believers(world: World, boaster: NodeId) -> int:
    offers = [
        node.machine.view(world.clock.now_s).nodes[boaster].offer
        for node in world.running()
        if node.machine is not None
    ]
    return sum(offer is not None and any(d.usable_bytes >= BOAST_BYTES for d in offer.devices) for offer in offers)


def random_faults(stage: Stage) -> None:
    """24 nodes through five minutes of kills, restarts, leaves, stops, partitions and loss at random; then peace."""
    world = stage.world(Plan(24, stage.seed, terrain=Terrain(sites=3, width_s=0.02), start_spread_s=2.0))
    world.start_all()
    world.run(WARM_UP_S)
    for _ in range(60):
        _random_fault(world)
        world.run(world.rng.uniform(1.0, 9.0))
    world.paths.heal()
    world.paths.loss = 0.0
    for node in world.nodes.values():
        if not node.is_running:
            node.start()
    report = stage.report
    report.add("all know all after faults stop", or_never(world.settle(120.0)), "s", at_most=60.0)
    report.add("events", sum(world.counts.by_event.values()))


def _random_fault(world: World) -> None:
    rng = world.rng
    node = world.nodes[rng.choice(world.ids)]
    kind = rng.choice(("kill", "start", "start", "leave", "stop", "split", "heal", "loss", "break"))
    if kind == "start" and not node.is_running:
        node.start()
    elif kind == "kill" and node.is_running:
        node.kill()
    elif kind == "leave" and node.is_running:
        node.leave()
    elif kind == "stop" and node.is_running:
        node.block(rng.choice((0.3, 2.0, 12.0, 45.0)))
    elif kind == "split":
        world.paths.partition({node: rng.randrange(2) for node in world.ids})
    elif kind == "heal":
        world.paths.heal()
    elif kind == "loss":
        world.paths.loss = rng.choice((0.0, 0.05, 0.2, 0.4))
    elif kind == "break":
        world.paths.break_path(node.node, rng.choice(world.ids), both_ways=rng.random() < 0.5)


def _until_linked(world: World, a: SimulatedNode, b: NodeId) -> float | None:
    return world.settle(90.0, lambda: b in a.links and a.node in world.nodes[b].links)


SCENARIOS = (
    Scenario("laptop-sleep", "stopped for 60 s: back within 5 s, accuses nobody", 16, sleeping),
    Scenario("mass-restart", "all restart at once, some with old numbers", 16, mass_restart),
    Scenario("leave-and-return", "gone for seconds and beyond the tombstone, back at once", 8, leave_and_return),
    Scenario("return-from-elsewhere", "dead for days, back from another address at once", 8, return_from_elsewhere),
    Scenario("false-accuser", "one broken path banishes nobody", 16, false_accuser),
    Scenario("reachable-from-one", "alive through one peer, no flapping", 8, reachable_from_one),
    Scenario("behind-nat", "5 of 12 can't be dialled: relayed paths", 12, behind_nat),
    Scenario("hostile-member", "forgeries and replays change nothing", 12, hostile),
    Scenario("random-faults", "five minutes of everything, then all know all", 24, random_faults),
)
