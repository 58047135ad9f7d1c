"""Every named scenario keeps its invariants and its targets, which are virtual times and so the same on any machine."""

from __future__ import annotations

import pytest

from meshnode.simulation import UnknownScenario, run_scenario, scenarios

QUICK = (
    "kills-16",
    "kills-16-icmp",
    "slow-node",
    "half-killed-64",
    "slow-path",
    "one-blip",
    "partition-64",
    "isolated-of-three",
    "mass-restart",
    "false-accuser",
    "reachable-from-one",
    "behind-nat",
    "hostile-member",
    "start-16",
    "steady-16",
    "laptop-sleep",
    "leave-and-return",
    "random-faults",
)
SLOW = (
    "loss-64-10",
    "loss-64-20",
    "long-partition",
    "rtt-measured",
    "rtt-estimated",
    "thousand",
)


@pytest.mark.parametrize("name", QUICK)
def test_scenario_keeps_its_invariants_and_targets(name: str) -> None:
    report = run_scenario(name, seed=1)
    assert report.broken is None
    assert [figure.line() for figure in report.figures if not figure.met] == []


@pytest.mark.long
@pytest.mark.parametrize("name", SLOW)
def test_long_scenario_keeps_its_invariants_and_targets(name: str) -> None:
    report = run_scenario(name, seed=1)
    assert report.broken is None
    assert [figure.line() for figure in report.figures if not figure.met] == []


def test_every_scenario_is_tested() -> None:
    assert set(scenarios()) == {*QUICK, *SLOW}


def test_equal_seeds_give_equal_runs() -> None:
    first, second = (run_scenario("mass-restart", seed=5) for _ in range(2))
    assert (first.steps, first.figures) == (second.steps, second.figures)


def test_unknown_scenario_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UnknownScenario, match="kills-16"):
        run_scenario("no-such")
