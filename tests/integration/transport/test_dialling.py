"""Dials between real endpoints: several addresses, both sides at once, restarts, copied keys, addresses that change."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest
from making_links import ALab, ANode, an_identity, restarted

from meshnode.events import LinkMigrated, LinkReplaced, PeerIdentityConflict
from meshnode.transport import TransportSettings
from meshnode.transport.addresses import format_address
from meshnode.transport.clock import boottime_s
from meshnode.transport.link import Link
from meshnode.transport.udp import UdpSocket
from proto.messages import RefusalCode, ViewHash

ROUNDS = 50
ENDLESS = TransportSettings(handshake_deadline_s=600.0)
"""A dial that waits for its deadline is no test that passes."""


def a_frame(number: int) -> ViewHash:
    return ViewHash(value=number.to_bytes(8, "big"), nodes=number)


async def exchange(one: ANode, two: ANode, number: int) -> None:
    """A frame each way proves that both ends use one link."""
    one.endpoint.send(two.node, a_frame(number))
    two.endpoint.send(one.node, a_frame(number))
    await one.watch.until(lambda: any(got.message == a_frame(number) for got in one.watch.messages), "a frame")
    await two.watch.until(lambda: any(got.message == a_frame(number) for got in two.watch.messages), "a frame")


@pytest.fixture
def silent_address() -> Iterator[str]:
    """An address where packets are taken and nothing answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taker:
        taker.bind(("127.0.0.1", 0))
        yield format_address(taker.getsockname())


