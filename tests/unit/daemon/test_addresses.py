"""Which addresses a node tells the mesh."""

from __future__ import annotations

from meshnode.addresses import InterfaceAddress, interface_addresses, own_addresses
from meshnode.config.values import SocketAddress
from proto.parts import MAX_ADDRESSES

EVERYWHERE = SocketAddress("::", 4411)
HOME = [
    InterfaceAddress("lo", "127.0.0.1"),
    InterfaceAddress("lo", "::1"),
    InterfaceAddress("eth0", "192.168.1.5"),
    InterfaceAddress("eth0", "fe80::1%eth0"),
    InterfaceAddress("eth0", "2001:db8::5"),
    InterfaceAddress("docker0", "172.17.0.1"),
    InterfaceAddress("br-0a1b", "172.18.0.1"),
]


def test_bridges_loopback_and_zoned_links_are_left_out() -> None:
    assert own_addresses(EVERYWHERE, [], HOME) == ("192.168.1.5:4411", "[2001:db8::5]:4411")


def test_ipv4_socket_says_no_ipv6_address() -> None:
    assert own_addresses(SocketAddress("0.0.0.0", 4411), [], HOME) == ("192.168.1.5:4411",)


def test_explicitly_bound_address_is_the_only_own_one() -> None:
    assert own_addresses(SocketAddress("127.0.0.1", 7), [], HOME) == ("127.0.0.1:7",)


def test_loopback_address_is_not_told_beside_an_advertised_one() -> None:
    advertised = [SocketAddress("203.0.113.7", 9)]
    assert own_addresses(SocketAddress("127.0.0.1", 7), advertised, HOME) == ("203.0.113.7:9",)


def test_machine_without_a_network_answers_on_loopback() -> None:
    assert own_addresses(EVERYWHERE, [], HOME[:2]) == ("127.0.0.1:4411",)


def test_advertised_addresses_come_first_and_observed_ones_last_without_repeats() -> None:
    advertised = [SocketAddress("203.0.113.7", 9)]
    observed = ["198.51.100.1:5", "192.168.1.5:4411", "127.0.0.1:4411", "[fe80::9]:1"]
    assert own_addresses(EVERYWHERE, advertised, HOME, observed) == (
        "203.0.113.7:9", "192.168.1.5:4411", "[2001:db8::5]:4411", "198.51.100.1:5",
    )  # fmt: skip


def test_record_is_never_given_more_addresses_than_it_holds() -> None:
    many = [InterfaceAddress("eth0", f"10.0.0.{number}") for number in range(1, 60)]
    assert len(own_addresses(EVERYWHERE, [], many)) == MAX_ADDRESSES


def test_this_machine_has_at_least_loopback() -> None:
    assert any(address.host == "127.0.0.1" for address in interface_addresses())
