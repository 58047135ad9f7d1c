"""Real nodes with tunnels, in this process: endpoint, membership, its driver and `Tunnels`, as the daemon wires them.

`TunnelLab` runs them until the test ends. `Events` keeps what a node reports and wakes whoever waits. Nothing here
sleeps.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.abc
from making_links import DEADLINE_S, ALab, an_identity

from meshnode.admission.admission import Admission
from meshnode.admission.gate import MemberGate
from meshnode.admission.trust import MemberTrust
from meshnode.events import Event
from meshnode.identity import Identity
from meshnode.membership.local import LocalNode
from meshnode.membership.machine import Membership
from meshnode.membership.settings import PRESETS
from meshnode.membership.view import PathKind
from meshnode.mesh import Mesh
from meshnode.transport import Endpoint, TransportSettings
from meshnode.transport.addresses import parse_address
from meshnode.transport.clock import boottime_s
from meshnode.tunnel import MeshPaths, Opening, Purpose, Tunnel, Tunnels, TunnelSettings
from proto.ids import NodeId
from proto.parts import Role

E = TypeVar("E", bound=Event)
API = Opening(Purpose.API, "llama")
NOWHERE = "127.0.0.1:1"


@dataclass
class Events:
    """What a node reported."""

    seen: list[Event] = field(default_factory=list)
    _news: anyio.Event = field(default_factory=anyio.Event)

    def emit(self, event: Event) -> None:
        self.seen.append(event)
        self.tell()

    def tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.seen if isinstance(event, kind)]

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Return once `condition()` is true; it is looked at after every event."""
        with anyio.move_on_after(DEADLINE_S):
            while not condition():
                await self._news.wait()
        assert condition(), f"{what}: not within {DEADLINE_S} s; {self.seen}"

    async def one(self, kind: type[E]) -> E:
        await self.until(lambda: self.of(kind), kind.__name__)
        return self.of(kind)[0]


@dataclass
class TunnelNode:
    """A running node. `taken` holds the tunnels it took for the API, each kept open until the test releases it."""

    identity: Identity
    admission: Admission
    endpoint: Endpoint
    mesh: Mesh
    tunnels: Tunnels
    events: Events
    taken: list[Tunnel] = field(default_factory=list)
    release: anyio.Event = field(default_factory=anyio.Event)

    @property
    def node(self) -> NodeId:
        return self.identity.node

    @property
    def address(self) -> str:
        return self.endpoint.bound_addresses[0]

    async def keep(self, tunnel: Tunnel) -> None:
        """A handler that leaves the tunnel to the test."""
        self.taken.append(tunnel)
        self.events.tell()
        await self.release.wait()

    async def took(self) -> Tunnel:
        """The next tunnel it takes."""
        await self.events.until(lambda: self.taken, "a tunnel taken")
        return self.taken.pop(0)

    def path_to(self, other: TunnelNode) -> PathKind | None:
        node = self.mesh.view().nodes.get(other.node)
        return None if node is None or node.link is None else node.link.path


class TunnelLab:
    """Makes nodes of one mesh."""

    def __init__(self, lab: ALab, directory: Path, tasks: anyio.abc.TaskGroup) -> None:
        self._lab = lab
        self._directory = directory
        self._tasks = tasks

    async def node(
        self,
        settings: TunnelSettings | None = None,
        *,
        identity: Identity | None = None,
        hidden: bool = False,
        transport: TransportSettings | None = None,
    ) -> TunnelNode:
        """A running member that takes tunnels for the API. `hidden` advertises an address where nobody answers."""
        identity = identity or an_identity()
        admission = self._lab.admission(identity, keeps_root=True)
        events = Events()
        local = LocalNode(
            node=identity.node, mesh=admission.mesh, role=Role.WORKER, boot_id=identity.boot_id, incarnation=1,
            chain=admission.chain, software="meshnode test",
        )  # fmt: skip
        trust = MemberTrust(admission, time.time)
        machine = Membership(local, PRESETS["local"], trust, random.Random(identity.node), boottime_s())
        mesh = Mesh(
            machine, local, admission, clock=boottime_s, emit=events.emit, persist_incarnation=lambda _: None,
            identity_in_use=lambda text: events.tell(), removed=events.tell,
        )  # fmt: skip
        gate = MemberGate(admission, time.time, boottime_s, events.emit)
        endpoint = Endpoint(identity, admission.mesh, gate, ["127.0.0.1:0"], transport or TransportSettings(), mesh)
        await self._tasks.start(self._hold, endpoint)
        mesh.attach(endpoint)
        tunnels = Tunnels(
            identity, MeshPaths(mesh, endpoint), settings or TunnelSettings(),
            listen=parse_address(endpoint.bound_addresses[0]), scratch=self._directory, emit=events.emit,
        )  # fmt: skip
        mesh.on_removal(tunnels.members_removed)
        node = TunnelNode(identity, admission, endpoint, mesh, tunnels, events)
        tunnels.offer(Purpose.API, node.keep, lambda peer, opening: None)
        mesh.set_addresses((NOWHERE if hidden else endpoint.bound_addresses[0],))
        self._tasks.start_soon(mesh.run)
        await self._tasks.start(tunnels.run)
        return node

    @staticmethod
    async def _hold(endpoint: Endpoint, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with endpoint:
            task_status.started()
            await anyio.sleep_forever()

    async def pair(
        self, one: TunnelSettings | None = None, two: TunnelSettings | None = None
    ) -> tuple[TunnelNode, TunnelNode]:
        """Two nodes with a direct link."""
        here, there = await self.node(one), await self.node(two)
        await linked(here, there)
        return here, there


@asynccontextmanager
async def a_tunnel_lab(lab: ALab, directory: Path) -> AsyncIterator[TunnelLab]:
    """Ends everything it made. The task group has a task of its own: a fixture begins in one task and ends in another,
    which no task group survives."""
    made: asyncio.Future[TunnelLab] = asyncio.get_running_loop().create_future()
    over = anyio.Event()

    async def hold() -> None:
        async with anyio.create_task_group() as tasks:
            made.set_result(TunnelLab(lab, directory, tasks))
            await over.wait()
            tasks.cancel_scope.cancel()

    holding = asyncio.create_task(hold())
    yield await made
    over.set()
    await holding


async def linked(here: TunnelNode, there: TunnelNode, path: PathKind = PathKind.DIRECT) -> None:
    """Return once each has this path to the other; a direct one is dialled."""
    if path is PathKind.DIRECT:
        here.mesh.know({there.node: (there.address,)})
    with anyio.fail_after(2 * DEADLINE_S):
        for node, other in ((here, there), (there, here)):
            while node.path_to(other) is not path:
                await node.mesh.newer_view(node.mesh.view())
