"""The accepting side: who gets a tunnel, and who shows a good ticket.

What lives here: `Granting`, `Handler`, `Admit`. What does not: the opening side (`asking`), the tasks that handlers run
in (`tunnels`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import anyio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from meshnode.events import Event, TunnelDenied
from meshnode.transport.rate_limit import SourceRates
from meshnode.transport.streams import LinkStream
from meshnode.tunnel.ledger import Ledger
from meshnode.tunnel.opening import Carrier, Opening, Purpose, TunnelRefusal
from meshnode.tunnel.ports import TunnelPaths
from meshnode.tunnel.relay_table import RelayTable
from meshnode.tunnel.settings import TunnelSettings
from meshnode.tunnel.tcp import TcpCarrier
from meshnode.tunnel.tickets import TICKET_BYTES, Granted, TicketBook
from meshnode.tunnel.tunnel import Tunnel, TunnelStream
from proto.ids import NodeId
from proto.messages import Message
from proto.tunnels import TunnelAnswer, TunnelRequest

Handler = Callable[[Tunnel], Awaitable[None]]
"""Serves one tunnel to its end. It is closed when the handler returns, and cut where it raises."""
Admit = Callable[[NodeId, Opening], str | None]
"""None where this peer may have this tunnel, else why not, for people. Asked when a tunnel is requested and again when
its ticket is shown, since a plan may be replaced in between."""

MAX_TEXT: Final = 512
TRACKED_PEERS: Final = 1024


@dataclass(frozen=True, slots=True)
class _Offer:
    handler: Handler
    admit: Admit


@dataclass(frozen=True, slots=True)
class _No:
    """A request's refusal."""

    code: TunnelRefusal
    text: str


