"""A simulated mesh: the daemon's membership machines, unmodified, in virtual time over simulated links.

`World` makes nodes, runs time, and switches faults: kill, restart, leave, stop and continue, partitions.
`SimulatedNode` is to the machine what the daemon's mesh driver is: it carries out effects and hands in what arrives.
Everything random comes from the seed, so that a failing run replays.

What lives here: both. What does not: links (`wire`), delay and loss (`paths`), what is measured (`counts`), scenarios.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from meshnode.events import Event, PeerUpdated
from meshnode.membership.effects import (
    CloseLink,
    Deliver,
    Dial,
    Effect,
    Emit,
    PersistIncarnation,
    Send,
    SendDatagram,
)
from meshnode.membership.local import LocalNode, OfferDraft
from meshnode.membership.machine import Membership
from meshnode.membership.settings import LAN, MembershipSettings
from meshnode.membership.trust import Trust
from meshnode.membership.view import LinkFacts
from meshnode.simulation.clockwork import Clockwork
from meshnode.simulation.counts import Counts
from meshnode.simulation.keys import REAL_UP_TO, Keyring
from meshnode.simulation.large_pages import LargePages
from meshnode.simulation.oracle import ORACLE_CHAIN, Oracle
from meshnode.simulation.paths import Paths, Terrain
from meshnode.simulation.rules import AUDITED_UP_TO, Rules
from meshnode.simulation.wire import SimulatedLink, Station, Wire
from proto.ids import BootId, MeshId, NodeId, mesh_id_of, node_id_of
from proto.messages import Message
from proto.parts import DeviceOffer, Role

SOCKET_BUFFER_PACKETS = 512
"""What a stopped process finds waiting: about 200 KB of small packets; later ones were dropped by the kernel."""
SETTLE_STEP_S = 0.05
MANY_NODES = 200
MakeTrust = Callable[[NodeId, Role], Trust]
GB = 10**9


@dataclass(frozen=True, slots=True)
class Member:
    """One node before it runs: its id and what it can sign with."""

    node: NodeId
    trust: Trust
    chain: tuple[bytes, ...]
    role: Role = Role.WORKER


@dataclass
class Plan:
    """How a world is set up."""

    nodes: int
    seed: int
    settings: MembershipSettings = LAN
    terrain: Terrain = field(default_factory=Terrain)
    icmp: bool = False
    """True where a killed process's host answers with ICMP refusals, as on loopback."""
    start_spread_s: float = 0.5
    """Nodes start within this time, in random order."""
    seeds: int = 1
    """How many nodes everybody knows at its start, as the members pinned in an invite."""
    real_signatures: bool | None = None
    """Keys and credentials, or the oracle; None: keys in worlds of up to `keys.REAL_UP_TO` nodes."""


