"""Figures in Prometheus' text format (version 0.0.4).

What lives here: `metrics_text` and `EventCounts`. What does not: the figures' origins. Called by the daemon for
`/metrics`. Names follow Prometheus' naming rules: base units (seconds, bytes), `_total` for counters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from meshnode.logs import Record
from meshnode.membership.view import MeshView, PathKind, Status
from proto.ids import short


class EventCounts:
    """How often each event happened since the start; fed by the log."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Count one record."""
        self._counts[str(record["event"])] += 1

    def items(self) -> Iterable[tuple[str, int]]:
        """Event names and counts, by name."""
        return sorted(self._counts.items())


def metrics_text(
    view: MeshView, *, uptime_s: float, events: EventCounts, traffic: Mapping[str, int], splits: Mapping[str, int]
) -> str:
    """Everything about this node and its view of the mesh. `traffic` is bytes and packets by counter name, `splits`
    the number of splits by state."""
    page = _Page()
    page.figure("meshnode_uptime_seconds", "gauge", "Seconds since this node started.", [({}, uptime_s)])
    page.figure("meshnode_nodes", "gauge", "Nodes known, by liveness.", _by_status(view))
    page.figure("meshnode_links", "gauge", "Links of this node, by path.", _by_path(view))
    page.figure("meshnode_link_rtt_seconds", "gauge", "Least RTT of the window, by peer.", _rtts(view))
    for name, meaning, pick in _CAPACITY:
        page.figure(f"meshnode_{name}_bytes", "gauge", meaning, _capacities(view, pick))
    page.figure("meshnode_traffic_total", "counter", "What the endpoint sent and received.", _labelled("kind", traffic))
    counted = _labelled("event", dict(events.items()))
    page.figure("meshnode_events_total", "counter", "Events since the start, by name.", counted)
    page.figure("meshnode_splits", "gauge", "Splits of this node, by state.", _labelled("state", splits))
    return page.text()


_CAPACITY = (
    ("capacity", "Memory offered before headroom, by node.", "capacity_bytes"),
    ("usable", "Memory that plans may fill, by node.", "usable_bytes"),
    ("reserved", "Memory held by running splits, by node.", "reserved_bytes"),
)

Sample = tuple[Mapping[str, str], float]


def _by_status(view: MeshView) -> list[Sample]:
    counts = Counter(node.status for node in view.nodes.values())
    return [({"status": status.value}, counts[status]) for status in Status]


def _by_path(view: MeshView) -> list[Sample]:
    counts = Counter(node.link.path for node in view.nodes.values() if node.link is not None)
    return [({"path": path.value}, counts[path]) for path in PathKind]


def _rtts(view: MeshView) -> list[Sample]:
    return [
        ({"peer": short(node.node)}, node.rtt.min_ms / 1000)
        for node in view.alive()
        if node.rtt is not None and node.link is not None
    ]


def _capacities(view: MeshView, pick: str) -> list[Sample]:
    return [
        ({"node": short(node.node)}, sum(getattr(device, pick) for device in node.offer.devices))
        for node in view.alive()
        if node.offer is not None
    ]


def _labelled(label: str, figures: Mapping[str, int]) -> list[Sample]:
    return [({label: name}, value) for name, value in sorted(figures.items())]


class _Page:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def figure(self, name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> None:
        self._lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
        self._lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _number(value: float) -> str:
    """Whole numbers to the last digit: a capacity in bytes has twelve."""
    return str(value) if isinstance(value, int) else f"{value:.9g}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
