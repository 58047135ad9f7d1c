"""What is told of tunnels: the carrier once for each peer and split, each tunnel for those who look closely."""

from __future__ import annotations

from typing import Any

import pytest
from making_views import node_id

from meshnode.events import Event, Level, TunnelCarrier
from meshnode.tunnel import Carrier, Opening, Purpose
from meshnode.tunnel import ledger as ledger_module
from meshnode.tunnel.ledger import Ledger
from proto.messages import Fence

A, B = node_id("a"), node_id("b")


class Told:
    """A ledger and its events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ledger = Ledger(lambda: 0.0, self.events.append)

    def enter(self, peer: Any, carrier: Carrier, generation: int | None = None, model: str = "m") -> None:
        purpose = Purpose.API if generation is None else Purpose.ENGINE
        opening = Opening(purpose, model, None if generation is None else Fence(generation, A))
        self.ledger.enter(None, peer, opening, carrier, opened_here=True)  # type: ignore[arg-type]

    def carriers(self) -> list[tuple[str, str, int | None]]:
        carriers = (event for event in self.events if isinstance(event, TunnelCarrier))
        return [(event.purpose, event.carrier, event.generation) for event in carriers]


def test_carrier_is_told_once_for_each_peer_and_split_and_when_it_changes() -> None:
    told = Told()
    for generation in (1, 1, 1, 2):
        told.enter(A, Carrier.TCP, generation)
    told.enter(B, Carrier.TCP, 2)
    told.enter(A, Carrier.QUIC, 2)
    assert told.carriers() == [
        ("engine", "tcp", 1), ("engine", "tcp", 2), ("engine", "tcp", 2), ("engine", "quic", 2),
    ]  # fmt: skip


def test_requests_tell_it_once_whatever_models_they_are_for() -> None:
    told = Told()
    for model in ("m", "n", "m"):
        told.enter(A, Carrier.TCP, model=model)
    assert told.carriers() == [("api", "tcp", None)]


def test_each_tunnel_is_told_below_the_usual_level() -> None:
    told = Told()
    for _ in range(3):
        told.enter(A, Carrier.TCP, 1)
    levels = [event.level for event in told.events if event.name == "tunnel.opened"]
    assert levels == [Level.DEBUG] * 3


def test_what_was_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MOST_TOLD", 2)
    told = Told()
    for model in ("m", "n", "o", "o", "m"):
        told.enter(A, Carrier.TCP, 1, model)
    assert len(told.carriers()) == 4
