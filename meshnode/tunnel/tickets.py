"""Tickets: what admits a stream or a TCP connection to a tunnel that was agreed on.

What lives here: `TicketBook`. What does not: agreeing (`tunnels`), showing a ticket (the carriers). Pure: time is an
argument.

A ticket is 32 random bytes, told to one peer over an authenticated path. It is good once, for `ticket_s`, on the
carrier it was made for, and for what that peer asked. Only its hash is kept, so that nothing in this process's memory
opens a tunnel. On TCP it is all that a client shows, so there it is sent only to a server that proved its node key; on
a link it must also come from the peer it was given to.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from meshnode.tunnel.opening import Carrier, Opening, Purpose
from proto.ids import NodeId

TICKET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Granted:
    """What a ticket stands for."""

    peer: NodeId
    opening: Opening
    carrier: Carrier
    until_s: float


class TicketBook:
    """Tickets given out and not yet shown."""

    def __init__(self, life_s: float) -> None:
        self._life_s = life_s
        self._granted: dict[bytes, Granted] = {}

    def __len__(self) -> int:
        return len(self._granted)

    def count(self, peer: NodeId, purpose: Purpose, now_s: float) -> int:
        """Good tickets for `purpose` that `peer` has."""
        self._forget(now_s)
        return sum(granted.peer == peer and granted.opening.purpose is purpose for granted in self._granted.values())

    def issue(self, peer: NodeId, opening: Opening, carrier: Carrier, now_s: float) -> bytes:
        """A new ticket."""
        self._forget(now_s)
        ticket = os.urandom(TICKET_BYTES)
        self._granted[_hashed(ticket)] = Granted(peer, opening, carrier, now_s + self._life_s)
        return ticket

    def redeem(self, ticket: bytes, carrier: Carrier, peer: NodeId | None, now_s: float) -> Granted | None:
        """What `ticket` stands for; None where it is none, used, too old, or shown on another carrier or by another
        peer (None: the carrier does not tell). It is used up in any case."""
        granted = self._granted.pop(_hashed(ticket), None)
        if granted is None or granted.until_s <= now_s or granted.carrier is not carrier:
            return None
        return granted if peer is None or peer == granted.peer else None

    def drop(self, fits: Callable[[NodeId, Opening], bool]) -> None:
        """Make every ticket that `fits` worthless."""
        for key in [key for key, granted in self._granted.items() if fits(granted.peer, granted.opening)]:
            del self._granted[key]

    def _forget(self, now_s: float) -> None:
        # In order of issue, and all live equally long: the oldest come first.
        while self._granted and (first := next(iter(self._granted))) and self._granted[first].until_s <= now_s:
            del self._granted[first]


def _hashed(ticket: bytes) -> bytes:
    return hashlib.sha256(ticket).digest()
