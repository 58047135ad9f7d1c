"""Real nodes with real links, for tests: a mesh of endpoints on loopback, and an observer that can be waited for.

`ALab` makes members (state directory, key, credential, admission, gate: all real) and runs endpoints for them. `Watch`
is a `LinkObserver` that keeps what it is told and wakes whoever waits for it. Nothing here sleeps.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import anyio

from meshnode.admission.admission import Admission
from meshnode.admission.gate import JoiningGate, MemberGate
from meshnode.admission.inviting import InviteRequest
from meshnode.admission.issuing import Issuer
from meshnode.events import Event
from meshnode.identity import Identity, SigningKey
from meshnode.membership.view import LinkFacts
from meshnode.state import StateDirectory
from meshnode.transport import Endpoint, TransportSettings
from meshnode.transport.boundary import AdmissionGate
from meshnode.transport.clock import boottime_s
from proto.ids import BootId, MeshId, NodeId, mesh_id_of
from proto.messages import Message
from proto.parts import Role
from proto.versions import OURS, VersionRange

DEADLINE_S = 30.0
"""How long a test waits for what must happen; only a failing test ever waits that long."""
E = TypeVar("E", bound=Event)


@dataclass(frozen=True)
class Up:
    """One call of `link_up`."""

    peer: NodeId
    facts: LinkFacts
    boot_id: BootId
    incarnation_floor: int


@dataclass(frozen=True)
class Down:
    """One call of `link_down`."""

    peer: NodeId
    code: str
    reason: str
    by_peer: bool


@dataclass(frozen=True)
class Got:
    """One call of `message` or `datagram`."""

    peer: NodeId
    message: Message
    received_at_s: float


@dataclass
class Watch:
    """A `LinkObserver` that remembers everything."""

    floors: dict[NodeId, int] = field(default_factory=dict)
    ups: list[Up] = field(default_factory=list)
    downs: list[Down] = field(default_factory=list)
    failed_dials: list[tuple[NodeId, str]] = field(default_factory=list)
    messages: list[Got] = field(default_factory=list)
    datagrams: list[Got] = field(default_factory=list)
    moves: list[tuple[NodeId, str, str]] = field(default_factory=list)
    observed: list[tuple[NodeId, str]] = field(default_factory=list)
    troubles: list[tuple[NodeId, str]] = field(default_factory=list)
    identity_conflicts: list[tuple[NodeId, str]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    on_down: Callable[[NodeId], None] | None = None
    on_message: Callable[[NodeId, Message], None] | None = None
    on_datagram: Callable[[NodeId, Message, float], None] | None = None
    _news: anyio.Event = field(default_factory=anyio.Event)

    def _wake(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    async def until(self, condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> None:
        """Return once `condition()` is true; it is looked at after every call of the observer."""
        with anyio.move_on_after(deadline_s):
            while not condition():
                await self._news.wait()
        assert condition(), f"{what}: not within {deadline_s} s; ups={self.ups} downs={self.downs} events={self.events}"

    def of(self, kind: type[E]) -> list[E]:
        """The events of this type."""
        return [event for event in self.events if isinstance(event, kind)]

    def linked(self) -> dict[NodeId, LinkFacts]:
        """Links that are up by what the observer was told, in order."""
        return dict(self.linked_now)

    linked_now: dict[NodeId, LinkFacts] = field(default_factory=dict)

    def link_up(self, peer: NodeId, facts: LinkFacts, boot_id: BootId, incarnation_floor: int) -> None:
        self.ups.append(Up(peer, facts, boot_id, incarnation_floor))
        self.linked_now[peer] = facts
        self._wake()

    def link_down(self, peer: NodeId, code: str, reason: str, by_peer: bool) -> None:
        self.downs.append(Down(peer, code, reason, by_peer))
        del self.linked_now[peer]
        if self.on_down is not None:
            self.on_down(peer)
        self._wake()

    def dial_failed(self, peer: NodeId, reason: str) -> None:
        self.failed_dials.append((peer, reason))
        self._wake()

    def message(self, peer: NodeId, message: Message, received_at_s: float) -> None:
        self.messages.append(Got(peer, message, received_at_s))
        if self.on_message is not None:
            self.on_message(peer, message)
        self._wake()

    def datagram(self, peer: NodeId, message: Message, received_at_s: float) -> None:
        self.datagrams.append(Got(peer, message, received_at_s))
        if self.on_datagram is not None:
            self.on_datagram(peer, message, received_at_s)
        self._wake()

    def migrated(self, peer: NodeId, old: str, new: str) -> None:
        self.moves.append((peer, old, new))
        self._wake()

    def observed_address(self, peer: NodeId, address: str) -> None:
        self.observed.append((peer, address))
        self._wake()

    def path_trouble(self, peer: NodeId, reason: str) -> None:
        self.troubles.append((peer, reason))
        self._wake()

    def identity_in_use(self, peer: NodeId, text: str) -> None:
        self.identity_conflicts.append((peer, text))
        self._wake()

    def peer_floor(self, node: NodeId) -> int:
        return self.floors.get(node, 0)

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self._wake()


@dataclass
class ANode:
    """A running endpoint with its observer; `admission` is None for a node that has not joined."""

    identity: Identity
    endpoint: Endpoint
    watch: Watch
    admission: Admission | None

    @property
    def node(self) -> NodeId:
        return self.identity.node

    @property
    def address(self) -> str:
        return self.endpoint.bound_addresses[0]

    async def link_to(self, other: ANode) -> None:
        """Dial `other` and wait until both ends say that the link is up."""
        self.endpoint.dial(other.node, [other.address])
        await self.watch.until(lambda: other.node in self.watch.linked(), "link up at the dialler")
        await other.watch.until(lambda: self.node in other.watch.linked(), "link up at the acceptor")


class ALab:
    """Makes members of one mesh, and strangers, and runs endpoints; all end with the lab."""

    def __init__(self, directory: Path, stack: AsyncExitStack, root: SigningKey | None = None) -> None:
        """`root` is given where several processes make members of one mesh."""
        self._directory = directory
        self._stack = stack
        self._root = root or SigningKey.generate()
        self._count = 0
        self.mesh: MeshId = mesh_id_of(self._root.public_key)

    def state(self) -> StateDirectory:
        """A new state directory of its own."""
        self._count += 1
        return self._stack.enter_context(StateDirectory.open(self._directory / f"node{self._count}"))

    def admission(self, identity: Identity, *, role: Role = Role.WORKER, keeps_root: bool = False) -> Admission:
        """A membership of this mesh for `identity`, signed by the root."""
        state = self.state()
        if keeps_root:
            state.save_root_key(self._root)
        chain = Issuer(self._root, self.mesh, None).issue(
            identity.node,
            role,
            may_invite=True,
            now_unix_s=int(time.time()),
            expires_at_unix_s=None,
            token_id=None,
        )
        state.save_credential(self.mesh, chain)
        return Admission(state, identity)

    async def node(
        self,
        identity: Identity | None = None,
        *,
        listen: Sequence[str] = ("127.0.0.1:0",),
        settings: TransportSettings | None = None,
        versions: VersionRange = OURS,
        keeps_root: bool = False,
        floors: dict[NodeId, int] | None = None,
    ) -> ANode:
        """A member that runs until the lab ends."""
        return await self._stack.enter_async_context(
            self.running(
                identity,
                listen=listen,
                settings=settings,
                versions=versions,
                keeps_root=keeps_root,
                floors=floors,
            )
        )

    @asynccontextmanager
    async def running(
        self,
        identity: Identity | None = None,
        *,
        listen: Sequence[str] = ("127.0.0.1:0",),
        settings: TransportSettings | None = None,
        versions: VersionRange = OURS,
        keeps_root: bool = False,
        floors: dict[NodeId, int] | None = None,
    ) -> AsyncIterator[ANode]:
        """A member that runs until the block ends."""
        identity = identity or an_identity()
        admission = self.admission(identity, keeps_root=keeps_root)
        watch = Watch(floors=dict(floors or {}))
        gate = MemberGate(admission, time.time, boottime_s, watch.emit)
        async with self._endpoint(identity, self.mesh, gate, listen, settings, watch, versions) as endpoint:
            yield ANode(identity, endpoint, watch, admission)

    async def joiner(self, mesh: MeshId | None = None, settings: TransportSettings | None = None) -> ANode:
        """A node without a credential, on its way into `mesh` (this one, unless said otherwise)."""
        identity, watch = an_identity(), Watch()
        gate = JoiningGate(mesh or self.mesh, time.time)
        opened = self._endpoint(identity, mesh or self.mesh, gate, ("127.0.0.1:0",), settings, watch, OURS)
        return ANode(identity, await self._stack.enter_async_context(opened), watch, None)

    def _endpoint(
        self,
        identity: Identity,
        mesh: MeshId,
        gate: AdmissionGate,
        listen: Sequence[str],
        settings: TransportSettings | None,
        watch: Watch,
        versions: VersionRange,
    ) -> Endpoint:
        return Endpoint(identity, mesh, gate, listen, settings or TransportSettings(), watch, versions=versions)


def an_identity() -> Identity:
    """A fresh key, at its first start."""
    return Identity.starting(SigningKey.generate())


def restarted(identity: Identity) -> Identity:
    """The same key in a newer process."""
    return Identity.starting(identity.key)


def an_invite(
    issuer: ANode,
    addresses: Sequence[str],
    *others: ANode,
    request: InviteRequest | None = None,
    now_unix_s: int | None = None,
) -> str:
    """A token made by `issuer`, which is said to answer at `addresses`; it pins the `others` too."""
    assert issuer.admission is not None, "only members invite"
    members = [(issuer.node, list(addresses)), *((other.node, [other.address]) for other in others)]
    return issuer.admission.invite(request or InviteRequest(), members, now_unix_s or int(time.time())).text


async def full_mesh(lab: ALab, count: int, settings: TransportSettings | None = None) -> list[ANode]:
    """`count` members, each linked to each."""
    nodes = [await lab.node(settings=settings) for _ in range(count)]
    for at, node in enumerate(nodes):
        for other in nodes[at + 1 :]:
            await node.link_to(other)
    return nodes
