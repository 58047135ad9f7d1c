"""A machine made of plain values, for surveys: files under a directory, memory figures, an NVML with any GPUs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from meshnode.resources.nvml_api import NvmlApi
from meshnode.resources.probe import HostMemory, SystemProbe

GB = 10**9
GIB = 2**30


class FakeNvmlError(Exception):
    """Stands for pynvml.NVMLError: an error code in `value`."""

    def __init__(self, value: int) -> None:
        self.value = value
        super().__init__(f"NVML error {value}")


@dataclass(frozen=True)
class FakeGpu:
    """One GPU, or one MIG instance, as the driver would show it. `broken` is the error every call on it raises."""

    uuid: str = "GPU-aaaa"
    name: str = "NVIDIA GeForce RTX 4090"
    total: int | None = 24 * GB
    free: int | None = None
    bits: int = 0
    megahertz: int = 0
    processes: Mapping[int, int | None] = field(default_factory=dict)
    mig: Sequence[FakeGpu | None] | None = None
    broken: int | None = None


class FakeNvml:
    """pynvml's functions over a list of `FakeGpu`s. `init_error` is raised by nvmlInit."""

    NVMLError = FakeNvmlError
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NOT_FOUND = 6
    NVML_ERROR_DRIVER_NOT_LOADED = 9
    NVML_ERROR_LIBRARY_NOT_FOUND = 12
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18
    NVML_CLOCK_MEM = 2

    def __init__(self, gpus: Sequence[FakeGpu] = (), init_error: int | None = None) -> None:
        self.gpus = gpus
        self.init_error = init_error
        self.open_sessions = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self.init_error is not None:
            raise FakeNvmlError(self.init_error)
        self.open_sessions += 1

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return cast("Callable[..., Any]", getattr(self, "_" + name.removeprefix("nvml")))

    def _Shutdown(self) -> None:  # noqa: N802
        self.open_sessions -= 1

    def _DeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def _DeviceGetHandleByIndex(self, index: int) -> FakeGpu:  # noqa: N802
        gpu = self.gpus[index]
        if gpu.broken is not None:
            raise FakeNvmlError(gpu.broken)
        return gpu

    def _DeviceGetUUID(self, gpu: FakeGpu) -> str:  # noqa: N802
        return gpu.uuid

    def _DeviceGetName(self, gpu: FakeGpu) -> bytes:  # noqa: N802
        return gpu.name.encode()

    def _DeviceGetMemoryInfo(self, gpu: FakeGpu) -> SimpleNamespace:  # noqa: N802
        if gpu.total is None:
            raise FakeNvmlError(self.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(total=gpu.total, free=gpu.total if gpu.free is None else gpu.free)

    def _DeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> list[SimpleNamespace]:  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in gpu.processes.items()]

    def _DeviceGetMemoryBusWidth(self, gpu: FakeGpu) -> int:  # noqa: N802
        if gpu.bits == 0:
            raise FakeNvmlError(self.NVML_ERROR_NOT_SUPPORTED)
        return gpu.bits

    def _DeviceGetMaxClockInfo(self, gpu: FakeGpu, clock: int) -> int:  # noqa: N802
        assert clock == self.NVML_CLOCK_MEM
        return gpu.megahertz

    def _DeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:  # noqa: N802
        if gpu.mig is None:
            raise FakeNvmlError(self.NVML_ERROR_NOT_SUPPORTED)
        return [1, 1]

    def _DeviceGetMaxMigDeviceCount(self, gpu: FakeGpu) -> int:  # noqa: N802
        return len(gpu.mig or ())

    def _DeviceGetMigDeviceHandleByIndex(self, gpu: FakeGpu, index: int) -> FakeGpu:  # noqa: N802
        instance = (gpu.mig or ())[index]
        if instance is None:
            raise FakeNvmlError(self.NVML_ERROR_NOT_FOUND)
        return instance


@dataclass
class FakeProbe:
    """A machine. Files come from a real directory, so the file rules run as on a real machine."""

    files: SystemProbe
    system: str = "linux"
    architecture: str = "x86_64"
    environment: Mapping[str, str] = field(default_factory=dict)
    total: int = 64 * GB
    available: int = 64 * GB
    processors: int = 8
    driver: FakeNvml = field(default_factory=lambda: FakeNvml(init_error=12))
    settings: Mapping[str, str] = field(default_factory=dict)

    def memory(self) -> HostMemory:
        return HostMemory(self.total, self.available)

    def cpu_count(self) -> int:
        return self.processors

    def read_text(self, path: str) -> str | None:
        return self.files.read_text(path)

    def exists(self, path: str) -> bool:
        return self.files.exists(path)

    def private_bytes(self, pid: int) -> int:
        return self.files.private_bytes(pid)

    def sysctl(self, name: str) -> str | None:
        return self.settings.get(name)

    def nvml(self) -> NvmlApi:
        return cast("NvmlApi", self.driver)


class Machine:
    """Makes probes over one directory of files."""

    Gpu = FakeGpu
    Nvml = FakeNvml
    GB = GB
    GIB = GIB

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        """Put a file into the machine."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def probe(self, *, gpus: Sequence[FakeGpu] | None = None, **figures: Any) -> FakeProbe:
        """The machine as it is now; `gpus` gives it a working driver."""
        if gpus is not None:
            figures["driver"] = FakeNvml(gpus)
        return FakeProbe(SystemProbe(self.root), **figures)

    def cgroup_v2(
        self, group: str = "/", *, mount_root: str = "/", limits: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        """This process in `group` of a v2 hierarchy; `limits` maps directories below the mount to their files."""
        self.write("/proc/self/cgroup", f"0::{group}\n")
        self.write("/proc/self/mountinfo", f"30 23 0:28 {mount_root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n")
        for directory, files in (limits or {}).items():
            for name, text in files.items():
                self.write(f"/sys/fs/cgroup{directory}/{name}", text + "\n")

    def cgroup_v1(
        self, group: str, *, mount_root: str = "/", limits: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        """This process in `group` of the v1 memory hierarchy, next to an empty v2 one as systemd's hybrid mode has."""
        self.write("/proc/self/cgroup", f"12:cpu,cpuacct:/x\n4:memory:{group}\n0::/\n")
        mounts = (
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
            "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
            f"35 31 0:32 {mount_root} /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
            "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        )
        self.write("/proc/self/mountinfo", mounts)
        for directory, files in (limits or {}).items():
            for name, text in files.items():
                self.write(f"/sys/fs/cgroup/memory{directory}/{name}", text + "\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root")
