"""Scenarios of RTT: measured figures against the truth, and estimates between nodes that have no link.

Targets are the issue's: measured under 5 % or 0.3 ms off at the median; estimates across sites under 15 % at the
median, where the true value is at least 5 ms (below that they are only shown as `<5ms`)."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from meshnode.membership.settings import LAN
from meshnode.membership.view import RttSource
from meshnode.simulation.paths import Terrain
from meshnode.simulation.report import percentile
from meshnode.simulation.scenario import Scenario, Stage
from meshnode.simulation.world import Plan, World
from proto.ids import NodeId

SHOWN_ABOVE_MS = 5.0


def measured(stage: Stage) -> None:
    """48 nodes at 6 sites, jitter of 2 ms, every link measured for two minutes; one node stalls now and then."""
    terrain = Terrain(sites=6, width_s=0.04, jitter_s=0.002, access_max_s=0.002)
    world = stage.world(Plan(48, stage.seed, terrain=terrain))
    world.start_all()
    for _ in range(40):
        world.run(3.0)
        world.nodes[world.ids[0]].block(world.rng.uniform(0.02, 0.3))
    relative, absolute = _errors(world, RttSource.MEASURED, 0.0)
    off = [0.0 if share <= 0.05 or ms <= 0.3 else share for share, ms in zip(relative, absolute, strict=True)]
    stage.report.add("measured pairs", len(relative))
    stage.report.add("measured error, median", 100 * percentile(relative, 0.5), "%", at_most=5.0)
    stage.report.add("measured error, p95", 100 * percentile(relative, 0.95), "%")
    stage.report.add("beyond both 5 % and 0.3 ms", 100 * sum(map(bool, off)) / max(1, len(off)), "%")


def estimated(stage: Stage) -> None:
    """96 nodes at 8 sites with at most 16 links each: most pairs are known by coordinates only."""
    terrain = Terrain(sites=8, width_s=0.05, jitter_s=0.0005, access_max_s=0.002)
    world = stage.world(Plan(96, stage.seed, settings=replace(LAN, max_links=16), terrain=terrain, seeds=3))
    world.start_all()
    world.run(600.0)
    relative, _ = _errors(world, RttSource.ESTIMATED, SHOWN_ABOVE_MS)
    stage.report.add("estimated pairs", len(relative))
    stage.report.add("estimate's error, median", 100 * percentile(relative, 0.5), "%", at_most=15.0)
    stage.report.add("estimate's error, p95", 100 * percentile(relative, 0.95), "%")


def cut(stage: Stage) -> None:
    """8 nodes at 3 sites. Every third pair across sites is cut, but none with the node that all know at first: what do
    the others estimate of these pairs soon?"""
    terrain = Terrain(sites=3, width_s=0.05, jitter_s=0.0005, access_max_s=0.002)
    world = stage.world(Plan(8, stage.seed, terrain=terrain))
    pairs = combinations(world.ids[1:], 2)
    far = [pair for pair in pairs if true_rtt_ms(world, *pair) >= SHOWN_ABOVE_MS]
    for pair in far[::3]:
        world.paths.break_path(*pair)
    world.start_all()
    world.run(90.0)
    relative: list[float] = []
    for node in world.running():
        assert node.machine is not None
        view = node.machine.view(world.clock.now_s)
        for pair in far[::3]:
            figure = view.rtt.get(pair)
            if node.node not in pair and figure is not None and figure.source is RttSource.ESTIMATED:
                relative.append(abs(figure.min_ms / true_rtt_ms(world, *pair) - 1))
    stage.report.add("pairs cut", len(far[::3]))
    stage.report.add("estimates missing", len(far[::3]) * (len(world.ids) - 2) - len(relative), at_most=0)
    stage.report.add("estimate's error, median", 100 * percentile(relative, 0.5), "%", at_most=15.0)
    stage.report.add("estimate's error, p95", 100 * percentile(relative, 0.95), "%")


def _errors(world: World, source: RttSource, above_ms: float) -> tuple[list[float], list[float]]:
    """Relative and absolute (ms) errors of every figure of that source against the paths' true RTT."""
    relative: list[float] = []
    absolute: list[float] = []
    for node in world.running():
        assert node.machine is not None
        view = node.machine.view(world.clock.now_s)
        for other in world.ids:
            figure = view.nodes[other].rtt
            if other == node.node or figure is None or figure.source is not source:
                continue
            true_ms = true_rtt_ms(world, node.node, other)
            if true_ms >= above_ms:
                absolute.append(abs(figure.min_ms - true_ms))
                relative.append(absolute[-1] / true_ms)
    return relative, absolute


def true_rtt_ms(world: World, a: NodeId, b: NodeId) -> float:
    """What the paths take at least, there and back."""
    return 1e3 * (world.paths.one_way_s(a, b) + world.paths.one_way_s(b, a))


SCENARIOS = (
    Scenario("rtt-measured", "48 nodes, 6 sites, jitter and stalls: figures near the truth", 48, measured),
    Scenario("rtt-cut", "8 nodes, 3 sites, pairs cut for good: coordinates near the truth after 90 s", 8, cut),
    Scenario("rtt-estimated", "96 nodes, 16 links each: coordinates near the truth", 96, estimated),
)
