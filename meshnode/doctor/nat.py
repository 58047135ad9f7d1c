"""What stands between this node and its peers, told from where they see it.

What lives here: `Nat`, `nat_of`. The words are those of RFC 4787, section 4.1: a NAT's mapping is
*endpoint-independent* where one inner port keeps one outer address for all peers, else it depends on the endpoint
(often called symmetric), and no address that one peer sees is of use to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Nat(StrEnum):
    """The kind, as far as the observers can tell."""

    UNKNOWN = "unknown"
    NONE = "none"
    ONE_OBSERVER = "one_observer"
    ENDPOINT_INDEPENDENT = "endpoint_independent"
    ENDPOINT_DEPENDENT = "endpoint_dependent"


@dataclass(frozen=True, slots=True)
class NatFacts:
    """`mapped` are the addresses that peers see and this machine does not have, the most often seen first."""

    kind: Nat
    mapped: tuple[str, ...] = ()


def nat_of(observed: Mapping[str, str], own_hosts: Iterable[str], port: int) -> NatFacts:
    """Judge `observed`: by peer, the address and port it sees this node at. `own_hosts` are this machine's addresses,
    `port` the one the node is bound to."""
    hosts = {text.partition("%")[0] for text in own_hosts}
    foreign = [address for address in observed.values() if not _is_own(address, hosts, port)]
    if not observed:
        return NatFacts(Nat.UNKNOWN)
    if not foreign:
        return NatFacts(Nat.NONE)
    mapped = tuple(sorted(set(foreign), key=lambda address: (-foreign.count(address), address)))
    if len(foreign) == 1:
        return NatFacts(Nat.ONE_OBSERVER, mapped)
    ports_by_host: dict[str, set[str]] = {}
    for address in mapped:
        host, _, seen_port = address.rpartition(":")
        ports_by_host.setdefault(host, set()).add(seen_port)
    depends = any(len(ports) > 1 for ports in ports_by_host.values())
    return NatFacts(Nat.ENDPOINT_DEPENDENT if depends else Nat.ENDPOINT_INDEPENDENT, mapped)


def _is_own(address: str, hosts: set[str], port: int) -> bool:
    host, _, seen_port = address.rpartition(":")
    return host.strip("[]") in hosts and seen_port == str(port)
