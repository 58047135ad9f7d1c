"""The words of a shortfall; its first parts have a fixed shape, which scripts and people may rely on.

Lives here: `headline` and `message`. Every number comes from the report; none is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from planner.links import rtt_text
from planner.shortfall import ParticipantReport, ShortfallKind, ShortfallReport
from planner.sizes import format_gb
from planner.words import short_id

_REQUIRED: Final = ("weights", "kv", "state", "endpoints")
_BESIDE: Final = {
    "compute_per_stage": "compute buffers per stage",
    "compute_last_stage": "on the last stage",
    "host": "host memory of the coordinator",
}


def headline(report: ShortfallReport) -> str:
    """What is short, then who was counted and who was left out."""
    participants = ", ".join(_participant(each) for each in report.participants)
    excluded = ", ".join(f"{short_id(each.node_id)}:{each.reason}" for each in report.excluded)
    return f"{_what_is_short(report)}; participants [{participants}]; excluded [{excluded}]"


def message(report: ShortfallReport) -> str:
    """The headline, what the requirement is made of and for which cache types that is, and the remedies."""
    parts = [report.headline or headline(report), _made_of(report.requirement)]
    if report.cache is not None:
        parts.append(f"KV type auto: {report.cache.why}")
    enough = [remedy.asks for remedy in report.remedies if remedy.sufficient]
    partly = [remedy for remedy in report.remedies if not remedy.sufficient]
    if enough:
        parts.append("would help: " + "; or ".join(enough))
    if partly:
        told = (f"{remedy.asks} (closes {format_gb(remedy.closes_bytes)})" for remedy in partly)
        parts.append("not enough alone: " + "; ".join(told))
    return "; ".join(parts)


def _made_of(requirement: Mapping[str, int]) -> str:
    counted = {name: count for name, count in requirement.items() if count}
    needed = [f"{name} {format_gb(counted[name])}" for name in _REQUIRED if name in counted]
    beside = [f"{words} {format_gb(counted[name])}" for name, words in _BESIDE.items() if name in counted]
    return f"made of {', '.join(needed)}" + (f", and beside that {', '.join(beside)}" if beside else "")


def _what_is_short(report: ShortfallReport) -> str:
    required, available = format_gb(report.required_bytes), format_gb(report.available_bytes)
    start = f"{report.kind.value} split capacity for {report.model}"
    if report.kind is ShortfallKind.AGGREGATE:
        short = format_gb(report.short_by_bytes)
        count = len(report.participants)
        return f"{start} requires {required}, mesh has {available} across {count} participant(s), short by {short}"
    layers = f"places {report.placeable_layers} of {report.layers} layers, short by {report.short_layers} layer(s)"
    although = f"({format_gb(report.short_layers_bytes)}) although {available} >= {required}"
    because = f" ({report.binds_because})" if report.binds_because else ""
    bound = f", bound by {report.binds}{because}" if report.binds else ""
    return f"{start} {layers} {although}{bound}"


def _participant(each: ParticipantReport) -> str:
    cached = "unknown" if each.cached_bytes is None else format_gb(each.cached_bytes)
    missing = "unknown" if each.missing_bytes is None else format_gb(each.missing_bytes)
    rtt = rtt_text(each.rtt_ms, estimated=each.rtt_estimated)
    transfer = str(each.transfer).lower()
    shown = f"{short_id(each.node)}:{format_gb(each.usable_bytes)}"
    return f"{shown} cached={cached} missing={missing} rtt={rtt} transfer={transfer}"
