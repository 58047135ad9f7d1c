"""What one endpoint has sent and received, for metrics and the bench.

What lives here: `Counters`. What does not: rendering (`meshnode.control`). Links and the endpoint count into
one object.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Totals since the start. Payload is what the application gave; UDP bytes are QUIC packets without IP headers."""

    udp_packets_sent: int = 0
    udp_bytes_sent: int = 0
    udp_packets_received: int = 0
    udp_bytes_received: int = 0
    frames_sent: int = 0
    frames_received: int = 0
    datagrams_sent: int = 0
    datagrams_received: int = 0
    datagrams_dropped: int = 0
    """Sent ones that congestion control held back too long, and received ones over the peer's budget."""
    datagram_bytes_sent: int = 0
    """Probe payload."""
    frame_bytes_sent: dict[str, int] = field(default_factory=dict)
    """Control-stream payload by message type."""
    links_accepted: int = 0
    links_dialled: int = 0
    handshakes_retried: int = 0

    def frame_sent(self, kind: str, count_bytes: int) -> None:
        """One frame of message type `kind` was handed to a link."""
        self.frames_sent += 1
        self.frame_bytes_sent[kind] = self.frame_bytes_sent.get(kind, 0) + count_bytes
