"""Trying the paths to the other members, for an operator who asks what is wrong (`meshnode doctor`).

What lives here: `Reaching`: asking peers to try the paths with this node, and doing so for peers that ask. What does
not: trial packets (`meshnode.transport.trial`), what the outcome means (`meshnode.doctor`). Made by the node.

One trial, between A, whose operator asked, and B: A sends `ReachRequest` with a nonce and the addresses it knows of B,
over their link or through a neighbour. For `TRIAL_S` both send trial packets with that nonce to all addresses of the
other, from fresh ports; A also sends some of rising size along the link itself. Then B reports what arrived, where it
sees A, and what its clock says; A knows itself what arrived here. B sends only to addresses that A's own record and
their link name, which members dial anyway, a kilobyte in all; and it serves a peer once in `SERVE_EVERY_S`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import anyio
import anyio.abc

from meshnode.membership.view import MeshView, NodeView, PathKind, Status
from meshnode.mesh import Mesh
from meshnode.transport.addresses import MalformedAddress, parse_address
from meshnode.transport.trial import NONCE_BYTES, Arrived, TrialSender, TrialWatch
from proto.ids import NodeId
from proto.messages import Message
from proto.parts import MAX_ADDRESSES
from proto.reach import ReachReport, ReachRequest

TRIAL_S: Final = 1.2
ROUNDS_AT_S: Final = (0.2, 0.5, 0.9)
"""When trial packets go out: after the request has arrived on a slow path, and three times, since packets get lost."""
REPORT_WITHIN_S: Final = 4.0
SERVE_EVERY_S: Final = 2.0
FRESH_S: Final = 3.0
"""Asked again within this time, the last outcome is given again: peers would not answer so soon."""
MAX_PEERS: Final = 48
"""Most peers tried at once: below what `TrialWatch` expects, so that peers can still ask this node meanwhile."""
SIZES_BYTES: Final = (1200, 1232, 1252, 1332, 1372, 1392, 1412, 1424, 1432, 1444, 1452, 1464, 1472)
"""UDP payloads tried along a link: those that common path MTUs (1280, PPPoE, tunnels, Ethernet) just take, over IPv4
(28 bytes of headers) and IPv6 (48)."""


class TrialLinks(Protocol):
    """What is needed of the endpoint."""

    @property
    def trials(self) -> TrialWatch: ...

    @property
    def bound_addresses(self) -> tuple[str, ...]: ...

    def send_trials(self, peer: NodeId, nonce: bytes, sizes_bytes: Sequence[int]) -> bool: ...


@dataclass(frozen=True, slots=True)
class Reached:
    """What a trial with one peer showed. `answered` is False where no report came; the rest is of this side then.

    `arrived` are the peer's addresses at which packets from here arrived, `arrived_here` the other way round;
    `largest_bytes` is the largest UDP payload that came through along the link (0: not tried, or none did);
    `clock_ahead_s` says how far the peer's clock is ahead of this one, give or take `clock_error_s`.
    """

    answered: bool
    tried: tuple[str, ...]
    arrived: tuple[str, ...] = ()
    tried_here: tuple[str, ...] = ()
    arrived_here: tuple[str, ...] = ()
    largest_bytes: int = 0
    observed_address: str | None = None
    clock_ahead_s: float | None = None
    clock_error_s: float = 0.0


class _Waiting:
    """One trial on the side that asked."""

    def __init__(self) -> None:
        self.reported = anyio.Event()
        self.report: ReachReport | None = None
        self.wall_s = 0.0


class Reaching:
    """Tries paths, here and for peers. `tasks` outlives every trial; `wall_clock` is seconds since 1970."""

    def __init__(
        self,
        mesh: Mesh,
        links: TrialLinks,
        tasks: anyio.abc.TaskGroup,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._mesh = mesh
        self._links = links
        self._tasks = tasks
        self._clock = clock
        self._wall_clock = wall_clock
        self._waiting: dict[tuple[NodeId, bytes], _Waiting] = {}
        self._served_at_s: dict[NodeId, float] = {}
        self._turn = anyio.Lock()
        self._last: dict[NodeId, Reached] = {}
        self._last_at_s = -math.inf

    def listen(self) -> None:
        """Serve peers from now on."""
        self._mesh.handle(ReachRequest, self._requested)
        self._mesh.handle(ReachReport, self._reported)

    # --- asking ---

    async def reach_all(self) -> dict[NodeId, Reached]:
        """Try the paths to every member that is alive, at most `MAX_PEERS` of them; takes about 1.5 s, 4 s where some
        don't answer."""
        async with self._turn:
            if self._clock() - self._last_at_s > FRESH_S:
                self._last = await self._reached_now()
                self._last_at_s = self._clock()
            return self._last

    async def _reached_now(self) -> dict[NodeId, Reached]:
        view = self._mesh.view()
        others = [node for node in view.alive() if node.node != view.local][:MAX_PEERS]
        found: dict[NodeId, Reached] = {}

        async def reach(peer: NodeView) -> None:
            found[peer.node] = await self._reach(peer)

        async with anyio.create_task_group() as trials:
            for peer in others:
                trials.start_soon(reach, peer)
        return found

    async def _reach(self, peer: NodeView) -> Reached:
        nonce, addresses = os.urandom(NONCE_BYTES), addresses_of(peer)
        arrived = self._links.trials.expect(nonce)
        waiting = self._waiting[peer.node, nonce] = _Waiting()
        try:
            self._mesh.send(peer.node, ReachRequest(nonce, addresses))
            with anyio.move_on_after(REPORT_WITHIN_S):
                async with anyio.create_task_group() as sending:
                    sending.start_soon(self._send, peer, nonce, addresses, SIZES_BYTES)
                    await waiting.reported.wait()
        finally:
            del self._waiting[peer.node, nonce]
            self._links.trials.forget(nonce)
        return _reached(peer, addresses, waiting, arrived or Arrived())

    def _reported(self, peer: NodeId, message: Message) -> None:
        assert isinstance(message, ReachReport), "registered for this type"
        waiting = self._waiting.get((peer, message.nonce))
        if waiting is not None and waiting.report is None:
            waiting.report, waiting.wall_s = message, self._wall_clock()
            waiting.reported.set()

    # --- serving ---

    def _requested(self, peer: NodeId, message: Message) -> None:
        assert isinstance(message, ReachRequest), "registered for this type"
        now_s = self._clock()
        self._served_at_s = {one: at for one, at in self._served_at_s.items() if now_s - at < SERVE_EVERY_S}
        known = self._mesh.view().nodes.get(peer)
        if known is None or known.status is not Status.ALIVE or peer in self._served_at_s:
            return
        arrived = self._links.trials.expect(message.nonce)
        if arrived is not None:
            self._served_at_s[peer] = now_s
            self._tasks.start_soon(self._serve, known, message, arrived)

    async def _serve(self, peer: NodeView, request: ReachRequest, arrived: Arrived) -> None:
        addresses = addresses_of(peer)
        try:
            with anyio.move_on_after(TRIAL_S):
                await self._send(peer, request.nonce, addresses, ())
                await anyio.sleep_forever()
        finally:
            self._links.trials.forget(request.nonce)
        report = ReachReport(
            request.nonce,
            arrived=tuple(sorted(place for place in arrived.places if place < len(request.addresses))),
            largest_bytes=arrived.largest_bytes,
            tried=addresses,
            observed_address=_direct_address(self._mesh.view(), peer.node),
            clock_unix_ms=max(0, int(self._wall_clock() * 1000)),
        )
        self._mesh.send(peer.node, report)

    async def _send(self, peer: NodeView, nonce: bytes, addresses: Sequence[str], sizes_bytes: Sequence[int]) -> None:
        began_s = self._clock()
        with TrialSender(nonce, addresses, self._links.bound_addresses) as sender:
            for at_s in ROUNDS_AT_S:
                await anyio.sleep(max(0.0, began_s + at_s - self._clock()))
                sender.send()
                if sizes_bytes:
                    self._links.send_trials(peer.node, nonce, sizes_bytes)


