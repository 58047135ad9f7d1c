"""The one door between a survey and the machine: files, memory figures, the GPU driver, system settings.

`Probe` is small so that a test can be a machine: a directory that stands for `/`, two memory figures, an NVML-like
object. `SystemProbe` is the real machine. No rule lives here; what the figures mean is decided in `cgroup`, `nvidia`,
`unified` and `survey`.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from meshnode.resources.nvml_api import NvmlApi

_SYSCTL_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class HostMemory:
    """RAM of the machine in bytes. `available_bytes` is what new programs can have without swapping: what other
    processes hold is gone from it, caches are not."""

    total_bytes: int
    available_bytes: int


class Probe(Protocol):
    """What a survey asks of a machine. Nothing here raises for a thing that is merely absent: it returns None."""

    @property
    def system(self) -> str:
        """`linux`, `darwin` or `win32`, as `sys.platform` says it."""

    @property
    def architecture(self) -> str:
        """`x86_64`, `arm64`, ..., as `platform.machine()` says it."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The process environment (CUDA_VISIBLE_DEVICES and its kin)."""

    def memory(self) -> HostMemory:
        """RAM, total and available."""

    def cpu_count(self) -> int:
        """Processors this process may run on, at least 1."""

    def read_text(self, path: str) -> str | None:
        """The file at the absolute `path` of the machine, or None where it can't be read."""

    def exists(self, path: str) -> bool:
        """Whether the absolute `path` is there at all."""

    def private_bytes(self, pid: int) -> int:
        """RAM that only process `pid` holds (no file cache); 0 when it is gone or not ours to see."""

    def sysctl(self, name: str) -> str | None:
        """A system setting of macOS, or None."""

    def nvml(self) -> NvmlApi:
        """The driver's interface, not yet initialised."""


@dataclass(frozen=True, slots=True)
class SystemProbe:
    """The machine this process runs on. `root` stands for `/`."""

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def system(self) -> str:
        return sys.platform

    @property
    def architecture(self) -> str:
        return platform.machine()

    def memory(self) -> HostMemory:
        import psutil

        found = psutil.virtual_memory()
        return HostMemory(total_bytes=found.total, available_bytes=found.available)

    def cpu_count(self) -> int:
        if hasattr(os, "sched_getaffinity"):
            return max(1, len(os.sched_getaffinity(0)))
        return os.cpu_count() or 1

    def read_text(self, path: str) -> str | None:
        try:
            return (self.root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        return (self.root / path.lstrip("/")).exists()

    def private_bytes(self, pid: int) -> int:
        if (status := self.read_text(f"/proc/{pid}/status")) is not None:
            return anonymous_bytes(status)
        import psutil

        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:
            return 0

    def sysctl(self, name: str) -> str | None:
        if self.system != "darwin":
            return None
        try:
            done = subprocess.run(
                ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=_SYSCTL_TIMEOUT_S, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    def nvml(self) -> NvmlApi:
        import pynvml

        return cast("NvmlApi", pynvml)


def anonymous_bytes(status: str) -> int:
    """Anonymous and shared-memory bytes out of the text of `/proc/<pid>/status` (proc(5): `RssAnon` and `RssShmem`, in
    kB). File pages are left out on purpose: the kernel counts them as available already."""
    kilobytes = 0
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name in {"RssAnon", "RssShmem"}:
            kilobytes += int(value.split()[0])
    return kilobytes * 1024
