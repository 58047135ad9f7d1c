"""NVIDIA GPUs and MIG instances, read through NVML (nvidia-ml-py).

What lives here: which GPUs there are, their free memory, what of the used memory is our own engine's, and the driver's
failures as findings. An absent driver is the normal case on most machines and only noted. What does not: which GPUs may
be used (`visible`), how much of them is offered (`survey`).

NVML's calls return their errors one by one and per GPU: one card that has fallen off the bus must not hide the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from meshnode.resources.findings import CapacityFinding, FindingCode, Severity
from meshnode.resources.nvml_api import NvmlApi, NvmlProcess
from meshnode.resources.probe import Probe

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU or MIG instance. `total_bytes` and `free_bytes` are None where it has no memory of its own (integrated
    GPUs such as GB10 report "not supported": they share the RAM). `own_bytes` is what our own processes hold of it."""

    index: int
    uuid: str
    name: str
    total_bytes: int | None
    free_bytes: int | None
    own_bytes: int = 0
    driver_bandwidth_bytes_per_s: int | None = None
    """Bus width x highest memory clock x 2 (double data rate) as the driver states them: a nameplate figure."""

    @property
    def shares_ram(self) -> bool:
        """True for an integrated GPU."""
        return self.total_bytes is None


@dataclass(frozen=True, slots=True)
class GpuReading:
    """All GPUs the driver shows, and what went wrong."""

    gpus: tuple[Gpu, ...]
    findings: tuple[CapacityFinding, ...]


def read_gpus(probe: Probe, own_pids: frozenset[int] = frozenset()) -> GpuReading:
    """Every GPU of the machine, whatever CUDA_VISIBLE_DEVICES says. Never raises: a failing driver is a finding."""
    if probe.system == "darwin":
        return GpuReading((), ())
    api = probe.nvml()
    try:
        api.nvmlInit()
    except api.NVMLError as error:
        return GpuReading((), (_init_failure(api, error, probe),))
    try:
        return _read_all(api, own_pids)
    finally:
        _optional(api, api.nvmlShutdown, None)


def _init_failure(api: NvmlApi, error: Exception, probe: Probe) -> CapacityFinding:
    """No driver library and no device files is a machine without an NVIDIA GPU. Anything else is a broken
    installation."""
    code = getattr(error, "value", None)
    has_device_files = probe.exists("/dev/nvidiactl") or probe.exists("/proc/driver/nvidia")
    if code in {api.NVML_ERROR_LIBRARY_NOT_FOUND, api.NVML_ERROR_DRIVER_NOT_LOADED} and not has_device_files:
        return CapacityFinding(
            FindingCode.GPU_DRIVER_ABSENT, Severity.INFO, "nvidia", f"no NVIDIA driver here ({error})"
        )
    if code == api.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        advice = "the driver was updated under the running kernel module: restart the machine"
    elif code == api.NVML_ERROR_LIBRARY_NOT_FOUND:
        advice = "device files are there but libnvidia-ml is not: start the container with the NVIDIA runtime"
    else:
        advice = "check that nvidia-smi works for the user that runs meshnode"
    return CapacityFinding(
        FindingCode.GPU_DRIVER_FAILED, Severity.WARNING, "nvidia", f"NVML does not start: {error}", advice
    )


def _read_all(api: NvmlApi, own_pids: frozenset[int]) -> GpuReading:
    gpus: list[Gpu] = []
    findings: list[CapacityFinding] = []
    try:
        count = int(api.nvmlDeviceGetCount())
    except api.NVMLError as error:
        return GpuReading((), (_unreadable("nvidia", error),))
    for index in range(count):
        try:
            gpus.extend(_read_physical(api, index, own_pids))
        except api.NVMLError as error:
            findings.append(_unreadable(f"GPU {index}", error))
    return GpuReading(tuple(gpus), tuple(findings))


def _unreadable(subject: str, error: Exception) -> CapacityFinding:
    return CapacityFinding(
        FindingCode.GPU_UNREADABLE,
        Severity.WARNING,
        subject,
        f"NVML can't read it: {error}",
        "see nvidia-smi and dmesg",
    )


def _read_physical(api: NvmlApi, index: int, own_pids: frozenset[int]) -> Iterator[Gpu]:
    handle = api.nvmlDeviceGetHandleByIndex(index)
    bandwidth = _driver_bandwidth(api, handle)
    if not _in_mig_mode(api, handle):
        yield _read_one(api, handle, index, own_pids, bandwidth)
        return
    # A GPU in MIG mode can't be used as a whole; each instance is a device with its own UUID, and a memory slice
    # carries its share of the bandwidth with it (NVIDIA MIG User Guide).
    whole_bytes = int(api.nvmlDeviceGetMemoryInfo(handle).total)
    for instance in _mig_handles(api, handle):
        part = _read_one(api, instance, index, own_pids, None)
        share = None
        if bandwidth is not None and part.total_bytes is not None and whole_bytes > 0:
            share = bandwidth * part.total_bytes // whole_bytes
        yield Gpu(index, part.uuid, part.name, part.total_bytes, part.free_bytes, part.own_bytes, share)


def _in_mig_mode(api: NvmlApi, handle: object) -> bool:
    off: Sequence[int] = (0, 0)
    current, *_ = _optional(api, lambda: api.nvmlDeviceGetMigMode(handle), off)
    return current != 0


def _mig_handles(api: NvmlApi, handle: object) -> Iterator[object]:
    for slot in range(int(api.nvmlDeviceGetMaxMigDeviceCount(handle))):
        # Slots without an instance answer "not found": the numbers have holes.
        try:
            yield api.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot)
        except api.NVMLError:
            continue


def _read_one(api: NvmlApi, handle: object, index: int, own_pids: frozenset[int], bandwidth: int | None) -> Gpu:
    uuid, name = _text(api.nvmlDeviceGetUUID(handle)), _text(api.nvmlDeviceGetName(handle))
    try:
        memory = api.nvmlDeviceGetMemoryInfo(handle)
    except api.NVMLError as error:
        if getattr(error, "value", None) != api.NVML_ERROR_NOT_SUPPORTED:
            raise
        return Gpu(index, uuid, name, None, None, 0, bandwidth)
    own_bytes = _own_bytes(api, handle, own_pids)
    return Gpu(index, uuid, name, int(memory.total), int(memory.free), own_bytes, bandwidth)


def _own_bytes(api: NvmlApi, handle: object, own_pids: frozenset[int]) -> int:
    if not own_pids:
        return 0
    none: Sequence[NvmlProcess] = ()
    processes = _optional(api, lambda: api.nvmlDeviceGetComputeRunningProcesses(handle), none)
    return sum(int(process.usedGpuMemory or 0) for process in processes if process.pid in own_pids)


def _driver_bandwidth(api: NvmlApi, handle: object) -> int | None:
    bits = _optional(api, lambda: api.nvmlDeviceGetMemoryBusWidth(handle), 0)
    megahertz = _optional(api, lambda: api.nvmlDeviceGetMaxClockInfo(handle, api.NVML_CLOCK_MEM), 0)
    return int(bits) * int(megahertz) * 1_000_000 * 2 // 8 or None


def _optional(api: NvmlApi, call: Callable[[], ResultT], otherwise: ResultT) -> ResultT:
    """`call()`, or `otherwise` where this card, driver or platform does not have it."""
    try:
        return call()
    except api.NVMLError:
        return otherwise


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
