"""What a machine can give, as figures: one entry per device, host memory apart, and when a change is worth telling.

What lives here: the result types of a survey and the two rules on them (usable bytes, change worth announcing). What
does not: finding the figures out (`survey`), printing them (`meshnode.cli`), sending them (`meshnode.membership`).
Called by the daemon, which turns a `MachineCapacity` into its record's offer part, and by `meshnode capacity`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from meshnode.resources.findings import CapacityFinding

DEFAULT_HEADROOM = 0.10
"""Share of a device left free. Machines packed to the last byte die at the first token; 10 to 20 % was the cure in
several public reports, of which this is the least."""

CHANGE_PERCENT = 5
"""The offer goes out again on a change of more than this, as a waiting split counts one (`SettleSettings.drift`)."""


class DeviceKind(StrEnum):
    """What computes with the memory."""

    CUDA = "cuda"
    METAL = "metal"
    CPU = "cpu"


class BandwidthSource(StrEnum):
    """Where a memory bandwidth comes from. `UNKNOWN` goes with None, never with zero."""

    MEASURED = "measured"
    NAMEPLATE = "nameplate"
    DECLARED = "declared"
    UNKNOWN = "unknown"


class CapacitySource(StrEnum):
    """Whether a figure was measured here or stated by the operator."""

    MEASURED = "measured"
    DECLARED = "declared"


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Memory bandwidth in bytes per second with its source; `bytes_per_s` is None exactly when the source is
    unknown."""

    bytes_per_s: int | None = None
    source: BandwidthSource = BandwidthSource.UNKNOWN

    def __post_init__(self) -> None:
        if (self.bytes_per_s is None) != (self.source is BandwidthSource.UNKNOWN):
            raise ValueError(f"bandwidth {self.bytes_per_s} bytes/s cannot have the source {self.source}")


@dataclass(frozen=True, slots=True)
class DeviceCapacity:
    """One device's memory in bytes.

    `total_bytes` is what is built in (or the smallest limit set on it), `capacity_bytes` what this node offers of it
    (free memory under every limit), `usable_bytes` what a plan may fill: `floor(capacity_bytes * (1 - headroom))`. For
    a `declared` device all three are the operator's figure and the headroom is 0: nothing further is subtracted.
    """

    id: str
    kind: DeviceKind
    name: str
    total_bytes: int
    capacity_bytes: int
    usable_bytes: int
    headroom: float
    memory_bandwidth_bytes_per_s: int | None
    bandwidth_source: BandwidthSource
    source: CapacitySource

    @property
    def declared(self) -> bool:
        """True where the operator stated the figures and nothing measured them."""
        return self.source is CapacitySource.DECLARED


@dataclass(frozen=True, slots=True)
class MachineCapacity:
    """Everything one survey found. `devices` lists only devices that offer something, the faster kinds first.

    `host_usable_bytes` is RAM for being a coordinator (token embedding, host compute) and is never part of a device's
    figure, also where both come out of the same RAM.
    """

    devices: tuple[DeviceCapacity, ...]
    host_usable_bytes: int
    host_source: CapacitySource
    cpu_count: int
    findings: tuple[CapacityFinding, ...]

    @property
    def capacity_bytes(self) -> int:
        """Sum over the devices, before headroom."""
        return sum(device.capacity_bytes for device in self.devices)

    @property
    def usable_bytes(self) -> int:
        """Sum over the devices of what a plan may fill."""
        return sum(device.usable_bytes for device in self.devices)


def usable_of(capacity_bytes: int, headroom: float) -> int:
    """`floor(capacity_bytes * (1 - headroom))` in exact arithmetic: 10 % is one tenth here, not the binary float next
    to it, so that every node and every test computes the same byte."""
    share = 1 - Fraction(str(headroom))
    return int(capacity_bytes * share)


def capacity_changed_enough(old: MachineCapacity, new: MachineCapacity) -> bool:
    """True when `new` should be announced to peers that know `old`.

    The rule is a change of more than `CHANGE_PERCENT`, judged on each device's usable bytes and bandwidth and on the
    host budget; a device that came, went or changed its source always counts. Compare with what was last *announced*,
    not with the last survey: else slow drift is never told.
    """
    before = {device.id: device for device in old.devices}
    after = {device.id: device for device in new.devices}
    if before.keys() != after.keys() or old.host_source is not new.host_source:
        return True
    if _moved(old.host_usable_bytes, new.host_usable_bytes):
        return True
    return any(_device_changed(before[device_id], after[device_id]) for device_id in before)


def _device_changed(old: DeviceCapacity, new: DeviceCapacity) -> bool:
    if old.source is not new.source or old.bandwidth_source is not new.bandwidth_source:
        return True
    return _moved(old.usable_bytes, new.usable_bytes) or _moved(
        old.memory_bandwidth_bytes_per_s or 0, new.memory_bandwidth_bytes_per_s or 0
    )


def _moved(old: int, new: int) -> bool:
    return abs(new - old) * 100 > old * CHANGE_PERCENT
