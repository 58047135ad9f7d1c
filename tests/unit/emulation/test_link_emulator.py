"""The emulator does to datagrams what its conditions say, and the same again for the same seed."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from emulation import LinkConditions, LinkEmulator, NatKind
from emulation.conditions import Path


class Host:
    """A plain UDP socket standing for a node's process."""

    def __init__(self, net: LinkEmulator, name: str) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(5)
        host, port = net.attach(name, self.sock.getsockname()).rsplit(":", 1)
        self.public = (host, int(port))

    def send(self, target: tuple[str, int], data: bytes) -> None:
        self.sock.sendto(data, target)

    def receive(self) -> tuple[bytes, tuple[str, int]]:
        data, source = self.sock.recvfrom(65_536)
        return data, source

    def receive_nothing(self) -> bool:
        self.sock.settimeout(0.2)
        try:
            self.sock.recvfrom(65_536)
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(5)
        return False


@pytest.fixture
def net() -> Iterator[LinkEmulator]:
    with LinkEmulator(seed=1) as emulator:
        yield emulator


@pytest.fixture
def pair(net: LinkEmulator) -> Iterator[tuple[Host, Host]]:
    a, b = Host(net, "a"), Host(net, "b")
    yield a, b
    a.sock.close()
    b.sock.close()


def test_receiver_sees_the_senders_public_address_and_can_answer_there(pair: tuple[Host, Host]) -> None:
    a, b = pair
    a.send(b.public, b"ping")
    data, source = b.receive()
    assert (data, source) == (b"ping", a.public)
    b.send(source, b"pong")
    assert a.receive() == (b"pong", b.public)


def test_delay_is_one_way_and_never_shorter_than_asked(net: LinkEmulator, pair: tuple[Host, Host]) -> None:
    a, b = pair
    net.shape("a", "b", LinkConditions(delay_ms=30))
    started = time.monotonic()
    a.send(b.public, b"slow")
    b.receive()
    assert time.monotonic() - started >= 0.030


def test_delay_that_each_datagram_met_is_kept(net: LinkEmulator, pair: tuple[Host, Host]) -> None:
    a, b = pair
    net.shape("a", "b", LinkConditions(delay_ms=5, jitter_ms=5))
    for number in range(20):
        a.send(b.public, bytes([number]))
    for _ in range(20):
        b.receive()
    kept = net.delays("a", "b")
    assert len(kept) == net.counters("a", "b").delivered == 20
    assert all(5 <= delay.asked_ms <= 10 and delay.made_ms >= delay.asked_ms for delay in kept)
    assert net.delays("b", "a") == ()
    net.forget_delays()
    assert net.delays("a", "b") == ()


def test_partition_drops_and_heal_delivers_again(net: LinkEmulator, pair: tuple[Host, Host]) -> None:
    a, b = pair
    net.partition({"a"}, {"b"})
    a.send(b.public, b"lost")
    assert b.receive_nothing()
    net.heal()
    a.send(b.public, b"found")
    assert b.receive()[0] == b"found"
    assert net.counters("a", "b").dropped == 1


def test_one_direction_alone_may_lose_everything(net: LinkEmulator, pair: tuple[Host, Host]) -> None:
    a, b = pair
    net.shape("a", "b", LinkConditions(loss=1.0))
    a.send(b.public, b"lost")
    b.send(a.public, b"heard")
    assert a.receive()[0] == b"heard"
    assert b.receive_nothing()
    assert (net.counters("a", "b").dropped, net.counters("b", "a").dropped) == (1, 0)


def test_one_direction_alone_may_be_cut_while_datagrams_are_on_their_way(
    net: LinkEmulator, pair: tuple[Host, Host]
) -> None:
    a, b = pair
    slow = LinkConditions(delay_ms=150)
    net.shape_both("a", "b", slow)
    a.send(b.public, b"before")
    while net.counters("a", "b").sent == 0:
        pass
    net.shape("a", "b", replace(slow, up=False))
    a.send(b.public, b"after")
    b.send(a.public, b"back")
    assert b.receive()[0] == b"before", "what had left arrives"
    assert a.receive()[0] == b"back"
    assert b.receive_nothing()


def test_partition_of_three_leaves_those_in_no_group_alone(net: LinkEmulator, pair: tuple[Host, Host]) -> None:
    a, b = pair
    c = Host(net, "c")
    net.partition({"a"}, {"b"})
    a.send(c.public, b"to c")
    c.send(b.public, b"to b")
    assert (c.receive()[0], b.receive()[0]) == (b"to c", b"to b")
    c.sock.close()


def test_duplicated_datagram_arrives_twice(net: LinkEmulator, pair: tuple[Host, Host]) -> None:
    a, b = pair
    net.shape("a", "b", LinkConditions(duplicate=1.0))
    a.send(b.public, b"echo")
    assert (b.receive()[0], b.receive()[0]) == (b"echo", b"echo")
    assert net.counters("a", "b").delivered == 2


def test_reordered_datagrams_overtake_those_sent_before(net: LinkEmulator, pair: tuple[Host, Host]) -> None:
    a, b = pair
    net.shape("a", "b", LinkConditions(delay_ms=300, reorder=0.5))
    sent = [bytes([number]) for number in range(20)]
    for data in sent:
        a.send(b.public, data)
    received = [b.receive()[0] for _ in sent]
    assert sorted(received) == sent
    assert received != sent


