"""Relayed tunnels when messages are lost, forged, or never come. The neighbour is a list of messages here."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from making_links import an_identity

from meshnode.tunnel.relay_table import RelayTable
from meshnode.tunnel.relayed import SILENCE_S, RelayedStream
from meshnode.tunnel.settings import TunnelSettings
from proto.ids import NodeId
from proto.messages import Message
from proto.tunnels import TunnelBytes, TunnelCancel, TunnelCredit

OPENER, ACCEPTOR = an_identity().node, an_identity().node
WINDOW_BYTES = 16_384
NUMBER = 7


class Pair:
    """Both ends of one tunnel. `underway` holds what was sent and not delivered: (who to, message)."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.underway: list[tuple[NodeId, Message]] = []
        settings = TunnelSettings(relay_window_bytes=WINDOW_BYTES, relay_bytes_per_s=1e9)
        self.tables = {
            node: RelayTable(node, settings, lambda: self.now_s, lambda peer, sent: self.underway.append((peer, sent)))
            for node in (OPENER, ACCEPTOR)
        }
        keys = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        self.opener = self._end(OPENER, ACCEPTOR, keys[0], keys[1], opened_here=True)
        self.acceptor = self._end(ACCEPTOR, OPENER, keys[1], keys[0], opened_here=False)

    def _end(
        self, node: NodeId, peer: NodeId, own: X25519PrivateKey, other: X25519PrivateKey, *, opened_here: bool
    ) -> RelayedStream:
        public = other.public_key().public_bytes_raw()
        stream = self.tables[node].make(peer, NUMBER, own, public, opened_here=opened_here)
        assert stream is not None
        return stream

    def deliver(self, change: Callable[[Message], Message | None] = lambda message: message) -> None:
        """Hand everything over, until nothing moves; `change` may lose (None) or forge messages."""
        while self.underway:
            to, message = self.underway.pop(0)
            if (changed := change(message)) is not None:
                self.tables[to].hear(ACCEPTOR if to == OPENER else OPENER, changed)


@pytest.fixture
def pair() -> Pair:
    return Pair()


async def assert_broken(stream: RelayedStream) -> None:
    with pytest.raises(anyio.BrokenResourceError):
        await stream.receive()
    with pytest.raises(anyio.BrokenResourceError):
        await stream.send(b"more")


async def test_pieces_are_sealed_and_arrive(pair: Pair) -> None:
    secret = b"a prompt that the neighbour must not read"
    await pair.opener.send(secret)
    assert all(secret not in bytes(message.sealed) for _, message in pair.underway if isinstance(message, TunnelBytes))
    pair.deliver()
    assert await pair.acceptor.receive() == secret


async def test_writer_waits_at_the_window_until_the_reader_takes(pair: Pair) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pair.opener.send, bytes(3 * WINDOW_BYTES))
        await anyio.wait_all_tasks_blocked()
        assert sum(len(message.sealed) - 16 for _, message in pair.underway if isinstance(message, TunnelBytes)) == (
            WINDOW_BYTES
        )
        taken = 0
        while taken < 3 * WINDOW_BYTES:
            pair.deliver()
            taken += len(await pair.acceptor.receive())
            await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_lost_piece_breaks_both_ends(pair: Pair, lost: int) -> None:
    """Also the last one, which only the count in a credit message shows."""
    for word in (b"one", b"two", b"three"):
        await pair.opener.send(word)
    pair.opener.keep()
    pair.deliver(lambda message: None if isinstance(message, TunnelBytes) and message.sequence == lost else message)
    await assert_broken(pair.acceptor)
    await assert_broken(pair.opener)


async def test_forged_or_repeated_piece_breaks_the_stream(pair: Pair) -> None:
    await pair.opener.send(b"one")
    pair.deliver(
        lambda message: TunnelBytes(NUMBER, False, 0, bytes(19), False) if isinstance(message, TunnelBytes) else message
    )
    await assert_broken(pair.acceptor)


async def test_end_of_stream_can_not_be_forged_onto_a_piece(pair: Pair) -> None:
    await pair.opener.send(b"half")
    pair.deliver(
        lambda message: (
            TunnelBytes(NUMBER, False, 0, message.sealed, True) if isinstance(message, TunnelBytes) else message
        )
    )
    await assert_broken(pair.acceptor)


async def test_peer_that_sends_past_the_window_is_cut_off(pair: Pair) -> None:
    pair.opener._window_bytes = 10 * WINDOW_BYTES
    await pair.opener.send(bytes(2 * WINDOW_BYTES))
    pair.deliver()
    await assert_broken(pair.acceptor)


async def test_credit_for_more_than_was_sent_opens_no_window(pair: Pair) -> None:
    pair.tables[OPENER].hear(ACCEPTOR, TunnelCredit(NUMBER, True, 2**40, 0))
    with anyio.move_on_after(0.05) as waiting:
        await pair.opener.send(bytes(2 * WINDOW_BYTES))
    assert waiting.cancelled_caught


async def test_what_had_come_to_its_end_is_still_read_after_a_break(pair: Pair) -> None:
    await pair.opener.send(b"all of it")
    await pair.opener.send_eof()
    pair.deliver()
    pair.tables[ACCEPTOR].hear(OPENER, TunnelCancel(NUMBER, False))
    assert await pair.acceptor.receive() == b"all of it"
    with pytest.raises(anyio.EndOfStream):
        await pair.acceptor.receive()
    with pytest.raises(anyio.BrokenResourceError):
        await pair.acceptor.send(b"more")


async def test_silent_other_end_breaks_the_stream(pair: Pair) -> None:
    pair.now_s += SILENCE_S + 1
    pair.opener.keep()
    await assert_broken(pair.opener)


async def test_signs_of_life_keep_an_idle_stream(pair: Pair) -> None:
    for _ in range(10):
        pair.now_s += SILENCE_S / 2
        for end in (pair.opener, pair.acceptor):
            end.keep()
        pair.deliver()
    await pair.opener.send(b"still")
    pair.deliver()
    assert await pair.acceptor.receive() == b"still"


async def test_ended_stream_is_forgotten_and_later_messages_are_answered_with_a_cancel(pair: Pair) -> None:
    for end in (pair.opener, pair.acceptor):
        await end.send_eof()
    pair.deliver()
    for table in pair.tables.values():
        assert table._streams == {}
    pair.tables[ACCEPTOR].hear(OPENER, TunnelCredit(NUMBER, False, 0, 0))
    assert pair.underway == [(OPENER, TunnelCancel(NUMBER, True))]


def test_key_of_low_order_makes_no_tunnel(pair: Pair) -> None:
    made = pair.tables[OPENER].make(ACCEPTOR, 8, X25519PrivateKey.generate(), bytes(32), opened_here=True)
    assert made is None


def test_number_in_use_makes_no_second_tunnel(pair: Pair) -> None:
    key = X25519PrivateKey.generate()
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    assert pair.tables[OPENER].make(ACCEPTOR, NUMBER, key, public, opened_here=True) is None
