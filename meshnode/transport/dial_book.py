"""Every dial in progress, by the peer it is for, and the tries to redeem an invite.

What lives here: `DialBook`: starting, finding and ending dials, and what each says when it leads. What does not: one
dial's race (`dialling`), what becomes of an authenticated link (`judge`). Owned by the reception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import anyio

from meshnode.transport.addresses import MalformedAddress, SocketName, parse_address
from meshnode.transport.dialler import Target
from meshnode.transport.dialling import Dial, Purpose
from meshnode.transport.handshake import DialHandshake, LocalSide
from meshnode.transport.link import Link
from meshnode.transport.redemption import Redeemed, Redemption
from meshnode.transport.settings import TransportSettings
from meshnode.transport.switchboard import Switchboard
from proto.ids import NodeId

UNREACHABLE = "unreachable"
MOVE_PAUSE_S = 2.0
"""Shortest time between two dials to an address at which a linked peer was heard."""
REDEEM_DEADLINE_S = 30.0


class DialBook:
    """`ended(peer, reason, purpose)` is told of every dial for a link that brought none; `tried` of every address that
    a redemption tried; `peer_floor` gives the highest incarnation of a node that is remembered."""

    def __init__(
        self,
        local: LocalSide,
        switchboard: Switchboard,
        settings: TransportSettings,
        clock: Callable[[], float],
        *,
        peer_floor: Callable[[NodeId], int],
        ended: Callable[[NodeId, str, Purpose], None],
        tried: Callable[[Target, str, float], None],
    ) -> None:
        self._local = local
        self._switchboard = switchboard
        self._settings = settings
        self._clock = clock
        self._peer_floor = peer_floor
        self._ended = ended
        self._tried = tried
        self._dials: dict[NodeId, Dial] = {}
        self._redemptions: dict[Dial, Redemption] = {}

    def __len__(self) -> int:
        return len(self._dials)

    def __contains__(self, peer: NodeId) -> bool:
        return peer in self._dials

    def leads(self, peer: NodeId) -> bool:
        """Whether a dial to `peer` has reached it and waits for its welcome."""
        dial = self._dials.get(peer)
        return dial is not None and dial.leads

    def of(self, link: Link) -> Dial | None:
        """The dial in whose race `link` still runs."""
        if link.expected is None:
            return None
        dials = (self._dials.get(link.expected), *self._redemptions)
        return next((dial for dial in dials if dial is not None and dial.owns(link)), None)

    def redemption(self, dial: Dial) -> Redemption | None:
        """The redemption that `dial` is for, if it is for one."""
        return self._redemptions.get(dial)

    def targets(self, peer: NodeId, addresses: Iterable[str]) -> list[Target]:
        """The addresses that are some, each once, as many as one dial may try."""
        targets: dict[Target, None] = {}
        for address in addresses:
            try:
                targets[Target(peer, parse_address(address))] = None
            except MalformedAddress:
                # A peer's record can hold any text of an address' length; the rest of its addresses may do.
                continue
        return list(targets)[: self._settings.max_addresses_per_dial]

    def start(self, peer: NodeId, targets: Sequence[Target], purpose: Purpose) -> None:
        """Dial `peer`; there must be no dial to it yet."""
        self._dials[peer] = self._dial(targets, purpose, lambda dial: self.lose(dial, UNREACHABLE), None)
        self._dials[peer].start()

    async def redeem(self, redemption: Redemption) -> Redeemed:
        """Try to redeem, within `REDEEM_DEADLINE_S`. Raises `JoinRefused`."""
        dial = self._dial(redemption.targets, Purpose.REDEEM, lambda _: redemption.lose(), self._tried)
        self._redemptions[dial] = redemption
        dial.start()
        try:
            with anyio.move_on_after(REDEEM_DEADLINE_S):
                await redemption.finished.wait()
        finally:
            self._redemptions.pop(dial, None)
            dial.cancel()
        return redemption.result(dial.outcomes())

    def follow(self, link: Link, source: SocketName) -> None:
        """The peer of a dialled, standing link was heard at `source`: dial it there, unless that is being done."""
        now_s = self._clock()
        peer = link.expected
        if peer is not None and peer not in self._dials and now_s - link.moved_hint_s >= MOVE_PAUSE_S:
            link.moved_hint_s = now_s
            self.start(peer, [Target(peer, source)], Purpose.MOVE)

    def cancel(self, peer: NodeId) -> None:
        """No dial to `peer` is needed any more."""
        dial = self._dials.pop(peer, None)
        if dial is not None:
            dial.cancel()

    def cancel_all(self) -> None:
        """The endpoint closes."""
        for dial in (*self._dials.values(), *self._redemptions):
            dial.cancel()
        self._dials.clear()

    def lose(self, dial: Dial, reason: str) -> None:
        """A dial for a link brought none."""
        peer = dial.targets[0].peer
        dial.cancel()
        if self._dials.get(peer) is dial:
            del self._dials[peer]
        self._ended(peer, reason, dial.purpose)

    def _dial(
        self,
        targets: Sequence[Target],
        purpose: Purpose,
        lost: Callable[[Dial], None],
        tried: Callable[[Target, str, float], None] | None,
    ) -> Dial:
        return Dial(
            targets, purpose, self._switchboard, self._settings, self._clock, lead=self._lead, lost=lost, tried=tried
        )

    def _lead(self, dial: Dial, link: Link) -> None:
        assert link.expected is not None, "a dial's links are dialled"
        redemption = self._redemptions.get(dial)
        handshake = DialHandshake(
            self._local,
            link.expected,
            peer_floor=0 if redemption else self._peer_floor(link.expected),
            token=redemption.text if redemption else None,
            role=redemption.role if redemption else None,
        )
        link.lead(handshake, self._clock())
        self._switchboard.touch(link)
