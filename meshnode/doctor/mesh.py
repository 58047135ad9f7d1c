"""Checks of the mesh as one running node knows it: paths, clocks, versions, identities, addresses. No I/O.

What lives here: `MeshFacts`, `PeerFacts`, `check_mesh` and the order of the checks; those about paths are in `paths`.
What does not: gathering (`meshnode.doctor.examining`).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from meshnode.addresses import InterfaceAddress, is_bridge
from meshnode.doctor.finding import Finding, Grade
from meshnode.doctor.nat import Nat, nat_of
from meshnode.doctor.paths import check_paths
from meshnode.doctor.peers import PeerFacts
from proto.times import CLOCK_TOLERANCE_S

CLOCK_WARNING_S: Final = 30.0
"""An invite of a minute's life would already be judged wrong; NTP keeps clocks within tens of milliseconds."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two processes were met with one key: the node, both addresses, and how long ago."""

    node: str
    address: str
    other_address: str


@dataclass(frozen=True, slots=True)
class MeshFacts:
    """`addresses` are those that this node tells the mesh, `observed` those that peers see it at, by peer; `refused`
    are texts of links that were refused for want of a common protocol version."""

    node: str
    software: str
    port: int
    addresses: tuple[str, ...]
    interfaces: tuple[InterfaceAddress, ...]
    observed: dict[str, str]
    peers: tuple[PeerFacts, ...]
    conflicts: tuple[Conflict, ...] = ()
    refused: tuple[str, ...] = ()


def check_mesh(facts: MeshFacts) -> list[Finding]:
    """Judge the facts, in the order in which one would look."""
    return [
        *_conflicts(facts),
        *_addresses(facts),
        _nat(facts),
        *check_paths(facts.peers),
        *_clocks(facts),
        *_versions(facts),
    ]


def _conflicts(facts: MeshFacts) -> Iterator[Finding]:
    checked = "whether each key is in use by one process only"
    for conflict in dict.fromkeys(facts.conflicts):
        whose = "this node's" if conflict.node == facts.node else f"{_called(facts, conflict.node)}'s"
        found = f"a second process with {whose} key: {conflict.address} and {conflict.other_address}"
        advice = "stop one of the two and give it its own --state-dir and a new invite"
        yield Finding("identity", Grade.ERROR, conflict.node[:10], checked, found, advice)
    if not facts.conflicts:
        yield Finding("identity", Grade.OK, "this mesh", checked, "no key was met twice since this node started")


def _addresses(facts: MeshFacts) -> Iterator[Finding]:
    """A bridge of containers has the same address on every machine that runs them: peers would dial themselves."""
    checked = "addresses told to the mesh against this machine's interfaces"
    by_host = {one.host.partition("%")[0]: one.interface for one in facts.interfaces}
    bridges = {host: name for host, name in by_host.items() if is_bridge(name)}
    fine = True
    for address in facts.addresses:
        if (name := bridges.get(_host(address))) is not None:
            fine = False
            found = f"{address} belongs to {name}, a bridge for containers or virtual machines"
            advice = "leave it out of `advertise` and `listen`: no other machine reaches this one there"
            yield Finding("addresses", Grade.WARNING, name, checked, found, advice)
    for peer in facts.peers:
        for address in peer.addresses:
            if (name := bridges.get(_host(address))) is not None:
                fine = False
                found = f"it says that it answers at {address}, which is {name} on this machine too: a bridge's address"
                advice = f"on {peer.called}: leave that address out of `advertise` and `listen`"
                yield Finding("addresses", Grade.WARNING, peer.called, checked, found, advice)
    if not facts.addresses:
        advice = "connect a network, or name an address with --advertise"
        yield Finding("addresses", Grade.ERROR, "this node", checked, "it tells the mesh no address at all", advice)
    elif fine:
        yield Finding("addresses", Grade.OK, "this node", checked, ", ".join(facts.addresses))


