"""Every message of links, with its size limit, and which of them may travel how.

What lives here: the lists. What does not: the shapes (`proto.messages`, `proto.reach`, `proto.tunnels`), and messages
that only travel inside a tunnel, whose lists lie beside them (`proto.weights`).
"""

from __future__ import annotations

from proto.messages import (
    Ack,
    Challenge,
    Commit,
    Confirm,
    ConfirmRequest,
    Delta,
    Digest,
    Hello,
    IdentityConflict,
    IndirectAck,
    LeaseRenewal,
    LifeRequest,
    LifeSign,
    Message,
    Ping,
    PingRequest,
    Prepare,
    Prepared,
    Proof,
    Refusal,
    Relay,
    Release,
    Revocations,
    Row,
    RowRequest,
    StageReport,
    ViewHash,
    Welcome,
)
from proto.reach import ReachReport, ReachRequest
from proto.tunnels import TunnelAnswer, TunnelBytes, TunnelCancel, TunnelCredit, TunnelRequest

_KIB = 1024
CONTROL_MESSAGES: dict[type[Message], int] = {
    Hello: 1 * _KIB,
    Challenge: 1 * _KIB,
    Proof: 8 * _KIB,
    Welcome: 12 * _KIB,
    Refusal: 4 * _KIB,
    IdentityConflict: 1 * _KIB,
    LifeRequest: 1 * _KIB,
    LifeSign: 1 * _KIB,
    Revocations: 256 * _KIB,
    ViewHash: 1 * _KIB,
    Digest: 256 * _KIB,
    Delta: 256 * _KIB,
    RowRequest: 1 * _KIB,
    Row: 8 * _KIB,
    Ping: 1 * _KIB,
    Ack: 1 * _KIB,
    PingRequest: 1 * _KIB,
    IndirectAck: 1 * _KIB,
    Relay: 72 * _KIB,
    ConfirmRequest: 2 * _KIB,
    Confirm: 8 * _KIB,
    Prepare: 8 * _KIB,
    Prepared: 2 * _KIB,
    Commit: 2 * _KIB,
    Release: 2 * _KIB,
    LeaseRenewal: 2 * _KIB,
    StageReport: 3 * _KIB,
    ReachRequest: 2 * _KIB,
    ReachReport: 2 * _KIB,
    TunnelRequest: 4 * _KIB,
    TunnelAnswer: 4 * _KIB,
    TunnelBytes: 9 * _KIB,
    TunnelCredit: 1 * _KIB,
    TunnelCancel: 1 * _KIB,
}
"""Each control message's largest encoded size in bytes."""

DATAGRAM_MESSAGES: frozenset[type[Message]] = frozenset({Ping, Ack, PingRequest, IndirectAck})
"""What may come in a datagram; all else belongs on the control stream."""

MAX_DATAGRAM_BYTES = 1100
MAX_FRAME_BYTES = 256 * _KIB

HANDSHAKE_MESSAGES: frozenset[type[Message]] = frozenset({Hello, Challenge, Proof, Welcome, Refusal})
"""The only messages read on a link that is not authenticated yet."""
