"""One rule per reason: a pure function from a candidate to a finding, or None where the rule has nothing to say.

What lives here: the rules and `RULES`, in the order of `meshnode.readiness.reasons.TABLE`. What does not: their words
and advice (that table) and how findings become a verdict (`meshnode.readiness.judge`).

A rule whose inputs are unknown says nothing; that they are unknown is another rule's finding. So each can be read and
tested alone, and a node with several faults is named after the first in the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from meshnode.membership.view import PathKind, Status
from meshnode.readiness.candidate import Candidate, free_bytes, is_alive, manifests_differ
from meshnode.readiness.reasons import ReasonCode
from meshnode.readiness.request import Purpose
from proto.engines import rpc_version_of
from proto.ids import short
from proto.parts import Role, Willingness
from proto.versions import STAGE_PROTOCOL_GENERATION

_SHOWN = 4
"""Most names in one finding: a text for people, not a list for programs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found and what would be right. `pending`: the node may still become a participant by itself."""

    found: str
    required: str
    pending: bool = False


Rule = Callable[[Candidate], Finding | None]


def not_alive(candidate: Candidate) -> Finding | None:
    """Suspect, dead and left nodes take no part; nothing of them is counted."""
    if is_alive(candidate.node):
        return None
    return Finding(f"status {candidate.node.status}", f"status {Status.ALIVE}")


def client(candidate: Candidate) -> Finding | None:
    """The role comes from the credential only."""
    if candidate.node.role is not Role.CLIENT:
        return None
    return Finding(f"role {Role.CLIENT}", f"role {Role.WORKER}")


def operator_excluded(candidate: Candidate) -> Finding | None:
    """The coordinator's operator listed it, by id or by the beginning of one."""
    node = candidate.node.node
    listed = next((text for text in candidate.request.eligibility.excluded_nodes if node.startswith(text)), None)
    return None if listed is None else Finding(f"exclude lists {listed}", "a node that exclude does not list")


def record_stale(candidate: Candidate) -> Finding | None:
    """Every restart and every refutation publishes the identity anew, so an identity below the node's incarnation is
    an earlier life's. The offer is not republished on a refutation; its freshness is what confirming is for."""
    identity = candidate.node.identity
    if identity is None or candidate.offer is None:
        lacking = "identity" if identity is None else "offer"
        return _pending(candidate, ReasonCode.RECORD_STALE, f"no {lacking} received", "identity and offer")
    if identity.incarnation >= candidate.node.incarnation:
        return None
    found = f"an identity of incarnation {identity.incarnation}"
    return _pending(candidate, ReasonCode.RECORD_STALE, found, f"incarnation {candidate.node.incarnation}")


def stage_protocol_generation(candidate: Candidate) -> Finding | None:
    """Stages of different generations can't share a split."""
    identity = candidate.node.identity
    if identity is None or identity.stage_protocol_generation == STAGE_PROTOCOL_GENERATION:
        return None
    return Finding(f"generation {identity.stage_protocol_generation}", f"generation {STAGE_PROTOCOL_GENERATION}")


def engine_missing(candidate: Candidate) -> Finding | None:
    """Asked only where a plan is to be carried out by an engine; planning alone needs none."""
    needed, identity = candidate.request.rpc_version, candidate.node.identity
    if needed is None or identity is None:
        return None
    found = rpc_version_of(identity.engine)
    if found is not None and found.can_serve(needed):
        return None
    required = f"llama.cpp with RPC {needed.major}.0 to {needed.major}.{needed.minor}"
    return Finding(identity.engine or "no engine", required)


def draining(candidate: Candidate) -> Finding | None:
    """It finishes what it has and takes nothing new."""
    if candidate.offer is None or not candidate.offer.draining:
        return None
    return Finding("draining", "not draining")


def missing_model_interest(candidate: Candidate) -> Finding | None:
    """A worker is interested in every model unless its config lists which; `willing = never` lends it for none."""
    offer = candidate.offer
    if offer is None:
        return None
    if offer.willingness is Willingness.NEVER:
        return Finding("willing = never", "willing = always or when_needed")
    if offer.interested_in is None or candidate.request.model in offer.interested_in:
        return None
    return Finding(f"interested_in = {_some(offer.interested_in)}", f"interested_in with {candidate.request.model}")


