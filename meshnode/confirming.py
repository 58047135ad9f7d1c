"""What this node answers when a waiting split asks it directly for its figures.

What lives here: `confirmation`. What does not: asking (`meshnode.mesh`), judging the answer (`meshnode.readiness`).
Called by the node for each `ConfirmRequest`; nothing is reserved by it.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshnode.inventory import Inventory
from meshnode.models import Presence
from meshnode.offers import MAX_WORD, host_free_bytes
from meshnode.resources import MachineCapacity
from proto.messages import Confirm, ConfirmRequest, DeviceFigure
from proto.parts import Role


def confirmation(
    request: ConfirmRequest,
    capacity: MachineCapacity | None,
    *,
    role: Role,
    reserved: Mapping[str, int],
    inventory: Inventory,
    draining: bool,
) -> Confirm:
    """The figures at this moment. `stage_control` False says that this node can't serve stages: it is a client, or has
    not looked at its memory yet."""
    gives = role is Role.WORKER and capacity is not None
    entry = inventory.find(request.model)
    has_files = entry is not None and entry.presence in (Presence.COMPLETE, Presence.PARTIAL, Presence.ABSENT)
    return Confirm(
        nonce=request.nonce,
        devices=_figures(capacity, reserved) if gives and capacity is not None else (),
        host_usable_bytes=host_free_bytes(capacity, reserved) if gives and capacity is not None else 0,
        draining=draining,
        stage_control=gives,
        cached_bytes=entry.cached_bytes if entry is not None and has_files else None,
        missing_bytes=entry.missing_bytes if entry is not None and has_files else None,
        manifest=None if entry is None else entry.manifest,
    )


def _figures(capacity: MachineCapacity, reserved: Mapping[str, int]) -> tuple[DeviceFigure, ...]:
    return tuple(
        DeviceFigure(device.id[:MAX_WORD], device.usable_bytes, min(reserved.get(device.id, 0), device.usable_bytes))
        for device in capacity.devices
    )
