"""The three verdicts on a node: participant, pending, excluded. All are immutable and turn into plain JSON.

What lives here: the verdicts and the figures a participant brings. What does not: how they are reached
(`meshnode.readiness.judge`). An excluded node's figures stand apart (`if_admitted`), where no sum meets them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshnode.readiness.reasons import REASONS, ReasonCode
from proto.ids import BootId, NodeId, short
from proto.parts import Willingness


@dataclass(frozen=True, slots=True)
class ParticipantDevice:
    """One device: `usable_bytes` is what a stage of this split may fill (the owner's headroom and other splits'
    reservations are already off). `declared`: the operator stated the figure, nothing measured it."""

    id: str
    kind: str
    name: str
    capacity_bytes: int
    usable_bytes: int
    memory_bandwidth_bytes_per_s: int | None
    compute_flops: int | None
    declared: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "id": self.id,
            "kind": self.kind,
            "name": self.name,
            "capacity_bytes": self.capacity_bytes,
            "usable_bytes": self.usable_bytes,
            "memory_bandwidth_bytes_per_s": self.memory_bandwidth_bytes_per_s,
            "declared": self.declared,
        }


@dataclass(frozen=True, slots=True)
class Participant:
    """A node that takes part, with the figures that count. Unknown figures are None, never 0.

    `rtt_ms` is the coordinator's window minimum to it, 0.0 for the coordinator itself; `rtt_estimated`: from
    coordinates, not measured. `has_package` and the two byte figures are None where the model is a profile or the
    inventory is unknown; `has_package`, which decides who may coordinate, also where it is only asked what would be.
    `layers_at_hand`: layers [start, end) that it fetched from this coordinator before and keeps. `confirmed`: it
    answered for these figures directly.
    """

    node: NodeId
    name: str
    boot_id: BootId | None
    devices: tuple[ParticipantDevice, ...]
    host_usable_bytes: int
    host_declared: bool
    has_package: bool | None
    cached_bytes: int | None
    missing_bytes: int | None
    rtt_ms: float | None
    rtt_estimated: bool
    transfer: bool
    willingness: Willingness
    confirmed: bool = False
    layers_at_hand: tuple[tuple[int, int], ...] = ()

    @property
    def capacity_bytes(self) -> int:
        """Sum over devices, before headroom."""
        return sum(device.capacity_bytes for device in self.devices)

    @property
    def usable_bytes(self) -> int:
        """Sum over devices of what stages may fill."""
        return sum(device.usable_bytes for device in self.devices)

    @property
    def declared(self) -> bool:
        """True where any device's figure was declared and not measured."""
        return any(device.declared for device in self.devices)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "node": self.node,
            "name": self.name,
            "capacity_bytes": self.capacity_bytes,
            "usable_bytes": self.usable_bytes,
            "declared": self.declared,
            "host_usable_bytes": self.host_usable_bytes,
            "host_declared": self.host_declared,
            "has_package": self.has_package,
            "cached_bytes": self.cached_bytes,
            "missing_bytes": self.missing_bytes,
            "layers_at_hand": [list(layers) for layers in self.layers_at_hand],
            "rtt_ms": self.rtt_ms,
            "rtt_estimated": self.rtt_estimated,
            "transfer": self.transfer,
            "willingness": self.willingness.value,
            "confirmed": self.confirmed,
            "devices": [device.to_dict() for device in self.devices],
        }


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """A node that does not take part: why, what was found, what is required."""

    node: NodeId
    name: str
    reason: ReasonCode
    found: str
    required: str

    @property
    def label(self) -> str:
        """`<id>:<reason>`, as events and messages list it."""
        return f"{self.node}:{self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "node": self.node,
            "name": self.name,
            "reason": self.reason.value,
            "found": self.found,
            "required": self.required,
        }


@dataclass(frozen=True, slots=True)
class Pending(_LeftOut):
    """A node that may become a participant: why not yet, what was found, what is required. `if_admitted` as below."""

    if_admitted: Participant | None = None


@dataclass(frozen=True, slots=True)
class Excluded(_LeftOut):
    """A node left out: why, what was found, what is required, what its operator can do.

    `if_admitted` is what it would bring if its reason were fixed (None: nothing is known of it). It is never counted;
    the planner uses it to try "admit this peer" as a remedy.
    """

    advice: str
    if_admitted: Participant | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, as in a report's `excluded` list."""
        return {**_LeftOut.to_dict(self), "advice": self.advice}


Verdict = Participant | Pending | Excluded


def advice_for(reason: ReasonCode, node: NodeId, model: str) -> str:
    """The table's advice with the node's short id and the model filled in."""
    return REASONS[reason].advice.format(node=short(node), model=model)
