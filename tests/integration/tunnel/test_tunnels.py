"""Tunnels between real nodes, over each carrier."""

from __future__ import annotations

import hashlib
import os

import anyio
import pytest
from making_links import DEADLINE_S
from making_tunnels import API, TunnelLab, TunnelNode, linked

from meshnode.events import TunnelClosed, TunnelOpened, TunnelTcpFailed
from meshnode.membership.view import PathKind
from meshnode.tunnel import Carrier, Tunnel, TunnelSettings

CARRIERS = ["tcp", "quic", "relay"]


async def nodes_over(tunnels: TunnelLab, carrier: str) -> tuple[TunnelNode, TunnelNode]:
    """Two nodes between which a tunnel is carried so."""
    if carrier != "relay":
        return await tunnels.pair(TunnelSettings(carrier=carrier))
    here, there, between = await tunnels.node(hidden=True), await tunnels.node(hidden=True), await tunnels.node()
    await linked(here, between)
    await linked(there, between)
    await linked(here, there, PathKind.RELAYED)
    return here, there


async def both_ends(here: TunnelNode, there: TunnelNode) -> tuple[Tunnel, Tunnel]:
    with anyio.fail_after(DEADLINE_S):
        return await here.tunnels.open(there.node, API), await there.took()


async def read_all(tunnel: Tunnel) -> bytes:
    with anyio.fail_after(DEADLINE_S):
        return b"".join([piece async for piece in tunnel])


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_bytes_go_both_ways_each_end_ends_its_own_direction_and_all_is_counted(
    tunnels: TunnelLab, carrier: str
) -> None:
    here, there = await nodes_over(tunnels, carrier)
    one, two = await both_ends(here, there)
    assert one.carrier is two.carrier is Carrier(carrier)
    assert (two.peer, two.opening, two.opened_here) == (here.node, API, False)
    question = os.urandom(50_000 if carrier == "relay" else 3_000_000)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.send, question)
        received = b""
        with anyio.fail_after(DEADLINE_S):
            while len(received) < len(question):
                received += await two.receive(1000)
    assert hashlib.sha256(received).digest() == hashlib.sha256(question).digest()
    await one.send_eof()
    assert await read_all(two) == b""
    await two.send(b"the answer comes after the question's end")
    await two.send_eof()
    assert await read_all(one) == b"the answer comes after the question's end"
    for end in (one, two):
        await end.aclose()
    for node, sent, got in ((here, len(question), 41), (there, 41, len(question))):
        closed = await node.events.one(TunnelClosed)
        assert (closed.sent_bytes, closed.received_bytes, closed.reason) == (sent, got, "closed")
        totals = node.tunnels.status()["carriers"][carrier]
        assert (totals["opened"], totals["sent_bytes"], totals["received_bytes"]) == (1, sent, got)
        assert node.tunnels.status()["open"] == []


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_end_that_closes_early_breaks_the_other_in_both_directions(tunnels: TunnelLab, carrier: str) -> None:
    here, there = await nodes_over(tunnels, carrier)
    one, two = await both_ends(here, there)
    await one.send(b"half of a ")
    assert await two.receive() == b"half of a "
    await one.aclose()
    with anyio.fail_after(DEADLINE_S), pytest.raises(anyio.BrokenResourceError):
        await two.receive()
    with anyio.fail_after(DEADLINE_S), pytest.raises(anyio.BrokenResourceError):
        await two.send(b"x" * 10_000_000)


