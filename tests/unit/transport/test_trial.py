"""Trial packets: their form, who looks at them, and how they are sent."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.transport.intake import destination_cid
from meshnode.transport.trial import HEADER_BYTES, MAX_WATCHED, SIZED, TrialSender, TrialWatch, trial_packet

NONCE = bytes(range(32))


def test_expected_packets_are_counted_by_place_and_size() -> None:
    watch = TrialWatch()
    arrived = watch.expect(NONCE)
    assert arrived is not None
    packets = (trial_packet(NONCE, 0), trial_packet(NONCE, 3), *(trial_packet(NONCE, SIZED, n) for n in (1200, 900)))
    assert all(watch.take(packet) for packet in packets)
    assert (arrived.places, arrived.largest_bytes) == ({0, 3}, 1200)


def test_packets_that_nobody_expects_change_nothing_but_are_nobody_else_s() -> None:
    watch = TrialWatch()
    arrived = watch.expect(NONCE)
    watch.forget(NONCE)
    assert watch.take(trial_packet(NONCE, 0))
    assert watch.take(trial_packet(bytes(32), 0))
    assert arrived is not None
    assert not arrived.places


@given(st.binary(max_size=100))
def test_cut_and_foreign_packets_are_never_counted(data: bytes) -> None:
    watch = TrialWatch()
    arrived = watch.expect(NONCE)
    watch.take(data)
    watch.take(trial_packet(NONCE, 1)[: min(len(data), HEADER_BYTES - 1)])
    assert arrived is not None
    assert not arrived.places


def test_no_quic_packet_is_taken_for_a_trial() -> None:
    assert not TrialWatch().take(bytes([0x40]) + bytes(60))
    assert not TrialWatch().take(bytes([0xC0]) + bytes(1200))
    assert destination_cid(trial_packet(NONCE, 0)) is not None, "the switchboard asks the watch only then"


def test_so_many_are_expected_at_once_and_no_nonce_twice() -> None:
    watch = TrialWatch()
    assert watch.expect(NONCE) is not None
    assert watch.expect(NONCE) is None
    made = [watch.expect(number.to_bytes(32, "big")) for number in range(1, MAX_WATCHED)]
    assert None not in made
    assert watch.expect(bytes(31) + b"\xff") is None


def test_each_address_of_a_family_at_hand_gets_its_own_place_from_a_fresh_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        there.settimeout(10)
        address = f"127.0.0.1:{there.getsockname()[1]}"
        tried = ("[2001:db8::1]:1", "no address", "192.0.2.1:0", address)
        with TrialSender(NONCE, tried, ["127.0.0.1:4411"]) as sender:
            sender.send()
            data, source = there.recvfrom(100)
    assert data == trial_packet(NONCE, 3)
    assert source[0] == "127.0.0.1"
    assert source[1] != 4411


@pytest.mark.parametrize("source", ["192.0.2.1:4411", "[2001:db8::1]:4411"])
def test_address_that_is_gone_from_this_machine_sends_nothing(source: str) -> None:
    with TrialSender(NONCE, ("127.0.0.1:9",), [source]) as sender:
        sender.send()
