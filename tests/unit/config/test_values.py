"""How single values are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.config import values
from meshnode.config.values import SocketAddress, WrongValue, parse_size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("24GB", 24_000_000_000), ("24GiB", 25_769_803_776), ("154.6GB", 154_600_000_000), ("74.6gb", 74_600_000_000),
        ("1.5 GiB", 1_610_612_736), ("512MB", 512_000_000), ("100", 100), (12, 12), ("0", 0), ("1TiB", 2**40),
    ],
)  # fmt: skip
def test_sizes_are_decimal_with_gb_and_binary_with_gib(text: object, count: int) -> None:
    assert parse_size(text) == count


@given(st.integers(0, 99_999), st.integers(0, 9))
def test_one_decimal_digit_of_gb_is_exact(gigabytes: int, tenth: int) -> None:
    assert parse_size(f"{gigabytes}.{tenth}GB") == gigabytes * 10**9 + tenth * 10**8


@given(st.text(max_size=20) | st.floats() | st.booleans() | st.none() | st.lists(st.integers(), max_size=2))
def test_anything_is_a_size_or_a_wrong_value(found: object) -> None:
    try:
        count = parse_size(found)
    except WrongValue:
        return
    assert 0 <= count <= values.MAX_SIZE_BYTES


@pytest.mark.parametrize("found", [True, 1.5, None, "1.GB", ".5GB", "1,5GB", "101PB", "2GBit"])
def test_wrong_sizes_are_refused(found: object) -> None:
    with pytest.raises(WrongValue):
        parse_size(found)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("192.168.1.5:4411", "192.168.1.5", 4411), ("[fe80::1]:0", "fe80::1", 0), ("0.0.0.0:65535", "0.0.0.0", 65_535)],
)
def test_socket_addresses_round_trip(text: str, host: str, port: int) -> None:
    address = values.socket_address(text)
    assert address == SocketAddress(host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["host:1", "1.2.3.4", "1.2.3.4:", "fe80::1:4411", "[1.2.3.4]:1", "1.2.3.4:65536", "1.2.3.4:-1"]
)
def test_names_missing_ports_and_bare_ipv6_are_refused(text: str) -> None:
    with pytest.raises(WrongValue, match="numeric address"):
        values.socket_address(text)


def test_star_listens_on_every_address() -> None:
    assert values.listen_address("*:0") == SocketAddress("::", 0)


def test_control_never_listens_on_a_network() -> None:
    with pytest.raises(WrongValue, match="loopback"):
        values.loopback_address("0.0.0.0:9338")


@pytest.mark.parametrize(("found", "meant"), [("yes", True), ("0", False), (True, True), ("off", False)])
def test_switches_read_the_usual_words(found: object, meant: bool) -> None:
    assert values.boolean(found) is meant


@pytest.mark.parametrize("found", ["nan", "inf", "x", None, [], True, 4000])
def test_numbers_are_finite_and_in_range(found: object) -> None:
    with pytest.raises(WrongValue, match="a number from 0 to 3600"):
        values.number(0.0, 3600.0)(found)


def test_static_peer_needs_a_whole_node_id() -> None:
    with pytest.raises(WrongValue, match="NODE_ID@ADDR:PORT"):
        values.static_peer("short@1.2.3.4:1")


def test_url_of_a_collector_is_kept_as_it_is() -> None:
    assert values.http_url("http://[::1]:4318/otlp") == "http://[::1]:4318/otlp"


@pytest.mark.parametrize(
    "found", ["localhost:4318", "ftp://host", "http://", "http://a b", "http://host:0", "http://[", 7]
)
def test_what_is_no_http_url_is_refused(found: object) -> None:
    with pytest.raises(WrongValue, match="a URL such as"):
        values.http_url(found)
