"""What an engine process may use of its machine: libraries, its model, its devices, and nothing of the node's.

What lives here: `Reach`, and `give_up_the_rest`, which an engine process calls before engine code runs. What does not:
the kernel's interfaces (`meshnode.engine.confinement.landlock`, `meshnode.engine.confinement.socket_filter`),
capabilities and namespaces (`meshnode.engine.confinement.rights`).

Why a list of what is allowed: the process runs as the node's user, and whoever feeds it may come to run code in it. The
node's key, its control socket, other programs' secrets: all that this user can read would be theirs.

What engines need, by their sources and the makers' pages:

- shared libraries and what those read: /usr, /opt, Nix's and Homebrew's stores, the linker's cache, `LD_LIBRARY_PATH`,
  the program's own folder, Python's prefixes and everything on its path;
- CUDA: /dev/nvidia* (Tegra: /dev/nvmap, /dev/nvhost*, /dev/nvgpu; WSL: /dev/dxg), /proc, /sys, /dev/shm. Its cache of
  compiled kernels in ~/.nv is left out: what one coordinator's code writes there another program would run;
- ROCm: /dev/kfd, /dev/dri, /opt/rocm, /sys, /dev/shm; Vulkan: /dev/dri or NVIDIA's, the drivers' manifests in
  /usr/share/vulkan and /etc/vulkan. Metal: there is no Landlock on macOS.

An operator whose engine needs more names it in `engine_folders`.
"""

from __future__ import annotations

import json
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from glob import escape, glob
from pathlib import Path
from typing import Any, Final

from meshnode.engine.confinement import landlock
from meshnode.engine.confinement.landlock import Access
from meshnode.engine.confinement.socket_filter import filter_sockets

_SYSTEM: Final = (
    "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/opt", "/nix/store", "/gnu/store",
    "/home/linuxbrew/.linuxbrew", "/run/opengl-driver", "/run/opengl-driver-32", "/run/current-system/sw",
    "/var/lib/snapd/lib", "/etc/ld.so*", "/etc/ld-musl*", "/etc/alternatives", "/etc/localtime", "/etc/nsswitch.conf",
    "/etc/hosts", "/etc/passwd", "/etc/group", "/etc/OpenCL", "/etc/vulkan", "/etc/nvidia*", "/etc/glvnd", "/etc/drirc",
    "/proc", "/sys",
)  # fmt: skip
_PLAIN_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_CARDS: Final = (
    "/dev/nvidia*", "/dev/nvmap", "/dev/nvhost*", "/dev/nvgpu", "/dev/nvsciipc", "/dev/dxg", "/dev/kfd", "/dev/dri",
    "/dev/accel",
)  # fmt: skip
_SHARED_MEMORY: Final = "/dev/shm"
_FOLDER_VARIABLES: Final = ("LD_LIBRARY_PATH", "CUDA_PATH", "CUDA_HOME", "ROCM_PATH", "HIP_PATH", "VULKAN_SDK")
_FILE_VARIABLES: Final = ("VK_ICD_FILENAMES", "VK_DRIVER_FILES", "GGML_BACKEND_PATH")


@dataclass(frozen=True, slots=True)
class Confinement:
    """What bounds an engine process on this machine. `landlock` is the ABI of the kernel's file and port rules, 0 where
    it has none; `sockets` whether it makes TCP sockets only."""

    landlock: int = 0
    sockets: bool = False


