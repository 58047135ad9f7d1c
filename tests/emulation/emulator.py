"""The emulator: a process that relays datagrams between real nodes under `LinkConditions`.

How a datagram travels: every node N has a *public* socket here, whose address N advertises. When A sends to B's public
socket, the emulator knows A by its real source address, asks the path A->B what happens, and hands the datagram to B's
real address *from A's public socket*, so that B sees A where A says it is and answers there. One socket a node serves
all pairs. A node behind a NAT shows another, mapped socket instead.

A process of its own, since a test's Python would keep a thread waiting for milliseconds at each datagram, and a path
that stands still for a second is a death in the mesh behind it. `select` instead of an event loop: it takes
microseconds where asyncio's epoll rounds a timer up to whole milliseconds. A delay counts from when the kernel got the
datagram, so that the relay's own lateness in reading is no part of the path. It wakes a little before a datagram is due
and watches the clock for the rest; where the system allows it, it runs before every other process (`precise`). What
delay each datagram met in the end is kept, for who judges a measurement of the path.

What lives here: `Relay`, which runs in that process, single-threaded. What does not: what tests hold (`process`).
"""

from __future__ import annotations

import ctypes
import heapq
import itertools
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import NamedTuple

from emulation.conditions import LinkConditions, NatKind, Path

Address = tuple[str, int]
SO_TIMESTAMPNS = 35
"""Not named by Python's socket module: each datagram comes with the kernel's time of its arrival (socket(7))."""
_TIMESPEC = struct.Struct("@qq")
LATEST_STAMP_S = 5.0
"""An older stamp says that the wall clock was set."""
EARLY_S = 0.0001
"""By so much before a datagram is due the relay wakes: as long as waking takes at the median on a virtual machine."""
KEPT_DELAYS = 4096
"""So many of the newest delays are kept of each direction."""
_PR_SET_TIMERSLACK = 29
"""prctl(2)."""


@dataclass
class PathCounters:
    """What one direction carried: datagrams sent into it, delivered copies, dropped ones, and payload bytes in."""

    sent: int = 0
    delivered: int = 0
    dropped: int = 0
    sent_bytes: int = 0


class MadeDelay(NamedTuple):
    """One datagram's way through the emulator: what delay it should meet and what it met, from its arrival at the
    emulator's socket to its arrival at the far end's."""

    asked_ms: float
    made_ms: float


@dataclass
class _Host:
    name: str
    real: Address
    public: socket.socket
    nat: NatKind | None = None
    mapped: dict[str, socket.socket] | None = None
    """NAT mappings by destination host ('' for port mapping, which has one for all)."""


