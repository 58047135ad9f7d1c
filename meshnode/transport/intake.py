"""What happens to a packet that belongs to no known connection.

What lives here: `Intake`: reading its header, version negotiation, address validation (Retry), and making the
connection where it may be made. What does not: how many may be (`half_open`), what becomes of the connection (`link`).
Called by the switchboard. Time is an argument; nothing here touches a socket.

Whatever a stranger sends costs a header parse; only an Initial packet of full size (RFC 9000, section 14.1) gets an
answer, and never a longer one than it was itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # re-exported without saying so
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from meshnode.transport.addresses import SocketName, source_prefix
from meshnode.transport.half_open import Admit, HalfOpenGuard
from meshnode.transport.quic import CONNECTION_ID_BYTES, SUPPORTED_VERSIONS, MeshQuicConnection
from meshnode.transport.settings import TransportSettings


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer with these bytes and forget the packet."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """A connection to carry on with, which the packet must be given to. `validated` where its source proved its
    address; `evict` is the number of the half-open link that must go for it."""

    connection: MeshQuicConnection
    first_cid: bytes
    validated: bool
    evict: int | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """The packet means nothing to anybody."""


Verdict = Reply | Accepted | Dropped
_DROPPED = Dropped()


def destination_cid(data: bytes) -> bytes | None:
    """The connection id a packet is addressed to, read without parsing the rest; None where there is none.

    A short header (RFC 9000, section 17.3) has it at byte 1, in our own length; a long one (17.2) behind its length.
    """
    if len(data) < 1 + CONNECTION_ID_BYTES:
        return None
    if not data[0] & 0x80:
        return data[1 : 1 + CONNECTION_ID_BYTES]
    length = data[5]
    return data[6 : 6 + length] if len(data) >= 6 + length else None


class Intake:
    """Decides on packets of unknown connections; keeps the half-open count."""

    def __init__(self, configuration: QuicConfiguration, settings: TransportSettings, now_s: float) -> None:
        self._configuration = configuration
        self._tokens = QuicRetryTokenHandler()
        self.guard = HalfOpenGuard(settings, now_s)

    def judge(self, data: bytes, source: SocketName, now_s: float) -> Verdict:
        """Decide on a packet whose destination connection id is not known."""
        if len(data) < SMALLEST_MAX_DATAGRAM_SIZE:
            return _DROPPED
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=CONNECTION_ID_BYTES)
        except ValueError:
            return _DROPPED
        # A negotiation packet must not be answered with one: two nodes could be set upon each other for ever.
        if header.version is None or header.packet_type is QuicPacketType.VERSION_NEGOTIATION:
            return _DROPPED
        if header.version not in SUPPORTED_VERSIONS:
            return Reply(
                encode_quic_version_negotiation(
                    source_cid=header.destination_cid,
                    destination_cid=header.source_cid,
                    supported_versions=SUPPORTED_VERSIONS,
                )
            )
        if header.packet_type is not QuicPacketType.INITIAL:
            return _DROPPED
        return self._judge_initial(header, source, now_s)

    def _judge_initial(self, header: QuicHeader, source: SocketName, now_s: float) -> Verdict:
        original_cid, retry_cid = header.destination_cid, None
        if header.token:
            try:
                original_cid = self._tokens.validate_token(
                    address=source, destination_cid=header.destination_cid, token=header.token, now=now_s
                )
            except ValueError:
                # Expired or forged. Its owner starts anew when it hears nothing; silence costs us least.
                return _DROPPED
            retry_cid = header.destination_cid
        validated = retry_cid is not None
        verdict = self.guard.judge(source_prefix(source), validated=validated, now_s=now_s)
        if verdict.admit is Admit.DROP:
            return _DROPPED
        if verdict.admit is Admit.VALIDATE:
            return Reply(self._retry(header, source, now_s))
        connection = MeshQuicConnection(
            self._configuration, original_destination_cid=original_cid, retry_source_cid=retry_cid
        )
        return Accepted(connection, header.destination_cid, validated, verdict.evict)

    def _retry(self, header: QuicHeader, source: SocketName, now_s: float) -> bytes:
        source_cid = os.urandom(CONNECTION_ID_BYTES)
        token = self._tokens.create_token(
            address=source,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=source_cid,
            now=now_s,
        )
        assert header.version is not None, "judge() has dropped packets without one"
        return encode_quic_retry(
            version=header.version,
            source_cid=source_cid,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )
