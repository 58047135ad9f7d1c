"""Least rights for engine processes: what a process takes from itself before the engine's code runs.

What lives here: the steps, each a call to the kernel, none of which can be undone. What does not: starting processes.
Called in the child (`meshnode.engine.stage.process`, `meshnode.engine.serving.process`), never in the daemon.

Linux only; elsewhere each step says that it did nothing. Sources: prctl(2), capset(2), user_namespaces(7),
network_namespaces(7), netdevice(7), getrlimit(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import struct
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP_RUNNING: Final = 0x41
_CAPABILITY_VERSION_3: Final = 0x20080522
_LAST_CAPABILITY: Final = 63

OPEN_FILES: Final = 512
PROCESSES: Final = 4096
"""Threads count as processes of the user, so this bounds a fork bomb and leaves other programs of the user alone."""

_IS_LINUX: Final = sys.platform == "linux"


def end_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends; at once if it has ended already."""
    parent = os.getppid()
    if _IS_LINUX:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def own_network() -> bool:
    """Into a network namespace of its own, with a loopback and nothing else. False where the system does not allow it:
    some distributions and containers forbid user namespaces."""
    return _IS_LINUX and _works_in_a_trial() and _enter_own_network()


def _works_in_a_trial() -> bool:
    """Tried in a process that ends afterwards: one that got half way in could not come back."""
    trial = os.fork()
    if trial == 0:
        try:
            os._exit(0 if _enter_own_network() else 1)
        except OSError:
            os._exit(1)
    return os.waitpid(trial, 0)[1] == 0


def _enter_own_network() -> bool:
    """Raises `OSError` where this user can't be itself in a user namespace."""
    uid, gid = os.geteuid(), os.getegid()
    libc = _libc()
    if libc.unshare(_CLONE_NEWNET) != 0:
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
            return False
        _map_own_user(uid, gid)
    return _loopback_up()


def limit_resources() -> None:
    """No core dumps (they would hold the model and the conversation), bounded files and processes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for limit, most in ((resource.RLIMIT_NOFILE, OPEN_FILES), (resource.RLIMIT_NPROC, PROCESSES)):
        _, hard = resource.getrlimit(limit)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (bound, bound))


def drop_rights() -> None:
    """No new privileges by any exec, and none of root's capabilities: file modes hold for this process too."""
    if not _IS_LINUX:
        return
    libc = _libc()
    for capability in range(_LAST_CAPABILITY + 1):
        # Fails for numbers this kernel does not know and for processes that may not change it, which have none anyway.
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset: the engine process could not give up its capabilities")


def _map_own_user(uid: int, gid: int) -> None:
    """This user stays itself in the new user namespace: files keep their owner and mode."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _loopback_up() -> bool:
    import fcntl

    request = struct.pack("16sh14x", b"lo", _IFF_UP_RUNNING)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)
        except OSError:
            return False
    return True


def _prctl(option: int, value: int) -> None:
    if _libc().prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
