"""The words of a shortfall; its first parts have the very shape of design section 7.

Lives here: `headline` and `message`. Every number comes from the report; none is computed here.
"""

from __future__ import annotations

from planner.shortfall import ParticipantReport, ShortfallKind, ShortfallReport
from planner.sizes import format_gb
from planner.words import short_id


def headline(report: ShortfallReport) -> str:
    """What is short, then who was counted and who was left out."""
    participants = ", ".join(_participant(each) for each in report.participants)
    excluded = ", ".join(f"{short_id(each.node_id)}:{each.reason}" for each in report.excluded)
    return f"{_what_is_short(report)}; participants [{participants}]; excluded [{excluded}]"


def message(report: ShortfallReport) -> str:
    """The headline, what the requirement is made of, and the remedies."""
    parts = ", ".join(f"{name} {format_gb(count)}" for name, count in report.requirement.items() if count)
    lines = [report.headline or headline(report), f"made of {parts}"]
    if report.remedies:
        lines.append("would help: " + "; ".join(remedy.asks for remedy in report.remedies))
    return "; ".join(lines)


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
    rtt = "unknown" if each.rtt_ms is None else f"{each.rtt_ms:.1f}ms"
    transfer = str(each.transfer).lower()
    shown = f"{short_id(each.node)}:{format_gb(each.usable_bytes)}"
    return f"{shown} cached={cached} missing={missing} rtt={rtt} transfer={transfer}"
