"""The network under the simulated links: how long a packet takes from one node to another, and whether it arrives.

Nodes stand at sites; a packet takes the distance between the sites, both access delays, and jitter. Loss is drawn for
each packet. Partitions, broken directions and spikes can be switched while the simulation runs. All times one-way, in
s."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from proto.ids import NodeId


@dataclass(frozen=True, slots=True)
class Terrain:
    """What the network is like before anything goes wrong."""

    sites: int = 1
    width_s: float = 0.0
    """Sites are spread over a square this wide, in seconds of one-way delay."""
    access_min_s: float = 0.00005
    access_max_s: float = 0.0002
    """Each node's own one-way delay to its site."""
    jitter_s: float = 0.00005
    """Mean of the exponential delay on top."""
    loss: float = 0.0
    """Share of packets lost, in each direction alone."""


class Paths:
    """Delay and loss of every pair of nodes."""

    def __init__(self, terrain: Terrain, rng: random.Random) -> None:
        self._rng = rng
        self._loss = terrain.loss
        self._jitter_rate = 1.0 / terrain.jitter_s if terrain.jitter_s > 0 else 0.0
        self._terrain = terrain
        self._sites = [(rng.uniform(0, terrain.width_s), rng.uniform(0, terrain.width_s)) for _ in range(terrain.sites)]
        self._site_of: dict[NodeId, int] = {}
        self._access_s: dict[NodeId, float] = {}
        self._half: dict[NodeId, int] = {}
        self._broken: set[tuple[NodeId, NodeId]] = set()
        self._spikes: dict[NodeId, tuple[float, float]] = {}
        self.may_swallow = self._loss > 0.0
        """False where `is_lost` and `is_cut` are false for every packet now."""

    @property
    def loss(self) -> float:
        """Share of packets lost, in each direction alone."""
        return self._loss

    @loss.setter
    def loss(self, share: float) -> None:
        self._loss = share
        self._look_again()

    def _look_again(self) -> None:
        self.may_swallow = self._loss > 0.0 or bool(self._half) or bool(self._broken)

    def place(self, node: NodeId) -> None:
        """Puts a node somewhere; where it already stands, it stays."""
        if node not in self._site_of:
            self._site_of[node] = self._rng.randrange(len(self._sites))
            self._access_s[node] = self._rng.uniform(self._terrain.access_min_s, self._terrain.access_max_s)

    def one_way_s(self, source: NodeId, target: NodeId) -> float:
        """The least time a packet takes."""
        a, b = self._sites[self._site_of[source]], self._sites[self._site_of[target]]
        return math.hypot(a[0] - b[0], a[1] - b[1]) + self._access_s[source] + self._access_s[target]

    def delay_s(self, source: NodeId, target: NodeId, base_s: float) -> float:
        """How long this packet takes, over a path of `base_s`."""
        delay_s = base_s
        if self._jitter_rate:
            # `Random.expovariate`, without the call.
            delay_s -= math.log(1.0 - self._rng.random()) / self._jitter_rate
        if self._spikes:
            for node in (source, target):
                spike = self._spikes.get(node)
                if spike is not None and self._rng.random() < spike[0]:
                    delay_s += self._rng.uniform(0.0, spike[1])
        return delay_s

    def is_lost(self) -> bool:
        """Whether this packet is lost on the way."""
        return self._loss > 0.0 and self._rng.random() < self._loss

    def is_cut(self, source: NodeId, target: NodeId) -> bool:
        """Whether nothing gets from `source` to `target` now."""
        if self._half and self._half.get(source, 0) != self._half.get(target, 0):
            return True
        return bool(self._broken) and (source, target) in self._broken

    # --- faults ---

    def partition(self, halves: dict[NodeId, int]) -> None:
        """Nodes of different numbers do not hear each other from now on; those not named are number 0."""
        self._half = dict(halves)
        self._look_again()

    def heal(self) -> None:
        """Everybody hears everybody again."""
        self._half = {}
        self._broken.clear()
        self._look_again()

    def break_path(self, a: NodeId, b: NodeId, both_ways: bool = True) -> None:
        """Nothing gets from `a` to `b` any more, and the other way where `both_ways`."""
        self._broken.add((a, b))
        if both_ways:
            self._broken.add((b, a))
        self._look_again()

    def mend_path(self, a: NodeId, b: NodeId) -> None:
        self._broken -= {(a, b), (b, a)}
        self._look_again()

    def spike(self, node: NodeId, share: float, up_to_s: float) -> None:
        """That share of the node's packets, each way, is late by up to `up_to_s`; 0 ends it."""
        if share:
            self._spikes[node] = (share, up_to_s)
        else:
            self._spikes.pop(node, None)

    def far_away(self, node: NodeId, access_s: float) -> None:
        """The node's own access delay from now on."""
        self._access_s[node] = access_s
