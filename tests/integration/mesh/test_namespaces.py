"""Several hosts with their own addresses, and the same container bridge on each. Needs root and network namespaces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from emulated_mesh import all_linked, nobody_given_up, seen, until
from hosts_in_namespaces import PORT, Hosts, hindrance
from making_nodes import PATIENT, Nodes, RunningNode

pytestmark = pytest.mark.netns
NAMES = ("attic", "study", "loft")
BRIDGE = f"172.17.0.1:{PORT}"


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Three hosts on one switch."""
    if (reason := hindrance()) is not None:
        pytest.skip(f"no network namespaces here: {reason}")
    with Hosts() as made:
        for number, name in enumerate(NAMES, 1):
            made.host(name, f"10.77.0.{number}")
        yield made


def a_mesh(nodes: Nodes, hosts: Hosts, *options: str, port: int = PORT) -> list[RunningNode]:
    """One node on each host, all linked to all."""
    listen = ("--listen", f"0.0.0.0:{port}", *PATIENT, *options)
    founder = nodes.start(NAMES[0], *listen, program=hosts.program(NAMES[0]))
    token = founder.invite("--uses", "10")
    others = [nodes.start(name, *listen, token=token, program=hosts.program(name)) for name in NAMES[1:]]
    all_linked([founder, *others])
    return [founder, *others]


def linked_addresses(node: RunningNode, others: list[RunningNode]) -> dict[str, str]:
    found = {other.name: seen(node, other) for other in others if other is not node}
    return {name: shown["link"]["address"] for name, shown in found.items() if shown is not None and shown["link"]}


def test_hosts_tell_their_real_addresses_and_no_container_bridge(nodes: Nodes, hosts: Hosts) -> None:
    mesh = a_mesh(nodes, hosts)
    for node in mesh:
        assert node.json("status")["addresses"] == [f"{hosts.address[node.name]}:{PORT}"]
        wanted = {name: f"{address}:{PORT}" for name, address in hosts.address.items() if name != node.name}
        assert linked_addresses(node, mesh) == wanted
    nobody_given_up(mesh)


def test_members_find_each_other_though_all_were_given_other_addresses_while_down(nodes: Nodes, hosts: Hosts) -> None:
    mesh = a_mesh(nodes, hosts, port=0)
    for node in mesh:
        assert node.stop() == 0
    for number, name in enumerate(NAMES, 11):
        hosts.renumber(name, f"10.77.0.{number}")
    listen = ("--listen", "0.0.0.0:0", *PATIENT)
    again = [nodes.start(name, *listen, program=hosts.program(name), wait=False) for name in NAMES]
    all_linked(again)
    called = [event["address"].rpartition(":")[0] for node in again for event in node.events("peer.called")]
    assert called
    assert set(called) <= set(hosts.address.values())
    nobody_given_up(again)


def test_join_succeeds_though_every_host_advertises_the_bridge_first(nodes: Nodes, hosts: Hosts) -> None:
    mesh = a_mesh(nodes, hosts, "--advertise", BRIDGE)
    for node in mesh:
        assert node.json("status")["addresses"] == [BRIDGE, f"{hosts.address[node.name]}:{PORT}"]
        assert BRIDGE not in linked_addresses(node, mesh).values()
    for joiner in mesh[1:]:
        # On its own host the bridge's address is the joiner itself: another node than the one invited by.
        dropped = joiner.wait_event("address.dropped")
        assert (dropped["address"], dropped["answered_as"]) == (BRIDGE, joiner.node)
    nobody_given_up(mesh)


def test_host_that_gets_another_address_stays_in_the_mesh(nodes: Nodes, hosts: Hosts) -> None:
    attic, study, loft = mesh = a_mesh(nodes, hosts)
    hosts.renumber("loft", "10.77.0.200")
    for node in (attic, study):
        until(lambda node=node: linked_addresses(node, [loft]) == {"loft": f"10.77.0.200:{PORT}"}, "its new address")  # type: ignore[misc]
    all_linked(mesh)
    for node in (attic, study):
        until(lambda node=node: f"10.77.0.200:{PORT}" in (seen(node, loft) or {})["addresses"], "told to all")  # type: ignore[misc]
    nobody_given_up(mesh)


def test_doctor_tells_a_shut_port_a_narrow_line_and_an_advertised_bridge(nodes: Nodes, hosts: Hosts) -> None:
    hosts.shut("study")
    hosts.narrow("loft", 1400)
    attic, study, loft = a_mesh(nodes, hosts)
    report = attic.json("doctor", code=1)
    by_check = {(one["check"], one["subject"].partition(" ")[0]): one for one in report["findings"]}
    to_study, to_loft = by_check["reachability", "study"], by_check["reachability", "loft"]
    assert (to_study["grade"], to_loft["grade"]) == ("warning", "ok")
    assert "packets from here don't reach it by themselves" in to_study["found"]
    assert "open its UDP port in the firewall" in to_study["advice"]
    assert by_check["path_mtu", "loft"]["found"].startswith("1,400 bytes")
    assert by_check["nat", "this"]["found"] == "none: peers see an address of this machine"
    seen_by_study = {one["subject"].partition(" ")[0]: one for one in study.json("doctor", code=1)["findings"]
                     if one["check"] == "reachability"}  # fmt: skip
    assert "packets from it don't reach this node by themselves" in seen_by_study["attic"]["found"]
    assert loft.stop() == 0
    again = nodes.start("loft", "--listen", f"0.0.0.0:{PORT}", "--advertise", BRIDGE, program=hosts.program("loft"))
    bridges = [one for one in again.json("doctor", code=1)["findings"] if one["check"] == "addresses"]
    assert [(one["grade"], one["subject"]) for one in bridges] == [("warning", "docker0")]
