"""Real endpoints over paths that lose, delay, double, reorder and cut packets, and through routers that forget."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from emulation import LinkConditions, LinkEmulator, NatKind
from making_links import ALab, ANode

from meshnode.transport import TransportSettings
from proto.messages import Delta, RefusalCode, ViewHash
from proto.parts import PartKind, SignedPart

PATIENT_S = 30.0
BAD = LinkConditions(delay_ms=15, jitter_ms=10, loss=0.15, duplicate=0.1, reorder=0.1)
FAR = LinkConditions(delay_ms=40, jitter_ms=5)
PART = SignedPart(kind=PartKind.OFFER, body=b"b" * 10_000, signature=b"s" * 64)


def a_frame(number: int = 1) -> ViewHash:
    return ViewHash(value=number.to_bytes(8, "big"), nodes=number)


@dataclass
class Router:
    """The emulated network: `public` holds the address at which each node is seen."""

    emulator: LinkEmulator
    public: dict[str, str]

    def attach(self, name: str, node: ANode) -> None:
        host, _, port = node.address.rpartition(":")
        self.public[name] = self.emulator.attach(name, (host, int(port)))


@pytest.fixture
def router() -> Iterator[Router]:
    with LinkEmulator(seed=7) as emulator:
        yield Router(emulator, {})


async def two_nodes(lab: ALab, router: Router, settings: TransportSettings | None = None) -> tuple[ANode, ANode]:
    """`one` and `two`, with the emulated network between them."""
    one, two = await lab.node(settings=settings), await lab.node(settings=settings)
    router.attach("one", one)
    router.attach("two", two)
    return one, two


async def link(one: ANode, two: ANode, address: str) -> None:
    one.endpoint.dial(two.node, [address])
    await one.watch.until(lambda: two.node in one.watch.linked(), "link up", PATIENT_S)
    await two.watch.until(lambda: one.node in two.watch.linked(), "link up", PATIENT_S)


async def exchange(one: ANode, two: ANode, number: int) -> None:
    one.endpoint.send(two.node, a_frame(number))
    two.endpoint.send(one.node, a_frame(number))
    for side in (one, two):
        await side.watch.until(
            lambda side=side: any(got.message == a_frame(number) for got in side.watch.messages),  # type: ignore[misc]
            f"frame {number}",
            PATIENT_S,
        )


async def test_frames_arrive_whole_in_order_and_once_over_a_bad_path(lab: ALab, router: Router) -> None:
    one, two = await two_nodes(lab, router)
    router.emulator.shape_both("one", "two", BAD)
    await link(one, two, router.public["two"])
    for number in range(100):
        one.endpoint.send(two.node, a_frame(number))
    one.endpoint.send(two.node, Delta(parts=(PART,) * 3, claims=()))
    await two.watch.until(lambda: len(two.watch.messages) >= 101, "all frames", PATIENT_S)
    assert [got.message for got in two.watch.messages[:100]] == [a_frame(number) for number in range(100)]
    assert len(two.watch.messages) == 101


async def test_reason_of_a_close_arrives_over_a_bad_path(lab: ALab, router: Router) -> None:
    one, two = await two_nodes(lab, router)
    router.emulator.shape_both("one", "two", BAD)
    await link(one, two, router.public["two"])
    one.endpoint.close(two.node, RefusalCode.REMOVED, "removed from the mesh")
    await two.watch.until(lambda: two.watch.downs, "link down", PATIENT_S)
    assert (two.watch.downs[0].code, two.watch.downs[0].by_peer) == ("removed", True)


async def test_path_that_drops_longer_packets_than_1250_bytes_carries_everything(lab: ALab, router: Router) -> None:
    one, two = await two_nodes(lab, router)
    router.emulator.shape_both("one", "two", LinkConditions(mtu_bytes=1250))
    await link(one, two, router.public["two"])
    one.endpoint.send(two.node, Delta(parts=(PART,) * 10, claims=()))
    await two.watch.until(lambda: two.watch.messages, "a frame of 100 kB", PATIENT_S)


async def test_dials_that_cross_on_a_long_path_end_with_one_link(lab: ALab, router: Router) -> None:
    one, two = await two_nodes(lab, router)
    router.emulator.shape_both("one", "two", FAR)
    for number in range(8):
        one.endpoint.dial(two.node, [router.public["two"]])
        two.endpoint.dial(one.node, [router.public["one"]])
        await one.watch.until(lambda: two.node in one.watch.linked(), "link up")
        await two.watch.until(lambda: one.node in two.watch.linked(), "link up")
        await exchange(one, two, number)
        assert one.watch.linked()[two.node].dialled_by_us is not two.watch.linked()[one.node].dialled_by_us
        one.endpoint.close(two.node, RefusalCode.LEAVING, "next round")
        await two.watch.until(lambda: one.node not in two.watch.linked(), "link down")
    assert not one.watch.failed_dials
    assert not two.watch.failed_dials


async def test_node_behind_a_router_is_reached_over_the_link_it_dialled(lab: ALab, router: Router) -> None:
    one, two = await two_nodes(lab, router, TransportSettings(handshake_deadline_s=2.0))
    router.emulator.put_behind_nat("one", NatKind.PORT_MAPPING)
    two.endpoint.dial(one.node, [router.public["one"]])
    await two.watch.until(lambda: two.watch.failed_dials, "a dial that the router lets nowhere")
    await link(one, two, router.public["two"])
    await exchange(one, two, 1)
    assert not two.watch.linked()[one.node].dialled_by_us


@pytest.mark.parametrize("kind", list(NatKind))
async def test_link_lives_on_when_the_diallers_router_forgets_its_mapping(
    lab: ALab, router: Router, kind: NatKind
) -> None:
    one, two = await two_nodes(lab, router)
    router.emulator.put_behind_nat("one", kind)
    await link(one, two, router.public["two"])
    router.emulator.rebind("one")
    await exchange_from_dialler(one, two)
    assert [peer for peer, _, _ in two.watch.moves] == [one.node]
    assert not one.watch.downs
    assert not two.watch.downs


async def test_link_follows_an_acceptor_that_appears_at_another_address(lab: ALab, router: Router) -> None:
    one, two = await two_nodes(lab, router)
    await link(one, two, router.public["two"])
    router.emulator.rebind("two")
    two.endpoint.send(one.node, a_frame(1))
    await one.watch.until(lambda: one.watch.moves, "the migration", PATIENT_S)
    await exchange(one, two, 2)
    assert not one.watch.downs
    assert not two.watch.downs


async def test_link_survives_a_partition_shorter_than_the_idle_timeout(lab: ALab, router: Router) -> None:
    one, two = await two_nodes(lab, router)
    await link(one, two, router.public["two"])
    router.emulator.partition(["one"], ["two"])
    for number in range(3):
        one.endpoint.send(two.node, a_frame(number))
    for _ in range(1000):
        if router.emulator.counters("one", "two").dropped:
            break
        await asyncio.sleep(0.005)
    assert router.emulator.counters("one", "two").dropped, "the frames met the partition"
    router.emulator.heal()
    await two.watch.until(lambda: len(two.watch.messages) == 3, "the frames sent meanwhile", PATIENT_S)
    assert not one.watch.downs


async def exchange_from_dialler(one: ANode, two: ANode) -> None:
    """The dialler speaks first: until it does, nobody knows of its new mapping."""
    one.endpoint.send(two.node, a_frame(1))
    await two.watch.until(lambda: any(got.message == a_frame(1) for got in two.watch.messages), "a frame", PATIENT_S)
    await exchange(one, two, 2)
