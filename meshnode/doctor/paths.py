"""Checks of the paths to single peers: UDP in both directions, and how large a packet may be. No I/O.

What lives here: `check_paths`. Each direction is judged by trial packets from fresh ports (`meshnode.transport.trial`),
and by links: one that this node dialled proves that its packets arrive there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshnode.doctor.finding import Finding, Grade
from meshnode.doctor.peers import PeerFacts

IPV4_HEADERS_BYTES: Final = 28
IPV6_HEADERS_BYTES: Final = 48
MIN_PATH_MTU_BYTES: Final = 1280
"""What IPv6 asks of every link (RFC 8200, section 5). QUIC works with 1,228, but other programs will not."""
ETHERNET_MTU_BYTES: Final = 1500


def check_paths(peers: Sequence[PeerFacts]) -> list[Finding]:
    """Every peer's reachability, and the path MTU of those with a link."""
    found: list[Finding] = []
    for peer in peers:
        found.append(_reachability(peer))
        if peer.answered and peer.path == "direct":
            found.append(_path_mtu(peer))
    return found


def _reachability(peer: PeerFacts) -> Finding:
    def finding(grade: Grade, found: str, advice: str = "") -> Finding:
        count = len(peer.tried) + len(peer.tried_here)
        checked = f"UDP both ways, packets from fresh ports to {count} address(es)"
        return Finding("reachability", grade, peer.called, checked, found, advice)

    if peer.status in ("dead", "suspect"):
        advice = "start it, or look at its log and its network; `meshnode remove` forgets one that is gone for good"
        return finding(Grade.WARNING, f"it is {peer.status}: not tried", advice)
    if peer.path is None and not peer.answered:
        advice = f"open UDP between the two machines, or have {peer.called} name a reachable address with --advertise"
        return finding(Grade.ERROR, f"no path from here; addresses: {_listed(peer.addresses)}", advice)
    if not peer.answered:
        found = f"a {peer.path} path, but it did not take part in the trial"
        return finding(Grade.WARNING, found, "try again; an older version of meshnode does not take part")
    to_it = bool(peer.arrived) or (peer.path == "direct" and peer.dialled_by_us)
    to_here = bool(peer.arrived_here) or (peer.path == "direct" and not peer.dialled_by_us)
    by = "directly" if peer.path == "direct" else "through another member only"
    if to_it and to_here:
        where = f"there {_listed(peer.arrived or (peer.link_address or '',))}"
        here = f"here {_listed(peer.arrived_here)}" if peer.arrived_here else "here over its link"
        grade = Grade.OK if peer.path == "direct" else Grade.WARNING
        advice = "" if peer.path == "direct" else "wait a minute for a link; if none comes, see link.refused events"
        return finding(grade, f"both ways, linked {by} ({where}; {here})", advice)
    if to_it:
        return finding(Grade.WARNING, f"linked {by}; packets from it don't reach this node by themselves", _open_here())
    if to_here:
        advice = f"on {peer.called}: open its UDP port in the firewall, or forward it and name it with --advertise"
        return finding(Grade.WARNING, f"linked {by}; packets from here don't reach it by themselves", advice)
    found = f"reached {by}; no packet of one arrives at the other"
    grade = Grade.WARNING if peer.path == "direct" else Grade.ERROR
    return finding(grade, found, "open or forward the UDP port of one of the two and name it with --advertise")


def _open_here() -> str:
    return (
        "fine as long as this node dials; else open its UDP port in this machine's firewall, or forward it at the "
        "router and name it with --advertise"
    )


def _path_mtu(peer: PeerFacts) -> Finding:
    headers = IPV6_HEADERS_BYTES if (peer.link_address or "").startswith("[") else IPV4_HEADERS_BYTES
    tried = f"{1200 + headers:,} to {1472 + headers:,} bytes with its headers"
    checked = f"largest packet along the link that arrives unfragmented, {tried}"
    if peer.largest_bytes == 0:
        found = "none of them arrived, though the link stands; or this system can't send unfragmented"
        return Finding("path_mtu", Grade.OK, peer.called, checked, f"unknown: {found}")
    mtu = peer.largest_bytes + headers
    if mtu < MIN_PATH_MTU_BYTES:
        advice = "raise the MTU of the tunnel or VPN in between: others need 1,280"
        return Finding("path_mtu", Grade.WARNING, peer.called, checked, f"{mtu:,} bytes", advice)
    note = "or more" if mtu >= ETHERNET_MTU_BYTES else "(a tunnel, VPN or DSL line is in between; links need 1,228)"
    return Finding("path_mtu", Grade.OK, peer.called, checked, f"{mtu:,} bytes {note}")


def _listed(addresses: Sequence[str]) -> str:
    shown = ", ".join(addresses[:3])
    return f"{shown} and {len(addresses) - 3} more" if len(addresses) > 3 else shown or "none known"