def addresses_of(peer: NodeView) -> tuple[str, ...]:
    """Where `peer` may answer, as dials use it: the address of the link, then those of its record."""
    linked = [peer.link.address] if peer.link is not None and peer.link.path is PathKind.DIRECT else []
    recorded = peer.identity.addresses if peer.identity is not None else ()
    return tuple(text for text in dict.fromkeys([*linked, *recorded]) if _is_valid(text))[:MAX_ADDRESSES]


def _is_valid(text: str) -> bool:
    try:
        return parse_address(text)[1] > 0
    except MalformedAddress:
        return False


def _direct_address(view: MeshView, peer: NodeId) -> str | None:
    node = view.nodes.get(peer)
    if node is None or node.link is None or node.link.path is not PathKind.DIRECT:
        return None
    return node.link.address


def _reached(peer: NodeView, addresses: tuple[str, ...], waiting: _Waiting, arrived: Arrived) -> Reached:
    report = waiting.report
    if report is None:
        return Reached(answered=False, tried=addresses)
    one_way_s = 0.5 if peer.rtt is None else peer.rtt.smoothed_ms / 2000
    return Reached(
        answered=True,
        tried=addresses,
        arrived=_at(addresses, report.arrived),
        tried_here=report.tried,
        arrived_here=_at(report.tried, sorted(arrived.places)),
        largest_bytes=report.largest_bytes,
        observed_address=report.observed_address,
        clock_ahead_s=round(report.clock_unix_ms / 1000 + one_way_s - waiting.wall_s, 3),
        clock_error_s=round(one_way_s + 0.05, 3),
    )


def _at(addresses: Sequence[str], places: Sequence[int]) -> tuple[str, ...]:
    return tuple(addresses[place] for place in places if place < len(addresses))
