"""The emulator: a thread that relays datagrams between real nodes under `LinkConditions`.

How a datagram travels: every node N has a *public* socket here, whose address N advertises. When A sends to B's public
socket, the emulator knows A by its real source address, asks the path A->B what happens, and hands the datagram to B's
real address *from A's public socket*, so that B sees A where A says it is and answers there. One socket a node serves
all pairs. A node behind a NAT shows another, mapped socket instead.

A thread with `select` instead of the test's event loop: `select` takes microseconds where asyncio's epoll rounds a
timer up to whole milliseconds, which would spoil RTT comparisons.
"""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import TracebackType

from emulation.conditions import LinkConditions, NatKind, Path

Address = tuple[str, int]


@dataclass
class PathCounters:
    """What one direction carried: datagrams sent into it, delivered copies, dropped ones, and payload bytes in."""

    sent: int = 0
    delivered: int = 0
    dropped: int = 0
    sent_bytes: int = 0


@dataclass
class _Host:
    name: str
    real: Address
    public: socket.socket
    nat: NatKind | None = None
    mapped: dict[str, socket.socket] | None = None
    """NAT mappings by destination host ('' for port mapping, which has one for all)."""


class LinkEmulator:
    """Use as a context manager. All methods may be called from any thread while it runs."""

    def __init__(self, seed: int, default: LinkConditions | None = None, bind: str = "127.0.0.1") -> None:
        self._seed = seed
        self._default = default or LinkConditions()
        self._bind = bind
        self._lock = threading.Lock()
        self._hosts: dict[str, _Host] = {}
        self._by_real: dict[Address, _Host] = {}
        self._owner: dict[socket.socket, _Host] = {}
        self._paths: dict[tuple[str, str], Path] = {}
        self._counters: dict[tuple[str, str], PathCounters] = {}
        self._contacted: set[tuple[str, str]] = set()
        self._due: list[tuple[float, int, socket.socket, Address, bytes, tuple[str, str]]] = []
        self._order = itertools.count()
        self._wake_receive, self._wake_send = socket.socketpair()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="link-emulator")

    def __enter__(self) -> LinkEmulator:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._wake()
        self._thread.join()
        for sock in [*self._owner, self._wake_receive, self._wake_send]:
            sock.close()

    def attach(self, name: str, real: Address) -> str:
        """Give the node at `real` a public address and return it as `host:port`, for it to advertise."""
        with self._lock:
            host = _Host(name, real, self._open_socket())
            self._hosts[name] = host
            self._by_real[real] = host
            self._owner[host.public] = host
        self._wake()
        address = host.public.getsockname()
        return f"{address[0]}:{address[1]}"

    def move(self, name: str, real: Address) -> None:
        """The node sends from another real address now (it restarted elsewhere)."""
        with self._lock:
            host = self._hosts[name]
            self._by_real.pop(host.real, None)
            host.real = real
            self._by_real[real] = host

    def shape(self, sender: str, receiver: str, conditions: LinkConditions) -> None:
        """Set one direction; running traffic meets it from the next datagram on."""
        with self._lock:
            self._path(sender, receiver).conditions = conditions

    def shape_both(self, one: str, other: str, conditions: LinkConditions) -> None:
        """Set both directions alike."""
        self.shape(one, other, conditions)
        self.shape(other, one, conditions)

    def partition(self, *groups: Iterable[str]) -> None:
        """Cut every path between nodes of different groups; a node in no group keeps all its paths."""
        sides = {name: number for number, group in enumerate(groups) for name in group}
        with self._lock:
            for one, other in itertools.permutations(sides, 2):
                if sides[one] != sides[other]:
                    path = self._path(one, other)
                    path.conditions = replace(path.conditions, up=False)

    def heal(self) -> None:
        """Bring every path up again, its other conditions as they were."""
        with self._lock:
            for path in self._paths.values():
                path.conditions = replace(path.conditions, up=True)

    def put_behind_nat(self, name: str, kind: NatKind) -> None:
        """From now on peers see `name` at mapped ports, and reach it only where it sent first."""
        with self._lock:
            host = self._hosts[name]
            host.nat, host.mapped = kind, {}

    def rebind(self, name: str) -> None:
        """The node's router forgets its mappings: the next datagram leaves from a new public port."""
        with self._lock:
            host = self._hosts[name]
            if host.nat is None:
                self._retire(host.public)
                host.public = self._open_socket()
                self._owner[host.public] = host
            else:
                for sock in (host.mapped or {}).values():
                    self._retire(sock)
                host.mapped = {}
        self._wake()

    def counters(self, sender: str, receiver: str) -> PathCounters:
        """A copy of what the direction carried so far."""
        with self._lock:
            return replace(self._counters.get((sender, receiver), PathCounters()))

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            with self._lock:
                readable = [self._wake_receive, *self._owner]
                timeout_s = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            try:
                ready, _, _ = select.select(readable, [], [], timeout_s)
            except (ValueError, OSError):  # a socket was retired between the list and the call
                continue
            for sock in ready:
                if sock is self._wake_receive:
                    sock.recv(4096)
                else:
                    self._drain(sock)
            self._deliver()

    def _drain(self, sock: socket.socket) -> None:
        for _ in range(64):
            try:
                data, source = sock.recvfrom(65_536)
            except (BlockingIOError, OSError):
                return
            with self._lock:
                self._take(sock, data, source)

    def _take(self, sock: socket.socket, data: bytes, source: Address) -> None:
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
        arrivals = self._path(*direction).decide(len(data), time.monotonic())
        counters.dropped += not arrivals
        shown = self._shown(sender, receiver)
        for at_s in arrivals:
            heapq.heappush(self._due, (at_s, next(self._order), shown, receiver.real, data, direction))

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
        with self._lock:
            while self._due and self._due[0][0] <= now_s:
                _, _, sock, target, data, direction = heapq.heappop(self._due)
                try:
                    sock.sendto(data, target)
                except OSError:  # the far end's port is closed or the socket was retired: a lost datagram
                    self._counters[direction].dropped += 1
                else:
                    self._counters[direction].delivered += 1

    def _path(self, sender: str, receiver: str) -> Path:
        key = (sender, receiver)
        if key not in self._paths:
            self._paths[key] = Path(self._seed, sender, receiver, self._default)
        return self._paths[key]

    def _open_socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.setblocking(False)
        sock.bind((self._bind, 0))
        return sock

    def _retire(self, sock: socket.socket) -> None:
        self._owner.pop(sock, None)
        sock.close()

    def _wake(self) -> None:
        self._wake_send.send(b"x")