@dataclass(frozen=True, slots=True)
class Reach:
    """Paths, absolute. `hidden` folders stay out whatever contains them; `folders` are the operator's, used freely;
    `reads` may be read, `writes` (folders) read and filled, `binds` (folders) also hold sockets. `program` is the
    engine's own, where it is one. `cards` gives the devices of GPUs."""

    hidden: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    program: str | None = None
    cards: bool = False

    def to_argument(self) -> str:
        """One word of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Reach:
        """From the JSON object that `dataclasses.asdict` makes of one."""
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        return cls(**given)

    def also(
        self,
        *,
        reads: Iterable[str] = (),
        writes: Iterable[str] = (),
        binds: Iterable[str] = (),
        program: str | None = None,
        cards: bool = False,
    ) -> Reach:
        """This one with more."""
        return replace(
            self,
            reads=(*self.reads, *reads),
            writes=(*self.writes, *writes),
            binds=(*self.binds, *binds),
            program=program or self.program,
            cards=cards or self.cards,
        )

    def rules(self) -> dict[str, Access]:
        """Rights by path, for this process: its own Python counts."""
        given = _Given(tuple(os.path.realpath(path) for path in self.hidden))
        given.spread(_matching(_SYSTEM), landlock.READ)
        given.spread(_of_environment(), landlock.READ)
        given.spread(_of_python(), landlock.READ)
        given.spread(() if self.program is None else _of_program(self.program, given), landlock.READ)
        given.exactly(_PLAIN_DEVICES, landlock.DEVICE)
        if self.cards:
            given.exactly(_matching(_CARDS), landlock.DEVICE)
            given.exactly([_SHARED_MEMORY], landlock.WRITE)
        given.spread(self.folders, landlock.EVERYTHING)
        given.exactly(self.reads, landlock.READ)
        given.exactly(self.writes, landlock.WRITE)
        given.exactly(self.binds, landlock.BIND)
        return given.rules


def give_up_the_rest(
    reach: Reach, *, listens: Iterable[int] = (), connects: Iterable[int] = (), unix_streams: bool = False
) -> Confinement:
    """From now on this process, and what it starts, uses what is in `reach` and no other file; listens and connects on
    the TCP ports named only; makes no other kinds of sockets (`unix_streams`: but those with a path); signals and
    traces itself only. As far as the kernel can hold it to that: the answer says how far. For a process of one thread,
    after `drop_rights`. Raises `OSError`."""
    bound = landlock.restrict(reach.rules(), listens=listens, connects=connects)
    return Confinement(bound, filter_sockets(unix_streams=unix_streams))


@dataclass(slots=True)
class _Given:
    """Rules as they are collected. Real paths, so that one folder has one rule."""

    hidden: tuple[str, ...]
    rules: dict[str, Access] = field(default_factory=dict)

    def exactly(self, paths: Iterable[str], access: Access) -> None:
        """`access` to each of `paths`."""
        for path in map(os.path.realpath, paths):
            self.rules[path] = self.rules.get(path, Access(0)) | access

    def spread(self, paths: Iterable[str], access: Access) -> None:
        """`access` to each of `paths` without what is hidden: a folder that contains such a one gives way to all else
        that lies in it now."""
        for path in map(os.path.realpath, paths):
            if not self.covers_hidden(path):
                self.exactly([path], access)
            elif path not in self.hidden:
                self.spread(_inside(path), access)

    def covers_hidden(self, path: str) -> bool:
        """Whether something hidden lies in `path`, or is it."""
        return any(_is_below(hidden, path) for hidden in self.hidden)


def _matching(patterns: Iterable[str]) -> list[str]:
    return [path for pattern in patterns for path in glob(pattern)]


def _of_environment() -> Iterator[str]:
    for name in (*_FOLDER_VARIABLES, *_FILE_VARIABLES):
        yield from (path for path in os.environ.get(name, "").split(":") if path.startswith("/"))


def _of_python() -> list[str]:
    """Where this interpreter's modules are. The working directory, which `python -m` puts in front, is no such place,
    nor is a home."""
    prefixes = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    packages = Path(__file__).resolve().parent.parent.parent
    own = [str(packages), *(str(packages.parent / name) for name in ("planner", "proto"))]
    found = {*prefixes, *sysconfig.get_paths().values(), *site.getsitepackages(), *sys.path[1:], *own}
    return [path for path in found if path.startswith("/") and not _has_home(path)]


def _of_program(program: str, given: _Given) -> list[str]:
    """The program, the libraries beside it and those of its build. Of a folder that holds other things too, such as a
    home, just the libraries."""
    real = os.path.realpath(program)
    folder = os.path.dirname(real)
    beside = [os.path.join(os.path.dirname(folder), name) for name in ("lib", "lib64")]
    near = [folder] if not (_has_home(folder) or given.covers_hidden(folder)) else glob(f"{escape(folder)}/*.so*")
    return [real, *near, *(beside if os.path.basename(folder) == "bin" else ())]


def _has_home(path: str) -> bool:
    return _is_below(os.path.realpath(os.path.expanduser("~")), os.path.realpath(path))


def _inside(folder: str) -> list[str]:
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder)]
    except OSError:
        return []


def _is_below(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
