"""Death, sleep, restart and goodbye, as the whole mesh sees them."""

from __future__ import annotations

import shutil
import signal
import time

import pytest
from emulated_mesh import (
    EmulatedMesh,
    all_alive,
    all_linked,
    capacity_bytes,
    nobody_given_up,
    of_peer,
    seen,
    status_of,
    until,
    wait_of_peer,
)
from emulation import LinkConditions
from making_nodes import DEADLINE_S, PATIENT, RunningNode

TEN_GB = ("--declare-usable", "10GB")
OVER_WIFI = LinkConditions(delay_ms=10, jitter_ms=1)


def known_incarnation(node: RunningNode, other: RunningNode) -> int:
    shown = seen(node, other)
    assert shown is not None
    return int(shown["incarnation"])


def test_killed_node_is_dead_to_all_and_its_capacity_counts_nowhere(mesh: EmulatedMesh) -> None:
    names = ("attic", "study", "loft", "cellar")
    mesh.shape_all(names, OVER_WIFI)
    *others, loft = mesh.found(*names, options=("--network", "lan", *TEN_GB))
    gone = loft.node
    for node in others:
        assert capacity_bytes(node) == 40_000_000_000
    deaths = {node.name: len(of_peer(node, "peer.dead", gone)) for node in others}
    loft.stop(signal.SIGKILL)
    for node in others:
        assert wait_of_peer(node, "peer.dead", gone, after=deaths[node.name])["accusers"]
    all_alive(others)
    for node in others:
        until(lambda node=node: capacity_bytes(node) == 30_000_000_000, f"the rest's capacity at {node.name}")  # type: ignore[misc]
        assert status_of(node, gone) == "dead"
        assert len(of_peer(node, "peer.dead", gone)) == deaths[node.name] + 1


def test_one_blip_does_not_banish(mesh: EmulatedMesh) -> None:
    nodes = mesh.found("attic", "study", "loft", options=PATIENT)
    attic, study, loft = nodes
    mesh.net.partition({"attic", "study"}, {"loft"})
    until(lambda: of_peer(attic, "peer.suspect", loft.node) or of_peer(study, "peer.suspect", loft.node), "a suspicion")
    mesh.net.heal()
    all_alive(nodes)
    nobody_given_up(nodes)


def test_clean_stop_is_seen_as_left_and_never_suspected(mesh: EmulatedMesh) -> None:
    names = ("attic", "study", "loft")
    mesh.shape_all(names, OVER_WIFI)
    attic, study, loft = mesh.found(*names, options=(*PATIENT, *TEN_GB))
    gone = loft.node
    assert loft.stop() == 0
    for node in (attic, study):
        wait_of_peer(node, "peer.left", gone)
        assert status_of(node, gone) == "left"
        assert capacity_bytes(node) == 20_000_000_000
        assert not said_after_its_goodbye(node, gone) & {"peer.suspect", "peer.dead", "peer.refuted", "peer.returned"}
    back = mesh.start("loft", *PATIENT, *TEN_GB)
    all_linked([attic, study, back])
    nobody_given_up([attic, study, back])


def said_after_its_goodbye(node: RunningNode, gone: str) -> set[str]:
    """What the log of `node` says of `gone` after `peer.left`."""
    names = [line["event"] for line in node.events() if line.get("peer") == gone]
    return set(names[names.index("peer.left") + 1 :])


@pytest.mark.parametrize("moved", [False, True], ids=["same address", "new address"])
def test_restarted_node_is_back_at_once_with_a_higher_incarnation(mesh: EmulatedMesh, moved: bool) -> None:
    attic, study, loft = mesh.found("attic", "study", "loft")
    old = known_incarnation(attic, loft)
    loft.stop(signal.SIGKILL)
    for node in (attic, study):
        wait_of_peer(node, "peer.dead", loft.node)
    if moved:
        mesh.place("loft")
    again = mesh.start("loft")
    started_at_s = time.monotonic()
    for node in (attic, study):
        event = wait_of_peer(node, "peer.returned", loft.node)
        assert event["incarnation"] > old
        assert event["was"] == "dead"
    print(f"back {time.monotonic() - started_at_s:.2f} s after node.started")
    all_linked([attic, study, again])
    for node in (attic, study):
        until(lambda node=node: mesh.address["loft"] in (seen(node, again) or {})["addresses"], "its address")  # type: ignore[misc]


