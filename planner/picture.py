"""A plan as a picture: stages, boundaries, memory bars and hops, as one SVG text.

Lives here: `plan_picture`. Not here: the figures (`planner.plan`), nor writing the file (`meshnode.cli.plan`). All text
from outside is escaped, since node and model names come from peers. Colours are told apart without colour vision
(Okabe and Ito's palette), and every bar has its figures beside it.
"""

from __future__ import annotations

from typing import Final
from xml.sax.saxutils import escape, quoteattr

from planner.links import rtt_text
from planner.plan import HopPlan, SplitPlan, StagePlan
from planner.sizes import format_gb

WIDTH: Final = 960
_MARGIN: Final = 24
_LABEL: Final = 210
_BAR: Final = WIDTH - _LABEL - 2 * _MARGIN
_ROW: Final = 64
_TOP: Final = 112
_PARTS: Final = (
    ("weights", "#0072b2"),
    ("kv", "#e69f00"),
    ("state", "#cc79a7"),
    ("endpoint", "#009e73"),
    ("compute", "#56b4e9"),
)
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#222}.small{font-size:11px;fill:#555}.title{font-size:16px;"
    "font-weight:600}.free{fill:#eee;stroke:#999}.hop{stroke:#555;stroke-dasharray:4 3}.cut{stroke:#fff;stroke-width:2}"
)


def plan_picture(plan: SplitPlan) -> str:
    """The plan as an SVG document of `WIDTH` pixels; one row a stage, in layer order."""
    height = _TOP + _ROW * len(plan.stages) + 48 + 18 * len(plan.warnings)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label={quoteattr(_title(plan))}>',
        f"<style>{_STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        _text(_MARGIN, 30, _title(plan), "title"),
        _text(_MARGIN, 50, _subtitle(plan), "small"),
        *_layer_strip(plan),
    ]
    largest = max((stage.bytes.usable for stage in plan.stages), default=0) or 1
    hops = {hop.target: hop for hop in plan.hops}
    for row, stage in enumerate(plan.stages):
        lines += _stage_row(stage, _TOP + row * _ROW, largest, hops.get(stage.node))
    lines += _legend(_TOP + _ROW * len(plan.stages) + 16)
    for number, warning in enumerate(plan.warnings):
        lines.append(_text(_MARGIN, height - 10 - 18 * (len(plan.warnings) - 1 - number), f"note: {warning}", "small"))
    return "\n".join([*lines, "</svg>", ""])


def _title(plan: SplitPlan) -> str:
    count = len(plan.stages)
    return f"{plan.model}: {count} stage{'' if count == 1 else 's'}, context {plan.context} tokens"


def _subtitle(plan: SplitPlan) -> str:
    parts = [f"coordinator {_short(plan.coordinator.node)}", f"engine {plan.engine}", plan.method]
    if plan.prediction is not None:
        parts.append(f"{plan.prediction.tokens_per_s:.1f} tokens/s predicted")
    if plan.capacity_only:
        parts.append("capacity only: bandwidth or RTT unknown")
    return ", ".join(parts)


def _layer_strip(plan: SplitPlan) -> list[str]:
    """All layers in one strip, cut at the boundaries."""
    total = plan.stages[-1].layer_end if plan.stages else 1
    full = WIDTH - 2 * _MARGIN
    lines = []
    for stage in plan.stages:
        x = _MARGIN + full * stage.layer_start / total
        width = full * stage.layers / total
        shade = "#0072b2" if stage.stage % 2 == 0 else "#4a9bc9"
        tip = f"<title>{escape(_layers(stage))} on {escape(_short(stage.node))}</title>"
        lines.append(
            f'<rect class="cut" x="{x:.1f}" y="64" width="{width:.1f}" height="16" fill="{shade}">{tip}</rect>'
        )
        lines.append(_text(x + 3, 94, str(stage.layer_start), "small"))
    return lines


def _stage_row(stage: StagePlan, y: float, largest_bytes: int, hop: HopPlan | None) -> list[str]:
    left = _MARGIN + _LABEL
    seconds = "" if stage.seconds is None else f", {stage.seconds * 1000:.2f} ms"
    lines = [
        _text(_MARGIN, y + 16, f"{stage.stage}  {_short(stage.node)}"),
        _text(_MARGIN, y + 32, f"{stage.device}, {_layers(stage)}{seconds}", "small"),
    ]
    if hop is not None:
        lines.append(_text(_MARGIN, y + 47, _hop(hop), "small"))
        lines.append(f'<line class="hop" x1="{_MARGIN}" y1="{y - 3}" x2="{left - 8}" y2="{y - 3}"/>')
    scale = _BAR / largest_bytes
    room = stage.bytes.usable * scale
    lines.append(f'<rect class="free" x="{left}" y="{y + 4}" width="{room:.1f}" height="24"/>')
    x = float(left)
    for part, colour in _PARTS:
        count = getattr(stage.bytes, part)
        width = count * scale
        tip = f"<title>{part} {format_gb(count)}</title>"
        lines.append(f'<rect x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="24" fill="{colour}">{tip}</rect>')
        x += width
    free = stage.bytes.usable - stage.bytes.total
    figures = f"{format_gb(stage.bytes.total)} of {format_gb(stage.bytes.usable)}, {format_gb(free)} free"
    lines.append(_text(left, y + 43, figures, "small"))
    return lines


def _legend(y: float) -> list[str]:
    lines = []
    x = _MARGIN
    for label, colour in (*_PARTS, ("free", "#eee")):
        lines.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{colour}" stroke="#999"/>')
        lines.append(_text(x + 17, y, "KV cache" if label == "kv" else label, "small"))
        x += 95
    return lines


def _hop(hop: HopPlan) -> str:
    return f"from {_short(hop.source)}, RTT {rtt_text(hop.rtt_ms, estimated=hop.estimated)}"


def _layers(stage: StagePlan) -> str:
    return f"layers {stage.layer_start} to {stage.layer_end - 1}"


def _short(node: str) -> str:
    """Node ids as people see them: 10 characters; names of a nodes file whole."""
    return node[:10] if len(node) == 52 else node


def _text(x: float, y: float, content: str, kind: str = "") -> str:
    marked = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{marked}>{escape(content)}</text>'
