"""Landlock: the kernel's own bound on files, TCP ports and signals of a process, which that process can't lift.

What lives here: the three system calls and their numbers. What does not: which files an engine process needs
(`meshnode.engine.confinement.reach`). Linux only; everywhere else, and on a kernel without it, `abi` is 0.

A ruleset names what it handles: all of that is denied but for its rules. A rule holds for all that lies below its path,
and nothing can be taken out of it again. Sources: landlock(7), the kernel's Documentation/userspace-api/landlock.rst
(what came with which ABI), include/uapi/linux/landlock.h. Abstract sockets, signals and ptrace are bound to the own
domain: a process can't reach one that has not given up the same rights.
"""

from __future__ import annotations

import ctypes
import os
import platform
import stat
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import IntFlag
from typing import Final

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_OWN_NUMBERS: Final = ("mips", "alpha")
"""Machines where system calls have other numbers: there is no Landlock on them here."""
MAX_ABI: Final = 9


class Access(IntFlag):
    """Rights on files (`LANDLOCK_ACCESS_FS_*`)."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15
    RESOLVE_UNIX = 1 << 16


READ: Final = Access.EXECUTE | Access.READ_FILE | Access.READ_DIR
DEVICE: Final = Access.READ_FILE | Access.WRITE_FILE | Access.READ_DIR | Access.IOCTL_DEV
WRITE: Final = (
    Access.READ_FILE | Access.READ_DIR | Access.WRITE_FILE | Access.TRUNCATE | Access.REFER
    | Access.REMOVE_FILE | Access.REMOVE_DIR | Access.MAKE_REG | Access.MAKE_DIR
)  # fmt: skip
BIND: Final = WRITE | Access.MAKE_SOCK | Access.RESOLVE_UNIX
"""`WRITE`, and sockets."""
EVERYTHING: Final = ~Access(0)

_OF_FILES: Final = (
    Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV | Access.RESOLVE_UNIX
)
"""What a rule on a file, and not on a folder, may grant."""
_NEWEST_RIGHT: Final = {1: 12, 2: 13, 3: 14, 4: 14, 5: 15, 6: 15, 7: 15, 8: 15, 9: 16}
"""The number of the last right that an ABI knows."""
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPES: Final = 3
"""Abstract Unix sockets, and signals."""


def abi() -> int:
    """The newest version that this kernel and this module know; 0 where there is none."""
    if sys.platform != "linux" or platform.machine().startswith(_OWN_NUMBERS):
        return 0
    found: int = _libc().syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    return min(MAX_ABI, max(0, found))


def restrict(files: Mapping[str, Access], *, listens: Iterable[int] = (), connects: Iterable[int] = ()) -> int:
    """This process and what it starts get at `files` (paths that are there, and what may be done with them and all
    below), listen on the TCP ports `listens`, connect to the ports `connects`, and nothing else of the kinds that this
    kernel can bound. Returns the ABI, 0 where nothing was bound.

    For a process of one thread, with no new privileges (`meshnode.engine.confinement.rights.drop_rights`). Raises
    `OSError`.
    """
    version = abi()
    if version == 0:
        return 0
    handled = Access((1 << (_NEWEST_RIGHT[version] + 1)) - 1)
    fields = [int(handled), _BIND_TCP | _CONNECT_TCP, _SCOPES]
    ruleset = _made(fields[: 3 if version >= 6 else 2 if version >= 4 else 1])
    try:
        for path, access in files.items():
            _allow_path(ruleset, path, access & handled)
        if version >= 4:
            for right, ports in ((_BIND_TCP, listens), (_CONNECT_TCP, connects)):
                for port in ports:
                    _add(ruleset, _NET_PORT, struct.pack("=QQ", right, port))
        _checked(_libc().syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)
    return version


def _made(fields: Sequence[int]) -> int:
    """An empty ruleset that handles `fields` (files, TCP, scopes; as many as the kernel knows)."""
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    made = _libc().syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    return _checked(made, "landlock_create_ruleset")


def _allow_path(ruleset: int, path: str, access: Access) -> None:
    """A path that has gone, or that this user can't reach, needs no rule."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            access &= _OF_FILES
        if access:
            _add(ruleset, _PATH_BENEATH, struct.pack("=Qi", int(access), place))
    finally:
        os.close(place)


def _add(ruleset: int, kind: int, rule: bytes) -> None:
    _checked(_libc().syscall(_ADD_RULE, ruleset, kind, rule, 0), "landlock_add_rule")


def _checked(result: int, call: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{call}: {os.strerror(ctypes.get_errno())}")
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
