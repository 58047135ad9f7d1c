"""What strangers send: no bytes make the intake raise, answer longer than it was asked, or keep anything."""

from __future__ import annotations

import random

import pytest
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from hostile_peer import an_initial, raw_configuration
from hypothesis import given
from hypothesis import strategies as st
from making_links import an_identity

from meshnode.transport.clock import boottime_s
from meshnode.transport.intake import Accepted, Dropped, Intake, Reply, destination_cid
from meshnode.transport.quic import accepting_configuration
from meshnode.transport.settings import TransportSettings

IDENTITY = an_identity()
SOURCE = ("192.0.2.1", 4411)
ANOTHER_SOURCE = ("192.0.2.1", 4412)
INITIAL = an_initial()


def an_intake(settings: TransportSettings | None = None) -> Intake:
    found = settings or TransportSettings()
    return Intake(accepting_configuration(found, IDENTITY), found, 0.0)


def validating() -> Intake:
    """An intake that has every source prove its address."""
    return an_intake(TransportSettings(half_open_retry_above=0))


@given(st.binary(max_size=1500))
def test_any_bytes_are_dropped_or_answered_briefly(data: bytes) -> None:
    destination_cid(data)
    verdict = an_intake().judge(data, SOURCE, 0.0)
    if isinstance(verdict, Reply):
        assert len(verdict.data) <= len(data)
    assert not isinstance(verdict, Accepted) or len(data) >= 1200


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_any_damage_to_a_real_first_packet_is_borne(seed: int, count: int) -> None:
    rng, changed = random.Random(seed), bytearray(INITIAL)
    for _ in range(count):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    verdict = validating().judge(bytes(changed), SOURCE, 0.0)
    assert not isinstance(verdict, Accepted)
    if isinstance(verdict, Reply):
        assert len(verdict.data) <= len(INITIAL)


@given(st.integers(0, 1199))
def test_first_packet_cut_short_gets_no_answer(length: int) -> None:
    assert isinstance(an_intake().judge(INITIAL[:length], SOURCE, 0.0), Dropped)


def test_connection_id_is_found_in_long_and_short_headers() -> None:
    header = pull_quic_header(Buffer(data=INITIAL), host_cid_length=8)
    assert destination_cid(INITIAL) == header.destination_cid
    assert destination_cid(b"\x40" + b"12345678" + b"rest") == b"12345678"
    assert destination_cid(b"\x40" + b"1234567") is None
    assert destination_cid(b"\xc0\x00\x00\x00\x01\x14" + b"x" * 10) is None


def test_unknown_quic_version_is_told_what_is_spoken() -> None:
    unknown = INITIAL[:1] + b"\x0a\x0a\x0a\x0a" + INITIAL[5:]
    verdict = an_intake().judge(unknown, SOURCE, 0.0)
    assert isinstance(verdict, Reply)
    answer = pull_quic_header(Buffer(data=verdict.data), host_cid_length=8)
    assert answer.packet_type is QuicPacketType.VERSION_NEGOTIATION


def test_version_negotiation_is_never_answered_with_one() -> None:
    negotiation = INITIAL[:1] + b"\x00\x00\x00\x00" + INITIAL[5:]
    assert isinstance(an_intake().judge(negotiation, SOURCE, 0.0), Dropped)


def retried(intake: Intake) -> bytes:
    """The second first packet of a client that was sent a Retry from SOURCE."""
    client = QuicConnection(configuration=raw_configuration())
    client.connect(SOURCE, boottime_s())
    verdict = intake.judge(client.datagrams_to_send(boottime_s())[0][0], SOURCE, 0.0)
    assert isinstance(verdict, Reply)
    client.receive_datagram(verdict.data, SOURCE, boottime_s())
    packets: list[tuple[bytes, object]] = client.datagrams_to_send(boottime_s())
    return packets[0][0]


def test_source_that_proves_its_address_gets_in_while_addresses_are_validated() -> None:
    intake = validating()
    verdict = intake.judge(retried(intake), SOURCE, 1.0)
    assert isinstance(verdict, Accepted)
    assert verdict.validated


@pytest.mark.parametrize(
    ("source", "at_s"), [(ANOTHER_SOURCE, 1.0), (SOURCE, 31.0)], ids=["from another address", "after its time"]
)
def test_proof_of_address_is_good_for_its_source_and_a_short_time(source: tuple[str, int], at_s: float) -> None:
    intake = validating()
    assert isinstance(intake.judge(retried(intake), source, at_s), Dropped)


def test_proof_of_address_given_by_another_process_is_worth_nothing() -> None:
    assert isinstance(validating().judge(retried(validating()), SOURCE, 1.0), Dropped)


def test_configuration_offers_no_resumption() -> None:
    configuration: QuicConfiguration = accepting_configuration(TransportSettings(), IDENTITY)
    assert configuration.session_ticket is None
    verdict = an_intake().judge(INITIAL, SOURCE, 0.0)
    assert isinstance(verdict, Accepted)
    assert verdict.connection._session_ticket_handler is None
    assert verdict.connection._session_ticket_fetcher is None
