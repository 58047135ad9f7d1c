"""Numeric socket addresses as they stand on the wire, in socket calls and in source-rate accounts.

What lives here: `parse_address`, `format_address`, `source_prefix`. What does not: choosing addresses (membership) and
host names, which are never resolved: a peer could make us resolve anything.

On the wire an address is text: `192.168.1.5:4411` or `[fe80::1]:4411`. In socket calls it is a `SocketName`, always as
the socket of its family returns it, so that the two compare equal: `(host, port)` for IPv4, `(host, port, 0, scope)`
for IPv6.
"""

from __future__ import annotations

import ipaddress
import socket

SocketName = tuple[str, int] | tuple[str, int, int, int]

IPV4_SOURCE_BITS = 24
IPV6_SOURCE_BITS = 64
"""One source for rate limits: a /24 or a /64, which is what one customer line is given."""


class MalformedAddress(ValueError):
    """A text is no numeric socket address. Fields: `found`, `expected`."""

    def __init__(self, found: str) -> None:
        self.found = found
        self.expected = "a numeric address and port such as 192.168.1.5:4411 or [2001:db8::5]:4411"
        super().__init__(f"address: found {found[:80]!r}, expected {self.expected}")


def parse_address(text: str) -> SocketName:
    """The socket name of `text`. A scoped IPv6 address may name its interface or number: `[fe80::1%eth0]:4411`.

    Raises `MalformedAddress`, also for an interface that does not exist here.
    """
    host, separator, port_text = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not separator or not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65_535:
        raise MalformedAddress(text)
    address, _, zone = host.partition("%")
    try:
        parsed = ipaddress.ip_address(address)
        scope = _scope_of(zone)
    except (ValueError, OSError) as error:
        raise MalformedAddress(text) from error
    if (parsed.version == 6) is not bracketed or (zone and parsed.version == 4):
        raise MalformedAddress(text)
    if parsed.version == 4:
        return str(parsed), int(port_text)
    return str(parsed), int(port_text), 0, scope


def format_address(name: SocketName) -> str:
    """The wire text of a socket name; an IPv6 zone is left out, since it means nothing on another machine."""
    host = name[0].partition("%")[0]
    return f"[{host}]:{name[1]}" if ":" in host else f"{host}:{name[1]}"


def family_of(name: SocketName) -> socket.AddressFamily:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if len(name) == 4 else socket.AF_INET


def canonical(name: SocketName) -> SocketName:
    """`name` as it compares: the zone text goes (the scope number stays), and so does the IPv6 flow label."""
    if len(name) == 4:
        return name[0].partition("%")[0], name[1], 0, name[3]
    return name


def source_prefix(name: SocketName) -> str:
    """The network that is charged for what comes from `name`: its /24 or /64."""
    host = name[0].partition("%")[0]
    bits = IPV6_SOURCE_BITS if ":" in host else IPV4_SOURCE_BITS
    return str(ipaddress.ip_network((host, bits), strict=False))


def _scope_of(zone: str) -> int:
    if not zone:
        return 0
    return int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
