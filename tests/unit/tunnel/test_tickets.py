"""What a ticket is worth, and to whom."""

from __future__ import annotations

from making_links import an_identity

from meshnode.tunnel import Carrier, Opening, Purpose
from meshnode.tunnel.tickets import TICKET_BYTES, TicketBook

ONE, OTHER = an_identity().node, an_identity().node
API = Opening(Purpose.API, "llama")
LIFE_S = 10.0


def test_ticket_is_good_once_for_what_was_asked() -> None:
    book = TicketBook(LIFE_S)
    ticket = book.issue(ONE, API, Carrier.QUIC, 100.0)
    assert len(ticket) == TICKET_BYTES
    granted = book.redeem(ticket, Carrier.QUIC, ONE, 109.9)
    assert granted is not None
    assert (granted.peer, granted.opening) == (ONE, API)
    assert book.redeem(ticket, Carrier.QUIC, ONE, 109.9) is None


def test_ticket_expires_and_is_forgotten() -> None:
    book = TicketBook(LIFE_S)
    ticket = book.issue(ONE, API, Carrier.QUIC, 100.0)
    assert book.count(ONE, API.purpose, 109.9) == 1
    assert book.redeem(ticket, Carrier.QUIC, ONE, 110.0) is None
    book.issue(ONE, API, Carrier.QUIC, 100.0)
    assert book.count(ONE, API.purpose, 110.0) == 0
    assert len(book) == 0


def test_ticket_shown_by_another_peer_or_on_another_carrier_is_worthless_and_used_up() -> None:
    book = TicketBook(LIFE_S)
    for carrier, peer in ((Carrier.QUIC, OTHER), (Carrier.TCP, None)):
        ticket = book.issue(ONE, API, Carrier.QUIC, 100.0)
        assert book.redeem(ticket, carrier, peer, 101.0) is None
        assert book.redeem(ticket, Carrier.QUIC, ONE, 101.0) is None


def test_ticket_itself_is_not_kept() -> None:
    book = TicketBook(LIFE_S)
    ticket = book.issue(ONE, API, Carrier.TCP, 100.0)
    assert ticket not in book._granted


def test_dropped_tickets_are_worthless_and_others_are_not() -> None:
    book = TicketBook(LIFE_S)
    dropped, kept = (book.issue(peer, API, Carrier.TCP, 100.0) for peer in (ONE, OTHER))
    book.drop(lambda peer, opening: peer == ONE)
    assert book.redeem(dropped, Carrier.TCP, None, 101.0) is None
    assert book.redeem(kept, Carrier.TCP, None, 101.0) is not None
