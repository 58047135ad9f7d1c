"""Latency plans against an independent integer programme, and every bound against the optimum.

The programme is an interval flow: y[d, p, q] = 1 if device d holds layers [p, q), and e[u, v, p] is the passage from u
to v at boundary p. It is solved by HiGHS and shares nothing with the planner: bytes and times are computed here, from
the specs.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

import planner.least_cost
from planner import (
    CHAIN,
    LLAMA_CPP_RPC,
    CapacityShortfall,
    Constraints,
    DeviceSpec,
    EngineProfile,
    LayerSpec,
    Link,
    LinkMatrix,
    ModelSpec,
    NodeSpec,
    SplitPlan,
    Workload,
    plan_split,
)

STAR = replace(LLAMA_CPP_RPC, charges_compute=False, needs_package=False)
"""The daemon's engine without its compute buffers, whose formula is tested elsewhere."""
MB = 10**6
NS = 1e-9


@dataclass(frozen=True)
class Problem:
    """One request. `coordinator` None in a chain: whoever has the first stage."""

    model: ModelSpec
    nodes: tuple[NodeSpec, ...]
    links: LinkMatrix
    engine: EngineProfile
    limits: Constraints

    def planned(self, effort: int = 4000) -> SplitPlan | None:
        try:
            return plan_split(
                self.model,
                self.nodes,
                self.links,
                Workload(context=0),
                engine=self.engine,
                constraints=self.limits,
                effort=effort,
            )
        except CapacityShortfall:
            return None


@st.composite
def problems(draw: st.DrawFn, nodes: int = 6, layers: int = 12, engine: EngineProfile | None = None) -> Problem:
    """Uneven layers, one to three devices on a node, directed links of which a few are unknown, some restrictions."""
    count = draw(st.integers(2, nodes))
    weights = draw(st.lists(st.integers(1, 9), min_size=layers, max_size=layers))
    model = ModelSpec(
        "m",
        tuple(LayerSpec(count=1, weight_bytes=weight * MB) for weight in weights),
        embedding_bytes=draw(st.integers(0, 6)) * MB,
        output_bytes=draw(st.integers(0, 6)) * MB,
        hidden_size=draw(st.sampled_from((0, 8, 5000))),
    )
    specs = tuple(
        NodeSpec(f"n{number}", devices=tuple(a_device(draw, each) for each in range(draw(st.sampled_from((1, 1, 2))))))
        for number in range(count)
    )
    pairs = [(a.id, b.id) for a in specs for b in specs if a is not b]
    known = draw(st.integers(0, 3)) > 0
    links = {
        pair: Link(draw(st.integers(0, 60)) / 10, bandwidth_bytes_per_s=draw(st.sampled_from((1e8, 1e9))))
        for pair in pairs
        if known or draw(st.integers(0, 5))
    }
    most = draw(st.sampled_from((None, None, 2, 3, 4)))
    limits = Constraints(
        coordinator=draw(st.sampled_from((None, "n0"))),
        forbidden_boundaries=frozenset(draw(st.sets(st.integers(1, layers - 1), max_size=3))),
        min_stages=draw(st.sampled_from((1, 1, 1, 2, 3))) if most is None else draw(st.integers(1, min(2, most))),
        max_stages=most,
    )
    return Problem(model, specs, LinkMatrix(links), engine or draw(st.sampled_from((CHAIN, STAR))), limits)


def a_device(draw: st.DrawFn, number: int) -> DeviceSpec:
    return DeviceSpec(
        f"d{number}",
        capacity_bytes=1000 * MB,
        declared_usable_bytes=draw(st.integers(4, 45)) * MB,
        memory_bandwidth_bytes_per_s=draw(st.sampled_from((1e9, 2e9, 2e9, 5e9, 9e9))),
    )


# --- the independent side --------------------------------------------------------------------------


