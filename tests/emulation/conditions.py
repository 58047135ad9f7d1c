"""What one direction of an emulated path does to datagrams, and the decision for each of them.

Pure: the emulator asks `Path.decide(size, now)` and carries the answer out. Decisions come from a generator seeded by
(seed, sender, receiver) alone and are drawn once a datagram in a fixed order, so the n-th datagram of a direction meets
the same fate in every run, whatever other directions do.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class NatKind(StrEnum):
    """How a node's router maps its source port (RFC 4787 section 4.1).

    `port_mapping`: one public port for all destinations, unsolicited datagrams to it are dropped unless it sent to that
    peer before. `symmetric`: another public port for each destination.
    """

    PORT_MAPPING = "port_mapping"
    SYMMETRIC = "symmetric"


@dataclass(frozen=True)
class LinkConditions:
    """One direction of a path. `delay_ms` is one way; `jitter_ms` adds a uniform 0..jitter; `reorder` is the share of
    datagrams that overtake the ones before them (they skip the delay); `mtu_bytes` drops longer UDP payloads;
    `bandwidth_bytes_per_s` queues them, at most `queue_bytes` of them."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    bandwidth_bytes_per_s: float | None = None
    queue_bytes: int = 256_000
    mtu_bytes: int | None = None
    up: bool = True


class Path:
    """One direction between two nodes: its conditions, its random stream, and when its queue is free again."""

    def __init__(self, seed: int, sender: str, receiver: str, conditions: LinkConditions) -> None:
        self.conditions = conditions
        self._random = random.Random(f"{seed}/{sender}/{receiver}")
        self._free_at_s = 0.0

    def decide(self, size_bytes: int, now_s: float) -> tuple[float, ...]:
        """When copies of this datagram reach the far end (monotonic s); empty where it is lost."""
        draws = [self._random.random() for _ in range(5)]
        c = self.conditions
        if not c.up or draws[0] < c.loss or (c.mtu_bytes is not None and size_bytes > c.mtu_bytes):
            return ()
        leaves_s = self._queue(size_bytes, now_s)
        if leaves_s is None:
            return ()
        delay_s = 0.0 if draws[1] < c.reorder else (c.delay_ms + c.jitter_ms * draws[2]) / 1000
        arrivals = [leaves_s + delay_s]
        if draws[3] < c.duplicate:
            arrivals.append(leaves_s + delay_s + c.jitter_ms * draws[4] / 1000)
        return tuple(arrivals)

    def _queue(self, size_bytes: int, now_s: float) -> float | None:
        rate = self.conditions.bandwidth_bytes_per_s
        if rate is None:
            return now_s
        start_s = max(now_s, self._free_at_s)
        if (start_s - now_s) * rate > self.conditions.queue_bytes:
            return None
        self._free_at_s = start_s + size_bytes / rate
        return self._free_at_s
