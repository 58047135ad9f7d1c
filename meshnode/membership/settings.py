"""Every constant of membership, with its trade-off and its source, in three presets.

What lives here: `MembershipSettings` and the presets `LAN`, `WAN` and `LOCAL`. What does not: the rules that use them.
Chosen by name in the node's config (`membership = "lan"`); tests and scenarios replace single fields.

Sources named below: SWIM (Das, Gupta, Motivala, DSN 2002), Lifeguard (Dadgar, Phillips, Currey, DSN-W 2018), memberlist
(hashicorp/memberlist `config.go`), Vivaldi (Dabek et al., SIGCOMM 2004), HyParView (Leitao et al., DSN 2007)."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class MembershipSettings:
    """Tunables of one node's membership; all durations in seconds. Every node of a mesh should use the same preset."""

    # --- probes ---
    probe_interval_s: float = 0.5
    """SWIM's protocol period. Shorter finds a death sooner and costs packets in proportion (memberlist LAN: 1 s)."""
    probe_timeout_min_s: float = 0.2
    """Floor of the direct probe's time-out: below it a garbage collection or a Wi-Fi sleep looks like a loss."""
    probe_timeout_max_s: float = 0.5
    """Ceiling of the time-out, and its value while the link has no RTT sample (memberlist LAN: 500 ms)."""
    indirect_probes: int = 3
    """SWIM's k: peers asked to probe on our behalf (memberlist: 3)."""
    awareness_max: int = 8
    """Ceiling of Lifeguard's local health score; time-outs grow up to this many times (memberlist: 8)."""

    # --- suspicion ---
    suspicion_min_s: float = 1.2
    """Time a suspect has where `suspicion_confirmations` others accuse it too: four pings of the vigil
    (memberlist: 4 periods of 1 s)."""
    suspicion_max_s: float = 6.0
    """Time a suspect has on a single accusation; Lifeguard's formula lies between the two."""
    suspicion_confirmations: int = 3
    """Lifeguard's K: independent accusations that bring the time down to its minimum (Lifeguard, section IV-B)."""
    accusers_needed: int = 2
    """Accusers that a judge without an own link needs: one broken path alone banishes nobody (Mesh-LLM 417)."""
    burst_datagrams: int = 3
    """Datagrams of a burst: at 20 % loss each way all three and the stream ping fail in under 5 % of bursts."""
    burst_spacing_s: float = 0.1
    """Between a burst's datagrams, so that one lossy moment does not swallow all of them."""
    vigil_interval_s: float = 0.3
    """While a suspicion runs after a failed burst the suspect is pinged this often: any answer saves it."""

    # --- own overload ---
    lateness_s: float = 0.1
    """A timer that fires this late says that this process did not run: probes in flight prove nothing then."""
    sample_lateness_s: float = 0.02
    """RTT samples taken while the loop lags more than this are dropped: what a LAN's RTT is would drown in it."""
    grace_after_stall_s: float = 2.0
    """After a stall or a resume nobody is accused for this long: the queues have to drain first."""

    timer_slack_s: float = 0.5
    """Periods that are no appointments (gossip rounds, RTT pings, filling up links) may start this late, so that they
    share a wake-up with a probe: most of what a node at rest costs is waking up."""

    # --- gossip ---
    sync_interval_s: float = 1.0
    """Between two anti-entropy rounds of a node in a small mesh. A round between equal views costs about 60 bytes."""
    large_sync_interval_s: float = 10.0
    """The same where the mesh is larger than `max_links`: differences in flight are normal there, announcements
    carry the news, and rounds only have to repair (memberlist's push-pull: 30 s)."""
    fanout: int = 3
    """Peers that urgent news is passed on to (memberlist: 3; 99 % of 1,000 nodes after 7 rounds)."""
    announce_interval_s: float = 1.0
    """In a large mesh news is collected this long and announced by version; bodies are fetched by who lacks them, so
    that each crosses the wire about once per node."""
    delta_bytes: int = 60_000
    """Largest delta in bytes of bodies; a longer answer is cut into several, oldest first. A relay carries 64 KiB."""

    # --- links ---
    max_links: int = 64
    """Full mesh of links up to this many nodes, a partial view of random links above: 63 idle links take
    5 MiB (80 KiB each with aioquic 1.7.2)."""
    min_active_links: int = 8
    """Least links of a partial view; it grows as 2 log2 N (HyParView's active view: log N + c)."""
    dials_at_once: int = 16
    """Dials in flight: a joiner of a full mesh must not start 63 handshakes in one breath."""
    dial_patience_s: float = 0.4
    """The larger node id waits this long for the smaller one's dial, so that most pairs shake hands once."""
    dial_backoff_min_s: float = 0.5
    dial_backoff_max_s: float = 30.0
    """A living peer that can't be dialled is tried again after min, doubling up to max, each with jitter."""
    heal_interval_s: float = 3.0
    """Every so often one lost (dead) member is dialled at its last known addresses: partitions heal by themselves."""
    heal_interval_late_s: float = 6.0
    """The same once the newest loss is an hour old. Both sides dial, so that healing stays under 10 s."""
    shuffle_interval_s: float = 60.0
    """In a large mesh one random member without a link is dialled this often: keeps the overlay random and checks
    that no record outlives its owner (HyParView's shuffle)."""

    # --- measurement ---
    rtt_interval_s: float = 10.0
    """Between two RTT samples of a link, with jitter; probes count."""
    rtt_window_s: float = 60.0
    """Window of the minimum: long enough to see through jitter, short enough to follow a route."""
    rtt_fresh_s: float = 30.0
    """A link whose last sample is older is not corroborated: three of these intervals."""
    rtt_spread_s: float = 5.0
    """A link's samples must spread over this long to corroborate one another: one full queue on the way is not seen
    twice."""

    # --- publishing ---
    offer_change: float = 0.05
    """Relative change of a figure in bytes that makes a new offer, as in `SettleSettings.drift`."""
    offer_interval_s: float = 1.0
    """Least time between two offers."""
    rtt_change: float = 0.20
    rtt_change_s: float = 0.001
    """An RTT counts as changed when it moved by more than both."""
    network_interval_s: float = 2.0
    """Least time between two network parts in a small mesh."""
    network_interval_per_node_s: float = 0.2
    """In a large mesh least time between two network parts, per node of the mesh: keeps the whole mesh's stream of
    coordinates at 5 parts a second, whatever its size."""

    # --- keeping ---
    tombstone_s: float = 24 * 3600.0
    """How long dead and left records are kept as tombstones: longer than a partition of a working day."""
    floor_s: float = 30 * 24 * 3600.0
    """How long the incarnation floor of a forgotten node is kept: longer than a machine is usually off."""
    max_nodes: int = 10_000
    """Cap of records per mesh: a flood of them must not fill the memory."""
    max_floors: int = 50_000
    """Cap of remembered floors, 100 bytes each; the oldest go first."""


