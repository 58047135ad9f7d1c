"""A container's memory limit and what is used under it, for cgroup v1 and v2, with every parent's limit.

Why: psutil reads `/proc/meminfo`, which shows the host. A container with 8 GB on a 256 GB host would offer 200 GB and
be killed at the first layer. Limits are inherited: the smallest of a group's own and all its parents' binds, and a
parent's use includes siblings', so each level is judged by its own *room* (limit minus what is held there).

Sources: Linux `Documentation/admin-guide/cgroup-v2.rst` (memory.max, memory.high, memory.current, memory.stat) and
`cgroup-v1/memory.rst`; cgroups(7) for `/proc/self/cgroup`, proc(5) for `/proc/self/mountinfo`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from meshnode.resources.probe import Probe

_UNLIMITED_FROM_BYTES = 1 << 60
"""v1 writes "no limit" as the largest page-aligned number (0x7FFFFFFFFFFFF000); nothing real is beyond an exabyte."""


@dataclass(frozen=True, slots=True)
class CgroupMemory:
    """The level that binds: `limit_bytes` set at `path`, of which `held_bytes` are used and can't be reclaimed."""

    path: str
    limit_bytes: int
    held_bytes: int

    @property
    def room_bytes(self) -> int:
        """What is left under the limit, at least 0."""
        return max(0, self.limit_bytes - self.held_bytes)


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """All levels that set a limit, leaf first; empty without a limit."""

    levels: tuple[CgroupMemory, ...]

    @property
    def tightest(self) -> CgroupMemory | None:
        """The level with the least room: the one that decides what this process can still have."""
        return min(self.levels, key=lambda level: level.room_bytes, default=None)

    @property
    def smallest_limit_bytes(self) -> int | None:
        """The least limit of any level, whatever is used."""
        return min((level.limit_bytes for level in self.levels), default=None)


@dataclass(frozen=True, slots=True)
class _Files:
    """The file names of one cgroup version. `cache` are the memory.stat keys of page cache, which is reclaimable."""

    limits: tuple[str, ...]
    used: str
    cache: tuple[str, ...]


_V1 = _Files(("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
_V2 = _Files(("memory.max", "memory.high"), "memory.current", ("inactive_file", "active_file"))


def read_memory_limits(probe: Probe) -> MemoryLimits:
    """Every memory limit over this process, from its own group up to the mount's root. Empty where the system has no
    cgroups, shows none, or sets no limit. A machine in hybrid mode (v1 memory, v2 for the rest) is read in both."""
    found: list[CgroupMemory] = []
    for files, directory, top in _memory_groups(probe):
        for level in _upwards(directory, top):
            if (memory := _read_level(probe, str(level), files)) is not None:
                found.append(memory)
    return MemoryLimits(tuple(found))


def _memory_groups(probe: Probe) -> Iterator[tuple[_Files, PurePosixPath, PurePosixPath]]:
    """(file names, this process's group directory, mount point) for the memory controller of each hierarchy."""
    own = _own_groups(probe.read_text("/proc/self/cgroup") or "")
    for mount_root, mount_point, is_v2 in _cgroup_mounts(probe.read_text("/proc/self/mountinfo") or ""):
        group = own.get("" if is_v2 else "memory")
        if group is not None:
            directory = _directory(probe, PurePosixPath(group), mount_root, mount_point)
            yield (_V2 if is_v2 else _V1), directory, mount_point


def _own_groups(text: str) -> dict[str, str]:
    """Controller -> group path, from lines `id:controllers:path`; the v2 line has no controllers (key "")."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            groups.update(dict.fromkeys(parts[1].split(","), parts[2]))
    return groups


def _cgroup_mounts(text: str) -> Iterator[tuple[PurePosixPath, PurePosixPath, bool]]:
    """(root within the hierarchy, mount point, is v2) of each cgroup mount that may control memory."""
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not separator or len(fields) < 5 or not kind:
            continue
        is_v2 = kind[0] == "cgroup2"
        is_v1_memory = kind[0] == "cgroup" and "memory" in kind[-1].split(",")
        if is_v2 or is_v1_memory:
            yield PurePosixPath(_unescape(fields[3])), PurePosixPath(_unescape(fields[4])), is_v2


def _unescape(path: str) -> str:
    """mountinfo writes space, tab, newline and backslash as octal (proc(5))."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(escape, character)
    return path


def _directory(probe: Probe, group: PurePosixPath, root: PurePosixPath, mount: PurePosixPath) -> PurePosixPath:
    """Where `group` is visible. A container without its own cgroup namespace sees the host's path in
    `/proc/self/cgroup` but has only its own subtree mounted: there the mount's root is taken off. A path outside of the
    mount (`/..`, or one that isn't there) means that the mount point itself is the nearest visible level."""
    if ".." in group.parts:
        return mount
    relative = group.relative_to(root) if group.is_relative_to(root) else group.relative_to("/")
    directory = mount / relative
    return directory if probe.exists(str(directory)) else mount


def _upwards(directory: PurePosixPath, top: PurePosixPath) -> Iterator[PurePosixPath]:
    yield directory
    while directory != top:
        directory = directory.parent
        yield directory


def _read_level(probe: Probe, directory: str, files: _Files) -> CgroupMemory | None:
    limits = [_bytes_in(probe.read_text(f"{directory}/{name}")) for name in files.limits]
    set_limits = [limit for limit in limits if limit is not None and limit < _UNLIMITED_FROM_BYTES]
    if not set_limits:
        return None
    used = _bytes_in(probe.read_text(f"{directory}/{files.used}")) or 0
    cache = _cache_bytes(probe.read_text(f"{directory}/memory.stat") or "", files.cache)
    return CgroupMemory(directory, min(set_limits), max(0, used - cache))


def _cache_bytes(stat: str, keys: tuple[str, ...]) -> int:
    total = 0
    for line in stat.splitlines():
        name, _, value = line.partition(" ")
        if name in keys:
            total += _bytes_in(value) or 0
    return total


def _bytes_in(text: str | None) -> int | None:
    """The number in a cgroup file; None for `max`, an absent file or anything else that is no number."""
    value = (text or "").strip()
    return int(value) if value.isascii() and value.isdigit() else None
