"""From a snapshot to a plan: the planner's inputs, and the call in a worker process.

What lives here: `PlanAsked`, `PlanJob`, `alone_in`, `plan_job`, `plan_in_worker`, `PlanResult`. What does not: any
placement (the planner's) and any verdict (readiness). The planner sees plain figures: the snapshot's participants as
nodes, its exclusions with what they would bring (so that the shortfall names them and its remedies can try them), and
the RTTs between them from the same view. Nothing of an excluded node is among the nodes.

Planning is arithmetic for up to seconds, so it runs in a worker process, which imports numpy so that the daemon need
not. Its result is data: `CapacityShortfall` becomes its report.
"""

from __future__ import annotations

import copyreg
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import permutations
from types import MappingProxyType
from typing import Any

from meshnode.membership.view import MeshView, RttFigure, RttSource
from meshnode.readiness.request import HOST_MEMORY, SplitRequest
from meshnode.readiness.snapshot import SplitParticipantSnapshot, snapshot_now
from meshnode.readiness.verdict import Excluded, Participant, ParticipantDevice
from meshnode.split.holding import StageOrder
from planner.constraints import Constraints, Exclusion, Objective
from planner.engine import LLAMA_CPP_RPC, EngineProfile, Topology
from planner.errors import MAX_BYTES, InvalidPlanInput
from planner.links import Link, LinkMatrix
from planner.model import ModelSpec
from planner.nodes import DeviceSpec, NodeSpec, Willingness
from planner.plan import SplitPlan
from planner.shortfall import ShortfallReport
from planner.workload import Workload
from proto.ids import NodeId

_SHOWN = 6


@dataclass(frozen=True)
class PlanAsked:
    """What is asked of the planner, apart from the mesh. `constraints.coordinator` is filled in from the snapshot where
    a plan is to be carried out. `explain`: also why the plan is as it is, for people; it costs planning again."""

    model: ModelSpec
    workload: Workload
    objective: Objective = Objective.LATENCY
    engine: EngineProfile = LLAMA_CPP_RPC
    constraints: Constraints = field(default_factory=Constraints)
    smaller_files: tuple[ModelSpec, ...] = ()
    explain: bool = False


@dataclass(frozen=True)
class PlanJob:
    """Everything one call of the planner needs: plain, immutable, and small enough to be sent to a process.

    `running`: the plan that runs now, which the new one is to leave in place as far as `margin` (a fraction) allows.
    """

    asked: PlanAsked
    nodes: tuple[NodeSpec, ...]
    links: LinkMatrix
    excluded: tuple[Exclusion, ...]
    running: SplitPlan | None = None
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class PlanRefused:
    """The planner could not work with its input: which field, what stood there, what would be right."""

    field: str
    found: str | float | None
    expected: str

    @classmethod
    def of(cls, error: InvalidPlanInput) -> PlanRefused:
        """The planner's error as data: plain figures stay as they are, the rest is told in words."""
        found = error.found
        if isinstance(found, str):
            return cls(error.field, found[:200], error.expected)
        if found is None or isinstance(found, int | float):
            return cls(error.field, found, error.expected)
        return cls(error.field, repr(found)[:200], error.expected)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"result": "invalid", "field": self.field, "found": self.found, "expected": self.expected}


PlanOutcome = SplitPlan | ShortfallReport | PlanRefused


@dataclass(frozen=True)
class PlanResult:
    """What planning came to, for the snapshot it was made from. `notes` say what its figures rest on."""

    snapshot: SplitParticipantSnapshot
    outcome: PlanOutcome
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """The outcome's own JSON, with `notes`, the ids of `declared` participants, and how it was waited for."""
        return {
            **self.outcome.to_dict(),
            "notes": list(self.notes),
            "declared": [participant.node for participant in self.snapshot.participants if participant.declared],
            "waited_s": round(self.snapshot.waited_s, 3),
            "outcome": self.snapshot.outcome.value,
        }


# --- inputs ----------------------------------------------------------------------------------


