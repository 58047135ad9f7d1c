"""Getting into a mesh, and staying in it, where the paths, the clocks and the tokens are as bad as at home."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from emulated_mesh import EmulatedMesh, all_linked, nobody_given_up, seen, status_of, until
from emulation import LinkConditions
from making_nodes import DEADLINE_S, PATIENT
from mute_server import mute_server

from meshnode.identity import Identity, SigningKey
from meshnode.state import StateDirectory
from proto.ids import short

YEAR_S = 365 * 24 * 3600


def with_clock_off_by(offset_s: int) -> tuple[str, ...]:
    """meshnode in a process whose wall clock is wrong."""
    shim = f"import time; right = time.time; time.time = lambda: right() + {offset_s}"
    return (sys.executable, "-c", f"{shim}; from meshnode.cli import main; main()")


def test_five_nodes_converge_over_lossy_paths_and_none_is_given_up(mesh: EmulatedMesh) -> None:
    names = ("attic", "study", "loft", "cellar", "sofa")
    mesh.shape_all(names, LinkConditions(delay_ms=10, jitter_ms=2, loss=0.05))
    nodes = mesh.found(*names, options=PATIENT)
    nobody_given_up(nodes)
    for node in nodes:
        for other in nodes:
            shown = seen(node, other)
            assert shown is not None
            assert shown["addresses"] == [mesh.address[other.name]]
            if other is not node:
                assert shown["link"]["address"] == mesh.address[other.name], "no packet went past the emulator"


@pytest.mark.parametrize("offset_s", [YEAR_S, -YEAR_S], ids=["a year ahead", "a year behind"])
def test_member_with_a_wrong_clock_is_a_member_like_any_other(mesh: EmulatedMesh, offset_s: int) -> None:
    attic = mesh.start("attic", *PATIENT)
    token = attic.invite("--uses", "2")
    study = mesh.start("study", *PATIENT, token=token, program=with_clock_off_by(offset_s))
    loft = mesh.start("loft", *PATIENT, token=token)
    all_linked([attic, study, loft])
    nobody_given_up([attic, study, loft])
    # Its clock is set right between two starts, so that it jumps back or ahead: it is back all the same.
    assert study.stop() == 0
    study = mesh.start("study")
    all_linked([attic, study, loft])


def test_mesh_founded_by_a_clock_a_year_ahead_works_for_all(mesh: EmulatedMesh) -> None:
    attic = mesh.start("attic", program=with_clock_off_by(YEAR_S))
    token = attic.invite("--uses", "2")
    others = [mesh.start(name, token=token) for name in ("study", "loft")]
    all_linked([attic, *others])


def test_member_restarts_after_its_token_expired_with_the_inviter_away(mesh: EmulatedMesh) -> None:
    attic, study, loft = mesh.found("attic", "study", "loft")
    token = attic.invite("--uses", "5")
    for node in (attic, study):
        assert node.stop() == 0
    study = mesh.start("study")
    all_linked([study, loft])
    attic = mesh.start("attic", program=with_clock_off_by(2 * 3600))
    all_linked([attic, study, loft])
    fresh = mesh.start("sofa", token=token, wait=False)
    assert fresh.process.wait(DEADLINE_S) == 1
    assert fresh.process.stderr is not None
    text = fresh.process.stderr.read()
    assert text.startswith("error: expired: ")
    assert text.count(" UTC") >= 2, f"both clocks' readings: {text}"
    assert attic.wait_event("invite.refused")["code"] == "expired"


def test_member_of_one_mesh_given_a_token_of_another_keeps_to_its_own(mesh: EmulatedMesh) -> None:
    attic, study = mesh.found("attic", "study")
    cellar = mesh.start("cellar")
    token = cellar.invite()
    ours, theirs = (node.json("status")["mesh"]["mesh"] for node in (attic, cellar))
    running = mesh.nodes.start("study", token=token, wait=False)
    assert running.process.wait(DEADLINE_S) == 1, "the state directory is in use"
    assert status_of(attic, study) == "alive"
    assert study.stop() == 0
    refused = mesh.start("study", token=token, wait=False)
    assert refused.process.wait(DEADLINE_S) == 1
    assert refused.process.stderr is not None
    text = refused.process.stderr.read()
    assert short(ours) in text
    assert short(theirs) in text
    again = mesh.start("study")
    all_linked([attic, again])
    assert len(cellar.json("peers")["peers"]) == 1


def test_own_token_is_refused_with_advice(mesh: EmulatedMesh) -> None:
    attic = mesh.start("attic")
    token = attic.invite()
    assert attic.stop() == 0
    again = mesh.start("attic", token=token, wait=False)
    assert again.process.wait(DEADLINE_S) == 1
    assert again.process.stderr is not None
    text = again.process.stderr.read()
    assert text.startswith("error: names_self: ")
    assert len(text.splitlines()) >= 2, f"advice follows: {text}"


def test_two_meshes_that_know_each_others_addresses_stay_apart(mesh: EmulatedMesh) -> None:
    attic, study = mesh.found("attic", "study")
    cellar = mesh.start("cellar", "--peer", f"{attic.node}@{mesh.address['attic']}")
    sofa = mesh.start("sofa", "--peer", f"{study.node}@{mesh.address['study']}", token=cellar.invite())
    all_linked([cellar, sofa])
    assert study.stop() == 0
    study = mesh.start("study", "--peer", f"{cellar.node}@{mesh.address['cellar']}")
    all_linked([attic, study])
    pairs = ((cellar, attic), (sofa, study), (study, cellar))
    for dialler, acceptor in pairs:
        refused = dialler.wait_event("link.refused", lambda e, acceptor=acceptor: e["peer"] == acceptor.node)  # type: ignore[misc]
        told = acceptor.wait_event("link.refused", lambda e, dialler=dialler: e["peer"] == dialler.node)  # type: ignore[misc]
        assert refused["code"] == told["code"] == "wrong_mesh"
    ours, theirs = {attic.node, study.node}, {cellar.node, sofa.node}
    for node, members, strangers in ((attic, ours, theirs), (study, ours, theirs), (cellar, theirs, ours)):
        assert {peer["node"] for peer in node.json("peers", "--all")["peers"]} == members
        assert [event for event in node.events("peer.") if event.get("peer") in strangers] == []


@contextmanager
def swallowing_socket() -> Iterator[str]:
    """An address where packets are taken and nothing answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taker:
        taker.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taker.getsockname()[1]}"