def test_bandwidth_makes_datagrams_wait_in_line(net: LinkEmulator, pair: tuple[Host, Host]) -> None:
    a, b = pair
    net.shape("a", "b", LinkConditions(bandwidth_bytes_per_s=20_000))
    started = time.monotonic()
    for _ in range(5):
        a.send(b.public, bytes(1000))
    for _ in range(5):
        b.receive()
    assert time.monotonic() - started >= 0.25, "5 kB at 20 kB/s"


def test_datagram_over_the_mtu_is_dropped_and_later_ones_flow(net: LinkEmulator, pair: tuple[Host, Host]) -> None:
    a, b = pair
    net.shape("a", "b", LinkConditions(mtu_bytes=1000))
    a.send(b.public, bytes(1001))
    a.send(b.public, bytes(1000))
    assert len(b.receive()[0]) == 1000


def test_node_behind_a_port_mapping_is_reached_only_where_it_sent_first(
    net: LinkEmulator, pair: tuple[Host, Host]
) -> None:
    a, b = pair
    net.put_behind_nat("a", NatKind.PORT_MAPPING)
    b.send(a.public, b"unsolicited")
    assert a.receive_nothing()
    a.send(b.public, b"out")
    _, mapped = b.receive()
    assert mapped != a.public
    b.send(mapped, b"in")
    assert a.receive()[0] == b"in"


@pytest.mark.parametrize("kind", list(NatKind))
def test_mapping_that_one_peer_was_shown_lets_no_other_in(
    net: LinkEmulator, pair: tuple[Host, Host], kind: NatKind
) -> None:
    a, b = pair
    c = Host(net, "c")
    net.put_behind_nat("a", kind)
    a.send(b.public, b"out")
    mapped = b.receive()[1]
    c.send(mapped, b"unsolicited")
    assert a.receive_nothing()
    c.sock.close()


def test_symmetric_nat_shows_another_port_to_each_peer(net: LinkEmulator, pair: tuple[Host, Host]) -> None:
    a, b = pair
    c = Host(net, "c")
    net.put_behind_nat("a", NatKind.SYMMETRIC)
    a.send(b.public, b"x")
    a.send(c.public, b"x")
    assert b.receive()[1] != c.receive()[1]
    c.sock.close()


@pytest.mark.parametrize("kind", [None, *NatKind])
def test_rebinding_moves_the_sender_to_a_new_port_and_the_old_one_leads_nowhere(
    net: LinkEmulator, pair: tuple[Host, Host], kind: NatKind | None
) -> None:
    a, b = pair
    if kind is not None:
        net.put_behind_nat("a", kind)
    a.send(b.public, b"1")
    first = b.receive()[1]
    net.rebind("a")
    a.send(b.public, b"2")
    second = b.receive()[1]
    assert second != first
    b.send(first, b"to the old port")
    b.send(second, b"to the new port")
    assert a.receive()[0] == b"to the new port"
    assert a.receive_nothing()


def fates(seed: int, conditions: LinkConditions, count: int = 2000) -> list[tuple[float, ...]]:
    path = Path(seed, "a", "b", conditions)
    return [path.decide(1000, now_s=float(n)) for n in range(count)]


def test_same_seed_gives_every_datagram_the_same_fate() -> None:
    rough = LinkConditions(delay_ms=5, jitter_ms=20, loss=0.2, duplicate=0.1, reorder=0.1)
    assert fates(7, rough) == fates(7, rough)
    assert fates(7, rough) != fates(8, rough)


def test_each_direction_has_a_fate_of_its_own() -> None:
    rough = LinkConditions(loss=0.5)
    there, back = (Path(1, *ends, rough) for ends in (("a", "b"), ("b", "a")))
    decided = [(bool(there.decide(100, 0.0)), bool(back.decide(100, 0.0))) for _ in range(100)]
    assert len(set(decided)) == 4


def test_jitter_adds_up_to_what_was_asked_for_on_top_of_the_delay() -> None:
    late_s = [fate[0] - sent_s for sent_s, fate in enumerate(fates(5, LinkConditions(delay_ms=5, jitter_ms=20)))]
    assert min(late_s) >= 0.005 - 1e-9
    assert max(late_s) <= 0.025 + 1e-9
    assert max(late_s) - min(late_s) > 0.019


def test_loss_and_duplication_come_in_the_share_asked_for() -> None:
    decided = fates(3, LinkConditions(loss=0.2, duplicate=0.1))
    lost = sum(not fate for fate in decided) / len(decided)
    doubled = sum(len(fate) == 2 for fate in decided) / len(decided)
    assert 0.17 < lost < 0.23
    assert 0.05 < doubled < 0.11


def test_bandwidth_spaces_datagrams_and_a_full_queue_drops() -> None:
    path = Path(1, "a", "b", LinkConditions(bandwidth_bytes_per_s=1000, queue_bytes=2500))
    arrivals = [path.decide(1000, now_s=0.0) for _ in range(5)]
    assert arrivals == [(1.0,), (2.0,), (3.0,), (), ()]
