"""Which sockets an engine process may make: TCP over IP, and no others. The kernel holds it to that.

What lives here: a seccomp filter of one rule. What does not: where TCP may lead
(`meshnode.engine.confinement.landlock`, network namespaces in `meshnode.engine.confinement.rights`).

Why: a socket with a path is no file to Landlock before its ABI 9, and by one of this user's (the node's control socket,
the session's message bus, a terminal multiplexer's) a process would be this user again, with all its files. UDP and the
rarer kinds go past what a port rule bounds. CUDA's driver keeps a Unix socket of the kind SEQPACKET for itself, which
can't connect to any of those; that kind stays. Linux on x86-64 and arm64; elsewhere there is no filter.

Sources: seccomp(2), the kernel's Documentation/userspace-api/seccomp_filter.rst (a filter must look at the
architecture), bpf(4) and linux/bpf_common.h for instructions, linux/audit.h for architectures.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys
from dataclasses import dataclass
from typing import Final

_PR_SET_SECCOMP: Final = 22
_FILTER_MODE: Final = 2
_ALLOW: Final = 0x7FFF0000
_FAIL: Final = 0x00050000
_LOAD, _AND, _EQUAL, _ABOVE, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_KIND_MASK: Final = 0xF
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_STREAM, _DATAGRAM, _SEQPACKET = 1, 2, 5
_ANY_PROTOCOL, _TCP = 0, 6
_X32_NUMBERS: Final = 0x40000000


@dataclass(frozen=True, slots=True)
class _Machine:
    architecture: int
    socket: int
    socketpair: int


_IO_URING_SETUP: Final = 425
"""On every architecture. Its rings make and connect sockets past any filter."""
_MACHINES: Final = {
    "x86_64": _Machine(0xC000003E, 41, 53),
    "aarch64": _Machine(0xC00000B7, 198, 199),
}


def filter_sockets(*, unix_streams: bool = False) -> bool:
    """From now on this process, and what it starts, makes TCP sockets only; with `unix_streams` also sockets with a
    path. Whatever it has open stays. False where there is no such filter. Needs no new privileges, set before. Raises
    `OSError` where the kernel refuses one that it should know."""
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or struct.calcsize("P") != 8:
        return False
    program = _program(machine, unix_streams)
    instructions = ctypes.create_string_buffer(b"".join(program), 8 * len(program))
    header = struct.pack("@HP", len(program), ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _FILTER_MODE, header, 0, 0) == 0:
        return True
    if ctypes.get_errno() in (errno.EINVAL, errno.ENOSYS):
        return False  # a kernel built without it
    raise OSError(ctypes.get_errno(), "seccomp: the engine process could not give up its sockets")


def _program(machine: _Machine, unix_streams: bool) -> list[bytes]:
    """The filter in instructions of 8 bytes. Jumps count the instructions they step over."""
    refuse = _op(_RETURN, _FAIL | errno.EACCES)
    allow = _op(_RETURN, _ALLOW)
    kinds = (_STREAM, _SEQPACKET) if unix_streams else (_SEQPACKET,)
    family_of_ip = [
        _op(_LOAD, _argument(1)), _op(_AND, _KIND_MASK), _op(_EQUAL, _STREAM, 1, 0), refuse,
        _op(_LOAD, _argument(2)), _op(_EQUAL, _TCP, 2, 0), _op(_EQUAL, _ANY_PROTOCOL, 1, 0), refuse, allow,
    ]  # fmt: skip
    family_of_unix = [_op(_LOAD, _argument(1)), _op(_AND, _KIND_MASK)]
    for place, kind in enumerate(kinds):
        family_of_unix.append(_op(_EQUAL, kind, len(kinds) - place, 0))
    family_of_unix += [refuse, allow]
    pair = [_op(_LOAD, _argument(1)), _op(_AND, _KIND_MASK), _op(_EQUAL, _DATAGRAM, 0, 1), refuse, allow]
    families = [
        _op(_LOAD, _argument(0)), _op(_EQUAL, _NETLINK, 0, 1), allow,
        _op(_EQUAL, _INET, 1, 0), _op(_EQUAL, _INET6, 0, len(family_of_ip)), *family_of_ip,
        _op(_EQUAL, _UNIX, 0, len(family_of_unix)), *family_of_unix, refuse,
    ]  # fmt: skip
    return [
        _op(_LOAD, _ARCHITECTURE_AT), _op(_EQUAL, machine.architecture, 1, 0), refuse,
        _op(_LOAD, _NUMBER_AT), _op(_ABOVE, _X32_NUMBERS, 0, 1), refuse,
        _op(_EQUAL, _IO_URING_SETUP, 0, 1), refuse,
        _op(_EQUAL, machine.socketpair, 0, len(pair)), *pair,
        _op(_EQUAL, machine.socket, 1, 0), allow, *families,
    ]  # fmt: skip


def _argument(number: int) -> int:
    """Where the low half of a system call's argument is in `struct seccomp_data` (little-endian machines)."""
    return 16 + 8 * number


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One `struct sock_filter`."""
    return struct.pack("=HBBI", code, if_true, if_false, value)