def test_restart_quicker_than_any_detection_is_no_death(mesh: EmulatedMesh) -> None:
    attic, study, loft = mesh.found("attic", "study", "loft", options=("--network", "lan"))
    old = known_incarnation(attic, loft)
    loft.stop(signal.SIGKILL)
    mesh.relocate("loft")  # behind the same public address, as after a router's reboot
    again = mesh.start("loft", "--network", "lan")
    all_linked([attic, study, again])
    for node in (attic, study):
        until(lambda node=node: known_incarnation(node, again) > old, "the new incarnation")  # type: ignore[misc]
        assert status_of(node, again) == "alive"
        assert node.events("peer.identity_conflict") == []


def test_all_restarted_at_once_find_each_other(mesh: EmulatedMesh) -> None:
    names = ("attic", "study", "loft", "cellar")
    nodes = mesh.found(*names, options=PATIENT)
    for node in nodes:
        assert node.stop() == 0
    again = [mesh.start(name, *PATIENT, wait=False) for name in names]
    all_linked(again)
    nobody_given_up(again)


def test_node_that_slept_accuses_nobody_and_is_back_by_itself(mesh: EmulatedMesh) -> None:
    attic, study, loft = mesh.found("attic", "study", "loft", options=("--network", "lan"))
    deaths = {node.name: len(of_peer(node, "peer.dead", loft.node)) for node in (attic, study)}
    loft.process.send_signal(signal.SIGSTOP)
    accused = len(loft.events("peer.suspect")) + len(loft.events("peer.dead"))
    for node in (attic, study):
        wait_of_peer(node, "peer.dead", loft.node, after=deaths[node.name])
    loft.process.send_signal(signal.SIGCONT)
    woken_at_s = time.monotonic()
    for node in (attic, study):
        wait_of_peer(node, "peer.returned", loft.node, after=deaths[node.name])
    loft.wait_event("node.stalled")
    assert len(loft.events("peer.suspect")) + len(loft.events("peer.dead")) == accused
    print(f"back {time.monotonic() - woken_at_s:.2f} s after waking")
    all_linked([attic, study, loft])


def test_death_heard_of_while_waking_is_judged_all_the_same(mesh: EmulatedMesh) -> None:
    """A node accuses nobody for two seconds after a stall; what it hears meanwhile must not be forgotten."""
    attic, study, loft = mesh.found("attic", "study", "loft", options=("--network", "lan"))
    loft.stop(signal.SIGKILL)
    wait_of_peer(attic, "peer.suspect", loft.node)
    study.process.send_signal(signal.SIGSTOP)
    time.sleep(1.0)  # a stall that is worth a word
    wait_of_peer(attic, "peer.dead", loft.node)
    study.process.send_signal(signal.SIGCONT)
    study.wait_event("node.stalled")
    for node in (attic, study):
        wait_of_peer(node, "peer.dead", loft.node)
    all_linked([attic, study])


def test_copied_state_directory_is_refused_by_name_and_nobody_flaps(mesh: EmulatedMesh) -> None:
    attic, study, loft = nodes = mesh.found("attic", "study", "loft", options=PATIENT)
    shutil.copytree(loft.state, loft.state.with_name("copy"))
    copy = mesh.start("copy", *PATIENT, wait=False)
    assert copy.process.wait(DEADLINE_S) == 1
    assert copy.process.stderr is not None
    text = copy.process.stderr.read()
    assert f"another process runs with this node's key: the other one is at {mesh.address['loft']}" in text
    assert "--state-dir" in text
    witnesses = [node for node in (attic, study) if node.events("peer.identity_conflict")]
    assert witnesses
    for node in witnesses:
        event = node.events("peer.identity_conflict")[0]
        assert event["peer"] == loft.node
        assert {event["address"], event["other_address"]} == {mesh.address["loft"], mesh.address["copy"]}
    for node in (loft, copy):
        event = node.wait_event("peer.identity_conflict")
        assert {event["address"], event["other_address"]} == {mesh.address["loft"], mesh.address["copy"]}
    all_linked(nodes)
    nobody_given_up(nodes)
    for node in (attic, study):
        for name in ("peer.returned", "peer.left", "link.down"):
            assert of_peer(node, name, loft.node) == []
