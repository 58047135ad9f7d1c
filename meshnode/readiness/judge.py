"""From candidates to verdicts: every node of a view gets exactly one.

What lives here: `judge_mesh` and `judge_node`. What does not: the rules (`meshnode.readiness.rules`) and time
(`meshnode.readiness.waiter` decides whose patience is over).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from meshnode.membership.view import MeshView, RttSource
from meshnode.readiness.candidate import Answer, Candidate, MeshFacts, candidate_of, free_bytes
from meshnode.readiness.reasons import ReasonCode
from meshnode.readiness.request import SplitRequest
from meshnode.readiness.rules import RULES, Finding
from meshnode.readiness.verdict import Excluded, Participant, ParticipantDevice, Pending, Verdict, advice_for
from proto.ids import NodeId
from proto.parts import DeviceOffer

NO_ANSWERS: Mapping[NodeId, Answer] = MappingProxyType({})
NOBODY_WAITED: Mapping[NodeId, frozenset[ReasonCode]] = MappingProxyType({})
ALL_PATIENCE_OVER = frozenset(ReasonCode)


def judge_mesh(
    view: MeshView,
    request: SplitRequest,
    *,
    answers: Mapping[NodeId, Answer] = NO_ANSWERS,
    patience_over: Mapping[NodeId, frozenset[ReasonCode]] = NOBODY_WAITED,
) -> dict[NodeId, Verdict]:
    """The verdict on every node of `view`, in node-id order. `patience_over` names, by node, the causes for which it
    was pending as long as it may."""
    mesh = MeshFacts.of(view, request)
    return {
        node.node: judge_node(
            candidate_of(node, view, request, mesh, answers.get(node.node), patience_over.get(node.node, frozenset()))
        )
        for _, node in sorted(view.nodes.items())
    }


def judge_node(candidate: Candidate) -> Verdict:
    """The first rule that excludes names the verdict; else the first that makes pending; else it takes part."""
    waiting: tuple[ReasonCode, Finding] | None = None
    for code, rule in RULES.items():
        finding = rule(candidate)
        if finding is None:
            continue
        if not finding.pending:
            return excluded_for(candidate, code, finding.found, finding.required)
        waiting = waiting or (code, finding)
    if waiting is not None:
        code, finding = waiting
        bring = participant_of(candidate)
        return Pending(candidate.node.node, _name(candidate), code, finding.found, finding.required, bring)
    participant = participant_of(candidate)
    assert participant is not None, "a node without an offer is pending or excluded as record_stale"
    return participant


def excluded_for(candidate: Candidate, code: ReasonCode, found: str, required: str) -> Excluded:
    """The exclusion of `candidate`, with what it would bring."""
    node = candidate.node.node
    advice = advice_for(code, node, candidate.request.model)
    return Excluded(node, _name(candidate), code, found, required, advice, participant_of(candidate))


def participant_of(candidate: Candidate) -> Participant | None:
    """The figures `candidate` brings; None where it has no offer."""
    offer, model = candidate.offer, candidate.own_files
    if offer is None:
        return None
    knows_files = offer.inventory_known and not candidate.request.is_profile
    figure = candidate.usable_rtt
    return Participant(
        node=candidate.node.node,
        name=_name(candidate),
        boot_id=candidate.node.boot_id,
        devices=tuple(_device(device) for device in offer.devices),
        host_usable_bytes=offer.host_usable_bytes,
        host_declared=offer.host_declared,
        has_package=(model is not None and model.complete) if knows_files and candidate.request.checks_files else None,
        cached_bytes=(0 if model is None else model.cached_bytes) if knows_files else None,
        missing_bytes=None if model is None or not knows_files else model.missing_bytes,
        rtt_ms=0.0 if candidate.is_coordinator else None if figure is None else figure.min_ms,
        rtt_estimated=figure is not None and figure.source is RttSource.ESTIMATED,
        transfer=offer.artifact_transfer,
        willingness=offer.willingness,
        confirmed=candidate.answer is not None and candidate.answer.confirm is not None,
        layers_at_hand=candidate.layers_at_hand if knows_files else (),
    )


def _device(device: DeviceOffer) -> ParticipantDevice:
    return ParticipantDevice(
        id=device.id,
        kind=device.kind,
        name=device.name,
        capacity_bytes=device.capacity_bytes,
        usable_bytes=free_bytes(device),
        memory_bandwidth_bytes_per_s=device.memory_bandwidth_bytes_per_s,
        compute_flops=device.compute_flops,
        declared=device.declared,
    )


def _name(candidate: Candidate) -> str:
    identity = candidate.node.identity
    return "" if identity is None else identity.name
