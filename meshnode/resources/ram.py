"""The RAM this process may really have: the machine's, under every limit, less what others hold.

What our own engine processes hold counts as available: they give it back when a split is withdrawn, and a node whose
own running stage looked like somebody else's memory would withdraw its offer the moment it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshnode.resources.cgroup import CgroupMemory, read_memory_limits
from meshnode.resources.findings import CapacityFinding, FindingCode, Severity
from meshnode.resources.probe import Probe
from meshnode.resources.sizes import gigabytes


@dataclass(frozen=True, slots=True)
class RamPool:
    """RAM in bytes: `total_bytes` is what exists for this process (the smallest of machine and container limits),
    `available_bytes` what it can still have."""

    total_bytes: int
    available_bytes: int
    findings: tuple[CapacityFinding, ...] = ()


def read_ram(probe: Probe, own_pids: frozenset[int] = frozenset()) -> RamPool:
    """The pool as it is now; `own_pids` are our engine processes."""
    memory, limits = probe.memory(), read_memory_limits(probe)
    own_bytes = sum(probe.private_bytes(pid) for pid in own_pids)
    total = min(memory.total_bytes, limits.smallest_limit_bytes or memory.total_bytes)
    rooms = [memory.available_bytes, *(level.room_bytes for level in limits.levels)]
    available = min(total, min(rooms) + own_bytes)
    binding = limits.tightest
    if binding is None or binding.room_bytes >= memory.available_bytes:
        return RamPool(total, available)
    return RamPool(total, available, (_limit_finding(binding, memory.total_bytes),))


def _limit_finding(level: CgroupMemory, machine_bytes: int) -> CapacityFinding:
    return CapacityFinding(
        FindingCode.CGROUP_LIMIT,
        Severity.INFO,
        level.path,
        f"memory limit {gigabytes(level.limit_bytes)}, {gigabytes(level.held_bytes)} of it held, "
        f"on a machine with {gigabytes(machine_bytes)}",
        "raise the container's or unit's memory limit to offer more",
    )
