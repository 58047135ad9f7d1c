"""RTT figures and coordinates: what samples make of them, and what nonsense does not."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from itertools import combinations

import pytest
from making_memberships import Lone

from meshnode.membership.coordinates import LocalCoordinate, Wire, estimate_us
from meshnode.membership.rtt import RttEstimator
from meshnode.membership.settings import LAN
from meshnode.membership.trust import UNSIGNED
from proto.codec import decode_message, encode_message
from proto.messages import Ack, Ping, Relay


def measured(*samples_ms: float, every_s: float = 1.0) -> RttEstimator:
    rtt = RttEstimator()
    for number, sample_ms in enumerate(samples_ms):
        rtt.add(sample_ms / 1e3, number * every_s, LAN)
    return rtt


@pytest.mark.parametrize("sample_s", [0.0, -0.001, 601.0, math.nan, math.inf])
def test_what_can_be_no_round_trip_is_no_sample(sample_s: float) -> None:
    rtt = measured(10.0)
    assert not rtt.add(sample_s, 1.0, LAN)
    assert (rtt.samples, rtt.min_s) == (1, 0.01)


def test_figure_is_the_least_of_the_window_and_forgets_what_is_older() -> None:
    rtt = measured(12.0, 10.0, 15.0)
    assert rtt.min_s == pytest.approx(0.010)
    rtt.add(0.014, 1.0 + LAN.rtt_window_s + 0.5, LAN)
    assert rtt.min_s == pytest.approx(0.014)


def test_one_spike_leaves_the_figure_and_a_worse_path_moves_it_after_four_samples() -> None:
    rtt = measured(10.0, 10.0, 80.0)
    assert rtt.min_s == pytest.approx(0.010)
    rtt = measured(10.0, 60.0, 61.0, 62.0, 60.5, every_s=2.0)
    assert rtt.min_s == pytest.approx(0.060)


def test_path_that_gets_worse_after_a_stray_spike_is_followed() -> None:
    rtt = measured(*[10.0] * 10, 80.0, *[10.0] * 10, 60.0, 61.0, 62.0, 60.5, every_s=2.0)
    assert rtt.min_s == pytest.approx(0.060)
    assert rtt.smoothed_s == pytest.approx(0.0609, rel=0.01)


def test_queue_that_fills_for_a_moment_is_no_worse_path() -> None:
    rtt = measured(*[10.0] * 10)
    for number in range(6):
        rtt.add(0.080, 10.0 + 0.1 * number, LAN)
    assert rtt.min_s == pytest.approx(0.010)


def test_figure_stays_the_least_of_the_window_on_a_path_with_more_jitter_than_length() -> None:
    rng = random.Random(5)
    rtt = RttEstimator()
    samples: list[tuple[float, float]] = []
    for number in range(2000):
        at_s, sample_s = 0.5 * number, 0.010 + rng.uniform(0, 0.02) + rng.uniform(0, 0.02)
        samples = [sample for sample in samples if sample[0] >= at_s - LAN.rtt_window_s] + [(at_s, sample_s)]
        rtt.add(sample_s, at_s, LAN)
        assert rtt.min_s == min(sample for _, sample in samples)


def test_link_is_corroborated_by_two_samples_that_are_spread_and_fresh() -> None:
    assert not measured(10.0).corroborated(1.0, LAN)
    assert not measured(10.0, 10.0, every_s=4.9).corroborated(5.0, LAN)
    spread = measured(10.0, 10.0, every_s=5.0)
    assert spread.corroborated(5.0, LAN)
    assert not spread.corroborated(5.0 + LAN.rtt_fresh_s, LAN)


def test_time_out_follows_the_link_within_the_presets_bounds() -> None:
    assert RttEstimator().timeout_s(LAN) == LAN.probe_timeout_max_s
    assert measured(*[1.0] * 20).timeout_s(LAN) == LAN.probe_timeout_min_s
    assert measured(*[100.0] * 40).timeout_s(LAN) == pytest.approx(0.3, rel=0.02)
    assert measured(*[5000.0] * 5).timeout_s(LAN) == LAN.probe_timeout_max_s


def test_coordinates_of_three_sites_come_to_estimate_their_distances() -> None:
    rng = random.Random(4)
    true_ms = {("a", "b"): 20.0, ("a", "c"): 40.0, ("b", "c"): 30.0}
    points = {name: LocalCoordinate(random.Random(name)) for name in "abc"}
    for _ in range(400):
        (one, other), rtt_ms = rng.choice(sorted(true_ms.items()))
        wires = points[one].wire(), points[other].wire()
        points[one].update(other, rtt_ms / 1e3, wires[1])
        points[other].update(one, rtt_ms / 1e3, wires[0])
    for (one, other), rtt_ms in true_ms.items():
        estimate_ms = estimate_us(points[one].coordinate(), points[other].coordinate()) / 1e3
        assert estimate_ms == pytest.approx(rtt_ms, rel=0.15)
    assert all(point.error < 0.3 for point in points.values())


@pytest.mark.parametrize(
    "wire", [(), (0.0,) * 5, (math.nan,) * 6, (math.inf, 0.0, 0.0, 0.0, 1.0, 1.0)], ids=["none", "short", "nan", "inf"]
)
def test_peer_that_stands_nowhere_moves_nobody(wire: tuple[float, ...]) -> None:
    point = LocalCoordinate(random.Random(1))
    before = point.wire()
    point.update("peer", 0.01, wire)
    assert point.wire() == before


def test_peer_that_lies_about_its_place_moves_a_node_by_no_more_than_the_measured_time_allows() -> None:
    point = LocalCoordinate(random.Random(1))
    point.update("liar", 0.010, (1e300, -1e300, 0.0, 0.0, 1e300, 1e-9))
    assert all(math.isfinite(value) and abs(value) <= 1e9 for value in point.wire())


LIES: dict[str, Callable[[Wire, random.Random], Wire]] = {
    "anywhere": lambda _, rng: (*(rng.uniform(-1e9, 1e9) for _ in range(4)), 10.0, 1e-3),
    "far": lambda _, rng: (1e8, 1e8, 0.0, 0.0, 10.0, 1e-3),
    "high": lambda victim, rng: (*victim[:4], 1e7, 1e-3),
    "mirrored": lambda victim, rng: (*(-each for each in victim[:4]), 10.0, 1e-3),
}


@pytest.mark.parametrize("lie", LIES)
def test_one_of_sixteen_that_lies_about_its_place_throws_nobody_off_the_map(lie: str) -> None:
    rng = random.Random(6)
    names = [f"{'abc'[number % 3]}{number}" for number in range(16)]
    points = {name: LocalCoordinate(random.Random(name)) for name in names}
    liar, honest = names[0], names[1:]
    for _ in range(100):
        for name in honest:
            peer = rng.choice([other for other in names if other != name])
            wire = LIES[lie](points[name].wire(), rng) if peer == liar else points[peer].wire()
            points[name].update(peer, between_ms(name, peer) / 1e3, wire)
    errors = [
        abs(estimate_us(points[one].coordinate(), points[other].coordinate()) / 1e3 / between_ms(one, other) - 1)
        for one, other in combinations(honest, 2)
        if one[0] != other[0]
    ]
    assert statistics.median(errors) < 0.15
    assert max(points[name].error for name in honest) < 0.5


def between_ms(one: str, other: str) -> float:
    """Three sites, and a millisecond within them."""
    sites_ms = {"ab": 20.0, "ac": 60.0, "bc": 45.0}
    return 1.0 + sites_ms.get("".join(sorted((one[0], other[0]))), 0.0)


def test_time_for_which_an_answer_waited_to_be_read_is_no_part_of_a_carried_path() -> None:
    us = Lone()
    carrier = us.meets()
    source = us.meets(linked=False, via=carrier)
    greeting = Relay(source.node, us.node, 1, encode_message(Ping(7, 1)), UNSIGNED)
    us.receives(carrier, source.trust.sign_relay(greeting))
    carried = [decode_message(relay.payload) for relay in us.sent(Relay, carrier)]
    ping = next(message for message in carried if isinstance(message, Ping))
    answer = Relay(source.node, us.node, 2, encode_message(Ack(ping.nonce, 1, 20_000)), UNSIGNED)
    came_at_s, us.now_s = us.now_s + 0.060, us.now_s + 0.5
    us.machine.receive(carrier.node, source.trust.sign_relay(answer), came_at_s, us.now_s)
    rtt = us.machine.view(us.now_s).nodes[source.node].rtt
    assert rtt is not None
    assert rtt.min_ms == pytest.approx(40.0)
