"""One running node: every room wired together, from the bound socket to the last goodbye.

What lives here: `Node.live`, `Stop`. What does not: the process around it (`meshnode.daemon`), the rooms' rules, and
the answers of the control interface (`meshnode.answers`). Called by the daemon.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio
import anyio.abc

from meshnode import __version__
from meshnode.admission import Admission, MemberGate, MemberTrust
from meshnode.answers import Answers, Examine
from meshnode.calling import Calling
from meshnode.config import NodeConfig
from meshnode.config.values import SocketAddress
from meshnode.control.access import TokenGate, ensure_token
from meshnode.control.app import control_app
from meshnode.control.live import Live
from meshnode.control.metrics import EventCounts
from meshnode.control.page_door import PAGE_FILE, PAGE_FIX, PageDoor, PageFile
from meshnode.control.place import bind, note_path, socket_path, withdraw
from meshnode.control.ring import EventRing
from meshnode.control.server import ControlServer, tcp_listener
from meshnode.control.shapes import Json
from meshnode.engine.found import Engine, NoEngine, find_engine, reach_of
from meshnode.engine.room import EngineRoom
from meshnode.events import ControlListening, ControlRefused, EngineFound, EngineMissing, NodeStarted, NodeStopping
from meshnode.keeping import Keeper
from meshnode.listening import listening
from meshnode.logs import EventLog
from meshnode.membership.local import LocalNode
from meshnode.membership.machine import Membership
from meshnode.membership.settings import PRESETS
from meshnode.mesh import Mesh
from meshnode.planning import Questions
from meshnode.reaching import Reaching
from meshnode.service.notifying import port_holder, sd_notify
from meshnode.splits import Splits
from meshnode.state import StateDirectory
from meshnode.transport.addresses import parse_address
from meshnode.transport.clock import boottime_s
from meshnode.transport.endpoint import Endpoint
from meshnode.transport.settings import TransportSettings
from meshnode.tunnel import MeshPaths, Tunnels, TunnelSettings
from proto.credential import BadCredential, BadCredentialReason
from proto.ids import short
from proto.messages import ConfirmRequest
from proto.parts import Role

GOODBYE_S = 0.15
"""Time for `left` to reach the peers before their links are closed."""


class Recent:
    """What the control interface tells of the past. Made before the node enters its mesh, so that `meshnode events`
    begins with how it did."""

    def __init__(self, log: EventLog) -> None:
        self.ring = EventRing()
        self.counts = EventCounts()
        log.listen(self.ring.add)
        log.listen(self.counts.add)


class NodeFailed(Exception):
    """The node can't go on: why, and what to do."""

    def __init__(self, text: str, advice: str) -> None:
        self.text = text
        self.advice = advice
        super().__init__(text)


class Stop:
    """Why the node stops, once it does; the first cause counts."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self.cause = ""
        self.failure: NodeFailed | None = None

    def because(self, cause: str) -> None:
        """Stop cleanly."""
        if not self.is_set():
            self.cause = cause
            self._event.set()

    def fail(self, text: str, advice: str) -> None:
        """Stop, and say that something is wrong."""
        if not self.is_set():
            self.failure = NodeFailed(text, advice)
        self.because(text)

    def is_set(self) -> bool:
        """True once the node shall stop."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Until the node shall stop."""
        await self._event.wait()


class Room(Protocol):
    """A part of the node that goes by the configuration while it runs."""

    def configure(self, config: NodeConfig) -> None: ...