class Granting:
    """One node's offers. `begin` runs the handler of a tunnel that stands."""

    def __init__(
        self,
        settings: TunnelSettings,
        paths: TunnelPaths,
        tcp: TcpCarrier,
        relays: RelayTable,
        ledger: Ledger,
        clock: Callable[[], float],
        emit: Callable[[Event], None],
        begin: Callable[[Tunnel, Handler], None],
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._tcp = tcp
        self._relays = relays
        self._ledger = ledger
        self._clock = clock
        self._emit = emit
        self._begin = begin
        self._offers: dict[Purpose, _Offer] = {}
        self._rates = SourceRates(settings.opens_per_s, settings.opens_burst, TRACKED_PEERS)
        self.tickets = TicketBook(settings.ticket_s)
        self.refused = 0
        """Requests and tickets refused since the start."""

    def offer(self, purpose: Purpose, handler: Handler, admit: Admit) -> None:
        """See `Tunnels.offer`."""
        self._offers[purpose] = _Offer(handler, admit)

    def withdraw(self, purpose: Purpose) -> None:
        """See `Tunnels.withdraw`."""
        self._offers.pop(purpose, None)

    # --- requests ---

    def requested(self, peer: NodeId, message: Message) -> None:
        """A member asks for a tunnel: answer it."""
        assert isinstance(message, TunnelRequest), "registered for this type"
        opening = _opening_of(message)
        verdict = self._judge(peer, message, opening)
        if isinstance(verdict, _No) or opening is None:
            assert isinstance(verdict, _No), "what is no opening is refused"
            self._deny(peer, message.purpose, message.model, verdict.code, verdict.text)
            self._paths.send(peer, TunnelAnswer(message.nonce, verdict.code, verdict.text[:MAX_TEXT]))
        elif verdict is Carrier.RELAY:
            self._grant_relay(peer, message, opening)
        else:
            ticket = self.tickets.issue(peer, opening, verdict, self._clock())
            port = (self._tcp.port or 0) if verdict is Carrier.TCP else 0
            self._paths.send(peer, TunnelAnswer(message.nonce, "", "", verdict.value, ticket, port))

    def _judge(self, peer: NodeId, message: TunnelRequest, opening: Opening | None) -> Carrier | _No:
        if not self._rates.take(peer, self._clock()):
            return _No(TunnelRefusal.TOO_MANY, f"more than {self._settings.opens_per_s:g} requests per second")
        offer = None if opening is None else self._offers.get(opening.purpose)
        if opening is None or offer is None:
            return _No(TunnelRefusal.NOT_OFFERED, f"nothing is offered here for the purpose {message.purpose!r}")
        if (why := offer.admit(peer, opening)) is not None:
            return _No(TunnelRefusal.NOT_ADMITTED, why)
        opened = self._ledger.count(peer, opening.purpose, opened_here=False)
        share = opened + self.tickets.count(peer, opening.purpose, self._clock())
        if share >= self._settings.per_peer:
            return _No(TunnelRefusal.TOO_MANY, f"it has {share} tunnels for {opening.purpose.value} already")
        if len(self._ledger) + len(self.tickets) >= self._settings.in_all:
            return _No(TunnelRefusal.TOO_MANY, f"this node has {self._settings.in_all} tunnels already")
        return self._carrier(peer, message.carrier)

    def _carrier(self, peer: NodeId, wanted: str) -> Carrier | _No:
        """Which one it will be. A ticket for TCP admits whoever has it, so it is told over a direct link only."""
        only_tcp = self._settings.carrier == Carrier.TCP
        if self._paths.linked_address(peer) is None:
            return _No(TunnelRefusal.NO_CARRIER, "TCP only, and there is no link") if only_tcp else Carrier.RELAY
        if wanted == Carrier.TCP and self._tcp.port is not None:
            return Carrier.TCP
        return _No(TunnelRefusal.NO_CARRIER, "this node takes tunnels over TCP only") if only_tcp else Carrier.QUIC

    def _grant_relay(self, peer: NodeId, message: TunnelRequest, opening: Opening) -> None:
        own = X25519PrivateKey.generate()
        stream = self._relays.make(peer, message.nonce, own, message.key, opened_here=False)
        if stream is None:
            text = "the request's key or nonce can't be used"
            self._deny(peer, message.purpose, message.model, TunnelRefusal.NO_CARRIER, text)
            self._paths.send(peer, TunnelAnswer(message.nonce, TunnelRefusal.NO_CARRIER, text))
            return
        key = own.public_key().public_bytes_raw()
        self._paths.send(peer, TunnelAnswer(message.nonce, "", "", Carrier.RELAY.value, None, 0, key))
        self._stands(peer, opening, Carrier.RELAY, stream)

    # --- tickets ---

    def show(self, ticket: bytes) -> Granted | None:
        """Somebody showed a ticket on TCP: what it stands for, if it is good."""
        return self._redeem(ticket, Carrier.TCP, None)

    def taken(self, granted: Granted, stream: TunnelStream) -> None:
        """That connection stands."""
        self._stands(granted.peer, granted.opening, Carrier.TCP, stream)

    async def hear_stream(self, peer: NodeId, stream: LinkStream) -> None:
        """A peer opened a stream: read its ticket, and nothing beyond."""
        ticket = b""
        with anyio.move_on_after(self._settings.greeting_s):
            try:
                while len(ticket) < TICKET_BYTES:
                    ticket += await stream.receive(TICKET_BYTES - len(ticket))
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                ticket = b""
        granted = self._redeem(ticket, Carrier.QUIC, peer)
        if granted is None:
            stream.abandon()
        else:
            self._stands(peer, granted.opening, Carrier.QUIC, stream)

    def _redeem(self, ticket: bytes, carrier: Carrier, peer: NodeId | None) -> Granted | None:
        granted = self.tickets.redeem(ticket, carrier, peer, self._clock())
        if granted is None:
            text = f"a ticket that is unknown, used or older than {self._settings.ticket_s:g} s, over {carrier.value}"
            self._deny(peer, "", "", TunnelRefusal.BAD_TICKET, text)
            return None
        opening = granted.opening
        offer = self._offers.get(opening.purpose)
        why = "it is offered no more" if offer is None else offer.admit(granted.peer, opening)
        if why is not None:
            self._deny(granted.peer, opening.purpose.value, opening.model, TunnelRefusal.NOT_ADMITTED, why)
            return None
        return granted

    # --- outcomes ---

    def _stands(self, peer: NodeId, opening: Opening, carrier: Carrier, stream: TunnelStream) -> None:
        offer = self._offers[opening.purpose]
        self._begin(self._ledger.enter(stream, peer, opening, carrier, opened_here=False), offer.handler)

    def _deny(self, peer: NodeId | None, purpose: str, model: str, code: TunnelRefusal, text: str) -> None:
        self.refused += 1
        self._emit(
            TunnelDenied(peer=peer, purpose=purpose, model=model[:100], code=code.value, reason=text, by_us=True)
        )


def _opening_of(message: TunnelRequest) -> Opening | None:
    try:
        purpose = Purpose(message.purpose)
    except ValueError:
        return None
    return Opening(purpose, message.model, message.fence, message.stage)
