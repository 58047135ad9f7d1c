"""Every figure of `/metrics`, in one table: name, kind, labels, meaning, and where it comes from.

What lives here: `METRICS`, `Figures` and `metrics_text`. What does not: the text format (`meshnode.control.exposition`)
and the figures' origins, which the daemon hands over. `docs/metrics.md` is made from the table, and a test holds the
Grafana dashboard in `configs/` to it.

Names follow Prometheus' rules: base units (seconds, bytes), `_total` for counters. A figure that is unknown has no
sample; it is never 0. Series that can only come (a carrier, a state) are there from the start, so that a rate over
them is right. A node is labelled by its short id; `meshnode_node_info` gives its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from meshnode.control.exposition import Kind, Sample, exposition
from meshnode.control.shapes import Json
from meshnode.logs import Record
from meshnode.membership.view import MeshView, NodeView, PathKind, RttSource, Status
from meshnode.transport.counters import Counters
from proto.ids import short
from proto.messages import Delta, Digest, Row, RowRequest, ViewHash

GOSSIP: Final = frozenset(str(kind.__struct_config__.tag) for kind in (ViewHash, Digest, Delta, RowRequest, Row))
"""Message types by which records spread."""
STATES: Final = (
    "running", "stage", "waiting", "planning", "planned", "short", "below_quorum", "reserving", "replanning",
)  # fmt: skip
"""Shown also while no split is in them."""


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

    def of(self, name: str) -> int:
        """How often event `name` happened."""
        return self._counts[name]


@dataclass(frozen=True)
class Figures:
    """What the page is made from. `splits`, `verdicts` and `tunnels` are the control interface's own JSON; a split that
    runs here may say `run.tokens`: `{"prompt", "completion", "per_second"}`, counts since the start and the newest
    rate. `process` is CPU seconds and resident bytes of this process."""

    view: MeshView
    version: str
    uptime_s: float
    is_ready: bool
    is_draining: bool
    events: EventCounts
    traffic: Counters = field(default_factory=Counters)
    splits: Sequence[Json] = ()
    verdicts: Sequence[Json] = ()
    tunnels: Json = field(default_factory=dict)
    process: tuple[float, int] | None = None


@dataclass(frozen=True)
class Metric:
    """One row of the table. `labels` gives each label's meaning, `unit` is for the documentation."""

    name: str
    kind: Kind
    meaning: str
    samples: Callable[[Figures], Iterable[Sample]]
    labels: Mapping[str, str] = field(default_factory=dict)


def metrics_text(figures: Figures) -> str:
    """Everything about this node and its view of the mesh, in Prometheus' text format."""
    return exposition((metric.name, metric.kind, metric.meaning, metric.samples(figures)) for metric in METRICS)


# --- this node -------------------------------------------------------------------------------------


def _one(value: Callable[[Figures], float]) -> Callable[[Figures], list[Sample]]:
    return lambda figures: [({}, value(figures))]


def _event(name: str) -> Callable[[Figures], list[Sample]]:
    return _one(lambda figures: figures.events.of(name))


def _info(figures: Figures) -> list[Sample]:
    return [({"node": short(figures.view.local), "version": figures.version}, 1)]


def _events(figures: Figures) -> list[Sample]:
    return [({"event": name}, count) for name, count in figures.events.items()]


def _process(index: int) -> Callable[[Figures], list[Sample]]:
    return lambda figures: [] if figures.process is None else [({}, figures.process[index])]


# --- the mesh --------------------------------------------------------------------------------------


def _nodes(figures: Figures) -> list[Sample]:
    counts = Counter(node.status for node in figures.view.nodes.values())
    return [({"status": status.value}, counts[status]) for status in Status]


def _node_info(figures: Figures) -> list[Sample]:
    return [
        ({"node": short(node.node), "name": node.identity.name if node.identity else "", "role": node.role.value}, 1)
        for node in figures.view.alive()
    ]


def _links(figures: Figures) -> list[Sample]:
    counts = Counter(node.link.path for node in figures.view.nodes.values() if node.link is not None)
    return [({"path": path.value}, counts[path]) for path in PathKind]


def _rtts(figures: Figures) -> list[Sample]:
    return [
        ({"peer": short(node.node), "path": node.link.path.value}, node.rtt.min_ms / 1000)
        for node in figures.view.alive()
        if node.rtt is not None and node.link is not None and node.rtt.source is not RttSource.ESTIMATED
    ]


def _capacity(pick: str) -> Callable[[Figures], list[Sample]]:
    def samples(figures: Figures) -> list[Sample]:
        return [({"node": short(node.node)}, _sum(node, pick)) for node in figures.view.alive() if node.offer]

    return samples


def _sum(node: NodeView, pick: str) -> int:
    return sum(getattr(device, pick) for device in node.offer.devices) if node.offer is not None else 0


def _declared(figures: Figures) -> list[Sample]:
    return [
        ({"node": short(node.node)}, int(any(device.declared for device in node.offer.devices)))
        for node in figures.view.alive()
        if node.offer is not None
    ]