def missing_vram(candidate: Candidate) -> Finding | None:
    """The code is the field's and says VRAM; the rule is about memory of any kind."""
    offer = candidate.offer
    if offer is None or any(device.capacity_bytes > 0 for device in offer.devices):
        return None
    return Finding("no device with memory to offer", "at least one")


def below_min_capacity(candidate: Candidate) -> Finding | None:
    """Free is usable less reserved; a node whose memory is all taken has nothing to give to this split."""
    offer = candidate.offer
    if offer is None or not offer.devices:
        return None
    free = sum(free_bytes(device) for device in offer.devices)
    least = max(1, candidate.request.eligibility.min_capacity_bytes)
    if free >= least:
        return None
    reserved = sum(device.reserved_bytes for device in offer.devices)
    found = f"{_gigabytes(free)} free" + (f" ({_gigabytes(reserved)} reserved)" if reserved else "")
    return Finding(found, "more than 0.0GB" if least == 1 else f"at least {_gigabytes(least)}")


def missing_stage_path(candidate: Candidate) -> Finding | None:
    """The coordinator must reach the node. Where it is only asked what would be, a known RTT shows that a path is."""
    if not _needs_path(candidate) or candidate.node.link is not None:
        return None
    if candidate.request.purpose is Purpose.PLAN and candidate.rtt is not None:
        return None
    if not candidate.node.connecting:
        return Finding("no link, and no address that answers", "a link")
    return _pending(candidate, ReasonCode.MISSING_STAGE_PATH, "connecting, no link yet", "a link")


def stage_path_relay_only(candidate: Candidate) -> Finding | None:
    """Carried by a common neighbour: every activation would cross a third machine."""
    link = candidate.node.link
    if not _needs_path(candidate) or link is None or link.path is PathKind.DIRECT:
        return None
    if candidate.request.eligibility.allow_relayed:
        return None
    carrier = "" if link.carrier is None else f" through {short(link.carrier)}"
    return Finding(f"relayed{carrier}", "a direct link, or allow_relayed")


def stage_control_unreachable(candidate: Candidate) -> Finding | None:
    """Gossip is a hint: only the node itself can say that it serves stages."""
    answer = candidate.answer
    if answer is None:
        return None
    if answer.confirm is None:
        return Finding("no answer when asked to confirm its figures", "an answer over its link")
    if answer.confirm.stage_control:
        return None
    return Finding("answered that it can't serve stages", "a node that serves stages")


def package_manifest_mismatch(candidate: Candidate) -> Finding | None:
    """Layers of two different packages do not make one model."""
    model = candidate.model
    if not candidate.request.checks_files or model is None:
        return None
    required = candidate.request.manifest
    if not manifests_differ(model.manifest, required):
        return None
    return Finding(f"manifest {_hash(model.manifest)}", f"manifest {_hash(required)}")


def missing_model_source(candidate: Candidate) -> Finding | None:
    """Bytes it lacks must come from a node that has all; says who has what. Pending while inventories are unread."""
    if not candidate.request.checks_files or not _lacks_bytes(candidate) or candidate.mesh.complete_holders:
        return None
    parts = [f"{short(node)} has {_figure(cached)}" for node, cached in candidate.mesh.partial_holders]
    found = "no alive worker holds the complete package" + (f" ({_some(parts)})" if parts else "")
    required = f"one that holds all of {candidate.request.model}"
    if candidate.mesh.unread_inventories:
        return _pending(candidate, ReasonCode.MISSING_MODEL_SOURCE, found, required)
    return Finding(found, required)


def stage_inventory_empty(candidate: Candidate) -> Finding | None:
    """Unknown is not empty: an inventory that has not been read makes pending first."""
    offer = candidate.offer
    if not candidate.request.checks_files or offer is None:
        return None
    model = candidate.model
    unread = not offer.inventory_known or (model is not None and not model.complete and model.cached_bytes is None)
    if unread:
        return _pending(candidate, ReasonCode.STAGE_INVENTORY_EMPTY, "inventory not read yet", "a known inventory")
    if offer.artifact_transfer or not _lacks_bytes(candidate) or _cached_bytes(candidate):
        return None
    return Finding("nothing of the model, and no transfer", "the model's files, or transfer")


