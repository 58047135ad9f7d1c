"""A plan as people and engines see it: stages, hops, bytes by part, value and proof.

Lives here: `SplitPlan` and its parts, all plain data. Not here: how it was found (`planner.dispatch`) or drawn
(`planner.picture`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from planner.constraints import Objective
from planner.workload import Workload

if TYPE_CHECKING:
    from planner.cache_ladder import CacheChoice


@dataclass(frozen=True, slots=True)
class StageBytes:
    """Memory of one stage by part, in bytes, against what its device may fill."""

    weights: int
    kv: int
    state: int
    endpoint: int
    compute: int
    usable: int

    @property
    def total(self) -> int:
        """Sum of the parts; at most `usable`."""
        return self.weights + self.kv + self.state + self.endpoint + self.compute

    def to_dict(self) -> dict[str, int]:
        """Plain JSON."""
        return {
            "weights": self.weights,
            "kv": self.kv,
            "state": self.state,
            "endpoint": self.endpoint,
            "compute": self.compute,
            "total": self.total,
            "usable": self.usable,
        }


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Layers [layer_start, layer_end) on one device of one node. `seconds` per token, None if capacity-only.

    `missing_bytes`: what the node has to fetch of it before it can load, None where that is unknown. It says nothing
    about the placement, so two plans that differ in nothing else are the same plan.
    """

    stage: int
    node: str
    device: str
    layer_start: int
    layer_end: int
    bytes: StageBytes
    seconds: float | None
    missing_bytes: int | None = field(default=None, compare=False)

    @property
    def layers(self) -> int:
        """How many layers it holds."""
        return self.layer_end - self.layer_start

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "stage": self.stage,
            "node": self.node,
            "device": self.device,
            "layer_start": self.layer_start,
            "layer_end": self.layer_end,
            "bytes": self.bytes.to_dict(),
            "seconds": self.seconds,
            "missing_bytes": self.missing_bytes,
        }


@dataclass(frozen=True, slots=True)
class HopPlan:
    """One passage between nodes per token; `seconds` is None if unknown. `estimated`: its RTT was not measured."""

    source: str
    target: str
    seconds: float | None
    rtt_ms: float | None
    estimated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "from": self.source,
            "to": self.target,
            "seconds": self.seconds,
            "rtt_ms": self.rtt_ms,
            "estimated": self.estimated,
        }


@dataclass(frozen=True, slots=True)
class CoordinatorPlan:
    """Who coordinates, whether it also holds a stage, and the host bytes it needs for embedding and host compute."""

    node: str
    is_stage: bool
    host_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"node": self.node, "is_stage": self.is_stage, "host_bytes": self.host_bytes}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the plan is expected to do. `tokens_per_s` counts all lanes; `assumptions` say what it rests on."""

    latency_s: float
    bottleneck_s: float
    tokens_per_s: float
    assumptions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "latency_s": self.latency_s,
            "bottleneck_s": self.bottleneck_s,
            "tokens_per_s": self.tokens_per_s,
            "assumptions": list(self.assumptions),
        }


@dataclass(frozen=True, slots=True)
class NodeVerdict:
    """Why a node holds a stage or none, in words, with its figures.

    `layer_ms`: time for an average layer there; `hop_ms`: for going there and back (`hop_estimated`: by an RTT from
    coordinates); `without_value`: value of the best plan found that keeps the node free of stages, in that plan's unit.
    None where unknown, not tried, or impossible.
    """

    node: str
    used: bool
    why: str
    layer_ms: float | None = None
    hop_ms: float | None = None
    without_value: float | None = None
    hop_estimated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "node": self.node,
            "used": self.used,
            "why": self.why,
            "layer_ms": self.layer_ms,
            "hop_ms": self.hop_ms,
            "hop_estimated": self.hop_estimated,
            "without_value": self.without_value,
        }


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """The best plan that does without at least one of the plan's nodes; `value` in the plan's unit."""

    nodes: tuple[str, ...]
    stages: int
    value: float
    without: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"nodes": list(self.nodes), "stages": self.stages, "value": self.value, "without": self.without}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `--explain` shows beside the plan.

    `bottleneck_stage`: number of the slowest stage; `costliest_hop`: (from, to); `shares`: fraction of a token's time
    by cause (`memory`, `hops`), empty when capacity-only; `tightest_stage`: number of the stage with the least room
    left.
    """

    verdicts: tuple[NodeVerdict, ...]
    bottleneck_stage: int | None
    costliest_hop: tuple[str, str] | None
    shares: tuple[tuple[str, float], ...]
    tightest_stage: int
    runner_up: RunnerUp | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "nodes": [verdict.to_dict() for verdict in self.verdicts],
            "bottleneck_stage": self.bottleneck_stage,
            "costliest_hop": None if self.costliest_hop is None else list(self.costliest_hop),
            "shares": dict(self.shares),
            "tightest_stage": self.tightest_stage,
            "runner_up": None if self.runner_up is None else self.runner_up.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """A placement of all layers, with its proof.

    `value`, `lower_bound`: seconds for latency, throughput and proportional (unit `s`), stages for fewest (unit
    `stages`) and for every capacity-only plan; `gap` = value / lower_bound - 1, None if no bound is known. `method`:
    how it was found. `interrupted`: a budget or `should_stop` ended the search early. `prediction` is None when
    capacity-only. `cache`: how the KV cache's types came about, None where they were asked for.
    """

    model: str
    objective: Objective
    engine: str
    workload: Workload
    context: int
    stages: tuple[StagePlan, ...]
    hops: tuple[HopPlan, ...]
    coordinator: CoordinatorPlan
    value: float
    lower_bound: float | None
    unit: str
    method: str
    capacity_only: bool
    interrupted: bool = False
    prediction: Prediction | None = None
    warnings: tuple[str, ...] = ()
    explanation: Explanation | None = None
    cache: CacheChoice | None = None

    @property
    def gap(self) -> float | None:
        """How far above the proven bound the value may be, as a fraction; 0.0 is proved optimal."""
        if self.lower_bound is None or self.lower_bound <= 0:
            return 0.0 if self.lower_bound == self.value else None
        return max(0.0, self.value / self.lower_bound - 1.0)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes that hold a stage, in order of their first, each once."""
        return tuple(dict.fromkeys(stage.node for stage in self.stages))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: what `meshnode plan --json` prints."""
        return {
            "result": "plan",
            "model": self.model,
            "objective": self.objective.value,
            "value": self.value,
            "lower_bound": self.lower_bound,
            "gap": self.gap,
            "unit": self.unit,
            "method": self.method,
            "interrupted": self.interrupted,
            "capacity_only": self.capacity_only,
            "context": self.context,
            "lanes": self.workload.lanes,
            "workload": {**self.workload.to_dict(), "context": self.context},
            "engine": self.engine,
            "coordinator": self.coordinator.to_dict(),
            "stages": [stage.to_dict() for stage in self.stages],
            "hops": [hop.to_dict() for hop in self.hops],
            "prediction": None if self.prediction is None else self.prediction.to_dict(),
            "warnings": list(self.warnings),
            **({} if self.cache is None else {"cache": self.cache.to_dict()}),
            **({} if self.explanation is None else {"explanation": self.explanation.to_dict()}),
        }
