"""Trial packets: bare UDP datagrams that show whether a path carries a packet that belongs to no link.

What lives here: their form, `TrialWatch`, which counts the ones that arrive, and `TrialSender`, which sends them from a
fresh port, as a stranger's first packet comes. What does not: whom to try and what it means (`meshnode.reaching`,
`meshnode.doctor`).

A link's own packets prove little about its path: a NAT or a firewall lets them in because of those that went out. So a
trial leaves from a port that nothing was ever sent from. Its first byte is below 16, which no QUIC, DTLS or STUN packet
has (RFC 9443, section 2), then come five letters, a nonce of 32 bytes and the place of the address in the list that is
tried. Only packets whose nonce both sides agreed on over their link are looked at, none is ever answered.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from meshnode.transport.addresses import MalformedAddress, SocketName, family_of, parse_address

MAGIC: Final = b"\x05trial"
NONCE_BYTES: Final = 32
SIZED: Final = 255
"""In place of an address' number: a packet of a certain size along the link's own path."""
HEADER_BYTES: Final = len(MAGIC) + NONCE_BYTES + 1
MAX_WATCHED: Final = 64


def trial_packet(nonce: bytes, place: int, size_bytes: int = HEADER_BYTES) -> bytes:
    """The packet for the address at `place`, filled up with zeros to `size_bytes`."""
    return (MAGIC + nonce + bytes([place])).ljust(size_bytes, b"\0")


@dataclass(slots=True)
class Arrived:
    """What came of one trial: the places in the list of addresses, and the largest packet along the link's path."""

    places: set[int] = field(default_factory=set)
    largest_bytes: int = 0


class TrialWatch:
    """Trials that this node expects, by nonce; at most `MAX_WATCHED` at once."""

    def __init__(self) -> None:
        self._expected: dict[bytes, Arrived] = {}

    def expect(self, nonce: bytes) -> Arrived | None:
        """What arrives for `nonce` from now on; None where too many are expected already, or this one is."""
        if nonce in self._expected or len(self._expected) >= MAX_WATCHED:
            return None
        arrived = self._expected[nonce] = Arrived()
        return arrived

    def forget(self, nonce: bytes) -> None:
        """Nothing more is expected."""
        self._expected.pop(nonce, None)

    def take(self, data: bytes) -> bool:
        """True where `data` is a trial packet, expected or not: it is nobody else's business."""
        if not data.startswith(MAGIC):
            return False
        if len(data) >= HEADER_BYTES:
            arrived = self._expected.get(data[len(MAGIC) : HEADER_BYTES - 1])
            place = data[HEADER_BYTES - 1]
            if arrived is not None and place == SIZED:
                arrived.largest_bytes = max(arrived.largest_bytes, len(data))
            elif arrived is not None:
                arrived.places.add(place)
        return True


class TrialSender:
    """Sends trials with one nonce from ports of its own. Use in a `with` block.

    `sources` are the local addresses to send from, one per family, `0.0.0.0` or `::` to leave it to the system;
    addresses of other families are not tried.
    """

    def __init__(self, nonce: bytes, addresses: Iterable[str], sources: Iterable[str]) -> None:
        self._nonce = nonce
        self._targets = [(place, name) for place, text in enumerate(addresses) if (name := _parsed(text)) is not None]
        self._sockets: dict[socket.AddressFamily, socket.socket] = {}
        for text in sources:
            name = parse_address(text)
            if family_of(name) not in self._sockets and (made := _bound(name)) is not None:
                self._sockets[family_of(name)] = made

    def __enter__(self) -> TrialSender:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets.values():
            one.close()

    def send(self) -> None:
        """One packet to each address. That a send fails means the same as that its packet is lost."""
        for place, name in self._targets:
            sender = self._sockets.get(family_of(name))
            if sender is not None:
                try:
                    sender.sendto(trial_packet(self._nonce, place), name)
                except OSError:
                    continue


def _parsed(text: str) -> SocketName | None:
    try:
        name = parse_address(text)
    except MalformedAddress:
        return None
    return name if name[1] else None


def _bound(name: SocketName) -> socket.socket | None:
    """A socket on a port of the system's choice; None where this machine lacks the family or the address."""
    made = None
    try:
        made = socket.socket(family_of(name), socket.SOCK_DGRAM)
        made.setblocking(False)
        made.bind((name[0], 0, *name[2:]))
    except OSError:
        if made is not None:
            made.close()
        return None
    return made
