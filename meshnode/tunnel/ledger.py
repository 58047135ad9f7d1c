"""The open tunnels, and what all tunnels have carried.

What lives here: `Ledger`. What does not: opening them (`tunnels`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from meshnode.events import Event, TunnelCarrier, TunnelClosed, TunnelOpened
from meshnode.tunnel.opening import Carrier, Opening, Purpose
from meshnode.tunnel.tunnel import Tunnel, TunnelStream
from proto.ids import NodeId


@dataclass(slots=True)
class Totals:
    """Of one carrier, since the start; what is open counts when it closes."""

    opened: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


MOST_TOLD: Final = 1024
"""Peers and models whose carrier is remembered as told; the oldest is forgotten, and told once more."""


class Ledger:
    """Every tunnel is entered here, and reports here when it is over."""

    def __init__(self, clock: Callable[[], float], emit: Callable[[Event], None]) -> None:
        self._clock = clock
        self._emit = emit
        self._open: dict[Tunnel, float] = {}
        self._closed: dict[Carrier, Totals] = {carrier: Totals() for carrier in Carrier}
        self._shares: Counter[tuple[NodeId, Purpose, bool]] = Counter()
        self._told: dict[tuple[NodeId, Purpose, str], tuple[int | None, Carrier]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Tunnel]:
        return iter(tuple(self._open))

    def count(self, peer: NodeId, purpose: Purpose, *, opened_here: bool) -> int:
        """Open tunnels with `peer` for `purpose` that one side has opened."""
        return self._shares[peer, purpose, opened_here]

    def enter(
        self, stream: TunnelStream, peer: NodeId, opening: Opening, carrier: Carrier, *, opened_here: bool
    ) -> Tunnel:
        """A tunnel that stands now."""
        tunnel = Tunnel(stream, peer, opening, carrier, opened_here=opened_here, ended=self._ended)
        self._open[tunnel] = self._clock()
        self._shares[peer, opening.purpose, opened_here] += 1
        self._closed[carrier].opened += 1
        self._tell_carrier(peer, opening, carrier)
        self._emit(
            TunnelOpened(
                peer=peer, purpose=opening.purpose.value, carrier=carrier.value, opened_here=opened_here,
                model=opening.model, generation=_generation(opening), stage=opening.stage,
            )
        )  # fmt: skip
        return tunnel

    def _tell_carrier(self, peer: NodeId, opening: Opening, carrier: Carrier) -> None:
        """Once for each peer and split; a load makes a dozen tunnels, and each request one."""
        generation = _generation(opening)
        key = (peer, opening.purpose, "" if generation is None else opening.model)
        if self._told.pop(key, None) != (generation, carrier):
            self._emit(TunnelCarrier(peer, opening.purpose.value, carrier.value, opening.model, generation))
        self._told[key] = generation, carrier
        if len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]

    def totals(self) -> dict[Carrier, Totals]:
        """By carrier, open tunnels included."""
        totals = {
            carrier: Totals(closed.opened, closed.sent_bytes, closed.received_bytes)
            for carrier, closed in self._closed.items()
        }
        for tunnel in self._open:
            totals[tunnel.carrier].sent_bytes += tunnel.sent_bytes
            totals[tunnel.carrier].received_bytes += tunnel.received_bytes
        return totals

    def rows(self) -> list[dict[str, Any]]:
        """Plain JSON of each open tunnel, the oldest first."""
        now_s = self._clock()
        return [
            {
                "peer": tunnel.peer,
                "purpose": tunnel.purpose.value,
                "carrier": tunnel.carrier.value,
                "opened_here": tunnel.opened_here,
                "model": tunnel.model,
                "generation": _generation(tunnel.opening),
                "stage": tunnel.stage,
                "sent_bytes": tunnel.sent_bytes,
                "received_bytes": tunnel.received_bytes,
                "open_s": round(now_s - since_s, 1),
            }
            for tunnel, since_s in self._open.items()
        ]

    def _ended(self, tunnel: Tunnel, reason: str) -> None:
        after_s = self._clock() - self._open.pop(tunnel)
        share = (tunnel.peer, tunnel.purpose, tunnel.opened_here)
        self._shares[share] -= 1
        if not self._shares[share]:
            del self._shares[share]
        totals = self._closed[tunnel.carrier]
        totals.sent_bytes += tunnel.sent_bytes
        totals.received_bytes += tunnel.received_bytes
        self._emit(
            TunnelClosed(
                peer=tunnel.peer, purpose=tunnel.purpose.value, carrier=tunnel.carrier.value, reason=reason,
                sent_bytes=tunnel.sent_bytes, received_bytes=tunnel.received_bytes, after_s=round(after_s, 3),
            )
        )  # fmt: skip


def _generation(opening: Opening) -> int | None:
    return None if opening.fence is None else opening.fence.generation
