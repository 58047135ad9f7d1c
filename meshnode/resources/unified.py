"""Apple unified memory: how much of the RAM the GPU may wire.

macOS lets Metal wire only part of the RAM (`recommendedMaxWorkingSetSize`); beyond it allocations fail or the machine
swaps. The operator can raise the limit with the sysctl `iogpu.wired_limit_mb` (0 = the system's default).

The default is not documented; read off machines in public reports: 5,461 MiB of 8 GiB and 21,845 MiB of 32 GiB are two
thirds, 36 of 48 GiB are three quarters (larger machines give more still, up to 107.52 of 128 GiB, which only Metal
itself tells). So: two thirds up to 36 GiB, three quarters above, which never promises more than was seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshnode.resources.probe import Probe

_SMALL_MACHINE_BYTES = 36 * 2**30
_MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class UnifiedMemory:
    """An Apple GPU: its chip's name, and the most it may wire in bytes. `is_set` tells an operator's sysctl from the
    system's default."""

    chip: str
    working_set_bytes: int
    is_set: bool


def read_unified_memory(probe: Probe, total_bytes: int) -> UnifiedMemory | None:
    """The machine's Apple GPU, or None on any other machine (Intel Macs have no unified memory)."""
    if probe.system != "darwin" or probe.architecture != "arm64":
        return None
    chip = probe.sysctl("machdep.cpu.brand_string") or "Apple GPU"
    wired = (probe.sysctl("iogpu.wired_limit_mb") or "").strip()
    if wired.isdigit() and int(wired) > 0:
        return UnifiedMemory(chip, min(total_bytes, int(wired) * _MEBIBYTE), is_set=True)
    return UnifiedMemory(chip, default_working_set(total_bytes), is_set=False)


def default_working_set(total_bytes: int) -> int:
    """The system's default limit in bytes for a Mac with `total_bytes` of RAM."""
    if total_bytes <= _SMALL_MACHINE_BYTES:
        return total_bytes * 2 // 3
    return total_bytes * 3 // 4