@contextmanager
def first_address(kind: str, key: Identity) -> Iterator[str]:
    """An address that is no use to a joiner: it swallows all, or it accepts with some key and never speaks."""
    with swallowing_socket() if kind == "swallows" else mute_server(key) as address:
        yield address


@pytest.mark.parametrize("kind", ["swallows", "mute with the right key", "mute with another key"])
def test_first_address_that_is_no_use_is_given_up_for_the_next(mesh: EmulatedMesh, tmp_path: Path, kind: str) -> None:
    attic = mesh.start("attic")
    assert attic.stop() == 0
    another = Identity.starting(SigningKey.generate())
    with first_address(kind, another if "another" in kind else identity_in(attic.state, tmp_path)) as useless:
        listen = ("--listen", f"127.0.0.1:{mesh.port['attic']}")
        attic = mesh.nodes.start("attic", *listen, "--advertise", useless, "--advertise", mesh.address["attic"])
        joiner = mesh.start("study", token=attic.invite())
        until(lambda: status_of(attic, joiner) == "alive", "the joiner is in")
        attempts = joiner.events("join.attempt")
        outcomes = {event["address"]: event["outcome"] for event in attempts}
        assert outcomes.pop(mesh.address["attic"]) == "linked"
        assert list(outcomes) == [useless], "each attempt is logged"
        if "another" in kind:
            dropped = joiner.wait_event("address.dropped")
            assert (dropped["address"], dropped["answered_as"]) == (useless, another.node)


def identity_in(state: Path, tmp_path: Path) -> Identity:
    """The key of a node that does not run, read from a copy of its state directory."""
    copied = tmp_path / "copied-key"
    shutil.copytree(state, copied)
    with StateDirectory.open(copied) as directory:
        return directory.identity()