def _nat(facts: MeshFacts) -> Finding:
    checked = f"where {len(facts.observed)} peer(s) see this node, against its own addresses"
    nat = nat_of(facts.observed, [one.host for one in facts.interfaces], facts.port)
    seen = ", ".join(nat.mapped)
    forward = f"forward a UDP port of the router to this machine's port {facts.port} and name it with --advertise"
    match nat.kind:
        case Nat.UNKNOWN:
            return Finding("nat", Grade.OK, "this node", checked, "unknown: no peer is linked that could tell")
        case Nat.NONE:
            return Finding("nat", Grade.OK, "this node", checked, "none: peers see an address of this machine")
        case Nat.ONE_OBSERVER:
            found = f"behind a NAT, seen at {seen}; its kind can't be told from one peer"
            return Finding("nat", Grade.OK, "this node", checked, found)
        case Nat.ENDPOINT_INDEPENDENT:
            found = f"behind a NAT that keeps one outer address for all peers ({seen}): peers can be told of it"
            return Finding("nat", Grade.OK, "this node", checked, found)
        case Nat.ENDPOINT_DEPENDENT:
            found = f"behind a NAT that gives each peer another outer address ({seen}): none is of use to the others"
            return Finding("nat", Grade.WARNING, "this node", checked, found, forward)


def _clocks(facts: MeshFacts) -> Iterator[Finding]:
    """This node's clock is judged by the middle of what its peers say, each peer's by the same middle: with several
    peers one wrong clock does not look like many."""
    checked = "wall clocks, from what peers say theirs is and half the round trip"
    ahead = {peer.called: peer.clock_ahead_s for peer in facts.peers if peer.clock_ahead_s is not None}
    if not ahead:
        return
    errors = {peer.called: peer.clock_error_s for peer in facts.peers}
    # The local clock is one voice among them, with 0.
    middle_s = statistics.median_low([*ahead.values(), 0.0]) if len(ahead) > 1 else 0.0
    own_s = -middle_s
    if (grade := _clock_grade(own_s)) is not Grade.OK:
        found = f"{_ahead(own_s)} the middle of {len(ahead)} peers' clocks"
        yield Finding("clock", grade, "this node", checked, found, "set it: switch on NTP (timedatectl set-ntp true)")
    bad = {called: s - middle_s for called, s in ahead.items() if _clock_grade(s - middle_s) is not Grade.OK}
    for called, off_s in bad.items():
        who = "the others" if len(ahead) > 1 else "this node's"
        advice = "switch on NTP on both machines" if len(ahead) == 1 else f"set the clock of {called} (NTP)"
        found = f"{_ahead(off_s)} {who} (give or take {errors[called]:.1f} s); invites and expiries go by it"
        yield Finding("clock", _clock_grade(off_s), called, checked, found, advice)
    if not bad and _clock_grade(own_s) is Grade.OK:
        most = max(abs(s) for s in ahead.values())
        yield Finding("clock", Grade.OK, "this mesh", checked, f"{len(ahead)} peer(s), at most {most:.1f} s apart")


def _clock_grade(off_s: float) -> Grade:
    if abs(off_s) > CLOCK_TOLERANCE_S:
        return Grade.ERROR
    return Grade.WARNING if abs(off_s) > CLOCK_WARNING_S else Grade.OK


def _ahead(seconds: float) -> str:
    return f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'}"


def _versions(facts: MeshFacts) -> Iterator[Finding]:
    checked = "versions that members say they run"
    for text in dict.fromkeys(facts.refused):
        advice = "upgrade the older one: adjacent minor versions talk to each other"
        yield Finding("versions", Grade.ERROR, "a peer", checked, text, advice)
    running = {peer.called: peer.software for peer in facts.peers if peer.software}
    others = {called: software for called, software in running.items() if software != facts.software}
    if not others and not facts.refused:
        yield Finding("versions", Grade.OK, "this mesh", checked, f"all run {facts.software}")
        return
    for called, software in others.items():
        near = _is_near(facts.software, software)
        found = f"{software}; this node runs {facts.software}"
        found += "" if near else ", more than one minor version apart"
        advice = "upgrade the older one" + (" when it suits" if near else "")
        yield Finding("versions", Grade.OK if near else Grade.WARNING, called, checked, found, advice)


def _is_near(one: str, other: str) -> bool:
    ours, theirs = _release(one), _release(other)
    return ours is not None and theirs is not None and ours[0] == theirs[0] and abs(ours[1] - theirs[1]) <= 1


def _release(software: str) -> tuple[int, int] | None:
    parts = software.rpartition(" ")[2].split(".")
    return (int(parts[0]), int(parts[1])) if len(parts) >= 2 and all(p.isdigit() for p in parts[:2]) else None


def _called(facts: MeshFacts, node: str) -> str:
    return next((peer.called for peer in facts.peers if peer.node == node), node[:10])


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]").partition("%")[0]
