"""Network coordinates: an estimate of the RTT between two nodes that have no link.

Vivaldi (Dabek, Cox, Kaashoek, Morris, SIGCOMM 2004) with height: each node keeps a point in 4 dimensions and a height
for its access link; RTT(a, b) is estimated as |a - b| + height_a + height_b. Every sample pulls the node along the line
to the peer, the more the surer the peer is (section 3.3, constants c_e = c_c = 0.25). Samples pass a median of three
first, so that one queueing spike does not throw the node across the map (Ledlie, Gardner, Seltzer, NSDI 2007).

Estimates are useless below a few milliseconds (in a simulation below 2, where it was 4 to 16 % off across sites): there
they are only shown as `<5ms`, and errors count as shares of no less than that, or a node beside others would never be
sure of its place for their sake (the same authors' error margin). As long as a node is unsure, each sample has it move
by some remembered ones too, which takes a third of the samples to a good estimate. Estimates are marked as such
wherever shown.

A peer may say that it stands anywhere, and be sure of it; unbounded, one such in a mesh of 16 throws everybody off the
map (Kaafar, Mathy, Turletti, Dabbous, SIGCOMM LSAD 2006). So no sample pulls as if it missed by more than 50 ms or the
RTT, and a peer whose word fits far worse than most others' is followed little.
"""

from __future__ import annotations

import math
import random
from collections import deque

from meshnode.membership.view import LEAST_ESTIMATE_MS
from proto.parts import COORDINATE_DIMENSIONS, Coordinate

C_ERROR = 0.25
C_CORRECTION = 0.25
ERROR_START = 1.5
HEIGHT_MIN_US = 10.0
FILTER_SAMPLES = 3
LEAST_ESTIMATE_US = LEAST_ESTIMATE_MS * 1e3
UNSURE = 0.1
REPEATED = 3
"""So many remembered samples are taken again with each new one while the error is above `UNSURE`."""
MOST_PULL_US = 50_000.0
STRAY = 1.0
STRAY_TIMES = 8.0
STRAY_WEIGHT = 0.3
FEW_PEERS = 4
"""With at least so many peers known, a sample counts a third whose error is above `STRAY` and above `STRAY_TIMES` the
median of all peers' last errors. A node that moved itself finds all errors large, and goes on following."""
MAX_TRACKED_PEERS = 128
FURTHEST_US = 1e9
"""What the wire takes in each dimension."""

Position = tuple[float, float, float, float]
Wire = tuple[float, ...]
"""Position (4), height and error in one tuple, as an `Ack` carries it; microseconds and a fraction."""


