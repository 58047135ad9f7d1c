"""What is made of the facts about a mesh: each check's grades, what it found, what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshnode.addresses import InterfaceAddress
from meshnode.doctor import Finding, Grade, MeshFacts, PeerFacts, check_mesh, worst
from meshnode.doctor.mesh import Conflict

OWN = "a" * 52
ETHERNET = InterfaceAddress("eth0", "192.168.1.5")
DOCKER = InterfaceAddress("docker0", "172.17.0.1")


def a_peer(number: int = 1, **facts: object) -> PeerFacts:
    there, here = f"192.168.1.{10 + number}:4411", "192.168.1.5:4411"
    peer = PeerFacts(
        node=str("bcdefgh"[number] * 52), name=f"peer{number}", status="alive", addresses=(there,),
        software="meshnode 0.1.0", path="direct", link_address=there, dialled_by_us=True, answered=True,
        tried=(there,), arrived=(there,), tried_here=(here,), arrived_here=(here,), largest_bytes=1472,
        clock_ahead_s=0.0, clock_error_s=0.1,
    )  # fmt: skip
    return replace(peer, **facts)  # type: ignore[arg-type]


def a_mesh(*peers: PeerFacts, **facts: object) -> MeshFacts:
    mesh = MeshFacts(
        node=OWN, software="meshnode 0.1.0", port=4411, addresses=("192.168.1.5:4411",), interfaces=(ETHERNET, DOCKER),
        observed={peer.node: "192.168.1.5:4411" for peer in peers}, peers=peers,
    )  # fmt: skip
    return replace(mesh, **facts)  # type: ignore[arg-type]


def only(check: str, mesh: MeshFacts) -> list[Finding]:
    return [finding for finding in check_mesh(mesh) if finding.check == check]


def the(check: str, mesh: MeshFacts) -> Finding:
    (found,) = only(check, mesh)
    return found


def test_mesh_in_good_health_has_no_finding_above_ok_and_no_advice() -> None:
    found = check_mesh(a_mesh(a_peer(1), a_peer(2)))
    assert worst(found) is Grade.OK
    assert {finding.advice for finding in found} == {""}
    assert {finding.check for finding in found} == {
        "identity", "addresses", "nat", "reachability", "path_mtu", "clock", "versions",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "grade", "found"),
    [
        ({"arrived_here": ()}, Grade.WARNING, "packets from it don't reach this node by themselves"),
        ({"arrived": (), "dialled_by_us": False}, Grade.WARNING, "packets from here don't reach it by themselves"),
        ({"arrived_here": (), "dialled_by_us": False}, Grade.OK, "both ways"),
        ({"path": "relayed", "link_address": None}, Grade.WARNING, "through another member only"),
        ({"path": "relayed", "arrived": (), "arrived_here": ()}, Grade.ERROR, "no packet of one arrives at the other"),
        ({"path": None, "answered": False}, Grade.ERROR, "no path from here"),
        ({"answered": False}, Grade.WARNING, "did not take part"),
        ({"status": "suspect"}, Grade.WARNING, "it is suspect: not tried"),
        ({"status": "dead", "path": None, "answered": False}, Grade.WARNING, "it is dead: not tried"),
    ],
)
def test_each_direction_of_a_path_is_judged_and_advised(facts: dict[str, object], grade: Grade, found: str) -> None:
    finding = the("reachability", a_mesh(a_peer(1, **facts)))
    assert (finding.grade, found in finding.found) == (grade, True), finding
    assert bool(finding.advice) is (grade is not Grade.OK)


@pytest.mark.parametrize(
    ("largest_bytes", "address", "grade", "found"),
    [
        (1472, "192.168.1.11:4411", Grade.OK, "1,500 bytes or more"),
        (1452, "[2001:db8::1]:4411", Grade.OK, "1,500 bytes or more"),
        (1372, "192.168.1.11:4411", Grade.OK, "1,400 bytes (a tunnel"),
        (1232, "192.168.1.11:4411", Grade.WARNING, "1,260 bytes"),
        (0, "192.168.1.11:4411", Grade.OK, "unknown"),
    ],
)
def test_path_mtu_counts_the_headers_of_its_family(largest_bytes: int, address: str, grade: Grade, found: str) -> None:
    finding = the("path_mtu", a_mesh(a_peer(largest_bytes=largest_bytes, link_address=address)))
    assert (finding.grade, finding.found.startswith(found)) == (grade, True), finding
    tried = "1,248 to 1,520" if address.startswith("[") else "1,228 to 1,500"
    assert f"{tried} bytes with its headers" in finding.checked, "in the same bytes as what was found"


@pytest.mark.parametrize(
    ("observed", "grade", "found"),
    [
        ({}, Grade.OK, "unknown"),
        ({"p": "192.168.1.5:4411"}, Grade.OK, "none"),
        ({"p": "203.0.113.7:4411"}, Grade.OK, "its kind can't be told from one peer"),
        ({"p": "203.0.113.7:9", "q": "203.0.113.7:9"}, Grade.OK, "keeps one outer address"),
        ({"p": "203.0.113.7:9", "q": "203.0.113.7:10"}, Grade.WARNING, "gives each peer another outer address"),
        ({"p": "203.0.113.7:9", "q": "192.168.1.5:4411"}, Grade.OK, "its kind can't be told from one peer"),
        ({"p": "192.168.1.5:9"}, Grade.OK, "behind a NAT"),
    ],
)
def test_nat_is_told_from_where_peers_see_this_node(observed: dict[str, str], grade: Grade, found: str) -> None:
    finding = the("nat", a_mesh(observed=observed))
    assert (finding.grade, found in finding.found) == (grade, True), finding


def test_clock_of_one_of_several_peers_is_named() -> None:
    mesh = a_mesh(a_peer(1, clock_ahead_s=400.0), a_peer(2), a_peer(3))
    finding = the("clock", mesh)
    assert (finding.grade, finding.subject[:5]) == (Grade.ERROR, "peer1")
    assert finding.found.startswith("400 s ahead of the others")


def test_own_clock_is_named_where_all_peers_agree_against_it() -> None:
    mesh = a_mesh(*(a_peer(number, clock_ahead_s=-60.0) for number in (1, 2, 3)))
    finding = the("clock", mesh)
    assert (finding.grade, finding.subject) == (Grade.WARNING, "this node")
    assert finding.found.startswith("60 s ahead of the middle of 3 peers")


def test_of_two_clocks_neither_is_called_the_wrong_one() -> None:
    finding = the("clock", a_mesh(a_peer(clock_ahead_s=-3600.0)))
    assert (finding.grade, finding.advice) == (Grade.ERROR, "switch on NTP on both machines")


def test_unknown_clocks_are_no_finding() -> None:
    assert only("clock", a_mesh(a_peer(clock_ahead_s=None))) == []


@pytest.mark.parametrize(
    ("software", "grade"),
    [("meshnode 0.2.0", Grade.OK), ("meshnode 0.3.1", Grade.WARNING), ("other", Grade.WARNING)],
)
def test_versions_more_than_a_minor_apart_are_a_warning(software: str, grade: Grade) -> None:
    finding = the("versions", a_mesh(a_peer(software=software)))
    assert (finding.grade, software in finding.found) == (grade, True)


def test_refused_version_is_an_error() -> None:
    finding = the("versions", a_mesh(refused=("192.0.2.1:4411: no common version",)))
    assert finding.grade is Grade.ERROR


def test_key_in_use_twice_is_an_error_with_both_addresses() -> None:
    mesh = a_mesh(conflicts=(Conflict(OWN, "192.0.2.1:1", "192.0.2.2:2"),))
    finding = the("identity", mesh)
    assert finding.grade is Grade.ERROR
    assert "this node's key: 192.0.2.1:1 and 192.0.2.2:2" in finding.found


def test_advertised_container_bridge_is_a_warning_here_and_at_a_peer() -> None:
    bridge = "172.17.0.1:4411"
    mesh = a_mesh(a_peer(addresses=(bridge,)), addresses=(bridge, "192.168.1.5:4411"))
    here, there = only("addresses", mesh)
    assert (here.grade, here.subject) == (Grade.WARNING, "docker0")
    assert (there.grade, there.subject[:5]) == (Grade.WARNING, "peer1")


def test_node_without_an_address_is_an_error() -> None:
    assert the("addresses", a_mesh(addresses=())).grade is Grade.ERROR


def test_findings_survive_json() -> None:
    for finding in check_mesh(a_mesh(a_peer())):
        assert Finding.from_dict(finding.to_dict()) == finding
