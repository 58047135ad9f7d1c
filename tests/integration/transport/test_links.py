"""Two real endpoints on loopback: a link comes up, carries frames and datagrams, and ends."""

from __future__ import annotations

from making_links import ALab

from proto.messages import Ping, ViewHash


async def test_link_comes_up_at_both_ends_and_carries_frames_both_ways(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    one.endpoint.send(two.node, ViewHash(value=b"12345678", nodes=2))
    two.endpoint.send(one.node, ViewHash(value=b"87654321", nodes=2))
    await two.watch.until(lambda: two.watch.messages, "a frame from the dialler")
    await one.watch.until(lambda: one.watch.messages, "a frame from the acceptor")
    assert two.watch.messages[0].message == ViewHash(value=b"12345678", nodes=2)
    assert two.watch.messages[0].peer == one.node
    assert one.watch.messages[0].message == ViewHash(value=b"87654321", nodes=2)


async def test_datagrams_go_both_ways(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    one.endpoint.send_datagram(two.node, Ping(nonce=1, incarnation=1))
    await two.watch.until(lambda: two.watch.datagrams, "a datagram from the dialler")
    two.endpoint.send_datagram(one.node, Ping(nonce=2, incarnation=1))
    await one.watch.until(lambda: one.watch.datagrams, "a datagram from the acceptor")
    assert [got.message for got in (*two.watch.datagrams, *one.watch.datagrams)] == [
        Ping(nonce=1, incarnation=1),
        Ping(nonce=2, incarnation=1),
    ]