@pytest.fixture
def refusing_address() -> str:
    """An address where no socket is, so that the kernel answers with an ICMP refusal."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taker:
        taker.bind(("127.0.0.1", 0))
        address = format_address(taker.getsockname())
    return address


async def test_two_nodes_that_dial_each_other_at_once_end_with_one_link(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    for number in range(ROUNDS):
        one.endpoint.dial(two.node, [two.address])
        two.endpoint.dial(one.node, [one.address])
        await one.watch.until(lambda: two.node in one.watch.linked(), "link up")
        await two.watch.until(lambda: one.node in two.watch.linked(), "link up")
        await exchange(one, two, number)
        dialled_by_one = one.watch.linked()[two.node].dialled_by_us
        assert dialled_by_one is (one.node < two.node), "the link dialled by the smaller node id stays"
        assert dialled_by_one is not two.watch.linked()[one.node].dialled_by_us
        one.endpoint.close(two.node, RefusalCode.LEAVING, "next round")
        await two.watch.until(lambda: one.node not in two.watch.linked(), "link down")
    assert len(one.watch.ups) == len(two.watch.ups) == ROUNDS, "no link came up only to be replaced"
    assert not one.watch.failed_dials
    assert not two.watch.failed_dials


async def test_address_that_never_answers_costs_only_the_stagger(lab: ALab, silent_address: str) -> None:
    one, two = await lab.node(settings=ENDLESS), await lab.node()
    one.endpoint.dial(two.node, [silent_address, two.address])
    await one.watch.until(lambda: one.watch.ups, "link up")
    assert one.watch.ups[0].facts.address == two.address


async def test_dial_with_no_answer_fails_within_the_deadline(lab: ALab, silent_address: str) -> None:
    one, two = await lab.node(settings=TransportSettings(handshake_deadline_s=0.3)), an_identity()
    one.endpoint.dial(two.node, [silent_address])
    await one.watch.until(lambda: one.watch.failed_dials, "the dial's end")
    assert one.watch.failed_dials == [(two.node, "unreachable")]


async def test_refused_port_fails_the_dial_at_once(lab: ALab, refusing_address: str) -> None:
    one, two = await lab.node(settings=ENDLESS), an_identity()
    one.endpoint.dial(two.node, [refusing_address])
    await one.watch.until(lambda: one.watch.failed_dials, "the dial's end")


async def test_malformed_addresses_of_a_record_are_passed_over(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    one.endpoint.dial(two.node, ["example.org:4411", "1.2.3:99", "[::1]", "127.0.0.1:99999", two.address])
    await one.watch.until(lambda: one.watch.ups, "link up")


async def test_dial_to_oneself_fails_at_once(lab: ALab) -> None:
    one = await lab.node()
    one.endpoint.dial(one.node, [one.address])
    assert one.watch.failed_dials == [(one.node, "unreachable")]


async def test_own_address_under_another_nodes_name_is_dropped(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    one.endpoint.dial(two.node, [one.address, two.address])
    await one.watch.until(lambda: one.watch.ups, "link up")
    assert not one.watch.of(PeerIdentityConflict)


async def test_restarted_node_takes_over_from_its_silent_older_process(lab: ALab) -> None:
    one, identity = await lab.node(), an_identity()
    async with lab.running(identity) as old:
        await one.link_to(old)
        stop_answering(old)
        new = await lab.node(restarted(identity))
        began_s = boottime_s()
        new.endpoint.dial(one.node, [one.address])
        await one.watch.until(lambda: len(one.watch.ups) == 2, "the newer process' link")
        assert 0.5 < boottime_s() - began_s < 3.0, "the older process had its time to answer, and no more"
        assert one.watch.ups[1].boot_id == new.identity.boot_id
        assert [down.code for down in one.watch.downs] == ["restarted"]
        await new.watch.until(lambda: new.watch.ups, "link up")
        await exchange(one, new, 1)


async def test_second_process_with_a_copied_key_is_refused_and_both_addresses_are_named(lab: ALab) -> None:
    one, identity = await lab.node(), an_identity()
    first = await lab.node(identity)
    await one.link_to(first)
    second = await lab.node(restarted(identity))
    second.endpoint.dial(one.node, [one.address])
    await second.watch.until(lambda: second.watch.identity_conflicts, "the refusal")
    assert second.watch.failed_dials == [(one.node, "identity_in_use")]
    conflict = one.watch.of(PeerIdentityConflict)[0]
    assert (conflict.peer, conflict.address, conflict.other_address) == (
        identity.node,
        first.address,
        second.address,
    )
    await exchange(one, first, 1)
    assert not one.watch.downs, "the first process is not disturbed"


async def test_stall_of_the_asking_process_does_not_make_the_older_process_look_dead(lab: ALab) -> None:
    one, identity = await lab.node(), an_identity()
    first = await lab.node(identity)
    await one.link_to(first)
    second = await lab.node(restarted(identity))

    # All three share this loop: while it is blocked, the time to answer passes and nobody can.
    one.endpoint._reception.judge._question = blocking_once(one.endpoint._reception.judge._question)  # type: ignore[method-assign, assignment]
    second.endpoint.dial(one.node, [one.address])
    await second.watch.until(lambda: second.watch.identity_conflicts, "the refusal")
    assert not one.watch.downs


async def test_peer_that_lost_its_end_and_dials_again_replaces_the_dead_link(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    small, large = sorted((one, two), key=lambda found: found.node)
    await small.link_to(large)
    # The larger id's end of the link is gone without a word; by the tie-break its own dial would lose.
    forget_links(large)
    large.watch.ups.clear()
    large.endpoint.dial(small.node, [small.address])
    await large.watch.until(lambda: large.watch.ups, "the new link")
    await small.watch.until(lambda: len(small.watch.ups) == 2, "the new link")
    assert not small.watch.linked()[large.node].dialled_by_us
    assert [event.peer for event in small.watch.of(LinkReplaced)] == [large.node]
    assert not small.watch.downs
    await exchange(small, large, 1)


async def test_dialler_that_moves_keeps_its_link(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    moved_to = move(one)
    one.endpoint.send(two.node, a_frame(1))
    await two.watch.until(lambda: two.watch.moves, "the migration")
    assert two.watch.moves == [(one.node, one.address, moved_to)]
    assert two.watch.of(LinkMigrated)[0].new_address == moved_to
    await exchange(one, two, 2)
    assert not one.watch.downs
    assert not two.watch.downs


async def test_acceptor_that_moves_is_followed_by_a_pinned_dial(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    moved_to = move(two)
    two.endpoint.send(one.node, a_frame(1))
    await one.watch.until(lambda: one.watch.moves, "the migration")
    assert one.watch.moves == [(two.node, two.address, moved_to)]
    await exchange(one, two, 2)
    assert not one.watch.downs
    assert not two.watch.downs


def blocking_once(question: Callable[[Link], int]) -> Callable[[Link], int]:
    """`question`, after which the loop is blocked for a second the first time."""
    seconds = iter([1.0])

    def ask(link: Link) -> int:
        number = question(link)
        time.sleep(next(seconds, 0.0))
        return number

    return ask


def stop_answering(node: ANode) -> None:
    """The process stops: what reaches its socket is never read."""
    board = node.endpoint._reception.switchboard
    for one in board._sockets:
        board._loop.remove_reader(one.fileno())
    for link in board.links():
        if link.timer is not None:
            link.timer.cancel()


def forget_links(node: ANode) -> None:
    """All links are gone here, and nobody was told."""
    board, judge = node.endpoint._reception.switchboard, node.endpoint._reception.judge
    for link in board.links():
        judge.gone(link)
        if link.timer is not None:
            link.timer.cancel()
    board._links.clear()
    board._by_cid.clear()
    node.watch.linked_now.clear()


def move(node: ANode) -> str:
    """The node's socket gets another port, as when a router forgets a mapping or a laptop changes networks."""
    board = node.endpoint._reception.switchboard
    old = board._sockets[0]
    new = UdpSocket(("127.0.0.1", 0), boottime_s)
    board._loop.remove_reader(old.fileno())
    old.close()
    board._sockets[0] = new
    for link in board.links():
        link.socket = new
    board._loop.add_reader(new.fileno(), board._readable, new)
    return format_address(new.name)