class SimulatedNode:
    """One node: a machine, its links, and whether its process runs."""

    def __init__(self, world: World, member: Member, address: str) -> None:
        self.world = world
        self.member = member
        self.node = member.node
        self.addresses: tuple[str, ...] = (address,)
        self.is_running = False
        self.accepts_dials = True
        self.blocked_until_s = 0.0
        self.links: dict[NodeId, SimulatedLink] = {}
        self.persisted_incarnation = 0
        self.started_s = 0.0
        self.known: dict[NodeId, tuple[str, ...]] = {}
        self.draft = an_offer(24)
        self.delivered: list[tuple[NodeId, Message]] = []
        self.machine: Membership | None = None
        self._poll_at_s = float("inf")
        self._run = 0
        self._performing = 0
        self._audited_at_change = -1
        self._inbox: deque[Callable[[], None]] = deque()

    # --- life ---

    def start(self) -> None:
        """A new process: a higher incarnation, a new boot id, the peers it knows from before."""
        world, rng = self.world, self.world.rng
        now = world.clock.now_s
        self.persisted_incarnation += 1
        local = LocalNode(
            node=self.node,
            mesh=world.mesh,
            role=self.member.role,
            boot_id=BootId(rng.randbytes(16)),
            incarnation=self.persisted_incarnation,
            chain=self.member.chain,
            addresses=self.addresses,
            software="simulated",
        )
        own_rng = random.Random(rng.getrandbits(64))
        self.machine = Membership(local, world.plan.settings, self.member.trust, own_rng, now)
        self.is_running, self.started_s, self.blocked_until_s = True, now, 0.0
        self._run += 1
        self._audited_at_change = -1
        self._inbox.clear()
        self._poll_at_s = float("inf")
        world.rules.started(self.node)
        self.perform(self.machine.publish_offer(self.draft, now))
        self.perform(self.machine.known_peers(self.known, now))

    def kill(self) -> None:
        """The process is gone without a word (kill -9)."""
        self.remember_peers()
        self.is_running = False
        self.links.clear()
        self._inbox.clear()
        self.machine = None

    def leave(self) -> None:
        """A clean stop: goodbye, then the links end."""
        assert self.machine is not None
        self.remember_peers()
        self.perform(self.machine.leave(self.world.clock.now_s))
        self.world.clock.at(self.world.clock.now_s + 0.05, self._gone, self._run)

    def _gone(self, run: int) -> None:
        if run == self._run and self.is_running:
            self.is_running = False
            self.links.clear()
            self.machine = None

    def remember_peers(self) -> None:
        """The known-peers file: everybody's addresses."""
        if self.machine is not None:
            for node in self.world.nodes:
                addresses = self.machine.addresses_of(node)
                if addresses and node != self.node:
                    self.known[node] = addresses

    def block(self, duration_s: float) -> None:
        """The process does not run for this long (a blocked loop, SIGSTOP): what arrives waits."""
        clock = self.world.clock
        self.blocked_until_s = max(self.blocked_until_s, clock.now_s + duration_s)
        clock.at(self.blocked_until_s, self._unblocked, self._run)

    def _unblocked(self, run: int) -> None:
        if run != self._run or not self.is_running or self.world.clock.now_s < self.blocked_until_s:
            return
        self._poll_at_s = float("inf")
        self.poll()
        inbox, self._inbox = self._inbox, deque()
        for step in inbox:
            step()
        self.reschedule()

    @property
    def is_blocked(self) -> bool:
        return self.world.clock.now_s < self.blocked_until_s

    # --- inputs from the wire ---

    def link_up(self, peer: NodeId, facts: LinkFacts, floor: int) -> None:
        assert self.machine is not None
        self.perform(self.machine.link_up(peer, facts, floor, self.world.clock.now_s))

    def link_down(self, peer: NodeId, code: str, reason: str) -> None:
        self._input(lambda machine, now: machine.link_down(peer, code, reason, now))

    def dial_failed(self, peer: NodeId, reason: str) -> None:
        self._input(lambda machine, now: machine.dial_failed(peer, reason, now))

    def path_trouble(self, peer: NodeId) -> None:
        self._input(lambda machine, now: machine.path_trouble(peer, "refused", now))

    def floor_of(self, node: NodeId) -> int:
        return 0 if self.machine is None else self.machine.floor_of(node)

    def message(self, peer: NodeId, message: Message) -> None:
        now = self.world.clock.now_s
        if now < self.blocked_until_s:
            self._input(lambda machine, at: machine.receive(peer, message, at, at))
        elif self.machine is not None:
            self.perform(self.machine.receive(peer, message, now, now))

    def datagram(self, peer: NodeId, message: Message) -> None:
        now = self.world.clock.now_s
        if now < self.blocked_until_s:
            if len(self._inbox) < SOCKET_BUFFER_PACKETS:
                self._input(lambda machine, at: machine.receive_datagram(peer, message, at, at))
        elif self.machine is not None:
            self.perform(self.machine.receive_datagram(peer, message, now, now))

    def _input(self, step: Callable[[Membership, float], list[Effect]]) -> None:
        if self.machine is None:
            return
        if self.is_blocked:
            self._inbox.append(lambda: self._input(step))
            return
        self.perform(step(self.machine, self.world.clock.now_s))

    # --- carrying out ---

    def perform(self, effects: Iterable[Effect]) -> None:
        """Carries out effects in order, then sees to the next poll. Closing a link is an input within an input."""
        world = self.world
        self._performing += 1
        for effect in effects:
            kind = type(effect)
            if kind is SendDatagram:
                world.counts.probes += 1
                world.wire.datagram(self, effect.peer, effect.message)  # type: ignore[union-attr]
            elif kind is Send:
                world.counts.control(self.node, effect.message)  # type: ignore[union-attr]
                world.wire.control(self, effect.peer, effect.message)  # type: ignore[union-attr]
            elif kind is Emit:
                world.report(self, effect.event)  # type: ignore[union-attr]
            else:
                self._perform_rarely(effect)
        self._performing -= 1
        if not self._performing and world.is_audited:
            self._audit()
        self.reschedule()

    def _audit(self) -> None:
        machine = self.machine
        if machine is not None and machine.changes != self._audited_at_change:
            self._audited_at_change = machine.changes
            self.world.rules.audit(self.node, machine.held(), self.world.clock.now_s)

    def _perform_rarely(self, effect: Effect) -> None:
        if isinstance(effect, Dial):
            self.world.wire.dial(self, effect.peer, effect.addresses)
        elif isinstance(effect, CloseLink):
            self.world.wire.close(self, effect.peer, effect.code, effect.text)
        elif isinstance(effect, PersistIncarnation):
            self.persisted_incarnation = effect.incarnation
        elif isinstance(effect, Deliver):
            self.delivered.append((effect.peer, effect.message))

    def reschedule(self) -> None:
        """A poll at the machine's next moment, if none is scheduled before."""
        if self.machine is None or self.machine.no_wakeup_before() >= self._poll_at_s:
            return
        self._poll_by(self.machine.next_wakeup())

    def _poll_by(self, due_s: float) -> None:
        if due_s < self._poll_at_s:
            self._poll_at_s = due_s
            self.world.clock.at(due_s, self._poll_due, self._run, due_s)

    def _poll_due(self, run: int, due_s: float) -> None:
        if run != self._run or due_s != self._poll_at_s or self.is_blocked:
            return
        self._poll_at_s = float("inf")
        if self.machine is None:
            return
        next_s = self.machine.next_wakeup()
        if next_s > due_s:
            self._poll_by(next_s)
        else:
            self.poll()

    def poll(self) -> None:
        if self.machine is not None:
            self.perform(self.machine.poll(self.world.clock.now_s))


