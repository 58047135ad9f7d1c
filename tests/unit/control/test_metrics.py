"""The figures of /metrics: read by Prometheus' own parser, complete, documented, and used rightly by the dashboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from large_views import HOSTILE, an_uneven_mesh
from making_views import node_id
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from meshnode.config import NodeConfig
from meshnode.control.metrics import METRICS, STATES, EventCounts, Figures, metrics_text
from meshnode.events import CATALOGUE
from meshnode.split.phase import Phase
from meshnode.transport.counters import Counters
from meshnode.verdicts import general_verdicts

DASHBOARD = Path(__file__).parents[3] / "configs" / "grafana-dashboard.json"


def full_figures() -> Figures:
    """Figures of a node on which everything has happened."""
    events = EventCounts()
    for name in ("peer.suspect", "peer.suspect", "peer.refuted", "peer.dead", "link.up"):
        events.add({"event": name})
    traffic = Counters(udp_bytes_sent=123_456_789_012, datagram_bytes_sent=77)
    for kind, count_bytes in (("delta", 1000), ("digest", 200), ("prepare", 31)):
        traffic.frame_sent(kind, count_bytes)
    view = an_uneven_mesh(16)
    short = {
        "result": "shortfall",
        "required_bytes": 302_136_317_812,
        "short_by_bytes": 147_536_317_812,
        "short_layers": 31,
    }
    plan = {"result": "plan", "stages": [{}, {}, {}], "prediction": {"tokens_per_s": 11.5}}
    tokens = {"prompt": 100, "completion": 40, "per_second": 9.25}
    return Figures(
        view=view,
        version="0.1.0",
        uptime_s=12.5,
        is_ready=True,
        is_draining=False,
        events=events,
        traffic=traffic,
        splits=[
            {"model": 'a "large" one\\\n', "phase": "short", "result": short, "run": None},
            {"model": "b", "phase": "running", "result": plan, "run": {"tokens": tokens}},
            {"model": "c", "phase": "planned", "result": plan | {"prediction": None}},
            {"model": "d", "phase": "stage"},
        ],
        verdicts=general_verdicts(view, NodeConfig()),
        tunnels={
            "carriers": {"tcp": {"opened": 3, "sent_bytes": 10**12, "received_bytes": 5}},
            "open": [{"purpose": "engine"}, {"purpose": "engine"}],
        },
        process=(1.25, 60_000_000),
    )


def samples_of(figures: Figures) -> dict[str, list[Sample]]:
    """Samples by name, as Prometheus' own parser reads them."""
    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(metrics_text(figures)):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def value(name: str, **labels: str) -> float:
    """The one sample with these labels."""
    found = [sample for sample in samples_of(full_figures())[name] if sample.labels == labels]
    assert len(found) == 1, found
    return found[0].value


def test_every_metric_of_the_table_has_samples_and_no_other_is_there() -> None:
    assert list(samples_of(full_figures())) == [metric.name for metric in METRICS]


@pytest.mark.parametrize("metric", METRICS, ids=[metric.name for metric in METRICS])
def test_metric_keeps_prometheus_rules_and_its_own_labels(metric: Any) -> None:
    assert re.fullmatch(r"meshnode_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.meaning.endswith(".")
    for sample in samples_of(full_figures())[metric.name]:
        assert set(sample.labels) == set(metric.labels)


def test_figures_are_the_ones_that_were_given_to_the_last_digit() -> None:
    assert value("meshnode_suspicions_total") == 2
    assert value("meshnode_false_suspicions_total") == 1
    assert value("meshnode_gossip_sent_bytes_total") == 1200
    assert value("meshnode_message_sent_bytes_total", type="prepare") == 31
    assert value("meshnode_udp_bytes_total", way="sent") == 123_456_789_012
    assert value("meshnode_tunnel_bytes_total", carrier="tcp", way="sent") == 10**12
    assert value("meshnode_tunnels", purpose="engine") == 2
    assert value("meshnode_splits", state="running") == 1
    assert value("meshnode_splits", state="waiting") == 0
    assert value("meshnode_split_stages", model="b") == 3
    assert value("meshnode_tokens_total", model="b", kind="completion") == 40
    assert value("meshnode_tokens_per_second", model="b") == 9.25
    assert value("meshnode_not_used_nodes", reason="client") == 1


def test_shortfall_is_exact_and_a_models_odd_name_survives() -> None:
    (sample,) = samples_of(full_figures())["meshnode_split_shortfall_bytes"]
    assert sample.value == 147_536_317_812
    assert sample.labels == {"model": 'a "large" one\\?'}


def test_peers_name_can_break_no_line() -> None:
    names = {sample.labels["name"] for sample in samples_of(full_figures())["meshnode_node_info"]}
    assert HOSTILE.replace("\u202e", "?").replace("\0", "?") in names


def test_unknown_figure_has_no_sample() -> None:
    found = samples_of(full_figures())
    assert [sample.labels["model"] for sample in found["meshnode_split_predicted_tokens_per_second"]] == ["b"]
    assert node_id("a0")[:10] not in {sample.labels["peer"] for sample in found["meshnode_link_rtt_seconds"]}


def test_states_shown_from_the_start_are_phases_of_a_split() -> None:
    assert set(STATES) <= {phase.value for phase in Phase} | {"stage"}


def test_events_that_figures_count_are_in_the_catalogue() -> None:
    assert {"peer.suspect", "peer.refuted", "self.refuted", "peer.dead"} <= set(CATALOGUE)


# --- the dashboard ---------------------------------------------------------------------------------

CALLS = {"rate", "increase", "sum", "by", "on", "group_left", "label_values"}


def queries() -> Iterator[str]:
    """Every query of the dashboard, its variables included."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


@pytest.mark.parametrize("query", list(queries()))
def test_dashboards_query_names_metrics_and_labels_that_exist(query: str) -> None:
    known = {metric.name: metric for metric in METRICS}
    named = set(re.findall(r"meshnode_\w+", query))
    assert named
    assert named <= set(known)
    labels = {"instance"}.union(*(known[name].labels for name in named))
    bare = re.sub(r'"[^"]*"|\[\w+\]', "", query)
    words = set(re.findall(r"[a-z_]+", bare)) - named - CALLS
    assert words <= labels
    for name in named:
        if known[name].kind == "counter":
            assert re.search(rf"(rate|increase)\({name}", query), "a counter is shown as a rate"


def test_dashboard_shows_what_the_mesh_is_asked_for_most() -> None:
    text = " ".join(queries())
    for name in (
        "links", "link_rtt_seconds", "gossip_sent_bytes_total", "suspicions_total", "false_suspicions_total",
        "usable_bytes", "splits", "split_shortfall_bytes", "tunnel_bytes_total", "tokens_per_second",
    ):  # fmt: skip
        assert f"meshnode_{name}" in text


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
