"""A node's life as a process: starting, joining, leaving, coming back, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest
from making_nodes import DEADLINE_S, PATIENT, Nodes, a_free_port

from meshnode.control.place import socket_path


def test_two_nodes_joined_by_a_token_show_each_other(nodes: Nodes) -> None:
    attic, study = nodes.mesh("attic", "study", options=("--declare-usable", "80GB"))
    for node, other in ((attic, study), (study, attic)):
        node.wait_event("peer.updated", lambda event: event["part"] == "offer")
        shown = node.peer(other.node)
        assert shown is not None
        assert (shown["name"], shown["status"], shown["role"]) == (other.name, "alive", "worker")
        assert shown["offer"]["usable_bytes"] == 80_000_000_000
        assert shown["offer"]["declared"] is True
        assert shown["link"]["path"] == "direct"
        table = node.verb("peers")
        assert f"{other.node[:10]}  {other.name}" in table
        assert "80.0GB declared" in table


def test_sigterm_leaves_the_mesh_cleanly(nodes: Nodes) -> None:
    attic, study = nodes.mesh("attic", "study", options=PATIENT)
    gone = study.node
    socket_made = Path((study.state / "control-socket").read_text(encoding="utf-8").strip())
    assert socket_made.is_socket()
    assert study.stop(signal.SIGTERM) == 0
    assert not socket_made.exists()
    assert not socket_path(study.state, None).parent.exists(), "where the engine's own sockets were"
    attic.wait_event("peer.left", lambda event: event["peer"] == gone)
    assert attic.events("peer.dead") == []
    assert [event["cause"] for event in study.events("node.stopping")] == ["SIGTERM"]
    assert study.events("node.stopped")


def test_sigint_is_as_clean_as_sigterm(nodes: Nodes) -> None:
    assert nodes.start("attic").stop(signal.SIGINT) == 0


def test_second_signal_ends_the_process_at_once(nodes: Nodes) -> None:
    attic = nodes.start("attic")
    os.kill(attic.pid, signal.SIGTERM)
    os.kill(attic.pid, signal.SIGINT)
    assert attic.process.wait(60) in {0, 130}


def test_node_ends_when_whoever_started_it_is_gone(nodes: Nodes) -> None:
    attic = nodes.start("attic")
    assert attic.process.stdin is not None
    attic.process.stdin.close()
    assert attic.process.wait(60) == 0
    assert attic.events("node.stopping")[0]["cause"] == "stdin closed"


def test_member_returns_without_its_token_and_with_a_higher_incarnation(nodes: Nodes) -> None:
    attic, study = nodes.mesh("attic", "study")
    before = study.node
    study.stop()
    again = nodes.start("study")
    assert again.node == before
    attic.wait_event("peer.returned", lambda event: event["peer"] == before)
    assert again.events("node.started")[0]["incarnation"] > study.events("node.started")[0]["incarnation"]


def test_members_find_each_other_with_no_inviter_online(nodes: Nodes) -> None:
    attic = nodes.start("attic")
    token = attic.invite("--uses", "2")
    places = {name: f"127.0.0.1:{a_free_port()}" for name in ("study", "loft")}
    members = [nodes.start(name, "--listen", place, token=token) for name, place in places.items()]
    nodes.all_know_all([attic, *members])
    for node in (attic, *members):
        assert node.stop() == 0
    study, loft = (nodes.start(name, "--listen", place) for name, place in places.items())
    study.wait_event("link.up", lambda event: event["peer"] == loft.node)
    assert study.peer(attic.node) is None


def test_killed_node_is_dead_to_the_others_and_comes_back(nodes: Nodes) -> None:
    attic, study, loft = nodes.mesh("attic", "study", "loft")
    victim = loft.node
    loft.stop(signal.SIGKILL)
    for node in (attic, study):
        node.wait_event("peer.dead", lambda event: event["peer"] == victim)
    nodes.start("loft")
    for node in (attic, study):
        node.wait_event("peer.returned", lambda event: event["peer"] == victim)


def test_client_takes_part_and_offers_nothing(nodes: Nodes) -> None:
    attic = nodes.start("attic")
    sofa = nodes.start("sofa", "--client", token=attic.invite())
    attic.wait_event("peer.updated", lambda event: event["part"] == "offer")
    shown = attic.peer(sofa.node)
    assert shown is not None
    assert shown["role"] == "client"
    assert shown["offer"]["devices"] == []


def test_state_directory_serves_one_process_and_names_its_holder(nodes: Nodes) -> None:
    attic = nodes.start("attic")
    assert "nobody else is in this mesh: `meshnode invite`" in attic.verb("peers")
    second = nodes.start("attic", wait=False)
    assert second.process.wait(60) == 1
    assert second.process.stderr is not None
    text = second.process.stderr.read()
    assert f"in use by process {attic.pid}" in text
    assert "--state-dir" in text
    assert "Traceback" not in text


def test_port_in_use_names_the_process(nodes: Nodes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        node = nodes.start("attic", "--listen", f"127.0.0.1:{port}", wait=False)
        assert node.process.wait(60) == 1
        assert node.process.stderr is not None
        text = node.process.stderr.read()
    assert f"UDP port {port} is in use by process {os.getpid()}" in text
    assert "listen on another port" in text


def test_control_port_in_use_names_the_key_and_the_process(nodes: Nodes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node = nodes.start("attic", "--control-tcp", f"127.0.0.1:{port}", wait=False)
        assert node.process.wait(60) == 1
        assert node.process.stderr is not None
        text = node.process.stderr.read()
    assert f"error: control_tcp 127.0.0.1:{port}: Address already in use by process {os.getpid()}" in text
    assert "set control_tcp to a free port" in text


def test_state_directory_that_cannot_be_used_is_one_clear_error(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "attic").write_text("a file")
    node = nodes.start("attic", wait=False)
    assert node.process.wait(60) == 1
    assert node.process.stderr is not None
    assert "can't be used as state directory" in node.process.stderr.read()


def test_control_socket_that_cannot_be_placed_is_one_clear_error(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    node = nodes.start("attic", "--control-socket", str(tmp_path / "file" / "control.sock"), wait=False)
    assert node.process.wait(60) == 1
    assert node.process.stderr is not None
    text = node.process.stderr.read()
    assert "control socket" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("kind", ["cut", "too short", "no token"])
def test_mangled_token_is_refused_without_dialling(nodes: Nodes, kind: str) -> None:
    attic = nodes.start("attic")
    token = {"cut": attic.invite()[:-3], "too short": "mesh1_AAAA", "no token": "hello"}[kind]
    study = nodes.start("study", token=token, wait=False)
    assert study.process.wait(60) == 1
    assert study.process.stderr is not None
    text = study.process.stderr.read()
    assert text.startswith("error: malformed: ")
    assert "copy the whole invite again" in text
    assert kind == "no token" or token not in text
    assert study.events("join.attempt") == []


def test_used_up_token_is_refused_with_its_code_and_advice(nodes: Nodes) -> None:
    attic = nodes.start("attic")
    token = attic.invite()
    nodes.start("study", token=token)
    loft = nodes.start("loft", token=token, wait=False)
    assert loft.process.wait(60) == 1
    assert loft.process.stderr is not None
    text = loft.process.stderr.read()
    assert text.startswith("error: used_up: ")
    assert "ask for a new invite" in text
    assert attic.wait_event("invite.refused")["code"] == "used_up"


def test_revoked_token_is_refused(nodes: Nodes) -> None:
    attic = nodes.start("attic")
    invite = attic.json("invite")
    attic.verb("invites", "revoke", invite["token_id"][:8])
    study = nodes.start("study", token=invite["token"], wait=False)
    assert study.process.wait(60) == 1
    assert study.process.stderr is not None
    assert study.process.stderr.read().startswith("error: revoked: ")
    assert attic.json("invites")["invites"][0]["state"] == "revoked"


def test_token_of_another_mesh_changes_nothing(nodes: Nodes) -> None:
    attic, cellar = nodes.start("attic"), nodes.start("cellar")
    token = cellar.invite()
    mesh = attic.json("status")["mesh"]["mesh"]
    attic.stop()
    refused = nodes.start("attic", token=token, wait=False)
    assert refused.process.wait(60) == 1
    assert refused.process.stderr is not None
    text = refused.process.stderr.read()
    assert "wrong_mesh" in text
    assert "nothing was changed" in text
    assert nodes.start("attic").json("status")["mesh"]["mesh"] == mesh


def test_unreachable_inviter_is_named(nodes: Nodes) -> None:
    attic = nodes.start("attic")
    token = attic.invite()
    attic.stop()
    study = nodes.start("study", token=token, wait=False)
    assert study.process.wait(60) == 1
    assert study.process.stderr is not None
    assert study.process.stderr.read().startswith("error: inviter_unreachable: ")


def test_token_never_stands_in_any_log_or_event(nodes: Nodes) -> None:
    attic = nodes.start("attic")
    token = attic.invite("--uses", "2")
    study = nodes.start("study", token=token)
    for node in (attic, study):
        assert token[6:40] not in node.log.read_text(encoding="utf-8")
        assert token[6:40] not in node.verb("events", "--level", "debug")


def test_removed_node_is_out_and_stops(nodes: Nodes) -> None:
    attic, study, loft = nodes.mesh("attic", "study", "loft")
    gone = loft.node
    answer = json.loads(attic.verb("remove", "loft", "--yes", "--json"))
    assert answer["removed"] == [gone]
    assert loft.process.wait(60) == 1
    study.wait_event("node.removed", lambda event: event["node"] == gone)
    assert attic.peer(gone) is None
    assert study.peer(gone) is None
    back = nodes.start("loft", wait=False)
    assert back.process.wait(60) == 1
    assert back.process.stderr is not None
    text = back.process.stderr.read()
    assert "no member any more: revoked" in text
    assert "an empty --state-dir and a new invite" in text, "its key is refused for ever, `meshnode leave` keeps it"


def test_removal_without_confirmation_changes_nothing(nodes: Nodes) -> None:
    attic, study = nodes.mesh("attic", "study")
    done = attic.ask("remove", "study")
    assert done.returncode == 1
    assert f"This removes {study.node[:10]} (study) for good." in done.stdout
    assert attic.peer(study.node) is not None


def test_idle_daemon_is_small_and_free_of_heavy_imports(nodes: Nodes) -> None:
    attic, _ = nodes.mesh("attic", "study")
    attic.json("status")
    assert psutil.Process(attic.pid).memory_info().rss < 70_000_000
    mapped = {Path(entry.path).name for entry in psutil.Process(attic.pid).memory_maps()}
    assert not any("numpy" in name or "_multiarray" in name for name in mapped)


def test_log_file_is_opened_anew_on_sighup(nodes: Nodes) -> None:
    attic = nodes.start("attic")
    rotated = attic.log.with_suffix(".1")
    attic.log.rename(rotated)
    os.kill(attic.pid, signal.SIGHUP)
    deadline = time.monotonic() + DEADLINE_S
    while not attic.log.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert attic.stop() == 0
    assert [event["event"] for event in attic.events("node.")] == ["node.stopping", "node.stopped"]
    assert "node.started" in rotated.read_text(encoding="utf-8")


def test_events_begin_with_how_the_node_came_into_its_mesh(nodes: Nodes) -> None:
    attic, study = nodes.mesh("attic", "study")
    first = {node.name: json.loads(node.verb("events", "--json").splitlines()[0])["event"] for node in (attic, study)}
    assert first == {"attic": "mesh.created", "study": "join.attempt"}


def test_memory_declared_beyond_what_is_there_is_a_warning(nodes: Nodes) -> None:
    attic = nodes.start("attic", "--declare-usable", "90TB")
    warned = attic.wait_event("capacity.warning")
    assert warned["level"] == "warning"
    assert "90000.0GB declared" in warned["finding"]
