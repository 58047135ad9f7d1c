"""What a running node looks after: its offer, its addresses, the members it remembers.

What lives here: `Keeper`, a few slow loops around the driver. What does not: looking at the machine
(`meshnode.resources`), choosing addresses (`meshnode.addresses`), deciding when the mesh hears of a change
(`meshnode.membership`). Run by the daemon in its task group.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
import anyio.to_thread

from meshnode.addresses import interface_addresses, own_addresses
from meshnode.admission import Admission
from meshnode.config import NodeConfig
from meshnode.config.values import SocketAddress, socket_address
from meshnode.confirming import confirmation
from meshnode.durable import StateError
from meshnode.events import (
    CapacityChanged,
    CapacityFinding,
    CapacityNone,
    CapacityWarning,
    Event,
    NodeDraining,
    StateUnsaved,
)
from meshnode.inventory import Inventory
from meshnode.membership.view import MeshView
from meshnode.mesh import Mesh
from meshnode.offers import nothing_to_offer, offer_draft, survey
from meshnode.resources import CapacitySource, FindingCode, MachineCapacity, Severity, capacity_changed_enough
from meshnode.splits import Splits
from meshnode.state import KnownPeer, StateDirectory
from proto.ids import NodeId
from proto.messages import ConfirmRequest, Message
from proto.parts import Role

ADDRESSES_INTERVAL_S = 15.0
"""Laptops change networks; looking costs a system call."""
PEERS_INTERVAL_S = 20.0
"""How much news about members a crash may lose; each store is one small synced file."""


class Keeper:
    """Looks after one node."""

    def __init__(
        self,
        config: NodeConfig,
        state: StateDirectory,
        admission: Admission,
        mesh: Mesh,
        *,
        role: Role,
        bound: tuple[str, ...],
        emit: Callable[[Event], None],
        splits: Splits,
    ) -> None:
        self._config = config
        self._state = state
        self._admission = admission
        self._mesh = mesh
        self._role = role
        self._bound = socket_address(bound[0])
        self._emit = emit
        self._splits = splits
        self.capacity: MachineCapacity | None = None
        self._announced: MachineCapacity | None = None
        self._told: frozenset[tuple[FindingCode, str]] = frozenset()
        self.inventory = Inventory(config, self._models_changed, emit)
        self.draining = False
        self.addresses: tuple[str, ...] = ()
        self._remembered: tuple[KnownPeer, ...] = state.known_peers()
        self._look_now = anyio.Event()

    def configure(self, config: NodeConfig) -> None:
        """Go by `config` from now on."""
        self._config = config
        self.inventory.configure(config)
        self.look_at_addresses()
        self.recall_members()
        self._look_now.set()

    # --- what this machine gives ---

    async def look_at_machine(self) -> None:
        """One survey, off the event loop, and what follows from it."""
        capacity = await anyio.to_thread.run_sync(survey, self._config, self._splits.engine_pids())
        first = self.capacity is None
        self.capacity = capacity
        self._splits.machine_seen(capacity)
        self._tell_findings(capacity)
        if first or self._announced is None or capacity_changed_enough(self._announced, capacity):
            if self._role is Role.WORKER:
                self._tell_change(capacity, self._announced)
            self._announced = capacity
        self.offer()

    def drain(self, draining: bool) -> None:
        """Tell the mesh that this node takes no new stages, or takes them again."""
        if draining is not self.draining:
            self.draining = draining
            self._emit(NodeDraining(draining=draining))
            self._splits.drain(draining)
            self.offer()

    def offer(self) -> None:
        """Hand the driver what this node offers now: after a survey, a reservation, a change of inventory."""
        if self.capacity is None:
            return
        self._mesh.publish_offer(
            offer_draft(
                self.capacity,
                config=self._config,
                role=self._role,
                models=self.inventory.offers(self._splits.generations(), self._splits.fetched()),
                inventory_known=self.inventory.is_known,
                reserved=self._splits.reserved(),
                draining=self.draining,
                transfer=self._splits.has_engine,
            )
        )

    def _models_changed(self) -> None:
        self._splits.models_seen(self.inventory.entries)
        self.offer()

    async def watch_machine(self) -> None:
        """Survey for ever."""
        while True:
            with anyio.move_on_after(self._config.capacity_interval_s):
                await self._look_now.wait()
            self._look_now = anyio.Event()
            await self.look_at_machine()

    def _tell_findings(self, capacity: MachineCapacity) -> None:
        """Each finding when it appears, not again when its figures move a little."""
        for finding in capacity.findings:
            if (finding.code, finding.subject) in self._told or finding.severity is Severity.ERROR:
                continue
            if finding.severity is Severity.WARNING:
                self._emit(CapacityWarning(device=finding.subject, finding=finding.message))
            else:
                self._emit(CapacityFinding(device=finding.subject, finding=finding.message))
        nothing = nothing_to_offer(capacity)
        if nothing is not None and (nothing.code, nothing.subject) not in self._told and self._role is Role.WORKER:
            self._emit(CapacityNone(reason=nothing.found, advice=nothing.advice))
        self._told = frozenset((finding.code, finding.subject) for finding in capacity.findings)

    def _tell_change(self, capacity: MachineCapacity, before: MachineCapacity | None) -> None:
        declared = any(device.source is CapacitySource.DECLARED for device in capacity.devices)
        source = CapacitySource.DECLARED if declared else CapacitySource.MEASURED
        old_bytes, old_host_bytes = (0, 0) if before is None else (before.usable_bytes, before.host_usable_bytes)
        self._emit(
            CapacityChanged(
                usable_bytes=capacity.usable_bytes, old_usable_bytes=old_bytes,
                host_usable_bytes=capacity.host_usable_bytes, old_host_usable_bytes=old_host_bytes,
                devices=len(capacity.devices), source=source.value,
            )
        )  # fmt: skip

    def confirm(self, peer: NodeId, message: Message) -> None:
        """Answer a split that asks for this node's figures directly."""
        assert isinstance(message, ConfirmRequest), "registered for this type"
        answer = confirmation(
            message,
            self.capacity,
            role=self._role,
            reserved=self._splits.reserved(),
            inventory=self.inventory,
            draining=self.draining,
        )
        self._mesh.send(peer, answer)

    # --- where it answers ---

    def look_at_addresses(self) -> None:
        """Tell the mesh where this node answers, if that changed."""
        found = own_addresses(
            SocketAddress(self._bound.host, self._bound.port),
            self._config.advertise,
            interface_addresses(),
            self._mesh.observed_addresses(),
        )
        if found != self.addresses:
            self.addresses = found
            self._mesh.set_addresses(found)

    async def watch_addresses(self) -> None:
        """Look for ever."""
        while True:
            await anyio.sleep(ADDRESSES_INTERVAL_S)
            self.look_at_addresses()

    # --- whom it remembers ---

    def recall_members(self) -> None:
        """Give the driver the members known from before, and those the config names."""
        self._mesh.know(self.known_members())

    def known_members(self) -> dict[NodeId, tuple[str, ...]]:
        """The members known from before, and those the config names, with their addresses."""
        known: dict[NodeId, tuple[str, ...]] = {NodeId(peer.node): peer.addresses for peer in self._remembered}
        for peer in self._config.peers:
            known[peer.node] = tuple(dict.fromkeys((str(peer.address), *known.get(peer.node, ()))))
        known.pop(self._admission.identity.node, None)
        return known

    async def watch_members(self) -> None:
        """Store members for ever, when something changed."""
        while True:
            await anyio.sleep(PEERS_INTERVAL_S)
            if self._members_changed():
                # A slow disk must not keep the node from answering: to its peers that looks like a death.
                self._tell_unsaved(await anyio.to_thread.run_sync(self._save_members, self._remembered))

    def store_members(self) -> None:
        """Keep every member's addresses and chain for the next start, if they changed."""
        if self._members_changed():
            self._tell_unsaved(self._save_members(self._remembered))

    def _members_changed(self) -> bool:
        found = _members(self._mesh.view(), self._admission, self._remembered)
        if _without_times(found) == _without_times(self._remembered):
            return False
        self._remembered = found
        return True

    def _save_members(self, found: tuple[KnownPeer, ...]) -> StateError | None:
        try:
            self._state.save_known_peers(found)
        except StateError as error:
            return error
        return None

    def _tell_unsaved(self, error: StateError | None) -> None:
        if error is not None:
            self._emit(StateUnsaved(path=str(error.path), problem=error.found, advice=error.fix))


def _members(view: MeshView, admission: Admission, before: tuple[KnownPeer, ...]) -> tuple[KnownPeer, ...]:
    """Who is in the view, with the freshest addresses; and whom only the last run knew. Removed nodes are dropped."""
    now_unix_s = int(time.time())
    found = {peer.node: peer for peer in before}
    for node in view.nodes.values():
        if node.node == view.local or node.identity is None:
            continue
        linked = () if node.link is None else (node.link.address,)
        addresses = tuple(dict.fromkeys((*linked, *node.identity.addresses)))[:16]
        age_s = int(node.last_contact_age_s or 0.0)
        found[node.node] = KnownPeer(node.node, addresses, node.identity.chain, max(0, now_unix_s - age_s))
    kept = [peer for peer in found.values() if not admission.roll.is_cut(NodeId(peer.node))]
    return tuple(sorted(kept, key=lambda peer: peer.node))


def _without_times(peers: tuple[KnownPeer, ...]) -> set[tuple[str, tuple[str, ...], tuple[bytes, ...]]]:
    return {(peer.node, peer.addresses, peer.chain) for peer in peers}
