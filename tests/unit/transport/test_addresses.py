"""Numeric addresses: read, written, and charged to their network."""

from __future__ import annotations

import pytest

from meshnode.transport.addresses import MalformedAddress, SocketName, format_address, parse_address, source_prefix


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("192.168.1.5:4411", ("192.168.1.5", 4411)),
        ("[2001:db8::5]:4411", ("2001:db8::5", 4411, 0, 0)),
        ("[2001:DB8:0::5]:1", ("2001:db8::5", 1, 0, 0)),
        ("[fe80::1%3]:4411", ("fe80::1", 4411, 0, 3)),
    ],
)
def test_address_is_read_into_the_name_sockets_use(text: str, name: SocketName) -> None:
    assert parse_address(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org:4411",
        "192.168.1.5",
        "192.168.1.5:",
        "192.168.1.5:65536",
        "192.168.1.5:-1",
        "192.168.1.5:４４１１",
        "192.168.1:4411",
        "2001:db8::5:4411",
        "[192.168.1.5]:4411",
        "[fe80::1%no-such-interface]:4411",
        "192.168.1.5%1:4411",
    ],
)
def test_what_is_no_numeric_address_is_an_error_that_shows_it(text: str) -> None:
    with pytest.raises(MalformedAddress) as error:
        parse_address(text)
    assert error.value.found == text


@pytest.mark.parametrize("text", ["192.168.1.5:4411", "[2001:db8::5]:4411"])
def test_address_is_written_as_it_was_read(text: str) -> None:
    assert format_address(parse_address(text)) == text


def test_zone_is_not_written_since_it_means_nothing_elsewhere() -> None:
    assert format_address(("fe80::1%eth0", 4411, 0, 3)) == "[fe80::1]:4411"


@pytest.mark.parametrize(
    ("one", "other"),
    [(("192.0.2.1", 1), ("192.0.2.200", 9)), (("2001:db8::1", 1, 0, 0), ("2001:db8::ffff:1", 1, 0, 0))],
)
def test_neighbours_are_one_source(one: SocketName, other: SocketName) -> None:
    assert source_prefix(one) == source_prefix(other)


def test_different_networks_are_different_sources() -> None:
    assert source_prefix(("192.0.2.1", 1)) != source_prefix(("192.0.3.1", 1))
    assert source_prefix(("2001:db8::1", 1, 0, 0)) != source_prefix(("2001:db8:0:1::1", 1, 0, 0))