class World:
    """A mesh in virtual time."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = random.Random(plan.seed)
        self.clock = Clockwork()
        root_secret = self.rng.randbytes(32)
        self.paths = Paths(plan.terrain, self.rng)
        self.nodes: dict[NodeId, SimulatedNode] = {}
        is_real = plan.nodes <= REAL_UP_TO if plan.real_signatures is None else plan.real_signatures
        members = self._members_with_keys(root_secret) if is_real else self._members_of_oracle(root_secret)
        for index, member in enumerate(members):
            address = f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}:4411"
            self.nodes[member.node] = SimulatedNode(self, member, address)
            self.paths.place(member.node)
        self.ids = list(self.nodes)
        self.counts = Counts(self.clock)
        self.is_audited = plan.nodes <= AUDITED_UP_TO
        self.rules = Rules(self.issued, {node: index for index, node in enumerate(self.ids)})
        stations: dict[NodeId, Station] = dict(self.nodes)
        self.wire = Wire(self.clock, self.paths, stations, plan.icmp)
        self.listeners: list[Callable[[SimulatedNode, Event], None]] = []
        self._pages = LargePages() if plan.nodes >= MANY_NODES else None

    def _members_with_keys(self, root_secret: bytes) -> list[Member]:
        keyring = Keyring(root_secret)
        self.mesh: MeshId = keyring.mesh
        self.issued = keyring.issued
        nodes = [keyring.enrol(self.rng.randbytes(32), Role.WORKER) for _ in range(self.plan.nodes)]
        return [Member(node, keyring.trust_of(node), keyring.chain_of(node)) for node in nodes]

    def _members_of_oracle(self, root_secret: bytes) -> list[Member]:
        oracle = Oracle()
        self.mesh = mesh_id_of(root_secret)
        self.issued = oracle.issued
        nodes = [node_id_of(self.rng.randbytes(32)) for _ in range(self.plan.nodes)]
        return [Member(node, oracle.trust_of(node, Role.WORKER), ORACLE_CHAIN) for node in nodes]

    # --- time ---

    def run(self, duration_s: float) -> None:
        """Lets virtual time pass."""
        self.clock.run_until(self.clock.now_s + duration_s)
        if self._pages is not None:
            self._pages.grown(self.clock.happened)

    def start_all(self) -> None:
        """Starts every node within `start_spread_s`; each knows the first `seeds` nodes."""
        seeds = {node: self.nodes[node].addresses for node in self.ids[: self.plan.seeds]}
        for node in self.nodes.values():
            node.known.update({peer: addresses for peer, addresses in seeds.items() if peer != node.node})
            self.clock.at(self.clock.now_s + self.rng.uniform(0, self.plan.start_spread_s), node.start)

    def settle(
        self, within_s: float, is_settled: Callable[[], bool] | None = None, step_s: float = SETTLE_STEP_S
    ) -> float | None:
        """Runs until `is_settled` (`all_know_all` unless given); the time it took, or None where it did not happen."""
        began_s = self.clock.now_s
        while self.clock.now_s - began_s < within_s:
            self.run(step_s)
            if (is_settled or self.all_know_all)():
                return self.clock.now_s - began_s
        return None

    def all_know_all(self) -> bool:
        """Every running node holds the newest parts of every running node as alive, and nobody else as living."""
        hashes = {node.machine.view_hash() for node in self.running() if node.machine is not None}
        return len(hashes) == 1 and self.statuses_right()

    def introduced(self) -> bool:
        """Every running node knows every running node's identity, offer and network part, and holds it alive."""
        if not self.statuses_right():
            return False
        ids = self.running_ids()
        return all(node.machine is not None and ids <= node.machine.described() for node in self.running())

    def statuses_right(self) -> bool:
        """Every running node holds exactly the running nodes as alive, and nobody as suspect."""
        ids = self.running_ids()
        return all(
            node.machine is None or (node.machine.live_count == len(ids) and node.machine.alive() == ids)
            for node in self.running()
        )

    def running_ids(self) -> set[NodeId]:
        return {node.node for node in self.running()}

    def running(self) -> list[SimulatedNode]:
        return [node for node in self.nodes.values() if node.is_running]

    def report(self, node: SimulatedNode, event: Event) -> None:
        """Every event any node reports passes here; listeners hear of all but newer parts, which are most."""
        self.rules.check(node.node, event, self.clock.now_s)
        self.counts.event(node.node, event)
        if type(event) is PeerUpdated:
            return
        for listener in self.listeners:
            listener(node, event)


def an_offer(capacity_gb: float, *, models: int = 0) -> OfferDraft:
    """An offer of one device of so many decimal GB."""
    usable_bytes = int(capacity_gb * GB)
    device = DeviceOffer(
        id="gpu0", kind="cuda", name="Simulated GPU", capacity_bytes=usable_bytes, usable_bytes=usable_bytes
    )
    return OfferDraft(devices=(device,), host_usable_bytes=16 * GB, inventory_known=True)
