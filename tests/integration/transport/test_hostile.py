"""Real endpoints against peers and strangers that misbehave: bounded, named, and nobody else notices."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import anyio
import pytest
from hostile_peer import RawPeer, an_initial
from making_links import DEADLINE_S, ALab, ANode, an_identity

from meshnode.events import HandshakesShed, LinkDown, PeerThrottled, WireRejected
from meshnode.identity import Identity
from meshnode.transport import TransportSettings
from meshnode.transport.quic import MeshQuicConnection
from proto.codec import encode_datagram, encode_frame
from proto.messages import Delta, Hello, Ping, Proof, RefusalCode, ViewHash
from proto.parts import PartKind, SignedPart

PART = SignedPart(kind=PartKind.OFFER, body=b"b" * 10_000, signature=b"s" * 64)


def a_frame(number: int = 1) -> ViewHash:
    return ViewHash(value=number.to_bytes(8, "big"), nodes=number)


def a_large_frame() -> Delta:
    """About 100 kB."""
    return Delta(parts=(PART,) * 10, claims=())


@pytest.fixture
async def stranger(lab: ALab) -> AsyncIterator[tuple[ANode, RawPeer]]:
    """A node, and an unauthenticated connection to it."""
    node = await lab.node()
    peer = await RawPeer(node.address).open()
    yield node, peer
    peer.shut()


async def a_raw_member(lab: ALab, node: ANode, identity: Identity | None = None) -> RawPeer:
    """An authenticated peer of `node` that can do what no node does."""
    identity = identity or an_identity()
    peer = await RawPeer(node.address).open()
    await peer.authenticate(identity, lab.mesh, lab.admission(identity).chain, node.node)
    await node.watch.until(lambda: identity.node in node.watch.linked(), "the raw member's link")
    return peer


async def works(lab: ALab, node: ANode) -> None:
    """Somebody else can link to `node` and be heard."""
    other = await lab.node()
    await other.link_to(node)
    other.endpoint.send(node.node, a_frame(77))
    await node.watch.until(
        lambda: any(got.peer == other.node and got.message == a_frame(77) for got in node.watch.messages), "a frame"
    )


# --- strangers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (struct.pack(">I", 2**31) + b"x", "length"),
        (struct.pack(">I", 0), "length"),
        (struct.pack(">I", 5) + b"\xff" * 5, "type"),
        (encode_frame(a_frame()), "type"),
        (encode_frame(Ping(nonce=1, incarnation=1)), "type"),
    ],
    ids=["huge length", "no length", "no msgpack", "gossip before authentication", "ping before authentication"],
)
async def test_bytes_that_are_no_handshake_end_an_unauthenticated_link_by_name(
    stranger: tuple[ANode, RawPeer], data: bytes, field: str
) -> None:
    node, peer = stranger
    peer.write(data)
    await peer.until(lambda: peer.closed is not None, "the close")
    refusal = peer.refusal()
    assert refusal is not None
    assert refusal.code is RefusalCode.PROTOCOL_ERROR
    assert [event.field for event in node.watch.of(WireRejected)] == [field]
    assert not node.watch.messages
    assert not node.watch.ups


async def test_datagrams_of_a_stranger_are_not_read(stranger: tuple[ANode, RawPeer]) -> None:
    node, peer = stranger
    peer.write_datagram(encode_datagram(Ping(nonce=1, incarnation=1)))
    peer.write(struct.pack(">I", 0))
    await peer.until(lambda: peer.closed is not None, "the close")
    assert not node.watch.datagrams


async def test_what_follows_a_bad_proof_in_the_same_packet_is_not_read(lab: ALab) -> None:
    node, identity = await lab.node(), an_identity()
    peer = await RawPeer(node.address).open()
    hello = Hello(
        lowest=(1, 0),
        highest=(1, 0),
        mesh=lab.mesh,
        node=identity.node,
        boot_id=identity.boot_id,
        software="raw",
        redeeming=False,
    )
    proof = Proof(signature=b"s" * 64, chain=lab.admission(identity).chain)
    peer.write(encode_frame(hello) + encode_frame(proof) + encode_frame(a_frame()))
    await peer.until(lambda: peer.refusal() is not None, "the refusal")
    peer.shut()
    refusal = peer.refusal()
    assert refusal is not None
    assert refusal.code is RefusalCode.BAD_PROOF
    assert not node.watch.messages
    assert not node.watch.ups


async def test_stranger_that_says_nothing_is_dropped_at_the_deadline(lab: ALab) -> None:
    node = await lab.node(settings=TransportSettings(handshake_deadline_s=1.0))
    peer = await RawPeer(node.address).open()
    assert node.endpoint.half_open == 1
    await peer.until(lambda: peer.closed is not None, "the close")
    peer.shut()
    assert node.endpoint.half_open == 0


async def test_stranger_can_make_us_buffer_only_what_a_proof_needs(stranger: tuple[ANode, RawPeer]) -> None:
    node, peer = stranger
    limit = TransportSettings().unauthenticated_bytes
    assert peer.connection._remote_max_data == limit
    assert peer.connection._remote_max_stream_data_bidi_remote == limit
    assert peer.connection._remote_max_streams_bidi == 1, "one control stream"
    assert peer.connection._remote_max_streams_uni == 0
    assert not node.watch.ups


@pytest.fixture(scope="module")
def abandoned() -> list[bytes]:
    """1,000 first packets of handshakes that nobody finishes."""
    return [an_initial() for _ in range(1000)]


@pytest.mark.parametrize("same_source", [True, False], ids=["one source", "many sources"])
async def test_thousand_abandoned_handshakes_are_bounded_and_others_still_get_in(
    lab: ALab, abandoned: list[bytes], same_source: bool
) -> None:
    node = await lab.node(listen=["0.0.0.0:0"])
    host, port = "127.0.0.1", int(node.address.rpartition(":")[2])
    senders = [a_sender("127.0.0.1" if same_source else f"127.0.{at}.1") for at in range(20)]
    most = 0
    for at, packet in enumerate(abandoned):
        senders[at % len(senders)].sendto(packet, (host, port))
        if at % 20 == 19:
            await asyncio.sleep(0)
            most = max(most, node.endpoint.half_open)
    for sender in senders:
        sender.close()
    settings = TransportSettings()
    assert most <= settings.half_open_cap
    assert node.endpoint.counters.links_accepted <= settings.half_open_cap + settings.new_links_per_source_burst
    assert node.endpoint.counters.handshakes_retried > 500, "most were asked to prove their address"
    other = await lab.node()
    other.endpoint.dial(node.node, [f"{host}:{port}"])
    await other.watch.until(lambda: other.watch.ups, "a member's link while the flood's links are still open")
    shed = node.watch.of(HandshakesShed)
    assert shed[0].retry_on


async def test_half_open_links_of_a_flood_are_gone_at_the_deadline(lab: ALab) -> None:
    node = await lab.node(settings=TransportSettings(handshake_deadline_s=1.0))
    sender = a_sender("127.0.0.1")
    for _ in range(60):
        sender.sendto(an_initial(), ("127.0.0.1", int(node.address.rpartition(":")[2])))
    sender.close()
    last = await RawPeer(node.address).open()
    await last.until(lambda: last.closed is not None, "the deadline of the last one that came")
    last.shut()
    assert node.endpoint.half_open == 0


async def test_ended_connections_are_freed_without_the_collector(lab: ALab, without_collector: None) -> None:
    node = await lab.node(settings=TransportSettings(handshake_deadline_s=1.0))
    before = connections_in_memory()
    sender = a_sender("127.0.0.1")
    for _ in range(20):
        sender.sendto(an_initial(), ("127.0.0.1", int(node.address.rpartition(":")[2])))
    sender.close()
    last = await RawPeer(node.address).open()
    assert connections_in_memory() > before
    await last.until(lambda: last.closed is not None, "the deadline of the last one that came")
    last.shut()
    await asyncio.sleep(0)
    assert connections_in_memory() == before


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def connections_in_memory() -> int:
    """Those of endpoints, not those of raw peers, that hold anything."""
    return sum(isinstance(found, MeshQuicConnection) and bool(vars(found)) for found in gc.get_objects())


async def test_members_packet_behind_those_of_strangers_is_read_first(lab: ALab) -> None:
    node, member = await lab.node(), await lab.node()
    await node.link_to(member)
    accepted: list[int] = []
    node.watch.on_datagram = lambda *_: accepted.append(node.endpoint.counters.links_accepted)
    sender = a_sender("127.0.0.1")
    for packet in [an_initial() for _ in range(30)]:
        sender.sendto(packet, ("127.0.0.1", int(node.address.rpartition(":")[2])))
    member.endpoint.send_datagram(node.node, Ping(nonce=1, incarnation=1))
    await node.watch.until(lambda: accepted, "the ping")
    sender.close()
    assert accepted == [0]


async def test_random_datagrams_are_ignored(lab: ALab) -> None:
    node, rng = await lab.node(), random.Random(7)
    sender = a_sender("127.0.0.1")
    to = ("127.0.0.1", int(node.address.rpartition(":")[2]))
    real = an_initial()
    for number in range(2000):
        data = rng.randbytes(rng.randrange(1, 1400)) if number % 2 else flipped(real, rng)
        sender.sendto(data, to)
        if number % 50 == 0:
            await asyncio.sleep(0)
    sender.close()
    await works(lab, node)


# --- members --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", 2**20),
        struct.pack(">I", 6) + b"\xc1" * 6,
        encode_frame(Proof(signature=b"s" * 64, chain=None)),
    ],
    ids=["oversize frame", "no msgpack", "handshake again"],
)
async def test_members_bytes_that_break_the_wire_end_its_link_by_name(lab: ALab, data: bytes) -> None:
    node = await lab.node()
    peer = await a_raw_member(lab, node)
    peer.write(data)
    await peer.until(lambda: peer.closed is not None, "the close")
    peer.shut()
    refusal = peer.refusal()
    assert refusal is not None
    assert refusal.code is RefusalCode.PROTOCOL_ERROR
    assert [event.code for event in node.watch.of(LinkDown)] == ["protocol_error"]
    assert len(node.watch.of(WireRejected)) == 1
    await works(lab, node)


async def test_frames_before_the_broken_one_count(lab: ALab) -> None:
    node = await lab.node()
    peer = await a_raw_member(lab, node)
    peer.write(encode_frame(a_frame(5)) + struct.pack(">I", 2**30))
    await node.watch.until(lambda: node.watch.downs, "the end of the link")
    peer.shut()
    assert [got.message for got in node.watch.messages] == [a_frame(5)]


async def test_bad_datagram_of_a_member_ends_its_link(lab: ALab) -> None:
    node = await lab.node()
    peer = await a_raw_member(lab, node)
    peer.write_datagram(b"\xff\xff\xff")
    await node.watch.until(lambda: node.watch.downs, "the end of the link")
    peer.shut()
    assert node.watch.downs[0].code == "protocol_error"


async def test_unknown_message_types_are_skipped(lab: ALab) -> None:
    node = await lab.node()
    peer = await a_raw_member(lab, node)
    unknown = b"\x82\xa4type\xabfrom_future\xa1x\x01"
    peer.write(struct.pack(">I", len(unknown)) + unknown + encode_frame(a_frame(9)))
    await node.watch.until(lambda: node.watch.messages, "the frame after it")
    peer.shut()
    assert [got.message for got in node.watch.messages] == [a_frame(9)]


async def test_peer_with_more_streams_than_it_may_have_loses_its_link(lab: ALab) -> None:
    node = await lab.node()
    peer = await a_raw_member(lab, node)
    allowed = TransportSettings().streams_per_link
    peer.connection._remote_max_streams_bidi = 2 * allowed
    peer.write(b"more", stream=4 * (allowed + 1))
    await node.watch.until(lambda: node.watch.downs, "the end of the link")
    peer.shut()
    assert node.watch.downs[0].code == "connection_lost"


async def test_stranger_that_opens_a_second_stream_is_cut_off(lab: ALab) -> None:
    node = await lab.node()
    peer = await RawPeer(node.address).open()
    peer.connection._remote_max_streams_bidi = 100
    peer.write(b"more", stream=4)
    await peer.until(lambda: peer.closed is not None, "the end of the connection")
    peer.shut()
    assert node.watch.ups == []


async def test_stream_that_nobody_takes_is_cancelled_and_the_link_lives(lab: ALab) -> None:
    node = await lab.node()
    peer = await a_raw_member(lab, node)
    peer.write(b"anybody?", stream=4)
    await peer.until(lambda: 4 in peer.resets, "the cancelling")
    peer.say(a_frame(9))
    await node.watch.until(lambda: node.watch.messages, "a frame on the same link")
    peer.shut()


async def test_peer_that_acknowledges_nothing_is_a_slow_reader_at_the_watermark(lab: ALab) -> None:
    node, identity = await lab.node(), an_identity()
    peer = await a_raw_member(lab, node, identity)
    peer.deaf = True
    sent = await send_until_down(node, identity)
    peer.shut()
    settings = TransportSettings()
    assert node.watch.downs[0].code == "slow_reader"
    assert not node.watch.downs[0].by_peer
    frame_bytes = len(encode_frame(a_large_frame()))
    assert sent * frame_bytes <= settings.send_queue_bytes + settings.unacknowledged_bytes + 2 * frame_bytes
    await works(lab, node)


async def test_peer_that_grants_no_credit_is_a_slow_reader_after_the_time_allowed(lab: ALab) -> None:
    node, identity = await lab.node(settings=TransportSettings(send_queue_age_s=0.3)), an_identity()
    peer = await RawPeer(node.address).open()
    peer.grant_no_credit()
    await peer.authenticate(identity, lab.mesh, lab.admission(identity).chain, node.node)
    await node.watch.until(lambda: node.watch.ups, "link up")
    for _ in range(20):
        node.endpoint.send(identity.node, a_large_frame())
    await peer.until(lambda: peer.closed is not None, "the close")
    peer.shut()
    assert peer.closed is not None
    assert peer.closed.startswith("slow_reader: "), "the close names the reason where the stream can't"
    assert node.watch.downs[0].code == "slow_reader"


async def test_newest_state_replaces_older_state_behind_a_slow_reader(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    for number in range(5000):
        one.endpoint.send(two.node, a_frame(number), coalesce="view")
    await two.watch.until(lambda: two.watch.messages, "a frame")
    assert [got.message for got in two.watch.messages] == [a_frame(4999)]


async def test_flooding_member_is_slowed_down_then_cut_off_and_others_are_served(lab: ALab) -> None:
    settings = TransportSettings(
        frames_per_s=100, frames_burst=100, bytes_per_s=10_000, bytes_burst=10_000, flood_s=1.0
    )
    node, other, identity = await lab.node(settings=settings), await lab.node(), an_identity()
    await other.link_to(node)
    peer = await a_raw_member(lab, node, identity)
    for _ in range(100):
        peer.write(encode_frame(a_frame()) * 100)
    answered = 0
    while not node.watch.downs:
        other.endpoint.send_datagram(node.node, Ping(nonce=answered, incarnation=1))
        answered += 1
        await node.watch.until(lambda: len(node.watch.datagrams) == answered, "another member's probe")  # noqa: B023
        await asyncio.sleep(0.05)
    peer.shut()
    assert [event.peer for event in node.watch.of(PeerThrottled)] == [identity.node]
    assert (node.watch.downs[0].peer, node.watch.downs[0].code) == (identity.node, "flooding")
    assert answered >= 5
    taken = sum(got.peer == identity.node for got in node.watch.messages)
    assert taken <= 100 + 100 * 3, "no more was taken than the budget allows in the time it took"


async def test_member_within_its_burst_is_not_slowed(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    for number in range(200):
        one.endpoint.send(two.node, a_frame(number))
    await two.watch.until(lambda: len(two.watch.messages) == 200, "all frames")
    assert not two.watch.of(PeerThrottled)


async def test_member_that_sends_a_first_full_exchange_loses_nothing_to_the_throttle(lab: ALab) -> None:
    settings = TransportSettings(bytes_burst=40_000, bytes_per_s=40_000)
    one, two = await lab.node(settings=settings), await lab.node(settings=settings)
    await one.link_to(two)
    for _ in range(10):
        one.endpoint.send(two.node, Delta(parts=(PART,), claims=()))
    one.endpoint.send(two.node, a_frame(1))
    await two.watch.until(lambda: len(two.watch.messages) == 11, "all frames")
    assert two.watch.of(PeerThrottled)
    assert not two.watch.downs


async def test_datagrams_over_budget_are_dropped_and_the_link_lives(lab: ALab) -> None:
    settings = TransportSettings(datagrams_per_s=10, datagrams_burst=10)
    node, identity = await lab.node(settings=settings), an_identity()
    peer = await a_raw_member(lab, node, identity)
    for number in range(200):
        peer.write_datagram(encode_datagram(Ping(nonce=number, incarnation=1)))
    peer.say(a_frame(3))
    await node.watch.until(lambda: node.watch.messages, "a frame after the flood")
    peer.shut()
    assert len(node.watch.datagrams) <= 20
    assert node.endpoint.counters.datagrams_dropped > 0
    assert not node.watch.downs


async def test_replayed_packets_do_nothing(lab: ALab) -> None:
    node = await lab.node()
    peer = await a_raw_member(lab, node)
    peer.say(a_frame(1))
    await node.watch.until(lambda: node.watch.messages, "the frame")
    peer.replay()
    peer.say(a_frame(2))
    await node.watch.until(lambda: len(node.watch.messages) >= 2, "the next frame")
    peer.shut()
    assert [got.message for got in node.watch.messages] == [a_frame(1), a_frame(2)]
    assert len(node.watch.ups) == 1


async def test_truncated_shuffled_and_doubled_copies_of_a_members_packets_do_nothing(lab: ALab) -> None:
    node, rng = await lab.node(), random.Random(7)
    peer = await a_raw_member(lab, node)
    for number in range(20):
        peer.say(a_frame(number))
    await node.watch.until(lambda: len(node.watch.messages) == 20, "the frames")
    copies = [packet[: rng.randrange(len(packet) + 1)] for packet in peer.sent * 20] + peer.sent * 2
    rng.shuffle(copies)
    for packet in copies:
        peer.put(packet)
    peer.say(a_frame(99))
    await node.watch.until(lambda: len(node.watch.messages) > 20, "the next frame")
    peer.shut()
    assert [got.message for got in node.watch.messages] == [*(a_frame(number) for number in range(20)), a_frame(99)]
    assert len(node.watch.ups) == 1
    assert not node.watch.downs


async def test_close_that_was_lost_is_said_again_when_the_peer_goes_on_talking(lab: ALab) -> None:
    node, identity = await lab.node(settings=TransportSettings(flush_s=0.01)), an_identity()
    peer = await a_raw_member(lab, node, identity)
    peer.deaf = True
    sent_before = node.endpoint.counters.udp_packets_sent
    node.endpoint.close(identity.node, RefusalCode.REMOVED, "removed from the mesh")
    while node.endpoint.open_links:  # noqa: ASYNC110  a link that no longer counts ends without a word to anybody
        await asyncio.sleep(0.01)
    sent = node.endpoint.counters.udp_packets_sent - sent_before
    await peer.until(lambda: peer.missed >= sent, "the refusal and the close, which nobody reads")
    peer.deaf = False
    peer.connection.send_ping(1)
    peer.transmit()
    await peer.until(lambda: peer.closed is not None, "the close")
    peer.shut()
    assert peer.closed == "removed: removed from the mesh"


async def test_closing_is_bounded_where_the_peer_is_deaf(lab: ALab) -> None:
    with ExitStack() as ending:
        async with lab.running() as node:
            peer = await a_raw_member(lab, node)
            peer.deaf = True
            ending.enter_context(anyio.fail_after(DEADLINE_S))
    peer.shut()


async def send_until_down(node: ANode, identity: Identity) -> int:
    """How many large frames it took until the link was given up, each sent in a pass of the loop of its own."""
    for sent in range(1, 1000):
        node.endpoint.send(identity.node, a_large_frame())
        await asyncio.sleep(0)
        if node.watch.downs:
            return sent
    raise AssertionError("1,000 frames (100 MB) were taken for a peer that reads nothing")


def a_sender(host: str) -> socket.socket:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.bind((host, 0))
    return sender


def flipped(data: bytes, rng: random.Random) -> bytes:
    """`data` with a few bytes changed."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)