def plan_job(asked: PlanAsked, snapshot: SplitParticipantSnapshot, *, pin_coordinator: bool) -> PlanJob:
    """The planner's input for `snapshot`.

    `pin_coordinator`: the snapshot's coordinator must coordinate (a plan to be carried out); else the planner tries
    every eligible node. A pinned coordinator that is excluded from holding stages joins as a node without devices: its
    capacity counts nowhere, its host memory does.
    """
    nodes = [node_spec(participant) for participant in snapshot.participants]
    exclusions = list(snapshot.exclusions)
    constraints = asked.constraints
    if pin_coordinator:
        constraints = replace(constraints, coordinator=snapshot.coordinator)
        own = next((entry for entry in exclusions if entry.node == snapshot.coordinator), None)
        if own is not None:
            exclusions.remove(own)
            nodes.append(_stageless(own))
    excluded = tuple(exclusion_spec(exclusion) for exclusion in exclusions)
    known = [node.id for node in nodes] + [entry.node_id for entry in excluded if entry.node is not None]
    star = asked.engine.topology is Topology.STAR and pin_coordinator
    links = links_between(snapshot.view, known, snapshot, only_coordinators=star)
    return PlanJob(replace(asked, constraints=constraints), tuple(nodes), links, excluded)


def alone_in(view: MeshView, request: SplitRequest, model: ModelSpec) -> SplitParticipantSnapshot | None:
    """A snapshot with the local node as its only participant; None where it takes no part or is plainly too small."""
    snapshot = snapshot_now(view, request)
    own = tuple(participant for participant in snapshot.participants if participant.node == view.local)
    if not own or own[0].usable_bytes < model.layer_weight_bytes:
        return None
    return replace(snapshot, participants=own)


def node_spec(participant: Participant) -> NodeSpec:
    """A participant as the planner sees it. Usable bytes are the owner's own figure: nothing further is subtracted."""
    return NodeSpec(
        id=participant.node,
        devices=tuple(_device_spec(device) for device in participant.devices),
        host_usable_bytes=min(participant.host_usable_bytes, MAX_BYTES),
        has_package=participant.has_package,
        cached_bytes=_capped(participant.cached_bytes),
        can_receive=participant.transfer,
        rtt_ms=participant.rtt_ms,
        willingness=Willingness(participant.willingness.value),
        layers_at_hand=participant.layers_at_hand,
        rtt_estimated=participant.rtt_estimated,
    )


def exclusion_spec(exclusion: Excluded) -> Exclusion:
    """An exclusion with its facts, and what the node would bring if its reason were fixed."""
    return Exclusion(
        node_id=exclusion.node,
        reason=exclusion.reason.value,
        found=exclusion.found,
        required=exclusion.required,
        advice=exclusion.advice,
        node=_would_bring(exclusion),
    )


def links_between(
    view: MeshView, nodes: Iterable[str], snapshot: SplitParticipantSnapshot, *, only_coordinators: bool = False
) -> LinkMatrix:
    """The RTTs among `nodes`, from the view's matrix. Bandwidth is not measured: None, unknown.

    Pairs with the coordinator carry the figure by which the node was judged; where that is unknown the pair is unknown
    too, so that what is reported as `rtt=unknown` is not quietly known to the planner. `only_coordinators` leaves the
    other pairs out: a star around a given coordinator has no use for them, and in a large mesh there are a million.
    """
    ids = [NodeId(node) for node in sorted(nodes)]
    coordinator = snapshot.coordinator
    judged = {participant.node: participant for participant in snapshot.participants}
    pairs: Iterable[tuple[NodeId, NodeId]] = permutations(ids, 2)
    if only_coordinators:
        others = [node for node in ids if node != coordinator]
        pairs = [(coordinator, node) for node in others] + [(node, coordinator) for node in others]
    links: dict[tuple[str, str], Link] = {}
    for source, target in pairs:
        other = judged.get(target if source == coordinator else source) if coordinator in (source, target) else None
        link = _link(view.rtt.get((source, target))) if other is None else _judged_link(other)
        if link is not None:
            links[source, target] = link
    return LinkMatrix(links)


def _judged_link(participant: Participant) -> Link | None:
    return None if participant.rtt_ms is None else Link(participant.rtt_ms, estimated=participant.rtt_estimated)


def _link(figure: RttFigure | None) -> Link | None:
    if figure is None or not (figure.corroborated or figure.source is RttSource.ESTIMATED):
        return None
    return Link(figure.min_ms, estimated=figure.source is RttSource.ESTIMATED)


def _device_spec(device: ParticipantDevice) -> DeviceSpec:
    """The wire lets a peer claim a little more than the planner believes (100 and 72 PB); a claim is capped, not a
    reason to plan nothing for everybody."""
    return DeviceSpec(
        id=device.id,
        capacity_bytes=min(device.capacity_bytes, MAX_BYTES),
        kind=device.kind if device.kind.isprintable() and device.kind else "unknown",
        headroom=0.0,
        declared_usable_bytes=min(device.usable_bytes, MAX_BYTES),
        memory_bandwidth_bytes_per_s=device.memory_bandwidth_bytes_per_s or None,
        compute_flops=device.compute_flops or None,
    )


