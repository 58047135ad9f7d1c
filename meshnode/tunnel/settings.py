"""Every tunable of tunnels, each with its trade-off.

What lives here: `TunnelSettings`. What does not: what the operator sets (`meshnode.config.keys`), which the daemon
turns into this.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True, slots=True)
class TunnelSettings:
    """Times in seconds, sizes in bytes."""

    carrier: str = "auto"
    """`auto` tries TCP and falls back on the link; `tcp` and `quic` use nothing else."""
    tcp_port: int | None = None
    """Where to listen for TCP; None is the link's own port number, or any where that is taken; 0 is any."""

    answer_s: float = 5.0
    """Time for the peer to answer a request for a tunnel."""
    connect_s: float = 1.5
    """Time for TCP and TLS to stand; a firewall that drops packets costs this once, then the link is used."""
    blocked_s: float = 60.0
    blocked_most_s: float = 3600.0
    """How long TCP to a peer is not tried again after it failed; doubled with each failure, up to the second."""
    ticket_s: float = 10.0
    """Life of a ticket: three tries of a lost packet on a slow path."""
    greeting_s: float = 5.0
    """Time for a TCP connection to show its ticket."""
    greeting_cap: int = 32
    """TCP connections without a ticket at once; the oldest goes for a newer one."""
    greetings_per_source_per_s: float = 10.0
    greetings_per_source_burst: float = 64.0
    greetings_per_s: float = 200.0
    """TCP connections taken from one source network, and from all together: a TLS handshake costs about a
    millisecond."""

    per_peer: int = 32
    """Tunnels that one of two nodes has opened to the other for one purpose at once, tickets included. Each purpose and
    side has its own share: many requests for a model can't keep an engine from its stages."""
    in_all: int = 512
    """Tunnels of this node at once, tickets included."""
    opens_per_s: float = 20.0
    opens_burst: float = 64.0
    """Requests for tunnels taken from one peer."""

    relay_window_bytes: int = 64 * KIB
    """Bytes on their way in a relayed tunnel, each way."""
    relay_bytes_per_s: float = 96.0 * KIB
    """What all relayed tunnels of this node send together, well below what a carrier's link takes (256 KiB/s)."""
