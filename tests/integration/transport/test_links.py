"""Two real endpoints on loopback: a link comes up, carries frames and datagrams, and ends."""

from __future__ import annotations

import time

import pytest
from making_links import ALab, an_identity

from meshnode.events import AddressDropped, LinkDown, LinkRefused, LinkUp
from meshnode.transport import ListenFailed, TransportSettings
from meshnode.transport.clock import boottime_s
from proto.errors import WireError
from proto.ids import short
from proto.messages import Confirm, DeviceFigure, Ping, RefusalCode, Relay, ViewHash
from proto.versions import ProtocolVersion, VersionRange


def a_frame(number: int = 1) -> ViewHash:
    return ViewHash(value=number.to_bytes(8, "big"), nodes=number)


async def test_link_comes_up_at_both_ends_and_carries_frames_both_ways(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    one.endpoint.send(two.node, a_frame(1))
    two.endpoint.send(one.node, a_frame(2))
    await two.watch.until(lambda: two.watch.messages, "a frame from the dialler")
    await one.watch.until(lambda: one.watch.messages, "a frame from the acceptor")
    assert [(got.peer, got.message) for got in two.watch.messages] == [(one.node, a_frame(1))]
    assert [(got.peer, got.message) for got in one.watch.messages] == [(two.node, a_frame(2))]


async def test_peer_that_is_dialled_the_moment_its_link_ends_is_linked_again(lab: ALab) -> None:
    """As membership does where a link fell silent: a dial that was ignored would count as under way for ever."""
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    one.watch.on_down = lambda peer: one.endpoint.dial(peer, [two.address])
    one.endpoint.close(two.node, RefusalCode.UNREACHABLE, "no answer to probes")
    await one.watch.until(lambda: len(one.watch.ups) == 2, "a second link")


async def test_link_facts_tell_who_dialled_and_at_which_address(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    assert one.watch.ups[0].facts.address == two.address
    assert one.watch.ups[0].facts.dialled_by_us
    assert two.watch.ups[0].facts.address == one.address, "the dialler's socket is the one it accepts at"
    assert not two.watch.ups[0].facts.dialled_by_us
    assert one.watch.observed == [(two.node, one.address)]
    assert one.watch.of(LinkUp)[0].protocol == "1.0"


async def test_each_side_learns_the_incarnation_the_other_remembers(lab: ALab) -> None:
    one_identity, two_identity = an_identity(), an_identity()
    one = await lab.node(one_identity, floors={two_identity.node: 7})
    two = await lab.node(two_identity, floors={one_identity.node: 41})
    await one.link_to(two)
    assert one.watch.ups[0].incarnation_floor == 41
    assert two.watch.ups[0].incarnation_floor == 7


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


async def test_received_time_is_the_arrival_and_not_when_a_blocked_loop_came_round(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    one.endpoint.send_datagram(two.node, Ping(nonce=1, incarnation=1))
    # Both endpoints share this loop: while it is blocked, the datagram waits in the kernel.
    time.sleep(0.5)  # noqa: ASYNC251
    woken_at_s = boottime_s()
    await two.watch.until(lambda: two.watch.datagrams, "the datagram")
    assert two.watch.datagrams[0].received_at_s < woken_at_s - 0.1


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"])
async def test_link_over_each_family_and_kind_of_binding(lab: ALab, listen: str) -> None:
    one, two = await lab.node(listen=[listen]), await lab.node(listen=[listen])
    host = "[::1]" if listen.startswith("[") else "127.0.0.1"
    port = two.address.rpartition(":")[2]
    one.endpoint.dial(two.node, [f"{host}:{port}"])
    await one.watch.until(lambda: one.watch.ups, "link up")
    await two.watch.until(lambda: two.watch.ups, "link up")


@pytest.mark.parametrize("host", ["127.0.0.2", "127.0.0.7"])
async def test_wildcard_socket_answers_from_the_address_that_was_dialled(lab: ALab, host: str) -> None:
    one, two = await lab.node(), await lab.node(listen=["0.0.0.0:0"])
    port = two.address.rpartition(":")[2]
    one.endpoint.dial(two.node, [f"{host}:{port}"])
    await one.watch.until(lambda: one.watch.ups, "link up")
    assert one.watch.ups[0].facts.address == f"{host}:{port}"


async def test_every_address_listener_serves_both_families_on_one_port(lab: ALab) -> None:
    one, two, three = await lab.node(listen=["[::]:0"]), await lab.node(), await lab.node(listen=["[::1]:0"])
    port = one.address.rpartition(":")[2]
    assert one.endpoint.bound_addresses == (f"[::]:{port}", f"0.0.0.0:{port}")
    two.endpoint.dial(one.node, [f"127.0.0.1:{port}"])
    three.endpoint.dial(one.node, [f"[::1]:{port}"])
    await one.watch.until(lambda: len(one.watch.ups) == 2, "a link of each family")


async def test_port_in_use_is_an_error_that_names_the_address_and_what_to_do(lab: ALab) -> None:
    one = await lab.node()
    with pytest.raises(ListenFailed, match=f"cannot listen on {one.address}.*another process") as error:
        await lab.node(listen=[one.address])
    assert error.value.address == one.address


async def test_close_tells_the_peer_why(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    one.endpoint.close(two.node, RefusalCode.REMOVED, "removed from the mesh")
    assert one.watch.downs[0].code == "removed", "the closer is told before close() returns"
    await two.watch.until(lambda: two.watch.downs, "link down at the peer")
    down = two.watch.downs[0]
    assert (down.peer, down.code, down.reason, down.by_peer) == (one.node, "removed", "removed from the mesh", True)
    assert two.watch.of(LinkDown)[0].code == "removed"


async def test_frames_sent_before_a_close_are_read(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    for number in range(100):
        one.endpoint.send(two.node, a_frame(number))
    one.endpoint.close(two.node, RefusalCode.REMOVED, "removed from the mesh")
    await two.watch.until(lambda: two.watch.downs, "link down at the peer")
    assert [got.message for got in two.watch.messages] == [a_frame(number) for number in range(100)]


async def test_leaving_the_block_says_leaving_and_is_quick(lab: ALab) -> None:
    one = await lab.node()
    async with lab.running() as two:
        await one.link_to(two)
        began_s = boottime_s()
    assert boottime_s() - began_s < 1.0
    await one.watch.until(lambda: one.watch.downs, "link down at the one that stays")
    assert (one.watch.downs[0].code, one.watch.downs[0].by_peer) == ("leaving", True)


async def test_peer_can_be_dialled_again_after_its_link_ended(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    two.endpoint.close(one.node, RefusalCode.LEAVING, "bye")
    await one.watch.until(lambda: one.watch.downs, "link down")
    await one.link_to(two)
    assert len(one.watch.ups) == 2


async def test_dial_where_a_link_is_up_does_nothing(lab: ALab) -> None:
    one, two, three = await lab.node(), await lab.node(), await lab.node()
    await one.link_to(two)
    one.endpoint.dial(two.node, [two.address])
    await one.link_to(three)
    assert [up.peer for up in one.watch.ups] == [two.node, three.node]


async def test_silent_link_ends_at_the_idle_timeout(lab: ALab) -> None:
    quick = TransportSettings(idle_timeout_s=1.0)
    one, two = await lab.node(settings=quick), await lab.node(settings=quick)
    await one.link_to(two)
    await one.watch.until(lambda: one.watch.downs, "link down")
    assert one.watch.downs[0].code == "idle_timeout"


async def test_members_of_two_meshes_refuse_each_other_by_name(lab: ALab, other_lab: ALab) -> None:
    one, two = await lab.node(), await other_lab.node()
    one.endpoint.dial(two.node, [two.address])
    await one.watch.until(lambda: one.watch.failed_dials, "the dial's end")
    assert one.watch.failed_dials == [(two.node, "wrong_mesh")]
    assert not one.watch.ups
    assert not two.watch.ups
    for side, by_us in ((one, False), (two, True)):
        refused = side.watch.of(LinkRefused)[0]
        facts = (refused.code, refused.by_us, refused.found, refused.required)
        assert facts == ("wrong_mesh", by_us, short(lab.mesh), short(other_lab.mesh))


async def test_no_common_version_names_both_ranges_and_who_must_upgrade_on_both_sides(lab: ALab) -> None:
    newer = VersionRange(ProtocolVersion(2, 0), ProtocolVersion(2, 3))
    one, two = await lab.node(), await lab.node(versions=newer)
    one.endpoint.dial(two.node, [two.address])
    await one.watch.until(lambda: one.watch.failed_dials, "the dial's end")
    for side in (one, two):
        refused = side.watch.of(LinkRefused)[0]
        assert (refused.code, refused.found, refused.required) == ("no_common_version", "1.0 to 1.0", "2.0 to 2.3")
        assert refused.text.endswith(f"{short(one.node)} must upgrade")


async def test_older_and_newer_minor_speak_the_highest_common(lab: ALab) -> None:
    newer = VersionRange(ProtocolVersion(1, 0), ProtocolVersion(1, 4))
    one, two = await lab.node(), await lab.node(versions=newer)
    await one.link_to(two)
    assert [side.watch.of(LinkUp)[0].protocol for side in (one, two)] == ["1.0", "1.0"]


async def test_removed_member_is_refused_and_told_so(lab: ALab) -> None:
    one, two = await lab.node(keeps_root=True), await lab.node()
    await one.link_to(two)
    assert one.admission is not None
    one.admission.remove(one.admission.plan_removal(two.node, int(time.time())), [], int(time.time()))
    one.endpoint.close(two.node, RefusalCode.REMOVED, "removed from the mesh")
    await two.watch.until(lambda: two.watch.downs, "link down")
    two.endpoint.dial(one.node, [one.address])
    await two.watch.until(lambda: two.watch.failed_dials, "the dial's end")
    assert two.watch.failed_dials == [(one.node, "removed")]
    one.endpoint.dial(two.node, [two.address])
    assert one.watch.failed_dials == [(two.node, "removed")]


async def test_address_that_answers_as_another_node_is_dropped_and_the_next_one_links(lab: ALab) -> None:
    one, two, three = await lab.node(), await lab.node(), await lab.node()
    one.endpoint.dial(two.node, [three.address, two.address])
    await one.watch.until(lambda: one.watch.ups, "link up")
    assert one.watch.ups[0].facts.address == two.address
    dropped = one.watch.of(AddressDropped)
    assert [(drop.peer, drop.address, drop.answered_as) for drop in dropped] == [(two.node, three.address, three.node)]
    assert not three.watch.ups


async def test_oversize_datagram_is_refused_before_it_is_queued(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    relay = Relay(source=one.node, target=two.node, sequence=1, payload=b"x" * 1200, signature=b"s" * 64)
    with pytest.raises(WireError, match="datagram"):
        one.endpoint.send_datagram(two.node, relay)
    one.endpoint.send_datagram(two.node, Ping(nonce=1, incarnation=1))
    await two.watch.until(lambda: two.watch.datagrams, "a later datagram")


async def test_oversize_frame_is_refused_before_it_is_queued(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    device = DeviceFigure(id="x" * 64, usable_bytes=1, reserved_bytes=0)
    too_large = Confirm(
        nonce=1,
        devices=(device,) * 200,
        host_usable_bytes=0,
        draining=False,
        stage_control=True,
        cached_bytes=None,
        missing_bytes=None,
        manifest=None,
    )
    with pytest.raises(WireError, match="confirm"):
        one.endpoint.send(two.node, too_large)
    one.endpoint.send(two.node, a_frame())
    await two.watch.until(lambda: two.watch.messages, "a later frame")


async def test_sending_to_a_node_without_a_link_is_dropped(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    one.endpoint.send(two.node, a_frame())
    one.endpoint.send_datagram(two.node, Ping(nonce=1, incarnation=1))
    await one.link_to(two)
    one.endpoint.send(two.node, a_frame(5))
    await two.watch.until(lambda: two.watch.messages, "the frame sent over the link")
    assert [got.message for got in two.watch.messages] == [a_frame(5)]
    assert not two.watch.datagrams
