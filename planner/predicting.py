"""What a placement is expected to do: seconds by stage and hop, tokens per second, and what that rests on.

Lives here: `Forecast` and `forecast`. Not here: the costs themselves (`planner.timing`). Called when a plan is made
(`planner.building`) and to judge a target (`planner.dispatch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from planner.compiling import TimedFamily
from planner.engine import Topology
from planner.instance import Instance, MaybeNs, Timing
from planner.links import ASSUMED_BANDWIDTH_BYTES_PER_S
from planner.memory import MemoryNeed
from planner.nodes import NodeSpec
from planner.plan import HopPlan, Prediction
from planner.request import UNRESTRICTED, PlanRequest
from planner.solution import Placement


@dataclass(frozen=True)
class Forecast:
    """`stage_ns` per stage and `hops` of one lane's token; `prediction` None where something it needs is unknown."""

    stage_ns: tuple[MaybeNs, ...]
    hops: tuple[HopPlan, ...]
    prediction: Prediction | None


def forecast(
    request: PlanRequest, need: MemoryNeed, instance: Instance, placements: Sequence[Placement], coordinator: str
) -> Forecast:
    """The forecast of `placements` on `instance` under `coordinator`."""
    labels = [instance.labels[stage.device] for stage in placements]
    single = _under(request, need, coordinator, labels, placements, batch=1)
    hops = tuple(_hop(request, passage, single) for passage in _passages(request, coordinator, labels))
    if single is None:
        return Forecast((None,) * len(placements), hops, None)
    stage_ns = tuple(single.timing.stage_ns(s.device, s.layer_start, s.layer_end) for s in single.stages)
    latency = single.timing.latency_ns(single.stages)
    bottleneck = single.timing.bottleneck_ns(single.stages)
    if latency is None or bottleneck is None:
        return Forecast(stage_ns, hops, None)
    lanes, full = request.workload.lanes, latency
    if request.engine.pipelined:
        tokens_per_s = min(lanes * 1e9 / max(1, latency), 1e9 / max(1, bottleneck))
    else:
        if lanes > 1 and (busy := _under(request, need, coordinator, labels, placements, batch=lanes)) is not None:
            full = busy.timing.latency_ns(busy.stages) or latency
        tokens_per_s = lanes * 1e9 / max(1, full)
    prediction = Prediction(latency / 1e9, bottleneck / 1e9, tokens_per_s, assumptions(request))
    return Forecast(stage_ns, hops, prediction)


@dataclass(frozen=True)
class _Timed:
    """The same placements on an instance of only the devices used, with times."""

    timing: Timing
    stages: tuple[Placement, ...]
    number: dict[tuple[str, str], int]


def _under(
    request: PlanRequest,
    need: MemoryNeed,
    coordinator: str,
    labels: Sequence[tuple[str, str]],
    placements: Sequence[Placement],
    *,
    batch: int,
) -> _Timed | None:
    """None where a device's memory bandwidth is unknown."""
    used = [_only(node, labels) for node in request.nodes if any(node.id == label[0] for label in labels)]
    family = TimedFamily.of(replace(request, constraints=UNRESTRICTED), used, need, batch=batch)
    timing = family.under(coordinator).timing
    if family.left_out or timing is None:
        return None
    number = {label: index for index, label in enumerate(family.instance.labels)}
    stages = tuple(
        Placement(number[label], stage.layer_start, stage.layer_end)
        for label, stage in zip(labels, placements, strict=True)
    )
    return _Timed(timing, stages, number)


def _only(node: NodeSpec, labels: Sequence[tuple[str, str]]) -> NodeSpec:
    return replace(node, devices=tuple(device for device in node.devices if (node.id, device.id) in labels))


@dataclass(frozen=True)
class _Passage:
    """From a device or the coordinator (None) to a device or the coordinator."""

    source: str
    target: str
    source_label: tuple[str, str] | None
    target_label: tuple[str, str] | None


def _passages(request: PlanRequest, coordinator: str, labels: Sequence[tuple[str, str]]) -> list[_Passage]:
    """Passages between nodes in the order a token makes them; none within a node."""
    route: list[tuple[str, tuple[str, str] | None]] = [(coordinator, None)]
    for index, label in enumerate(labels):
        if request.engine.topology is Topology.STAR and index and labels[index - 1][0] != label[0]:
            route.append((coordinator, None))
        route.append((label[0], label))
    route.append((coordinator, None))
    return [
        _Passage(source, target, source_label, target_label)
        for (source, source_label), (target, target_label) in pairwise(route)
        if source != target
    ]


def _hop(request: PlanRequest, passage: _Passage, timed: _Timed | None) -> HopPlan:
    link = request.links.get(passage.source, passage.target)
    rtt_ms = 0.0 if request.links.free else None if link is None else link.rtt_ms
    estimated = link is not None and link.estimated and not request.links.free
    cost: MaybeNs = None
    if timed is not None:
        source = None if passage.source_label is None else timed.number[passage.source_label]
        target = None if passage.target_label is None else timed.number[passage.target_label]
        if source is not None and target is not None:
            cost = timed.timing.hop(source, target)
        elif target is not None:
            cost = timed.timing.entry_ns[target]
        elif source is not None:
            cost = timed.timing.exit_ns[source]
    return HopPlan(passage.source, passage.target, None if cost is None else cost / 1e9, rtt_ms, estimated)


def assumptions(request: PlanRequest) -> tuple[str, ...]:
    """What every predicted speed of this request rests on, for people."""
    workload = request.workload
    filled = workload.context if workload.filled_tokens is None else workload.filled_tokens
    told = [
        "decoding is bound by memory traffic: weights read once per pass, cache read for every lane",
        f"{filled} of {workload.context} tokens of context in the cache",
        f"{workload.lanes} lane{'' if workload.lanes == 1 else 's'} busy",
    ]
    if not request.links.free and any(link.bandwidth_bytes_per_s is None for link in request.links.links.values()):
        assumed = f"{ASSUMED_BANDWIDTH_BYTES_PER_S / 1e9:.3f} GB/s"
        told.append(f"links whose bandwidth is not known carry {assumed}")
    return tuple(told)
