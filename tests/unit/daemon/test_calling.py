"""Whom a node misses, and where it calls for them."""

from __future__ import annotations

from making_memberships import Lone

from meshnode.calling import broadcast_hosts, missing_members, ports_of
from proto.ids import NodeId

NOWHERE = NodeId("a" * 52)


def test_member_that_is_remembered_and_not_seen_is_missing_and_one_that_lives_or_left_is_not() -> None:
    us = Lone()
    alive, left = us.meets(), us.meets()
    us.hears(left, left.identity(left=True))
    known = {NOWHERE: ("10.0.0.9:4411",), alive.node: ("10.0.0.1:4411",), left.node: (), us.node: ()}
    assert missing_members(us.node, us.machine.view(us.now_s), known) == {NOWHERE: ("10.0.0.9:4411",)}


def test_dead_member_is_missing_at_every_address_it_had() -> None:
    us = Lone()
    dead = us.meets()
    us.passes(30.0)
    missing = missing_members(us.node, us.machine.view(us.now_s), {dead.node: ("10.0.0.9:4412",)})
    assert missing == {dead.node: (dead.address, "10.0.0.9:4412")}


def test_each_ipv4_port_of_the_missing_is_called_once() -> None:
    members = {
        NodeId("a" * 52): ("10.0.0.1:4411", "[fe80::1]:9", "192.168.1.9:5000"),
        NodeId("b" * 52): ("10.0.0.2:4411", "no address"),
    }
    assert ports_of(members) == [4411, 5000]


def test_loopback_is_called_by_nobody() -> None:
    assert not [host for host in broadcast_hosts() if host.startswith("127.")]
