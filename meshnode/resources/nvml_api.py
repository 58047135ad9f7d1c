# ruff: noqa: N802, N815 - the names are NVML's own
"""The part of NVML that `nvidia` calls, typed, under pynvml's names, so that a test can be a driver.

Source: NVIDIA, "NVML API Reference Guide". Handles are opaque. Every function may raise `NVMLError`, whose `value` is
the error code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class NvmlMemory(Protocol):
    """Memory of one GPU in bytes (nvmlMemory_t)."""

    total: int
    free: int


class NvmlProcess(Protocol):
    """One process on a GPU (nvmlProcessInfo_t); `usedGpuMemory` in bytes, None where the driver won't tell."""

    pid: int
    usedGpuMemory: int | None


class NvmlApi(Protocol):
    """What is used of NVML, under pynvml's names (NVIDIA, "NVML API Reference"). Handles are opaque."""

    NVMLError: type[Exception]
    NVML_ERROR_NOT_SUPPORTED: int
    NVML_ERROR_DRIVER_NOT_LOADED: int
    NVML_ERROR_LIBRARY_NOT_FOUND: int
    NVML_ERROR_LIB_RM_VERSION_MISMATCH: int
    NVML_CLOCK_MEM: int

    def nvmlInit(self) -> object: ...
    def nvmlShutdown(self) -> object: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> object: ...
    def nvmlDeviceGetUUID(self, handle: object, /) -> str | bytes: ...
    def nvmlDeviceGetName(self, handle: object, /) -> str | bytes: ...
    def nvmlDeviceGetMemoryInfo(self, handle: object, /) -> NvmlMemory: ...
    def nvmlDeviceGetComputeRunningProcesses(self, handle: object, /) -> Sequence[NvmlProcess]: ...
    def nvmlDeviceGetMemoryBusWidth(self, handle: object, /) -> int: ...
    def nvmlDeviceGetMaxClockInfo(self, handle: object, clock: int, /) -> int: ...
    def nvmlDeviceGetMigMode(self, handle: object, /) -> Sequence[int]: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: object, /) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: object, index: int, /) -> object: ...