@pytest.mark.parametrize(("carrier", "most_bytes"), [("tcp", 64 << 20), ("quic", 1 << 20), ("relay", 64 << 10)])
async def test_reader_that_stalls_stops_the_writer_and_nobody_else(
    tunnels: TunnelLab, carrier: str, most_bytes: int
) -> None:
    """Over TCP it is the kernel that buffers, some megabytes by its own bounds."""
    here, there = await nodes_over(tunnels, carrier)
    one, two = await both_ends(here, there)
    with anyio.move_on_after(1.0) as waiting:
        while True:
            await one.send(b"x" * 65_536 if carrier != "relay" else b"x" * 1024)
    assert waiting.cancelled_caught
    assert one.sent_bytes <= most_bytes
    other, _ = await both_ends(here, there)
    await other.send(b"meanwhile")
    await other.aclose()
    sent, received = one.sent_bytes, 0
    with anyio.fail_after(DEADLINE_S):
        while received < sent:
            received += len(await two.receive(1 << 20))


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_receive_that_is_cancelled_loses_nothing(tunnels: TunnelLab, carrier: str) -> None:
    here, there = await nodes_over(tunnels, carrier)
    one, two = await both_ends(here, there)
    for word in (b"one", b"two"):
        with anyio.move_on_after(0.01) as waiting:
            await two.receive()
        assert waiting.cancelled_caught
        await one.send(word)
        with anyio.fail_after(DEADLINE_S):
            assert await two.receive() == word


async def test_send_that_is_cancelled_half_way_breaks_the_tunnel_rather_than_garble_it(tunnels: TunnelLab) -> None:
    here, there = await nodes_over(tunnels, "tcp")
    one, two = await both_ends(here, there)
    with anyio.move_on_after(0.3) as waiting:
        await one.send(bytes(64 << 20))
    assert waiting.cancelled_caught
    with pytest.raises(anyio.BrokenResourceError):
        await one.send_eof()
    with pytest.raises(anyio.BrokenResourceError):
        await read_all(two)


async def test_tcp_is_chosen_where_it_connects_and_is_said(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair()
    await both_ends(here, there)
    for node, opened_here in ((here, True), (there, False)):
        opened = await node.events.one(TunnelOpened)
        assert (opened.carrier, opened.purpose, opened.opened_here) == ("tcp", "api", opened_here)
        [row] = node.tunnels.status()["open"]
        assert (row["carrier"], row["purpose"], row["model"]) == ("tcp", "api", "llama")


async def test_tcp_that_is_blocked_costs_one_attempt_and_the_link_carries_instead(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair()
    there.tunnels._tcp.port = 1
    for _ in range(2):
        one, two = await both_ends(here, there)
        assert one.carrier is two.carrier is Carrier.QUIC
        await one.send(b"through")
        assert await two.receive() == b"through"
    [failed] = here.events.of(TunnelTcpFailed)
    assert failed.peer == there.node
    assert "port 1" in failed.problem
    assert failed.retry_after_s == 60.0


async def test_tcp_that_stays_blocked_is_tried_more_and_more_seldom_until_it_works(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair(TunnelSettings(blocked_s=1e-6, blocked_most_s=5e-6))
    port, there.tunnels._tcp.port = there.tunnels._tcp.port, 1
    for _ in range(5):
        (await here.tunnels.open(there.node, API)).cut("enough")
    assert [event.retry_after_s for event in here.events.of(TunnelTcpFailed)] == [1e-6, 2e-6, 4e-6, 5e-6, 5e-6]
    there.tunnels._tcp.port = port
    assert (await here.tunnels.open(there.node, API)).carrier is Carrier.TCP
    there.tunnels._tcp.port = 1
    (await here.tunnels.open(there.node, API)).cut("enough")
    assert here.events.of(TunnelTcpFailed)[-1].retry_after_s == 1e-6


async def test_node_without_tcp_takes_streams_of_the_link(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair(None, TunnelSettings(carrier="quic"))
    one, _ = await both_ends(here, there)
    assert one.carrier is Carrier.QUIC
    assert here.events.of(TunnelTcpFailed) == []


async def test_port_that_is_taken_is_replaced_by_another(tunnels: TunnelLab) -> None:
    first = await tunnels.node()
    port = int(first.address.rpartition(":")[2])
    assert first.tunnels.status()["tcp_port"] == port, "the number of the UDP port"
    second = await tunnels.node(TunnelSettings(tcp_port=port))
    assert second.tunnels.status()["tcp_port"] not in (None, port)
