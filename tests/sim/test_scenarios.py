"""Every named scenario keeps its invariants and its targets, which are virtual times and so the same on any machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from meshnode.membership.acceptance import Acceptance
from meshnode.simulation import Report, UnknownScenario, run_scenario, scenarios

QUICK = (
    "kills-16",
    "kills-16-icmp",
    "slow-node",
    "half-killed-64",
    "slow-path",
    "one-blip",
    "partition-64",
    "partition-three",
    "partition-one-way",
    "flapping",
    "isolated-of-three",
    "cut-off-4",
    "cut-off-16",
    "mass-restart",
    "false-accuser",
    "reachable-from-one",
    "behind-nat",
    "hostile-member",
    "start-16",
    "steady-16",
    "laptop-sleep",
    "leave-and-return",
    "return-from-elsewhere",
    "rtt-cut",
    "random-faults",
)
SLOW = (
    "loss-64-10",
    "loss-64-20",
    "long-partition",
    "cut-off-64",
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


@pytest.mark.parametrize("lie", ["bad_signature", "incarnation", "malformed"])
def test_each_lie_is_rejected_by_name(lie: str, hostile: Report) -> None:
    assert hostile.value(f"rejected by name: {lie}") > 0


@pytest.fixture(scope="module")
def hostile() -> Report:
    return run_scenario("hostile-member", seed=2)


def test_false_accusations_are_refuted_by_name_and_then_cost_little() -> None:
    """Fifteen nodes hear 120 of them."""
    refuted = run_scenario("false-accuser", seed=2).value("refutations that name the accuser")
    assert 30 < refuted < 200


def test_every_scenario_is_tested() -> None:
    assert set(scenarios()) == {*QUICK, *SLOW}


def test_equal_seeds_give_equal_runs_in_every_process() -> None:
    """Also where Python hashes strings otherwise: no decision hangs on the order of a set."""
    runs = [replayed(seed=5, string_hashes=hashes) for hashes in ("1", "2")]
    assert runs[0] == runs[1]
    assert replayed(seed=6, string_hashes="1")["digest"] != runs[0]["digest"]


def replayed(seed: int, string_hashes: str) -> dict[str, Any]:
    """What a process of its own reports of a run, its wall time apart."""
    command = [sys.executable, "-m", "meshnode", "simulate", "mass-restart", "--seed", str(seed), "--json"]
    environment = {**os.environ, "PYTHONHASHSEED": string_hashes}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    report: dict[str, Any] = json.loads(finished.stdout)
    del report["wall_s"]
    return report


def test_broken_rule_ends_the_run_and_names_its_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes every record for news: what the rules are there for."""
    monkeypatch.setattr(Acceptance, "_is_news", lambda *_: True)
    report = run_scenario("hostile-member", seed=3)
    assert not report.passed
    assert report.broken is not None
    assert "aged" in report.broken
    assert report.lines()[-1] == "  replay: meshnode simulate hostile-member --seed 3"


def test_unknown_scenario_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UnknownScenario, match="kills-16"):
        run_scenario("no-such")