def artifact_transfer_unavailable(candidate: Candidate) -> Finding | None:
    """It has a part and can't get the rest."""
    offer, model = candidate.offer, candidate.model
    if not candidate.request.checks_files or offer is None or model is None or offer.artifact_transfer:
        return None
    if not _lacks_bytes(candidate) or not _cached_bytes(candidate):
        return None
    return Finding(f"{_figure(model.missing_bytes)} missing, and no transfer", "nothing missing, or transfer")


def rtt_unmeasured(candidate: Candidate) -> Finding | None:
    """Pending first. After that an unknown RTT excludes only where a limit has to be checked; else it is labelled."""
    if candidate.is_coordinator or candidate.usable_rtt is not None:
        return None
    limit = candidate.request.eligibility.max_stage_rtt_ms
    found = "no RTT sample" if candidate.rtt is None else f"{candidate.rtt.samples} sample(s), not corroborated"
    finding = Finding(found, "2 samples over 5 s, the last fresher than 30 s", pending=True)
    if ReasonCode.RTT_UNMEASURED not in candidate.patience_over:
        return finding
    return None if limit is None else Finding(finding.found, f"an RTT of at most {limit:g}ms")


def stage_path_too_slow(candidate: Candidate) -> Finding | None:
    """Only where the operator set a limit: a general one hides capacity (Mesh-LLM had 80 ms, and took it back)."""
    limit, figure = candidate.request.eligibility.max_stage_rtt_ms, candidate.usable_rtt
    if candidate.is_coordinator or limit is None or figure is None or figure.min_ms <= limit:
        return None
    return Finding(f"RTT {figure}", f"at most {limit:g}ms")


RULES: Final = MappingProxyType[ReasonCode, Rule](
    {
        ReasonCode.NOT_ALIVE: not_alive,
        ReasonCode.CLIENT: client,
        ReasonCode.OPERATOR_EXCLUDED: operator_excluded,
        ReasonCode.RECORD_STALE: record_stale,
        ReasonCode.STAGE_PROTOCOL_GENERATION: stage_protocol_generation,
        ReasonCode.ENGINE_MISSING: engine_missing,
        ReasonCode.DRAINING: draining,
        ReasonCode.MISSING_MODEL_INTEREST: missing_model_interest,
        ReasonCode.MISSING_VRAM: missing_vram,
        ReasonCode.BELOW_MIN_CAPACITY: below_min_capacity,
        ReasonCode.MISSING_STAGE_PATH: missing_stage_path,
        ReasonCode.STAGE_PATH_RELAY_ONLY: stage_path_relay_only,
        ReasonCode.STAGE_CONTROL_UNREACHABLE: stage_control_unreachable,
        ReasonCode.PACKAGE_MANIFEST_MISMATCH: package_manifest_mismatch,
        ReasonCode.MISSING_MODEL_SOURCE: missing_model_source,
        ReasonCode.STAGE_INVENTORY_EMPTY: stage_inventory_empty,
        ReasonCode.ARTIFACT_TRANSFER_UNAVAILABLE: artifact_transfer_unavailable,
        ReasonCode.RTT_UNMEASURED: rtt_unmeasured,
        ReasonCode.STAGE_PATH_TOO_SLOW: stage_path_too_slow,
    }
)
"""The rules in the table's order."""


def _pending(candidate: Candidate, code: ReasonCode, found: str, required: str) -> Finding:
    return Finding(found, required, pending=code not in candidate.patience_over)


def _needs_path(candidate: Candidate) -> bool:
    """Links are the local node's: they say nothing where another node coordinates, and it needs none to itself."""
    return candidate.judged_by_own_link and not candidate.is_coordinator


def _lacks_bytes(candidate: Candidate) -> bool:
    """Whether its inventory is read and does not hold the complete model."""
    offer, model = candidate.offer, candidate.model
    if offer is None or not offer.inventory_known:
        return False
    return model is None or (not model.complete and model.cached_bytes is not None)


def _cached_bytes(candidate: Candidate) -> int:
    model = candidate.model
    return 0 if model is None else model.cached_bytes or 0


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f}GB"


def _figure(count: int | None) -> str:
    return "an unknown part" if count is None else _gigabytes(count)


def _hash(manifest: str | None) -> str:
    return "unknown" if manifest is None else manifest[:12]


def _some(texts: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return (", ".join(texts[:_SHOWN]) or "nothing") + more
