"""Nodes and their devices, as they are offered to the planner.

Lives here: `NodeSpec`, `DeviceSpec`, `Willingness`. Not here: how a machine learns these figures
(`meshnode.resources`), nor links between nodes (`planner.links`).
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from planner.errors import InvalidPlanInput, figure, name, whole

DEFAULT_HEADROOM: Final = 0.10


class Willingness(enum.StrEnum):
    """Whether a node takes work: always, only if no plan exists without it, or never (it may still coordinate)."""

    ALWAYS = "always"
    WHEN_NEEDED = "when_needed"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """One device: the unit of placement.

    Either `declared_usable_bytes` is given (nothing further is subtracted), or usable =
    floor(capacity x (1 - headroom)) - overhead. `memory_bandwidth_bytes_per_s` None means unknown, never zero.
    `compute_flops` (half-precision FLOP/s) is optional; without it only memory traffic is timed.
    """

    id: str
    capacity_bytes: int
    kind: str = "gpu"
    headroom: float = DEFAULT_HEADROOM
    overhead_bytes: int = 0
    declared_usable_bytes: int | None = None
    memory_bandwidth_bytes_per_s: float | None = None
    compute_flops: float | None = None

    def __post_init__(self) -> None:
        name("device.id", self.id)
        name("device.kind", self.kind)
        whole(f"device {self.id}.capacity_bytes", self.capacity_bytes)
        whole(f"device {self.id}.overhead_bytes", self.overhead_bytes)
        figure(f"device {self.id}.headroom", self.headroom, maximum=1.0)
        if self.declared_usable_bytes is not None:
            whole(f"device {self.id}.usable_bytes", self.declared_usable_bytes)
        if self.memory_bandwidth_bytes_per_s is not None:
            figure(f"device {self.id}.memory_bandwidth", self.memory_bandwidth_bytes_per_s, minimum=1.0)
        if self.compute_flops is not None:
            figure(f"device {self.id}.compute_flops", self.compute_flops, minimum=1.0)

    @property
    def usable_bytes(self) -> int:
        """Bytes a stage may fill; never negative. Headroom is read as the decimal it was written as (0.1 is 1/10)."""
        if self.declared_usable_bytes is not None:
            return self.declared_usable_bytes
        kept = self.capacity_bytes * (1 - Fraction(str(self.headroom)))
        return max(0, math.floor(kept) - self.overhead_bytes)


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A participant: its devices, and what it can do as a coordinator.

    `host_usable_bytes`: host memory a coordinator may fill (token embedding, host compute); None is unknown.
    `has_package`: whether it holds the complete model (a `llama_cpp_rpc` coordinator must); None is unknown or not
    asked. `cached_bytes`: bytes of the model already there; None is unknown. `layers_at_hand`: layers [start, end) that
    are there besides, from an earlier load under this coordinator; with the last the head. `can_receive`: artifacts can
    be transferred to it. `rtt_ms` is only reported (the coordinator's view; `rtt_estimated`: from coordinates, not
    measured); costs come from `LinkMatrix`. Devices may be empty: such a node can only coordinate.
    """

    id: str
    devices: tuple[DeviceSpec, ...] = ()
    host_usable_bytes: int | None = None
    has_package: bool | None = None
    cached_bytes: int | None = None
    can_receive: bool = True
    rtt_ms: float | None = None
    willingness: Willingness = Willingness.ALWAYS
    stageless_reason: str | None = None
    layers_at_hand: tuple[tuple[int, int], ...] = ()
    rtt_estimated: bool = False

    def __post_init__(self) -> None:
        name("node.id", self.id)
        if self.host_usable_bytes is not None:
            whole(f"node {self.id}.host_usable_bytes", self.host_usable_bytes)
        if self.cached_bytes is not None:
            whole(f"node {self.id}.cached_bytes", self.cached_bytes)
        for start, end in self.layers_at_hand:
            whole(f"node {self.id}.layers_at_hand", start)
            whole(f"node {self.id}.layers_at_hand", end)
        if self.rtt_ms is not None:
            figure(f"node {self.id}.rtt_ms", self.rtt_ms, maximum=1e7)
        if not isinstance(self.willingness, Willingness):
            raise InvalidPlanInput(f"node {self.id}.willingness", self.willingness, "one of " + ", ".join(Willingness))
        seen: set[str] = set()
        for device in self.devices:
            if device.id in seen:
                raise InvalidPlanInput(f"node {self.id}.devices", device.id, "device ids that differ")
            seen.add(device.id)

    @classmethod
    def single(
        cls,
        node_id: str,
        *,
        capacity_bytes: int | None = None,
        usable_bytes: int | None = None,
        headroom: float = DEFAULT_HEADROOM,
        memory_bandwidth_bytes_per_s: float | None = None,
        compute_flops: float | None = None,
        host_usable_bytes: int | None = None,
        has_package: bool | None = None,
        cached_bytes: int | None = None,
        can_receive: bool = True,
        rtt_ms: float | None = None,
        willingness: Willingness = Willingness.ALWAYS,
    ) -> NodeSpec:
        """A node with one device `0`, from its capacity (headroom subtracted) or its usable bytes (nothing is)."""
        if capacity_bytes is None and usable_bytes is None:
            raise InvalidPlanInput(f"node {node_id}", None, "capacity or usable_bytes")
        device = DeviceSpec(
            id="0",
            capacity_bytes=capacity_bytes if capacity_bytes is not None else usable_bytes or 0,
            headroom=headroom,
            declared_usable_bytes=usable_bytes,
            memory_bandwidth_bytes_per_s=memory_bandwidth_bytes_per_s,
            compute_flops=compute_flops,
        )
        return cls(
            id=node_id,
            devices=(device,),
            host_usable_bytes=host_usable_bytes,
            has_package=has_package,
            cached_bytes=cached_bytes,
            can_receive=can_receive,
            rtt_ms=rtt_ms,
            willingness=willingness,
        )

    @property
    def capacity_bytes(self) -> int:
        """Sum over devices."""
        return sum(device.capacity_bytes for device in self.devices)

    @property
    def usable_bytes(self) -> int:
        """Sum over devices."""
        return sum(device.usable_bytes for device in self.devices)