class Relay:
    """Every method is called by `serve` at the word of the test's process."""

    def __init__(self, seed: int, default: LinkConditions, bind: str) -> None:
        self._seed = seed
        self._default = default
        self._bind = bind
        self._hosts: dict[str, _Host] = {}
        self._by_real: dict[Address, _Host] = {}
        self._owner: dict[socket.socket, _Host] = {}
        self._paths: dict[tuple[str, str], Path] = {}
        self._counters: dict[tuple[str, str], PathCounters] = {}
        self._contacted: set[tuple[str, str]] = set()
        self._due: list[tuple[float, int, socket.socket, Address, bytes, tuple[str, str], float]] = []
        self._made: dict[tuple[str, str], deque[MadeDelay]] = {}
        self._order = itertools.count()

    def attach(self, name: str, real: Address) -> str:
        """Give the node at `real` a public address and return it as `host:port`, for it to advertise."""
        host = _Host(name, real, self._open_socket())
        self._hosts[name] = host
        self._by_real[real] = host
        self._owner[host.public] = host
        address = host.public.getsockname()
        return f"{address[0]}:{address[1]}"

    def move(self, name: str, real: Address) -> None:
        """The node sends from another real address now (it restarted elsewhere)."""
        host = self._hosts[name]
        self._by_real.pop(host.real, None)
        host.real = real
        self._by_real[real] = host

    def shape(self, sender: str, receiver: str, conditions: LinkConditions) -> None:
        """Set one direction; running traffic meets it from the next datagram on."""
        self._path(sender, receiver).conditions = conditions

    def shape_both(self, one: str, other: str, conditions: LinkConditions) -> None:
        """Set both directions alike."""
        self.shape(one, other, conditions)
        self.shape(other, one, conditions)

    def partition(self, *groups: Iterable[str]) -> None:
        """Cut every path between nodes of different groups; a node in no group keeps all its paths."""
        sides = {name: number for number, group in enumerate(groups) for name in group}
        for one, other in itertools.permutations(sides, 2):
            if sides[one] != sides[other]:
                path = self._path(one, other)
                path.conditions = replace(path.conditions, up=False)

    def heal(self) -> None:
        """Bring every path up again, its other conditions as they were."""
        for path in self._paths.values():
            path.conditions = replace(path.conditions, up=True)

    def put_behind_nat(self, name: str, kind: NatKind) -> None:
        """From now on peers see `name` at mapped ports, and reach it only where it sent first."""
        host = self._hosts[name]
        host.nat, host.mapped = kind, {}

    def rebind(self, name: str) -> None:
        """The node's router forgets its mappings: the next datagram leaves from a new public port."""
        host = self._hosts[name]
        if host.nat is None:
            self._retire(host.public)
            host.public = self._open_socket()
            self._owner[host.public] = host
        else:
            for sock in (host.mapped or {}).values():
                self._retire(sock)
            host.mapped = {}
            self._contacted = {(sender, receiver) for sender, receiver in self._contacted if sender != name}

    def counters(self, sender: str, receiver: str) -> PathCounters:
        """A copy of what the direction carried so far."""
        return replace(self._counters.get((sender, receiver), PathCounters()))

    def delays(self, sender: str, receiver: str) -> tuple[MadeDelay, ...]:
        """The newest delivered datagrams of the direction, oldest first, since `forget_delays`."""
        return tuple(self._made.get((sender, receiver), ()))

    def forget_delays(self) -> None:
        """Keep only what is delivered from now on."""
        self._made.clear()

    # --- the loop ---------------------------------------------------------------------------------------------------

    def serve(self, commands: Connection) -> None:
        """Relay datagrams and obey commands until the other end of `commands` is gone."""
        while True:
            timeout_s = max(0.0, self._due[0][0] - EARLY_S - time.monotonic()) if self._due else None
            readable: list[Connection | socket.socket] = [commands, *self._owner]
            ready, _, _ = select.select(readable, [], [], timeout_s)
            for sock in ready:
                if isinstance(sock, socket.socket):
                    self._drain(sock)
                    self._deliver()
            self._deliver()
            if commands in ready:
                try:
                    name, arguments = commands.recv()
                except EOFError:
                    return
                commands.send(getattr(self, name)(*arguments))

    def close(self) -> None:
        """Lets go of every socket."""
        for sock in self._owner:
            sock.close()

    def _drain(self, sock: socket.socket) -> None:
        for _ in range(64):
            try:
                data, ancillary, _, source = sock.recvmsg(65_536, 128)
            except OSError:  # nothing more, or what the kernel heard from a port that is closed
                return
            self._take(sock, data, source, _arrived_at_s(ancillary))

    def _take(self, sock: socket.socket, data: bytes, source: Address, arrived_at_s: float) -> None:
        sender, receiver = self._by_real.get(source), self._owner.get(sock)
        if sender is None or receiver is None:
            return
        direction = (sender.name, receiver.name)
        self._contacted.add(direction)
        counters = self._counters.setdefault(direction, PathCounters())
        counters.sent += 1
        counters.sent_bytes += len(data)
        if receiver.nat is not None and not self._admitted(sock, sender, receiver):
            counters.dropped += 1
            return
        arrivals = self._path(*direction).decide(len(data), arrived_at_s)
        counters.dropped += not arrivals
        shown = self._shown(sender, receiver)
        for at_s in arrivals:
            due = (at_s, next(self._order), shown, receiver.real, data, direction, arrived_at_s)
            heapq.heappush(self._due, due)

    def _admitted(self, sock: socket.socket, sender: _Host, receiver: _Host) -> bool:
        mapped = receiver.mapped or {}
        expected = mapped.get(sender.name if receiver.nat is NatKind.SYMMETRIC else "")
        return sock is expected and (receiver.name, sender.name) in self._contacted

    def _shown(self, sender: _Host, receiver: _Host) -> socket.socket:
        if sender.nat is None or sender.mapped is None:
            return sender.public
        key = receiver.name if sender.nat is NatKind.SYMMETRIC else ""
        if key not in sender.mapped:
            sender.mapped[key] = self._open_socket()
            self._owner[sender.mapped[key]] = sender
        return sender.mapped[key]

    def _deliver(self) -> None:
        now_s = time.monotonic()
        while self._due and self._due[0][0] <= now_s:
            due_s, _, sock, target, data, direction, arrived_at_s = heapq.heappop(self._due)
            # Before the call: it wakes the receiver, who may take this process's place on its core.
            now_s = time.monotonic()
            try:
                sock.sendto(data, target)
            except OSError:  # the far end's port is closed or the socket was retired: a lost datagram
                self._counters[direction].dropped += 1
            else:
                self._counters[direction].delivered += 1
                made = self._made.setdefault(direction, deque(maxlen=KEPT_DELAYS))
                made.append(MadeDelay(1e3 * (due_s - arrived_at_s), 1e3 * (now_s - arrived_at_s)))

    def _path(self, sender: str, receiver: str) -> Path:
        key = (sender, receiver)
        if key not in self._paths:
            self._paths[key] = Path(self._seed, sender, receiver, self._default)
        return self._paths[key]

    def _open_socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setblocking(False)
        sock.bind((self._bind, 0))
        return sock

    def _retire(self, sock: socket.socket) -> None:
        self._owner.pop(sock, None)
        sock.close()


def precise() -> None:
    """Make this process wake when it wants to: no slack on its timers, and before every process that is not real-time.
    Where the system lacks the one or forbids the other, delays are later on a busy machine, and are kept as such."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
        try:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        except PermissionError:
            return


def _arrived_at_s(ancillary: list[tuple[int, int, bytes]]) -> float:
    """The monotonic moment of the kernel's stamp, which is in wall-clock time; now where there is none. Never before
    the datagram came: a delay would be shorter than asked."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            wall_s = time.time()
            now_s = time.monotonic()
            ago_s: float = wall_s - (seconds + nanoseconds / 1e9)
            if 0.0 <= ago_s < LATEST_STAMP_S:
                return now_s - ago_s
    return time.monotonic()