def _capped(count: int | None) -> int | None:
    return None if count is None else min(count, MAX_BYTES)


def _would_bring(exclusion: Excluded) -> NodeSpec | None:
    brings = exclusion.if_admitted
    return None if brings is None or not brings.devices else node_spec(brings)


def _stageless(own: Excluded) -> NodeSpec:
    brings = own.if_admitted
    return NodeSpec(
        id=own.node,
        host_usable_bytes=None if brings is None else min(brings.host_usable_bytes, MAX_BYTES),
        has_package=None if brings is None else brings.has_package,
        cached_bytes=None if brings is None else _capped(brings.cached_bytes),
        rtt_ms=0.0,
        willingness=Willingness.NEVER,
    )


# --- the call --------------------------------------------------------------------------------


def plan_here(job: PlanJob) -> PlanOutcome:
    """Plans in this process; what the worker process runs. Raises nothing of the planner's: its errors are results."""
    from planner import CapacityShortfall, plan_split, replan

    asked = job.asked
    options: dict[str, Any] = {
        "objective": asked.objective,
        "constraints": asked.constraints,
        "excluded": job.excluded,
        "engine": asked.engine,
        "smaller_files": asked.smaller_files,
    }
    try:
        if job.running is not None:
            mesh = (asked.model, job.nodes, job.links, asked.workload)
            return replan(*mesh, job.running, margin=job.margin, **options).plan
        return plan_split(asked.model, job.nodes, job.links, asked.workload, explain=asked.explain, **options)
    except CapacityShortfall as shortfall:
        return shortfall.report
    except InvalidPlanInput as error:
        return PlanRefused.of(error)


async def plan_in_worker(job: PlanJob) -> PlanOutcome:
    """Plans in a worker process. Cancelling kills that process; one that dies by itself is a refusal, not a crash."""
    import anyio.to_process

    try:
        return await anyio.to_process.run_sync(plan_here, job, cancellable=True)
    except anyio.BrokenWorkerProcess as error:
        found = f"it ended before it answered ({error.__cause__ or error})"
        return PlanRefused("the planner's process", found[:200], "enough memory for it; see the system's log")


def _reduce_mapping_proxy(mapping: MappingProxyType[Any, Any]) -> tuple[Any, ...]:
    return MappingProxyType, (dict(mapping),)


copyreg.pickle(MappingProxyType, _reduce_mapping_proxy)
"""Reports hold read-only mappings, which pickle does not know how to send."""


# --- after the plan --------------------------------------------------------------------------


def notes_on(snapshot: SplitParticipantSnapshot) -> tuple[str, ...]:
    """What a reader of the plan must know of its figures: declared memory, unknown and estimated RTTs."""
    participants = snapshot.participants
    declared = [each.node for each in participants if each.declared]
    unknown = [each.node for each in participants if each.rtt_ms is None]
    estimated = [each.node for each in participants if each.rtt_estimated]
    notes = []
    if declared:
        notes.append(f"usable memory is declared by the operator, not measured: {_ids(declared)}")
    if unknown:
        notes.append(f"RTT unknown: {_ids(unknown)}")
    if estimated:
        notes.append(f"RTT estimated from coordinates, not measured: {_ids(estimated)}")
    return tuple(notes)


def stage_orders(plan: SplitPlan) -> tuple[StageOrder, ...]:
    """What each worker is to hold, in node-id order: its stages' exact bytes by device, and the coordinator's host
    bytes (also where it holds no stage)."""
    orders = []
    for node in sorted({*plan.nodes, plan.coordinator.node}):
        stages = [stage for stage in plan.stages if stage.node == node]
        reserve: dict[str, int] = {}
        for stage in stages:
            reserve[stage.device] = reserve.get(stage.device, 0) + stage.bytes.total
        if node == plan.coordinator.node and plan.coordinator.host_bytes:
            reserve[HOST_MEMORY] = plan.coordinator.host_bytes
        orders.append(
            StageOrder(
                node=NodeId(node),
                layer_start=min((stage.layer_start for stage in stages), default=0),
                layer_end=max((stage.layer_end for stage in stages), default=0),
                ranges=tuple((stage.device, stage.layer_start, stage.layer_end) for stage in stages),
                reserve=tuple(sorted(reserve.items())),
            )
        )
    return tuple(orders)


def _ids(nodes: list[NodeId]) -> str:
    more = f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
    return ", ".join(nodes[:_SHOWN]) + more
