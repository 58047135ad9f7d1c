"""Fetches what a stage lacks from its coordinator, over tunnels that may break: the worker's side.

What lives here: `Fetching`: opening a tunnel, running the child that receives, trying again. What does not: judging and
verifying what comes (`meshnode.engine.weights.fetch_process`), which folders stay (`meshnode.engine.weights.cache`).

    tunnel ──> child judges the list ──> folder claimed, room made ──> bytes ──> every tensor verified
       ^                                                                 │ the link is lost, a peer stalls
       └───────────────── after a pause, from where it stopped ──────────┘

It ends with the stage, whose lease does not outlive the coordinator by much. A coordinator of an earlier release offers
nothing for this purpose: its engine sends everything, as it always did.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import anyio.abc

from meshnode.child import child_environment
from meshnode.engine.confinement.reach import Reach
from meshnode.engine.devices import engine_environment
from meshnode.engine.process import EngineProcess, Word, running
from meshnode.engine.weights.fetch_process import ALONE, WITH_MEMBER, FetchOrders
from meshnode.engine.weights.folder import SERVER_FOLDER
from meshnode.events import (
    Event,
    WeightsFetched,
    WeightsFetching,
    WeightsInterrupted,
    WeightsRejected,
    WeightsSkipped,
)
from meshnode.split import Held
from meshnode.tunnel import (
    Carrier,
    LoopbackStream,
    Opening,
    Purpose,
    Tunnel,
    TunnelError,
    TunnelRefusal,
    TunnelRefused,
    TunnelUnavailable,
    splice,
)
from proto.ids import NodeId

FETCH_MODULE: Final = "meshnode.engine.weights.fetch_process"
PAUSE_S: Final = 1.0
MOST_PAUSE_S: Final = 30.0
TRIES: Final = 8
"""Tries in a row that brought nothing, before the engine sends what is missing: about two minutes."""
LETTING_END_S: Final = 10.0

OpenTunnel = Callable[[NodeId, Opening], Awaitable[Tunnel]]
Claim = Callable[[str, int], AbstractAsyncContextManager[None]]
"""Makes a folder the stage's own for as long as it is filled; with its name, and the bytes of the whole stage."""
Nearest = Callable[[str, str, NodeId], NodeId | None]
"""The member to fetch from rather than from the coordinator, with model, manifest and the latter; None without one."""
Told = Callable[[int, int], None]
"""Gets (bytes done, bytes in all)."""


@dataclass
class _Try:
    """How one stage's fetching goes, over all its tunnels."""

    held: Held
    began_s: float
    told: Told
    total: int = 0
    done: int = 0
    received: int = 0
    received_before: int = 0
    is_announced: bool = False
    member: NodeId | None = None
    bad_member: NodeId | None = None
    carrier: Carrier | None = None
    last: Word = field(default_factory=dict)


