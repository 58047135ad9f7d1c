"""Death, sleep, restart and goodbye, as the whole mesh sees them."""

from __future__ import annotations

import shutil
import signal
import time

import pytest
from emulated_mesh import (
    EmulatedMesh,
    all_linked,
    capacity_bytes,
    nobody_accused,
    of_peer,
    seen,
    status_of,
    until,
    wait_of_peer,
)
from emulation import LinkConditions
from making_nodes import RunningNode

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
    loft.stop(signal.SIGKILL)
    for node in others:
        assert wait_of_peer(node, "peer.dead", gone, within_s=10)["accusers"]
        assert capacity_bytes(node) == 30_000_000_000
        assert status_of(node, gone) == "dead"
    for node in others:
        assert len(of_peer(node, "peer.dead", gone)) == 1
        for other in others:
            assert of_peer(node, "peer.dead", other.node) == []


def test_one_blip_does_not_banish(mesh: EmulatedMesh) -> None:
    nodes = mesh.found("attic", "study", "loft", options=("--network", "lan"))
    attic, study, loft = nodes
    mesh.net.partition({"attic", "study"}, {"loft"})
    until(lambda: of_peer(attic, "peer.suspect", loft.node) or of_peer(study, "peer.suspect", loft.node), "a suspicion")
    mesh.net.heal()
    for node in (attic, study):
        # Two protocol periods of the preset are one second; the rest is for a busy machine.
        until(lambda node=node: status_of(node, loft) == "alive", f"alive again to {node.name}", within_s=4)  # type: ignore[misc]
    for node in nodes:
        until(lambda node=node: not suspected_now(node, nodes), f"{node.name} suspects nobody")  # type: ignore[misc]
        for other in nodes:
            assert len(of_peer(node, "peer.suspect", other.node)) <= 1
            assert of_peer(node, "peer.dead", other.node) == []


def suspected_now(node: RunningNode, nodes: list[RunningNode]) -> list[str]:
    return [other.name for other in nodes if other is not node and status_of(node, other) != "alive"]


def test_clean_stop_is_seen_as_left_and_never_suspected(mesh: EmulatedMesh) -> None:
    names = ("attic", "study", "loft")
    mesh.shape_all(names, OVER_WIFI)
    attic, study, loft = mesh.found(*names, options=TEN_GB)
    gone = loft.node
    assert loft.stop() == 0
    for node in (attic, study):
        wait_of_peer(node, "peer.left", gone, within_s=5)
        assert status_of(node, gone) == "left"
        assert capacity_bytes(node) == 20_000_000_000
    back = mesh.start("loft", *TEN_GB)
    all_linked([attic, study, back])
    nobody_accused([attic, study, back])


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
        event = wait_of_peer(node, "peer.returned", loft.node, within_s=5)
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
    nodes = mesh.found(*names)
    for node in nodes:
        assert node.stop() == 0
    again = [mesh.start(name, wait=False) for name in names]
    all_linked(again)
    assert all(not node.events("peer.dead") for node in again)


def test_node_that_slept_accuses_nobody_and_is_back_within_five_seconds(mesh: EmulatedMesh) -> None:
    attic, study, loft = mesh.found("attic", "study", "loft", options=("--network", "lan"))
    loft.process.send_signal(signal.SIGSTOP)
    for node in (attic, study):
        wait_of_peer(node, "peer.dead", loft.node)
    loft.process.send_signal(signal.SIGCONT)
    woken_at_s = time.monotonic()
    for node in (attic, study):
        wait_of_peer(node, "peer.returned", loft.node, within_s=5)
    until(lambda: not suspected_now(loft, [attic, study, loft]), "the sleeper sees all", within_s=5)
    print(f"back {time.monotonic() - woken_at_s:.2f} s after waking")
    assert loft.events("node.stalled")
    assert loft.events("peer.suspect") == loft.events("peer.dead") == []
    all_linked([attic, study, loft])
    assert of_peer(attic, "peer.dead", study.node) == of_peer(study, "peer.dead", attic.node) == []


def test_death_heard_of_while_waking_is_judged_all_the_same(mesh: EmulatedMesh) -> None:
    """A node accuses nobody for two seconds after a stall; what it hears meanwhile must not be forgotten."""
    attic, study, loft = mesh.found("attic", "study", "loft", options=("--network", "lan"))
    loft.stop(signal.SIGKILL)
    wait_of_peer(attic, "peer.suspect", loft.node)
    study.process.send_signal(signal.SIGSTOP)
    wait_of_peer(attic, "peer.dead", loft.node)
    study.process.send_signal(signal.SIGCONT)
    study.wait_event("node.stalled")
    for node in (attic, study):
        wait_of_peer(node, "peer.dead", loft.node, within_s=12)
    assert of_peer(attic, "peer.dead", study.node) == of_peer(study, "peer.dead", attic.node) == []


def test_copied_state_directory_is_refused_by_name_and_nobody_flaps(mesh: EmulatedMesh) -> None:
    attic, study, loft = nodes = mesh.found("attic", "study", "loft")
    shutil.copytree(loft.state, loft.state.with_name("copy"))
    copy = mesh.start("copy", wait=False)
    assert copy.process.wait(20) == 1
    assert copy.process.stderr is not None
    text = copy.process.stderr.read()
    assert "another process runs with this node's key" in text
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
    nobody_accused(nodes)
    for node in (attic, study):
        for name in ("peer.returned", "peer.left", "link.down"):
            assert of_peer(node, name, loft.node) == []
