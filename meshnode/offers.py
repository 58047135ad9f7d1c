"""From this machine's survey to what its record says: the offer part, and the JSON of `meshnode capacity`.

What lives here: turning `MachineCapacity`, inventory and reservations into an `OfferDraft`. What does not: the survey
(`meshnode.resources`), when an offer goes out (`meshnode.membership`). Called by the daemon and by `meshnode capacity`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshnode.config import NodeConfig
from meshnode.membership.local import OfferDraft
from meshnode.resources import (
    CapacityFinding,
    CapacitySource,
    DeviceCapacity,
    FindingCode,
    MachineCapacity,
    OfferSettings,
    SystemProbe,
    load_bandwidth,
    survey_machine,
)
from meshnode.split import HOST_MEMORY
from proto.parts import DeviceOffer, ModelOffer, Role, Willingness

MAX_WORD = 64
"""Longest id or name of a device on the wire (`proto.shapes.WireWord`)."""


def survey(config: NodeConfig, own_pids: frozenset[int] = frozenset()) -> MachineCapacity:
    """Look at this machine under the operator's settings. Blocks for milliseconds; `own_pids` are engine processes."""
    probe = SystemProbe()
    settings = OfferSettings(
        headroom=config.headroom,
        max_memory_bytes=config.max_memory,
        declared_usable_bytes=config.declare_usable,
        declared_host_bytes=config.declare_host,
        declared_bandwidth_bytes_per_s=config.memory_bandwidth_bytes_per_s,
        offer_ram=config.offer_ram,
        own_pids=own_pids,
    )
    return survey_machine(settings, probe, ram_bandwidth=load_bandwidth(config.state_dir, probe))


def offer_draft(
    capacity: MachineCapacity,
    *,
    config: NodeConfig,
    role: Role,
    models: tuple[ModelOffer, ...] = (),
    inventory_known: bool = False,
    reserved: Mapping[str, int] | None = None,
    draining: bool = False,
    transfer: bool = False,
) -> OfferDraft:
    """What the mesh is told. A client offers neither devices nor host memory. `reserved` is bytes by device, and of
    host memory. `transfer`: tensors it lacks can be sent to it, which its engine takes."""
    held = reserved or {}
    gives = role is Role.WORKER
    return OfferDraft(
        devices=tuple(_device_offer(device, held.get(device.id, 0)) for device in capacity.devices) if gives else (),
        host_usable_bytes=host_free_bytes(capacity, held) if gives else 0,
        host_declared=capacity.host_source is CapacitySource.DECLARED,
        models=models,
        willingness=Willingness(config.willing),
        draining=draining,
        interested_in=config.interested_in,
        inventory_known=inventory_known,
        artifact_transfer=transfer and gives,
    )


def host_free_bytes(capacity: MachineCapacity, reserved: Mapping[str, int]) -> int:
    """Host memory for being a coordinator that no running split holds."""
    return max(0, capacity.host_usable_bytes - reserved.get(HOST_MEMORY, 0))


def _device_offer(device: DeviceCapacity, reserved_bytes: int) -> DeviceOffer:
    return DeviceOffer(
        id=device.id[:MAX_WORD],
        kind=device.kind.value,
        name=device.name[:MAX_WORD],
        capacity_bytes=device.capacity_bytes,
        usable_bytes=device.usable_bytes,
        reserved_bytes=min(reserved_bytes, device.usable_bytes),
        memory_bandwidth_bytes_per_s=device.memory_bandwidth_bytes_per_s,
        bandwidth_source=device.bandwidth_source.value,
        declared=device.declared,
    )


def capacity_json(capacity: MachineCapacity, *, reserved: Mapping[str, int], client: bool) -> dict[str, Any]:
    """The survey as JSON: devices one by one, the host's share, and what was noticed."""
    return {
        "capacity_bytes": capacity.capacity_bytes,
        "usable_bytes": capacity.usable_bytes,
        "host_usable_bytes": capacity.host_usable_bytes,
        "host_declared": capacity.host_source is CapacitySource.DECLARED,
        "cpu_count": capacity.cpu_count,
        "client": client,
        "devices": [_device_json(device, reserved.get(device.id, 0)) for device in capacity.devices],
        "findings": [
            {
                "code": finding.code.value,
                "severity": finding.severity.value,
                "subject": finding.subject,
                "found": finding.found,
                "advice": finding.advice,
                "message": finding.message,
            }
            for finding in capacity.findings
        ],
    }


def _device_json(device: DeviceCapacity, reserved_bytes: int) -> dict[str, Any]:
    return {
        "id": device.id,
        "kind": device.kind.value,
        "name": device.name,
        "total_bytes": device.total_bytes,
        "capacity_bytes": device.capacity_bytes,
        "usable_bytes": device.usable_bytes,
        "reserved_bytes": reserved_bytes,
        "headroom": device.headroom,
        "memory_bandwidth_bytes_per_s": device.memory_bandwidth_bytes_per_s,
        "bandwidth_source": device.bandwidth_source.value,
        "declared": device.declared,
    }


def nothing_to_offer(capacity: MachineCapacity) -> CapacityFinding | None:
    """Why the machine can give nothing; None where it gives something."""
    return next((finding for finding in capacity.findings if finding.code is FindingCode.NOTHING_TO_OFFER), None)