class LocalCoordinate:
    """The local node's own point and its movement."""

    __slots__ = ("_errors", "_filters", "_remembered", "_rng", "_wire", "error", "height_us", "position_us")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.position_us: Position = (0.0, 0.0, 0.0, 0.0)
        self.height_us = HEIGHT_MIN_US
        self.error = ERROR_START
        self._filters: dict[str, deque[float]] = {}
        self._remembered: dict[str, tuple[float, Wire]] = {}
        """The newest sample of each peer of `_filters`: RTT in us, and where it said it stood."""
        self._errors: dict[str, float] = {}
        """Of the newest sample of each of them, as a share of the RTT."""
        self._wire: Wire | None = None

    def update(self, peer: str, rtt_s: float, peer_wire: Wire) -> None:
        """Moves by one sample of `rtt_s` to `peer`, which said it stands at `peer_wire`; nonsense is ignored."""
        if len(peer_wire) != COORDINATE_DIMENSIONS + 2 or not math.isfinite(sum(peer_wire)):
            return
        rtt_us = self._filtered(peer, rtt_s * 1e6)
        self._remembered[peer] = rtt_us, peer_wire
        self._move(peer)
        if self.error > UNSURE:
            for again in self._rng.sample(list(self._remembered), min(REPEATED, len(self._remembered))):
                self._move(again)
        self._wire = None

    def _move(self, peer: str) -> None:
        """By the remembered sample of `peer`."""
        rtt_us, peer_wire = self._remembered[peer]
        q0, q1, q2, q3, peer_height_us, peer_error = peer_wire
        peer_height_us, peer_error = max(0.0, peer_height_us), min(10.0, max(1e-3, peer_error))
        p0, p1, p2, p3 = self.position_us
        difference = (p0 - q0, p1 - q1, p2 - q2, p3 - q3)
        plane_us = math.hypot(*difference)
        estimate_us = plane_us + self.height_us + peer_height_us
        weight = self.error / (self.error + peer_error)
        sample_error = self._errors[peer] = abs(estimate_us - rtt_us) / max(rtt_us, LEAST_ESTIMATE_US)
        if sample_error > STRAY and self._strays(sample_error):
            weight *= STRAY_WEIGHT
        else:
            self.error = min(ERROR_START, sample_error * C_ERROR * weight + self.error * (1 - C_ERROR * weight))
        force_us = C_CORRECTION * weight * max(-max(MOST_PULL_US, rtt_us), rtt_us - estimate_us)
        # The unit vector of the space with height is [difference, heights] / (|difference| + heights): section 5.4.
        if plane_us > 1.0:
            step = force_us / max(1.0, estimate_us)
        else:
            difference, step = self._any_direction(), force_us
        d0, d1, d2, d3 = difference
        moved = (p0 + step * d0, p1 + step * d1, p2 + step * d2, p3 + step * d3)
        if max(moved) > FURTHEST_US or min(moved) < -FURTHEST_US:
            p0, p1, p2, p3 = (max(-FURTHEST_US, min(FURTHEST_US, value_us)) for value_us in moved)
            moved = (p0, p1, p2, p3)
        self.position_us = moved
        height_share = (self.height_us + peer_height_us) / max(1.0, estimate_us)
        self.height_us = min(FURTHEST_US, max(HEIGHT_MIN_US, self.height_us + force_us * height_share))

    def _strays(self, sample_error: float) -> bool:
        if len(self._errors) < FEW_PEERS:
            return False
        return sample_error > STRAY_TIMES * sorted(self._errors.values())[len(self._errors) // 2]

    def wire(self) -> Wire:
        """As an `Ack` carries it, whole microseconds."""
        if self._wire is None:
            # Whole tenths of a microsecond: what a receiver can compare, and no more than it needs.
            p0, p1, p2, p3 = self.position_us
            self._wire = (
                round(p0, 1),
                round(p1, 1),
                round(p2, 1),
                round(p3, 1),
                round(self.height_us, 1),
                round(self.error, 4),
            )
        return self._wire

    def coordinate(self) -> Coordinate:
        """As the network part carries it."""
        wire = self.wire()
        return Coordinate(
            position_us=(wire[0], wire[1], wire[2], wire[3]), height_us=wire[-2], error=max(0.0, wire[-1])
        )

    def _filtered(self, peer: str, rtt_us: float) -> float:
        samples = self._filters.get(peer)
        if samples is None:
            if len(self._filters) >= MAX_TRACKED_PEERS:
                oldest = next(iter(self._filters))
                del self._filters[oldest], self._remembered[oldest], self._errors[oldest]
            samples = self._filters[peer] = deque(maxlen=FILTER_SAMPLES)
        samples.append(rtt_us)
        return sorted(samples)[len(samples) // 2]

    def _any_direction(self) -> Position:
        a, b, c, d = (self._rng.uniform(-1.0, 1.0) for _ in range(COORDINATE_DIMENSIONS))
        length = math.hypot(a, b, c, d) or 1.0
        return (a / length, b / length, c / length, d / length)


def estimate_us(a: Coordinate, b: Coordinate) -> float:
    """Estimated RTT in microseconds between two nodes at `a` and `b`."""
    plane_us = math.dist(a.position_us, b.position_us)
    return plane_us + a.height_us + b.height_us


def estimate_error(a: Coordinate, b: Coordinate) -> float:
    """Relative error to expect of `estimate_us`: the larger of the two nodes' own. Of 5 ms, where it is less."""
    return max(a.error, b.error)