class Oracle:
    """Least latency (s) of a problem, or None where no timed plan exists."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.star = problem.engine is STAR
        self.devices = [(node.id, device) for node in problem.nodes for device in node.devices]
        self.weights = [layer.weight_bytes for layer in problem.model.each_layer]
        self.layers = len(self.weights)
        self.activation = problem.model.hidden_size * (4 if self.star else 2)

    def least_s(self) -> float | None:
        pinned = self.problem.limits.coordinator
        names = [node.id for node in self.problem.nodes] if pinned is None else [pinned]
        values = [value for name in names if (value := self._solved(name, pinned is None)) is not None]
        return min(values, default=None)

    def _hop_s(self, source: str, target: str, payload: int) -> float | None:
        if source == target:
            return 0.0
        link = self.problem.links.get(source, target)
        if link is None:
            return None
        assert link.bandwidth_bytes_per_s is not None
        return link.rtt_ms / 2000 + payload / link.bandwidth_bytes_per_s

    def _enter_s(self, coordinator: str, node: str) -> float | None:
        there = self._hop_s(coordinator, node, self.activation if self.star else 4)
        away = self.star and node != coordinator
        return None if there is None else there + (self.problem.engine.stage_overhead_ns * NS if away else 0.0)

    def _leave_s(self, coordinator: str, node: str) -> float | None:
        return self._hop_s(node, coordinator, self.activation if self.star else 4)

    def _pass_s(self, coordinator: str, source: str, target: str) -> float | None:
        if source == target:
            return 0.0
        if not self.star:
            return self._hop_s(source, target, self.activation)
        out, back = self._leave_s(coordinator, source), self._enter_s(coordinator, target)
        return None if out is None or back is None else out + back

    def _stage(self, device: int, start: int, end: int) -> float | None:
        """Seconds of a stage, None if it does not fit or ends where no cut may be."""
        spec, model, limits = self.devices[device][1], self.problem.model, self.problem.limits
        if end in limits.forbidden_boundaries:
            return None
        read = sum(self.weights[start:end]) + (model.output_bytes if end == self.layers else 0)
        held = read + (model.embedding_bytes if start == 0 and not self.star else 0)
        assert spec.memory_bandwidth_bytes_per_s is not None
        return read / spec.memory_bandwidth_bytes_per_s if held <= spec.usable_bytes else None

    def _solved(self, coordinator: str, is_first: bool) -> float | None:
        """The integer programme under one coordinator; `is_first`: in a chain it must hold the first stage."""
        stages, passages = [], []
        for device, (node, _) in enumerate(self.devices):
            enter, leave = self._enter_s(coordinator, node), self._leave_s(coordinator, node)
            barred = is_first and not self.star and node != coordinator
            for start, end in itertools.combinations(range(self.layers + 1), 2):
                seconds = self._stage(device, start, end)
                first, last = start == 0, end == self.layers
                if seconds is None or (first and (enter is None or barred)) or (last and leave is None):
                    continue
                ends = (enter or 0.0 if first else 0.0) + (leave or 0.0 if last else 0.0)
                stages.append(((device, start, end), seconds + ends))
        for (u, (source, _)), (v, (target, _)) in itertools.permutations(enumerate(self.devices), 2):
            cost = self._pass_s(coordinator, source, target)
            passages += [((u, v, p), cost) for p in range(1, self.layers) if cost is not None]
        return self._least(stages, passages) if stages else None

    def _least(
        self, stages: list[tuple[tuple[int, int, int], float]], passages: list[tuple[tuple[int, int, int], float]]
    ) -> float | None:
        rows: dict[object, dict[int, int]] = defaultdict(dict)
        low: dict[object, float] = {}
        high: dict[object, float] = {}

        def limit(row: object, least: float, most: float) -> None:
            low[row], high[row] = least, most

        for column, ((device, start, end), _) in enumerate(stages):
            rows["stages"][column] = rows["once", device][column] = 1
            limit(("once", device), 0, 1)
            rows[("first",) if start == 0 else ("into", device, start)][column] = 1
            if end < self.layers:
                rows["out", device, end][column] = 1
        for offset, ((u, v, p), _) in enumerate(passages):
            rows["out", u, p][len(stages) + offset] = -1
            rows["into", v, p][len(stages) + offset] = -1
        for row in rows:
            if row == ("first",):
                limit(row, 1, 1)
            elif row == "stages":
                limit(row, self.problem.limits.min_stages, self.problem.limits.max_stages or math.inf)
            elif isinstance(row, tuple) and row[0] != "once":
                limit(row, 0, 0)
        if ("first",) not in rows:
            return None
        entries = [(number, column, value) for number, row in enumerate(rows.values()) for column, value in row.items()]
        numbers, columns, values = zip(*entries, strict=True)
        shape = (len(rows), len(stages) + len(passages))
        matrix = coo_array((values, (numbers, columns)), shape=shape).tocsr()
        solved = milp(
            c=np.array([cost * 1e3 for _, cost in [*stages, *passages]]),
            constraints=LinearConstraint(matrix, [low[row] for row in rows], [high[row] for row in rows]),
            integrality=np.array([1] * len(stages) + [0] * len(passages)),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": 0.0},
        )
        assert solved.status in (0, 2), solved.message
        return None if solved.status == 2 else float(solved.fun) / 1e3


def check_against_the_oracle(problem: Problem) -> None:
    plan, least_s = problem.planned(), Oracle(problem).least_s()
    if plan is None or plan.capacity_only:
        assert least_s is None
        return
    assert least_s is not None
    assert plan.value == pytest.approx(least_s, abs=1e-6, rel=1e-6)
    assert plan.gap == 0.0
    assert plan.prediction is not None
    assert plan.prediction.latency_s == pytest.approx(plan.value)


QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=80, deadline=None, suppress_health_check=QUIET)
@given(problems(nodes=5, layers=10))
def test_latency_equals_the_integer_programmes_optimum(problem: Problem) -> None:
    check_against_the_oracle(problem)


@pytest.mark.long
@pytest.mark.parametrize("engine", [CHAIN, STAR], ids=lambda engine: engine.topology.value)
def test_latency_equals_the_integer_programmes_optimum_on_thousands(engine: EngineProfile) -> None:
    @settings(max_examples=1500, deadline=None, suppress_health_check=QUIET)
    @given(problems(engine=engine))
    def check(problem: Problem) -> None:
        check_against_the_oracle(problem)

    check()


# --- bounds are bounds -----------------------------------------------------------------------------


@pytest.fixture
def without_exact_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """No problem counts as small: local search, priced and remembering relaxations and narrow searches must do."""
    monkeypatch.setattr(planner.least_cost, "_EXACT_ELEMENTS", 0)


def check_bounds(problem: Problem, effort: int) -> None:
    plan, least_s = problem.planned(effort), Oracle(problem).least_s()
    if plan is None or plan.capacity_only or least_s is None:
        return
    assert plan.lower_bound is not None
    assert plan.lower_bound <= least_s + 1e-6
    assert plan.value >= least_s - 1e-6


@pytest.mark.usefixtures("without_exact_methods")
@settings(max_examples=80, deadline=None, suppress_health_check=[*QUIET, HealthCheck.function_scoped_fixture])
@given(problems(nodes=5, layers=10), st.sampled_from((1, 3, 20, 4000)))
def test_heuristics_bound_is_below_and_its_value_above_the_optimum(problem: Problem, effort: int) -> None:
    check_bounds(problem, effort)


@pytest.mark.long
@pytest.mark.usefixtures("without_exact_methods")
def test_heuristics_bounds_hold_on_thousands() -> None:
    @settings(max_examples=1500, deadline=None, suppress_health_check=QUIET)
    @given(problems(), st.sampled_from((1, 3, 20, 4000)))
    def check(problem: Problem, effort: int) -> None:
        check_bounds(problem, effort)

    check()