LAN = MembershipSettings()
"""Machines in a house or an office; also right for a mesh with a few members over the internet."""

WAN = replace(
    LAN,
    probe_interval_s=1.0,
    probe_timeout_min_s=0.5,
    probe_timeout_max_s=2.0,
    suspicion_min_s=4.0,
    suspicion_max_s=24.0,
    burst_spacing_s=0.4,
    vigil_interval_s=1.0,
    sync_interval_s=2.0,
    dial_patience_s=1.5,
    heal_interval_s=4.0,
)
"""Members mostly apart by tens to hundreds of milliseconds, through relays or mobile networks; memberlist's WAN preset
probes every 5 s with 3 s of time-out, by which a partition would not heal within 10 s."""

LOCAL = replace(
    LAN,
    probe_interval_s=0.25,
    probe_timeout_min_s=0.1,
    probe_timeout_max_s=0.3,
    suspicion_min_s=0.8,
    suspicion_max_s=3.0,
    burst_spacing_s=0.05,
    vigil_interval_s=0.15,
    sync_interval_s=0.5,
    dial_patience_s=0.2,
    heal_interval_s=1.5,
)
"""All nodes on one machine (memberlist's Local preset): loopback loses nothing, so that time-outs may be short."""

PRESETS: dict[str, MembershipSettings] = {"lan": LAN, "wan": WAN, "local": LOCAL}