def _not_used(figures: Figures) -> list[Sample]:
    reasons = Counter(str(each["reason"]) for each in figures.verdicts if each["verdict"] == "excluded")
    return [({"reason": reason}, count) for reason, count in sorted(reasons.items())]


# --- traffic ---------------------------------------------------------------------------------------


def _ways(sent: str, received: str) -> Callable[[Figures], list[Sample]]:
    return lambda figures: [
        ({"way": way}, getattr(figures.traffic, name)) for way, name in (("sent", sent), ("received", received))
    ]


def _gossip(figures: Figures) -> list[Sample]:
    return [({}, sum(count for kind, count in figures.traffic.frame_bytes_sent.items() if kind in GOSSIP))]


def _messages(figures: Figures) -> list[Sample]:
    return [({"type": kind}, count) for kind, count in sorted(figures.traffic.frame_bytes_sent.items())]


def _tunnel_bytes(figures: Figures) -> list[Sample]:
    return [
        ({"carrier": carrier, "way": way}, totals[f"{way}_bytes"])
        for carrier, totals in sorted(figures.tunnels.get("carriers", {}).items())
        for way in ("sent", "received")
    ]


def _tunnels_opened(figures: Figures) -> list[Sample]:
    return [
        ({"carrier": carrier}, totals["opened"])
        for carrier, totals in sorted(figures.tunnels.get("carriers", {}).items())
    ]


def _tunnels_open(figures: Figures) -> list[Sample]:
    counts = Counter(str(tunnel["purpose"]) for tunnel in figures.tunnels.get("open", ()))
    return [({"purpose": purpose}, count) for purpose, count in sorted(counts.items())]


# --- splits ----------------------------------------------------------------------------------------


def _splits(figures: Figures) -> list[Sample]:
    counts = Counter(str(split["phase"]) for split in figures.splits)
    return [({"state": state}, counts[state]) for state in dict.fromkeys((*STATES, *sorted(counts)))]


def _of_result(kind: str, value: Callable[[Json], float | None]) -> Callable[[Figures], list[Sample]]:
    """A figure of each split whose newest outcome is of `kind`."""

    def samples(figures: Figures) -> list[Sample]:
        found: list[Sample] = []
        for split in figures.splits:
            result = split.get("result") or {}
            if result.get("result") == kind and (figure := value(result)) is not None:
                found.append(({"model": str(split["model"])}, figure))
        return found

    return samples


def _predicted(plan: Json) -> float | None:
    prediction = plan.get("prediction")
    return None if prediction is None else float(prediction["tokens_per_s"])


def _tokens(figures: Figures) -> list[Sample]:
    return [
        ({"model": model, "kind": kind}, tokens[kind])
        for model, tokens in _counted(figures).items()
        for kind in ("prompt", "completion")
    ]


def _token_rate(figures: Figures) -> list[Sample]:
    return [({"model": model}, tokens["per_second"]) for model, tokens in _counted(figures).items()]


def _counted(figures: Figures) -> dict[str, Json]:
    """By model: a coordinator that has a stage of it too lists the same run twice."""
    found = ((str(split["model"]), split.get("run")) for split in figures.splits)
    return {model: run["tokens"] for model, run in found if run and run.get("tokens")}


_NODE: Final = {"node": "the node's short id"}
_MODEL: Final = {"model": "the model's name"}

