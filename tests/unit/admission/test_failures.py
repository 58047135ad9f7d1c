"""Five failures a minute, then silence."""

from __future__ import annotations

import pytest

from meshnode.admission.failures import MAX_SOURCES, FailureLimit, source_of

ADDRESS = "192.0.2.7:4411"


def after_failures(count: int, address: str = ADDRESS, every_s: float = 1.0) -> FailureLimit:
    limit = FailureLimit()
    for number in range(count):
        limit.failed(address, number * every_s)
    return limit


def test_five_failures_within_a_minute_silence_a_source() -> None:
    assert not after_failures(4).is_silenced(ADDRESS, 4.0)
    assert after_failures(5).is_silenced(ADDRESS, 5.0)


def test_a_silence_ends_a_minute_after_the_first_of_five_failures() -> None:
    limit = after_failures(5)
    assert limit.is_silenced(ADDRESS, 59.9)
    assert not limit.is_silenced(ADDRESS, 60.0)


def test_slow_failures_never_silence() -> None:
    assert not after_failures(50, every_s=16.0).is_silenced(ADDRESS, 50 * 16.0)


def test_another_source_is_not_silenced() -> None:
    assert not after_failures(5).is_silenced("192.0.2.8:4411", 5.0)


def test_another_port_of_the_same_address_is_the_same_source() -> None:
    assert after_failures(5).is_silenced("192.0.2.7:9", 5.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("[2001:db8:1:2::1]:4411", "[2001:db8:1:2:ffff::9]:1"),
        ("[fe80::1%eth0]:4411", "[fe80::2%eth1]:4411"),
        ("192.0.2.7:4411", "[::ffff:192.0.2.7]:4411"),
    ],
)
def test_addresses_one_host_commands_are_one_source(one: str, other: str) -> None:
    assert source_of(one) == source_of(other)


def test_neighbouring_networks_are_two_sources() -> None:
    assert source_of("[2001:db8:1:2::1]:4411") != source_of("[2001:db8:1:3::1]:4411")


def test_sources_remembered_are_bounded_and_the_oldest_goes_first() -> None:
    limit = after_failures(5)
    for number in range(MAX_SOURCES):
        limit.failed(f"10.{number >> 8}.{number & 255}.1:1", 10.0)
    assert not limit.is_silenced(ADDRESS, 10.0)
