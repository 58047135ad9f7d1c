"""Where this node may answer: the addresses its record says, best first.

What lives here: choosing among the operator's advertised addresses, the machine's own, and those that peers observe.
What does not: dialling them (`meshnode.transport`) and gossiping them (`meshnode.membership`). Called by the daemon at
start, when a peer observes a new address, and every so often, since laptops change networks.

Peers try all of them in a staggered race with the node's key pinned, so that a wrong one costs time, not safety; yet
addresses that can't be right are left out: of containers' bridges (a mesh once took 172.17.0.1 for a host, facts,
section 1), of loopback where there is another, of links without a zone.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from meshnode.config.values import SocketAddress
from proto.parts import MAX_ADDRESSES

MAX_OBSERVED = 4
_BRIDGE = re.compile(r"(docker|br-|veth|cni|flannel|cali|virbr|lxc|lxd|podman|vmnet|vboxnet|kube)")


class InterfaceAddress(NamedTuple):
    """One address of one of this machine's interfaces."""

    interface: str
    host: str


def interface_addresses() -> tuple[InterfaceAddress, ...]:
    """The IPv4 and IPv6 addresses of the interfaces that are up."""
    import psutil

    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    found = [
        InterfaceAddress(name, entry.address)
        for name, entries in psutil.net_if_addrs().items()
        if name in up
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    ]
    return tuple(sorted(found))


def own_addresses(
    bound: SocketAddress,
    advertised: Sequence[SocketAddress],
    interfaces: Iterable[InterfaceAddress],
    observed: Sequence[str] = (),
) -> tuple[str, ...]:
    """The addresses to tell the mesh, at most 16, best first.

    `bound` is what the socket is bound to (its port is the real one), `observed` what peers see this node at, the most
    often seen first. An address bound explicitly is the only one of the machine's own; where it is loopback and others
    are advertised, not even that.
    """
    host = ipaddress.ip_address(bound.host)
    if host.is_loopback and advertised:
        # Whoever forwards to a node on loopback is where it answers; its loopback address is another host's own.
        own = []
    elif not host.is_unspecified:
        own = [str(bound)]
    else:
        wants_v6 = host.version == 6
        own = [str(SocketAddress(text, bound.port)) for text in _usable(interfaces, wants_v6)]
    seen = [address for address in observed if _is_plausible(address)]
    ordered = [*(str(address) for address in advertised), *own, *seen[:MAX_OBSERVED]]
    return tuple(dict.fromkeys(ordered))[:MAX_ADDRESSES]


def is_bridge(interface: str) -> bool:
    """True for an interface that connects containers or virtual machines of this machine, by its name."""
    return _BRIDGE.match(interface) is not None


def _usable(interfaces: Iterable[InterfaceAddress], wants_v6: bool) -> list[str]:
    """IPv4 first, since home routers carry it most reliably; loopback only where there is nothing else."""
    hosts: list[tuple[int, str]] = []
    loopback = False
    for interface, text in interfaces:
        parsed = ipaddress.ip_address(text.partition("%")[0])
        loopback = loopback or (parsed.is_loopback and parsed.version == 4)
        if parsed.is_loopback or parsed.is_link_local or is_bridge(interface):
            continue
        if parsed.version == 4 or wants_v6:
            hosts.append((parsed.version, str(parsed)))
    if not hosts and loopback:
        return ["127.0.0.1"]
    return [text for _, text in sorted(hosts)]


def _is_plausible(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (parsed.is_unspecified or parsed.is_loopback or parsed.is_link_local or parsed.is_multicast)