class Fetching:
    """`root` is the weights cache, `most_bytes` bounds it; `open_tunnel` and `claim` as above; `reach` is what a
    child may use."""

    def __init__(
        self,
        root: Path,
        most_bytes: int | None,
        open_tunnel: OpenTunnel,
        claim: Callable[[Held], Claim],
        emit: Callable[[Event], None],
        reach: Reach,
        nearest: Nearest,
    ) -> None:
        self._reach = reach
        self._nearest = nearest
        self._root = root
        self._most_bytes = most_bytes
        self._open_tunnel = open_tunnel
        self._claim = claim
        self._emit = emit

    async def fetch(self, held: Held, told: Told) -> str | None:
        """The directory for the stage's server; None where the engine has to send everything."""
        stage = _Try(held, time.monotonic(), told)
        failures = 0
        while True:
            before = stage.received
            problem = await self._try(stage)
            if problem is None:
                return self._over(stage)
            failures = 1 if stage.received > before else failures + 1
            if failures > TRIES:
                self._skipped(stage, f"{problem} ({TRIES} tries)", stage.total - stage.done)
                return None
            pause_s = min(PAUSE_S * 2.0 ** (failures - 1), MOST_PAUSE_S)
            self._emit(
                WeightsInterrupted(
                    held.model, held.fence.coordinator, problem[:300], stage.done, stage.total, pause_s
                )
            )  # fmt: skip
            await anyio.sleep(pause_s)

    # --- one tunnel ---

    async def _try(self, stage: _Try) -> str | None:
        """What broke it off; None where it came to an end, which `stage.last` tells."""
        fence = stage.held.fence
        opening = Opening(Purpose.WEIGHTS, stage.held.model, fence)
        try:
            tunnel = await self._open_tunnel(NodeId(fence.coordinator), opening)
        except TunnelRefused as error:
            if error.code != TunnelRefusal.NOT_OFFERED:
                # Too many at once; or fenced, by a coordinator that has restarted: then this stage is soon over.
                return error.text
            stage.last = {"skipped": f"the coordinator gives none: {error.text}"}
            return None
        except TunnelUnavailable as error:
            return error.text
        async with tunnel:
            return await self._receive(stage, tunnel)

    async def _receive(self, stage: _Try, tunnel: Tunnel) -> str | None:
        ours, theirs = socket.socketpair()
        to_member, for_member = socket.socketpair()
        go_read, go_write = os.pipe()
        try:
            with ours, theirs, to_member, for_member:
                orders = self._orders(stage.held, theirs.fileno(), for_member.fileno(), go_read)
                command = [sys.executable, "-m", FETCH_MODULE, orders.to_argument()]
                environment = child_environment(engine_environment(()))
                async with running(command, environment, pass_fds=orders.passed_fds) as process:
                    theirs.close()
                    for_member.close()
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(splice, tunnel, LoopbackStream(ours))

                        async def join_member(manifest: str) -> bool:
                            return await self._join_member(stage, manifest, to_member, tasks)

                        problem = await self._follow(stage, tunnel, process, go_write, join_member)
                        with anyio.move_on_after(LETTING_END_S):
                            await process.wait()
                        tasks.cancel_scope.cancel()
            return problem
        finally:
            os.close(go_read)
            os.close(go_write)

    async def _join_member(
        self, stage: _Try, manifest: str, end: socket.socket, tasks: anyio.abc.TaskGroup
    ) -> bool:  # fmt: skip
        """Lead the child to a member that is nearer than the coordinator; False where there is none to be had."""
        fence = stage.held.fence
        member = self._nearest(stage.held.model, manifest, NodeId(fence.coordinator))
        stage.member = stage.carrier = None
        if member is None:
            return False
        try:
            tunnel = await self._open_tunnel(member, Opening(Purpose.WEIGHTS, stage.held.model, fence))
        except TunnelError:
            return False  # told by the tunnel's own event
        stage.member, stage.carrier = member, tunnel.carrier
        tasks.start_soon(splice, tunnel, LoopbackStream(end))
        return True

    async def _follow(
        self,
        stage: _Try,
        tunnel: Tunnel,
        process: EngineProcess,
        go: int,
        join_member: Callable[[str], Awaitable[bool]],
    ) -> str | None:
        """Hears the child until its last word."""
        word = await _next(process)
        if not isinstance(name := word.get("listed"), str):
            return self._ended(stage, word, process)
        stage.total = _whole(word, "total")
        async with self._claim(stage.held)(name, stage.total):
            os.write(go, WITH_MEMBER if await join_member(str(word.get("manifest"))) else ALONE)
            while (word := await _next(process)) and not _is_last(word):
                if "rejected" in word:
                    self._rejected(stage, word)
                elif "here" in word:
                    self._begins(stage, tunnel, _whole(word, "here"))
                elif "left" in word:
                    self._member_left(stage, word)
                else:
                    self._progress(stage, word)
        if word.get("filled") is True:
            word["folder"] = str(self._root / name / SERVER_FOLDER)
        return self._ended(stage, word, process)

    def _ended(self, stage: _Try, word: Word, process: EngineProcess) -> str | None:
        if word.get("filled") is True:
            stage.received = stage.received_before + _whole(word, "received")
        stage.received_before = stage.received
        if isinstance(problem := word.get("interrupted"), str):
            return problem
        if not word:
            return f"the fetching process ended: {' | '.join(process.log[-3:]) or 'it wrote nothing'}"
        stage.last = word
        return None

    def _begins(self, stage: _Try, tunnel: Tunnel, here: int) -> None:
        held, stage.done = stage.held, here
        if here < stage.total and not stage.is_announced:
            stage.is_announced = True
            source, carrier = stage.member or tunnel.peer, stage.carrier or tunnel.carrier
            self._emit(
                WeightsFetching(held.model, held.fence.generation, source, carrier.value, stage.total, here)
            )  # fmt: skip
            stage.told(here, stage.total)

    def _progress(self, stage: _Try, word: Word) -> None:
        stage.done = _whole(word, "done")
        stage.received = stage.received_before + _whole(word, "received")
        if stage.is_announced:
            stage.told(stage.done, stage.total)

    def _orders(self, held: Held, socket_fd: int, member_fd: int, go_fd: int) -> FetchOrders:
        return FetchOrders(
            root=str(self._root),
            model=held.model,
            source=held.fence.coordinator,
            ranges=tuple((start, end) for _, start, end in held.ranges),
            most_bytes=held.reserved_bytes,
            cache_bytes=self._most_bytes,
            socket_fd=socket_fd,
            member_fd=member_fd,
            go_fd=go_fd,
            reach=self._reach,
        )

    # --- what is told ---

    def _over(self, stage: _Try) -> str | None:
        held, word = stage.held, stage.last
        source = stage.member or held.fence.coordinator
        if isinstance(reason := word.get("refused"), str):
            self._emit(WeightsRejected(held.model, source, "", 0, reason, again=False))
            self._skipped(stage, f"what the coordinator says of its tensors is wrong: {reason}", 0)
            return None
        if not isinstance(folder := word.get("folder"), str):
            self._skipped(stage, str(word.get("skipped")), _whole(word, "needed"))
            return None
        if lost := _whole(word, "lost"):
            self._skipped(stage, f"{lost} tensor(s) came wrong twice", _whole(word, "lost_bytes"))
        if not _whole(word, "tensors"):
            return None
        self._emit(
            WeightsFetched(
                held.model, held.fence.generation, source, _whole(word, "tensors"), stage.total, stage.received,
                max(0, stage.total - stage.received), round(time.monotonic() - stage.began_s, 1),
            )
        )  # fmt: skip
        if stage.is_announced:
            stage.told(stage.total, stage.total)
        return folder

    def _rejected(self, stage: _Try, word: Word) -> None:
        tensor, again = str(word.get("rejected"))[:100], word.get("again") is True
        how = "what came, and what was there of it before," if word.get("resumed") is True else "what came"
        reason = f"{how} does not have the SHA-256 that was announced"
        member = (stage.bad_member or stage.member) if word.get("member") is True else None
        source = member or stage.held.fence.coordinator
        self._emit(WeightsRejected(stage.held.model, source, tensor, _whole(word, "size"), reason, again=again))

    def _member_left(self, stage: _Try, word: Word) -> None:
        """Its bytes are not asked for any more: the coordinator gives the rest."""
        stage.bad_member, stage.member = stage.member or stage.bad_member, None
        reason = f"left for the coordinator: {word.get('left')}"
        if stage.bad_member is not None and word.get("wrong") is True:
            self._emit(WeightsRejected(stage.held.model, stage.bad_member, "", 0, reason[:300], again=True))

    def _skipped(self, stage: _Try, reason: str, needed: int) -> None:
        self._emit(WeightsSkipped(stage.held.model, max(0, needed), reason[:300]))


async def _next(process: EngineProcess) -> Word:
    """Its next word; an empty one where it has ended."""
    with suppress(anyio.EndOfStream):
        return await process.words.receive()
    return {}


def _is_last(word: Word) -> bool:
    return any(name in word for name in ("filled", "skipped", "refused", "interrupted"))


def _whole(word: Word, name: str) -> int:
    value = word.get(name)
    return value if isinstance(value, int) else 0