class Node:
    """One node's life. `live` returns after a clean stop and raises `NodeFailed` after any other; so does making it for
    a node that is no member any more."""

    def __init__(
        self,
        config: NodeConfig,
        state: StateDirectory,
        admission: Admission,
        log: EventLog,
        recent: Recent,
        stop: Stop,
    ) -> None:
        self._config = config
        self._state = state
        self._admission = admission
        self._log = log
        self._stop = stop
        self._identity = admission.identity
        self._name = config.name or socket.gethostname()[:40]
        self._role = self._role_now()
        self._recent = recent
        self._rooms: tuple[Room, ...] = ()
        self._socket_path: Path | None = None

    def configure(self, config: NodeConfig) -> None:
        """Go by `config` from now on, in what can change while the node runs."""
        self._config = config
        for room in self._rooms:
            room.configure(config)

    async def live(self) -> None:
        """Start, run until told to stop, leave."""
        engine = await self._engine()
        local = self._local(engine)
        mesh = Mesh(
            self._machine(local),
            local,
            self._admission,
            clock=boottime_s,
            emit=self._log.emit,
            persist_incarnation=self._state.persist_incarnation,
            identity_in_use=self._identity_in_use,
            removed=self._removed,
        )
        async with AsyncExitStack() as stack:
            self._trace(stack)
            endpoint = await listening(
                stack, self._config.listen, self._state, partial(self._endpoint, mesh), self._log.emit
            )
            mesh.attach(endpoint)
            tunnels = self._tunnels(mesh, endpoint)
            room = EngineRoom(self._config, engine, self._identity.node, tunnels, emit=self._log.emit)
            splits = Splits(
                self._config, self._state, self._identity.node, mesh, room, clock=boottime_s, emit=self._log.emit
            )
            keeper = self._keeper(mesh, splits, endpoint.bound_addresses)
            splits.on_change(keeper.offer)
            mesh.on_removal(splits.members_removed)
            mesh.handle(ConfirmRequest, keeper.confirm)
            mesh.on_removal(tunnels.members_removed)
            stack.callback(self._withdraw)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            answers = Answers(
                self._config, self._admission, mesh, keeper, splits, tunnels, self._questions(mesh, keeper, tasks),
                endpoint.counters, self._recent.counts,
                examine=self._examining(mesh, endpoint, keeper, tasks), bound=endpoint.bound_addresses,
                role=self._role, name=self._name, emit=self._log.emit,
            )  # fmt: skip
            live = Live(answers, self._recent.ring)
            door = self._page_door(answers, live, tasks)
            servers = self._control_servers(answers, live, door)
            for server in servers:
                tasks.start_soon(server.serve)
            door.reopen()
            await tasks.start(tunnels.run)
            await self._begin(tasks, mesh, keeper, self._calling(mesh, endpoint, keeper), endpoint.bound_addresses)
            await tasks.start(room.run)
            tasks.start_soon(splits.run)
            # Splits before the keeper, whose look at the models begins pursuits.
            self._rooms = (splits, keeper, answers)
            await self._stop.wait()
            self._rooms = ()
            splits.stop()
            await self._leave(mesh, keeper, [*servers, door])
            tasks.cancel_scope.cancel()
        if self._stop.failure is not None:
            raise self._stop.failure

    # --- the parts ---

    def _trace(self, stack: AsyncExitStack) -> None:
        """Send traces for as long as `stack` lasts, where the config says so."""
        if self._config.otlp_endpoint is None:
            return
        from meshnode.tracing import TracingUnavailable, traced

        try:
            stack.enter_context(traced(self._config.otlp_endpoint, self._identity.node, self._name, self._log.listen))
        except TracingUnavailable as error:
            raise NodeFailed(error.text, error.advice) from error

    def _role_now(self) -> Role:
        try:
            return self._admission.standing(int(time.time())).role
        except BadCredential as error:
            why = f"this node is no member any more: {error.reason.value} ({error.found})"
            raise NodeFailed(why, _way_back(error.reason)) from error

    async def _engine(self) -> Engine | None:
        """The engine of this machine, tried out before anybody hears of it; a client needs none."""
        if self._role is Role.CLIENT:
            return None
        try:
            engine = await find_engine(self._config.rpc_server, self._config.llama_server, reach_of(self._config))
        except NoEngine as missing:
            self._log.emit(EngineMissing(missing.reason, missing.advice))
            return None
        kind, rpc = engine.kind.value, str(engine.rpc_version)
        bounds = engine.confinement
        self._log.emit(EngineFound(engine.version, kind, rpc, engine.private_network, bounds.landlock, bounds.sockets))
        return engine

    def _local(self, engine: Engine | None) -> LocalNode:
        return LocalNode(
            node=self._identity.node,
            mesh=self._admission.mesh,
            role=self._role,
            boot_id=self._identity.boot_id,
            incarnation=self._state.begin_incarnation(),
            chain=self._admission.chain,
            software=f"meshnode {__version__}",
            name=self._name,
            engine=None if engine is None else engine.word,
        )

    def _machine(self, local: LocalNode) -> Membership:
        settings = replace(PRESETS[self._config.network], max_links=self._config.max_links)
        rng = random.Random(os.urandom(16))
        return Membership(local, settings, MemberTrust(self._admission, time.time), rng, boottime_s())

    def _endpoint(self, mesh: Mesh, listen: SocketAddress) -> Endpoint:
        gate = MemberGate(self._admission, time.time, boottime_s, self._log.emit)
        settings = TransportSettings(max_links=4 * self._config.max_links)
        software = f"meshnode {__version__}"
        return Endpoint(self._identity, self._admission.mesh, gate, [str(listen)], settings, mesh, software=software)

    def _tunnels(self, mesh: Mesh, endpoint: Endpoint) -> Tunnels:
        settings = TunnelSettings(carrier=self._config.tunnel_carrier, tcp_port=self._config.tunnel_tcp_port)
        return Tunnels(
            self._identity, MeshPaths(mesh, endpoint), settings,
            listen=parse_address(endpoint.bound_addresses[0]), scratch=self._state.path, emit=self._log.emit,
        )  # fmt: skip

    def _keeper(self, mesh: Mesh, splits: Splits, bound: tuple[str, ...]) -> Keeper:
        return Keeper(
            self._config, self._state, self._admission, mesh,
            role=self._role, bound=bound, emit=self._log.emit, splits=splits,
        )  # fmt: skip

    def _calling(self, mesh: Mesh, endpoint: Endpoint, keeper: Keeper) -> Calling:
        calling = Calling(
            self._identity.node, self._admission.mesh, mesh, endpoint, keeper.known_members, lambda: keeper.addresses,
            clock=boottime_s, emit=self._log.emit,
        )  # fmt: skip
        endpoint.take_calls(calling.heard)
        return calling

    def _questions(self, mesh: Mesh, keeper: Keeper, tasks: anyio.abc.TaskGroup) -> Questions:
        return Questions(self._config, mesh, tasks, clock=boottime_s, emit=self._log.emit, inventory=keeper.inventory)

    def _page_door(self, answers: Answers, live: Live, tasks: anyio.abc.TaskGroup) -> PageDoor:
        store = self._state.file(PAGE_FILE, PageFile, PAGE_FIX)
        return PageDoor(
            store, answers, live, tasks,
            port=self._config.page_port, emit=self._log.emit, refused=self._control_refused,
        )  # fmt: skip

    def _examining(self, mesh: Mesh, endpoint: Endpoint, keeper: Keeper, tasks: anyio.abc.TaskGroup) -> Examine:
        reaching = Reaching(mesh, endpoint, tasks, clock=boottime_s)
        reaching.listen()

        async def examine(config: NodeConfig) -> Json:
            # A node that nobody examines need not hold what examines it.
            from meshnode.doctor.examining import Examiner

            return await Examiner(
                config, mesh, reaching, self._recent.ring,
                addresses=lambda: keeper.addresses, bound=endpoint.bound_addresses, role=self._role,
            ).examine()  # fmt: skip

        return examine

    def _control_servers(self, answers: Answers, live: Live, door: PageDoor) -> list[ControlServer]:
        """The Unix socket, and loopback TCP if asked for. Raises `SocketPlaceError`, `StateError`, `NodeFailed`."""
        app = control_app(answers, self._recent.ring, live=live, door=door)
        path = socket_path(self._config.state_dir, self._config.control_socket)
        listener = bind(path, configured=self._config.control_socket is not None)
        self._socket_path = path
        note_path(self._state.path, path)
        servers = [ControlServer(app, listener)]
        self._log.emit(ControlListening(address=str(path)))
        if (address := self._config.control_tcp) is not None:
            gate = TokenGate(app, ensure_token(self._state.path), self._control_refused)
            servers.append(ControlServer(gate, _control_tcp(address)))
            self._log.emit(ControlListening(address=str(address)))
        return servers

    def _withdraw(self) -> None:
        """Leave nothing of the control socket behind; what the engine had beside it is gone by then."""
        if self._socket_path is not None:
            withdraw(self._socket_path, configured=self._config.control_socket is not None)

    # --- beginning and end ---

    async def _begin(
        self, tasks: anyio.abc.TaskGroup, mesh: Mesh, keeper: Keeper, calling: Calling, bound: tuple[str, ...]
    ) -> None:
        keeper.look_at_addresses()
        await keeper.look_at_machine()
        tasks.start_soon(mesh.run)
        tasks.start_soon(keeper.watch_machine)
        tasks.start_soon(keeper.watch_addresses)
        tasks.start_soon(keeper.watch_members)
        tasks.start_soon(keeper.inventory.watch)
        if not self._config.quiet_lan:
            tasks.start_soon(calling.run)
        keeper.recall_members()
        self._log.emit(
            NodeStarted(
                node=self._identity.node, mesh=self._admission.mesh, role=self._role.value, listen=", ".join(bound),
                incarnation=mesh.incarnation, state_directory=str(self._state.path), pid=os.getpid(),
                version=__version__,
            )
        )  # fmt: skip
        sd_notify("READY=1")

    async def _leave(self, mesh: Mesh, keeper: Keeper, servers: Sequence[ControlServer | PageDoor]) -> None:
        """Say goodbye and close what others are connected to; the endpoint closes with its block."""
        self._log.emit(NodeStopping(node=self._identity.node, cause=self._stop.cause))
        sd_notify("STOPPING=1")
        keeper.store_members()
        mesh.leave()
        self._recent.ring.close()
        for server in servers:
            server.quit()
        await anyio.sleep(GOODBYE_S)

    # --- what must not go on ---

    def _identity_in_use(self, text: str) -> None:
        advice = "stop the other process, or give this one its own --state-dir and a new invite"
        self._stop.fail(f"another process runs with this node's key: {text}", advice)

    def _removed(self) -> None:
        text = f"this node was removed from mesh {short(self._admission.mesh)}"
        self._stop.fail(text, _way_back(BadCredentialReason.REVOKED))

    def _control_refused(self, route: str, reason: str) -> None:
        self._log.emit(ControlRefused(route=route, reason=reason))


def _way_back(reason: BadCredentialReason) -> str:
    """How a node returns whose credential counts no more. A removed key never does."""
    if reason is BadCredentialReason.REVOKED:
        return "to return it needs an empty --state-dir and a new invite"
    return "forget that mesh with `meshnode leave`, then join with a new invite"


def _control_tcp(address: SocketAddress) -> socket.socket:
    """The listener of `control_tcp`. Raises `NodeFailed`."""
    try:
        return tcp_listener(address.host, address.port)
    except OSError as error:
        reason = f"{error.strerror or error}{port_holder(address.port, 'tcp')}"
        advice = "set control_tcp to a free port, or leave it out"
        raise NodeFailed(f"control_tcp {address}: {reason}", advice) from error