METRICS: Final[tuple[Metric, ...]] = (
    Metric("meshnode_info", "gauge", "Always 1: this node and its version.", _info,
           {**_NODE, "version": "of the program"}),
    Metric("meshnode_uptime_seconds", "gauge", "Seconds since this node started.", _one(lambda f: f.uptime_s)),
    Metric("meshnode_ready", "gauge", "1 once this node does its work (as /readyz says).",
           _one(lambda f: int(f.is_ready))),
    Metric("meshnode_draining", "gauge", "1 while this node takes no new stages.", _one(lambda f: int(f.is_draining))),
    Metric("meshnode_process_cpu_seconds_total", "counter", "CPU time of the daemon, user and system.", _process(0)),
    Metric("meshnode_process_resident_bytes", "gauge", "Memory of the daemon itself.", _process(1)),
    Metric("meshnode_events_total", "counter", "Events since the start.", _events,
           {"event": "the event's name (docs/events.md)"}),
    Metric("meshnode_nodes", "gauge", "Nodes known.", _nodes, {"status": "alive, suspect, dead or left"}),
    Metric("meshnode_node_info", "gauge", "Always 1: what a node is called.", _node_info,
           {**_NODE, "name": "its name", "role": "worker or client"}),
    Metric("meshnode_links", "gauge", "Paths from this node to others.", _links, {"path": "direct or relayed"}),
    Metric("meshnode_link_rtt_seconds", "gauge", "Least RTT measured in the window, to each linked node.", _rtts,
           {"peer": "the other node's short id", "path": "direct or relayed"}),
    Metric("meshnode_suspicions_total", "counter", "Times a node was suspected here.", _event("peer.suspect")),
    Metric("meshnode_false_suspicions_total", "counter", "Suspicions that proved wrong.", _event("peer.refuted")),
    Metric("meshnode_self_suspected_total", "counter", "Times this node was suspected and answered for itself.",
           _event("self.refuted")),
    Metric("meshnode_deaths_total", "counter", "Times a node was declared dead here.", _event("peer.dead")),
    Metric("meshnode_capacity_bytes", "gauge", "Memory of a node's devices before headroom.",
           _capacity("capacity_bytes"), _NODE),
    Metric("meshnode_usable_bytes", "gauge", "Memory that plans may fill.", _capacity("usable_bytes"), _NODE),
    Metric("meshnode_reserved_bytes", "gauge", "Memory held by running splits.", _capacity("reserved_bytes"), _NODE),
    Metric("meshnode_declared", "gauge", "1 where a node's figures are declared and not measured.", _declared, _NODE),
    Metric("meshnode_not_used_nodes", "gauge", "Nodes that no split could use now, by reason.", _not_used,
           {"reason": "the reason code (docs/reasons.md)"}),
    Metric("meshnode_gossip_sent_bytes_total", "counter", "Payload of the messages by which records spread.", _gossip),
    Metric("meshnode_message_sent_bytes_total", "counter", "Payload sent over links.", _messages,
           {"type": "the message's type"}),
    Metric("meshnode_probe_sent_bytes_total", "counter", "Payload of the failure detector's datagrams.",
           _one(lambda f: f.traffic.datagram_bytes_sent)),
    Metric("meshnode_udp_bytes_total", "counter", "UDP payload: all that links cost, tunnels over TCP apart.",
           _ways("udp_bytes_sent", "udp_bytes_received"), {"way": "sent or received"}),
    Metric("meshnode_udp_packets_total", "counter", "UDP packets.",
           _ways("udp_packets_sent", "udp_packets_received"), {"way": "sent or received"}),
    Metric("meshnode_datagrams_dropped_total", "counter", "Probe datagrams that were not sent or not taken.",
           _one(lambda f: f.traffic.datagrams_dropped)),
    Metric("meshnode_tunnel_bytes_total", "counter", "What tunnels carried: activations, weights, requests.",
           _tunnel_bytes, {"carrier": "tcp, stream or relayed", "way": "sent or received"}),
    Metric("meshnode_tunnels_opened_total", "counter", "Tunnels opened.", _tunnels_opened,
           {"carrier": "tcp, stream or relayed"}),
    Metric("meshnode_tunnels", "gauge", "Tunnels open now.", _tunnels_open, {"purpose": "what it is for"}),
    Metric("meshnode_splits", "gauge", "Splits of this node.", _splits, {"state": "as `meshnode status` shows it"}),
    Metric("meshnode_split_required_bytes", "gauge", "What a model that is short needs on devices.",
           _of_result("shortfall", lambda r: r["required_bytes"]), _MODEL),
    Metric("meshnode_split_shortfall_bytes", "gauge", "How much is missing; 0 where only whole layers don't fit.",
           _of_result("shortfall", lambda r: r["short_by_bytes"]), _MODEL),
    Metric("meshnode_split_shortfall_layers", "gauge", "How many layers find no place.",
           _of_result("shortfall", lambda r: r["short_layers"]), _MODEL),
    Metric("meshnode_split_stages", "gauge", "Stages of the newest plan.",
           _of_result("plan", lambda r: len(r["stages"])), _MODEL),
    Metric("meshnode_split_predicted_tokens_per_second", "gauge", "Speed that the newest plan predicts.",
           _of_result("plan", _predicted), _MODEL),
    Metric("meshnode_tokens_total", "counter", "Tokens of the models that this node coordinates.", _tokens,
           {**_MODEL, "kind": "prompt or completion"}),
    Metric("meshnode_tokens_per_second", "gauge", "Speed of the newest request.", _token_rate, _MODEL),
)  # fmt: skip
"""Every metric, in the order of the page."""


def metrics_page() -> str:
    """The reference page `docs/metrics.md`, as Markdown."""
    lines = [
        "# Metrics",
        "",
        "Made from the code (`meshnode/control/metrics.py`); `make docs` makes it anew.",
        "",
        "`/metrics` answers in Prometheus' text format (version 0.0.4), on the control socket and, where `control_tcp`",
        "is set, on that address with the token of the state directory's file `control-token`. An unknown figure has",
        "no sample; it is never 0. Figures of other nodes are what this node knows of them: scrape one node for the",
        "mesh, each node for its own traffic, suspicions and splits.",
        "",
        "```yaml",
        "scrape_configs:",
        "  - job_name: meshnode",
        "    authorization: {credentials_file: /home/me/.local/state/meshnode/control-token}",
        "    static_configs: [{targets: ['127.0.0.1:9338']}]",
        "```",
        "",
        "`configs/grafana-dashboard.json` is a dashboard over these (Grafana: Dashboards, New, Import).",
        "",
        "| metric | kind | meaning | labels |",
        "|---|---|---|---|",
    ]
    for metric in METRICS:
        labels = ", ".join(f"`{label}` ({meaning})" for label, meaning in metric.labels.items())
        lines.append(f"| `{metric.name}` | {metric.kind} | {metric.meaning} | {labels} |")
    return "\n".join(lines) + "\n"
