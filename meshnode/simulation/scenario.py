"""Named scenarios and how one is run: what `meshnode simulate NAME --seed N` and the simulator's tests call.

What lives here: `Scenario`, `Stage`, `run_scenario` and the list of them all. What does not: the scenarios themselves,
which stand by theme in `detection`, `partitions`, `faults`, `measuring` and `scale`."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b

from meshnode.simulation.report import Report
from meshnode.simulation.rules import RuleBroken
from meshnode.simulation.world import Plan, World


class UnknownScenario(ValueError):
    """There is no scenario of that name. Fields: `found`, `known` (all names)."""

    def __init__(self, found: str, known: tuple[str, ...]) -> None:
        self.found = found
        self.known = known
        super().__init__(f"scenario: found {found!r}; there are {', '.join(known)}")


class Stage:
    """What a scenario plays on: it makes worlds and writes figures into the report."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.seed = report.seed
        self._worlds: list[World] = []

    def world(self, plan: Plan) -> World:
        """A new world whose time and steps count for the report."""
        world = World(plan)
        self._worlds.append(world)
        return world

    def total(self) -> None:
        """Writes what all worlds together took."""
        self.report.virtual_s = sum(world.clock.now_s for world in self._worlds)
        self.report.steps = sum(world.clock.happened for world in self._worlds)
        self.report.rules_checked = sum(world.rules.checked for world in self._worlds)
        digests = b"".join(world.counts.digest() for world in self._worlds)
        self.report.digest = blake2b(digests, digest_size=4).hexdigest()


@dataclass(frozen=True, slots=True)
class Scenario:
    """One named situation: `text` says what happens and what must come of it."""

    name: str
    text: str
    nodes: int
    play: Callable[[Stage], None]


def scenarios() -> dict[str, Scenario]:
    """Every scenario by name, in the order of the documentation."""
    from meshnode.simulation import detection, faults, measuring, partitions, scale

    every = (*detection.SCENARIOS, *partitions.SCENARIOS, *faults.SCENARIOS, *measuring.SCENARIOS, *scale.SCENARIOS)
    return {scenario.name: scenario for scenario in every}


def run_scenario(name: str, seed: int = 1) -> Report:
    """Plays the scenario of that name; equal seeds give equal runs. Raises `UnknownScenario`.

    A rule that does not hold ends the run and stands in `Report.broken`; a figure beyond its target is marked there.
    The worlds it made are garbage afterwards, which the collector takes apart where it is switched on.
    """
    known = scenarios()
    if name not in known:
        raise UnknownScenario(name, tuple(known))
    scenario = known[name]
    report = Report(name, seed, scenario.nodes)
    stage = Stage(report)
    began_s = time.perf_counter()
    with _without_cyclic_collection():
        try:
            scenario.play(stage)
        except RuleBroken as broken:
            report.broken = str(broken)
        stage.total()
        report.wall_s = time.perf_counter() - began_s
    return report


@contextmanager
def _without_cyclic_collection() -> Iterator[None]:
    """The collector would walk a million living records again and again and find nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
