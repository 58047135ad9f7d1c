"""Every tunable of the transport, each with its trade-off.

What lives here: `TransportSettings`. What does not: probe and suspicion times (membership). The daemon builds one and
hands it to the endpoint; tests shorten the times they wait for.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Times in seconds, sizes in bytes, rates per second."""

    idle_timeout_s: float = 30.0
    """A silent link ends after this. RTT pings go out every 10 s, so three in a row must be lost; shorter would drop
    links of a stalled process that membership still gives the benefit of the doubt."""
    handshake_deadline_s: float = 5.0
    """QUIC handshake plus authentication, both sides. aioquic alone would wait for the idle time-out."""
    dial_stagger_s: float = 0.25
    """Pause before the next address of a peer is tried as well (RFC 8305, section 5: 250 ms)."""
    answer_timeout_s: float = 1.5
    """How long the leading address of a dial may be silent at one step of the handshake before another one leads."""
    old_boot_answer_s: float = 0.8
    """Time for an older process of the same key to show that it lives: some round trips of a slow path, and a start
    that hardly waits."""
    flush_s: float = 0.25
    """Time for a link's last frame to be read before the connection is closed under it."""

    max_links: int = 256
    """Most authenticated links at once; membership aims below it, this only bounds memory (about 80 KiB a link)."""
    max_dials: int = 64
    """Most peers dialled at the same time."""
    max_addresses_per_dial: int = 16
    """Most addresses tried in one dial; more would let a record make us spray packets."""

    half_open_retry_above: int = 32
    """Above this many unauthenticated inbound links, addresses are validated first (one more round trip)."""
    half_open_cap: int = 64
    """Most unauthenticated inbound links; the oldest goes for a newer one."""
    new_links_per_source_per_s: float = 10.0
    new_links_per_source_burst: float = 100.0
    """Inbound connection attempts per source network and second, and the burst above it that is let pass: a whole house
    that comes back after a power cut is one source."""
    new_links_per_s: float = 200.0
    """Inbound connection attempts in all: each costs about a millisecond of processor time."""
    retries_per_s: float = 1000.0
    """Address validations answered per second: each costs about 0.1 ms and leaves no state."""
    tracked_sources: int = 1024
    """Source networks whose rates are remembered; the least recent is forgotten first."""

    unauthenticated_bytes: int = 16 * KIB
    """Most stream bytes read before a peer is authenticated: a hello and the largest proof fit."""
    receive_window_bytes: int = 576 * KIB
    """Stream bytes a peer may have on the way to us, and the most a hostile one can make us buffer. Credit is renewed
    by half windows, so half of it must hold the largest frame. aioquic would double it for ever; here it slides."""
    unacknowledged_bytes: int = 64 * KIB
    """Stream bytes given to QUIC ahead of acknowledgements; the rest waits in the send queue, where newer state can
    still replace it."""
    send_queue_frames: int = 256
    send_queue_bytes: int = 1024 * KIB
    """High watermark of one link's send queue: a frame that would pass it closes the link as `slow_reader`."""
    send_queue_age_s: float = 10.0
    """A frame that waited this long closes the link as `slow_reader` too."""
    streams_per_link: int = 40
    """Streams beside the control stream that a peer may have open at once: its tunnels, and a few that are ending."""
    stream_window_bytes: int = 512 * KIB
    """Bytes of one such stream that a peer may have on the way, and what a reader that stalls can make this node keep.
    At 20 ms it carries the 24 MiB/s that QUIC reaches here."""
    stream_unacknowledged_bytes: int = 256 * KIB
    """Bytes of one such stream given to QUIC ahead of acknowledgements; then its writer waits."""
    pending_datagrams: int = 32
    """Datagrams waiting for congestion control; newer ones are dropped: a probe that waits longer measures nothing."""

    frames_per_s: float = 200.0
    frames_burst: float = 1000.0
    bytes_per_s: float = 256.0 * KIB
    bytes_burst: float = 1024.0 * KIB
    """Inbound budget of one link's control stream. The burst carries a first full exchange with a large mesh; beyond
    it the peer is slowed down by flow control, never by loss."""
    datagrams_per_s: float = 400.0
    datagrams_burst: float = 800.0
    """Inbound budget of one link's datagrams; those above it are dropped."""
    flood_s: float = 10.0
    """A peer that stays over its budget this long is cut off as `flooding`."""
