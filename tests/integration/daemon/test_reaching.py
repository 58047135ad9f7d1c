"""Ways to reach a node: static peers, IPv6, the control interface over TCP, the event stream."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from making_nodes import DEADLINE_S, Nodes, a_free_port
from prometheus_client.parser import text_string_to_metric_families

from meshnode.control.metrics import METRICS

STATUS = "/v1/status"


def test_member_without_memory_of_others_finds_them_by_its_static_peers(nodes: Nodes) -> None:
    attic = nodes.start("attic")
    study = nodes.start("study", token=attic.invite())
    study.stop()
    (study.state / "peers.json").unlink()
    address = attic.json("status")["listen"][0]
    again = nodes.start("study", "--peer", f"{attic.node}@{address}")
    again.wait_event("link.up", lambda event: event["peer"] == attic.node)


def test_mesh_over_ipv6(nodes: Nodes) -> None:
    attic = nodes.start("attic", "--listen", "[::1]:0")
    study = nodes.start("study", "--listen", "[::1]:0", token=attic.invite())
    up = study.wait_event("link.up", lambda event: event["peer"] == attic.node)
    assert up["address"].startswith("[::1]:")


def test_socket_of_both_families_serves_ipv4_too(nodes: Nodes) -> None:
    attic = nodes.start("attic", "--listen", "*:0", "--advertise", "127.0.0.1:1")
    port = attic.json("status")["listen"][0].rpartition(":")[2]
    study = nodes.start("study", token=attic.invite())
    study.stop()
    (study.state / "peers.json").unlink()
    again = nodes.start("study", "--peer", f"{attic.node}@127.0.0.1:{port}")
    assert again.wait_event("link.up")["address"] == f"127.0.0.1:{port}"


def asked_over_tcp(port: int, **headers: str) -> int:
    """The status code of a request to the control interface."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{STATUS}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_control_over_tcp_asks_for_the_token_and_reports_refusals(nodes: Nodes) -> None:
    port = a_free_port()
    attic = nodes.start("attic", "--control-tcp", f"127.0.0.1:{port}")
    token = (attic.state / "control-token").read_text(encoding="utf-8").strip()
    assert asked_over_tcp(port) == 401
    assert asked_over_tcp(port, Authorization=f"Bearer {token}") == 200
    assert asked_over_tcp(port, Authorization=f"Bearer {token}", Origin="https://evil.example") == 403
    assert [event["reason"] for event in attic.events("control.refused")] == ["wrong_token", "wrong_origin"]
    assert token not in attic.log.read_text(encoding="utf-8")


def test_without_asking_nothing_listens_on_tcp(nodes: Nodes) -> None:
    attic = nodes.start("attic")
    assert not (attic.state / "control-token").exists()
    assert [event["address"].endswith("attic") for event in attic.events("control.listening")] == [True]


def test_events_show_what_happened_by_name_and_level(nodes: Nodes) -> None:
    attic, study = nodes.mesh("attic", "study")
    shown = [json.loads(line) for line in attic.verb("events", "--name", "peer.", "--json").splitlines()]
    assert any(event["event"] == "peer.joined" and event["peer"] == study.node for event in shown)
    assert {event["event"].partition(".")[0] for event in shown} == {"peer"}
    assert f"peer={study.node[:10]}" in attic.verb("events", "--name", "peer.joined")


def test_metrics_count_links_nodes_and_memory(nodes: Nodes) -> None:
    port = a_free_port()
    attic = nodes.start("attic", "--declare-usable", "154.6GB", "--control-tcp", f"127.0.0.1:{port}")
    study = nodes.start("study", token=attic.invite())
    attic.wait_event("peer.joined", lambda event: event["peer"] == study.node)
    token = (attic.state / "control-token").read_text(encoding="utf-8").strip()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        text = answer.read().decode()
    named = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    assert named <= {metric.name for metric in METRICS}
    assert 'meshnode_nodes{status="alive"} 2\n' in text
    assert 'meshnode_links{path="direct"} 1\n' in text
    assert f'meshnode_usable_bytes{{node="{attic.node[:10]}"}} 154600000000\n' in text
    assert 'meshnode_events_total{event="peer.joined"} 1\n' in text


@pytest.mark.parametrize("name", ["control-socket", "lock", "node.key", "credential.json"])
def test_nothing_in_the_state_directory_is_open_to_others(nodes: Nodes, name: str) -> None:
    attic = nodes.start("attic")
    assert Path(attic.state / name).exists()
    assert attic.state.stat().st_mode & 0o077 == 0
