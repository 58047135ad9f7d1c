"""The engine room of a node: runs its stages and models, and answers clients. Nodes without an engine only do the last.

What lives here: `EngineRoom`, the node's `StageRunner`. What does not: decisions about splits (`meshnode.split`), and
each single part: `stage` (this node as a worker), `runs` (as a coordinator), `api` (for clients).
Made and run by the node; told of plans by `meshnode.splits`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc
import psutil
from starlette.types import ASGIApp

from meshnode.config import NodeConfig
from meshnode.control.place import MAX_PATH_BYTES, require_private, socket_path
from meshnode.control.server import ControlServer, tcp_listener
from meshnode.engine.api.gate import ApiGate
from meshnode.engine.api.gateway import Gateway, GatewayPorts, WhyNot, serve_inner
from meshnode.engine.found import Engine
from meshnode.engine.runs.models import Models
from meshnode.engine.stage.stages import Stages
from meshnode.engine.weights.cache import LocalPackage, WeightsCache
from meshnode.engine.weights.holders import nearest_holder, shared_weights
from meshnode.engine.weights.source import StageWeights, WeightsSource, stage_weights
from meshnode.events import ApiFailed, ApiListening, ApiUnavailable, Event
from meshnode.membership.view import MeshView
from meshnode.service.notifying import port_holder
from meshnode.split import Gate, Held
from meshnode.tunnel import Opening, Purpose, Tunnel, Tunnels, engine_admission
from planner.plan import SplitPlan
from proto.ids import NodeId
from proto.messages import Fence, Message, StageReport
from proto.parts import FetchedLayers

API_HOST: Final = "127.0.0.1"
API_HOST_V6: Final = "::1"
INNER_SOCKET: Final = "api.sock"
SOCKETS_FOLDER: Final = "engine"
LONGEST_NAME: Final = 32
"""Bytes for a socket's name in that folder, its slash included."""


@dataclass(frozen=True)
class RoomPorts:
    """What the room needs of the node around it.

    `held` are this worker's stages; `package` what this node has of a model, by its name; `send` a message to a node;
    `fetched_changed` is called when `EngineRoom.fetched` has another answer; `failed` tells the desk that a run is over
    by itself (model, fence, whose part, why); `why_not` says why a model that this node pursues does not run.
    """

    view: Callable[[], MeshView]
    held: Callable[[], Iterable[Held]]
    package: Callable[[str], LocalPackage | None]
    send: Callable[[NodeId, Message], None]
    fetched_changed: Callable[[], None]
    failed: Callable[[str, Fence, NodeId, str], None]
    why_not: Callable[[str], WhyNot | None]


class EngineRoom:
    """All engine processes of one node, and its OpenAI-compatible interface. All calls from the event loop's thread."""

    def __init__(
        self,
        config: NodeConfig,
        engine: Engine | None,
        local: NodeId,
        tunnels: Tunnels,
        *,
        emit: Callable[[Event], None],
    ) -> None:
        self._config = config
        self.engine = engine
        self._local = local
        self._tunnels = tunnels
        self._emit = emit
        self._weights: WeightsCache | None = None
        self._stages: Stages | None = None
        self._models: Models | None = None
        self._gateway: Gateway | None = None
        self._directory = Path()
        self._ports: RoomPorts | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self.api_address = ""
        """Where clients are answered, once they are."""
        self.api_problem = ""
        """Why they are answered nowhere."""

    def attach(self, ports: RoomPorts) -> None:
        """Work with these from now on; once, before `run`."""
        self._ports = ports

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own every process and listener until cancelled. Started once stages and plans may come."""
        ports = self._ports
        assert ports is not None, "attached before"
        self._directory = _socket_directory(self._config.state_dir)
        gateway = Gateway(
            self._local, self._tunnels, GatewayPorts(ports.view, ports.why_not, self._emit, lambda: self._models)
        )
        servers: list[ControlServer] = []
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                if self.engine is not None:
                    self._begin(self.engine, ports)
                    assert self._weights is not None, "just made"
                    tasks.start_soon(self._weights.look)
                # Without an engine it can still say why a model that this node wants does not run.
                self._tunnels.offer(Purpose.API, self._serve_api, lambda _peer, _opening: None)
                servers.append(self._inner_server(gateway))
                servers += self._outer_servers(gateway)
                for server in servers:
                    tasks.start_soon(server.serve)
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._tasks = None
            _remove_socket_directory(self._directory, self._config.state_dir)

    def _begin(self, engine: Engine, ports: RoomPorts) -> None:
        threads = self._config.engine_threads or psutil.cpu_count(logical=False) or 1
        weights = self._weights = WeightsCache(
            self._config.state_dir / "weights", self._config.max_weights_cache, ports.package, self._tunnels.open,
            self._emit, engine.reach, self._nearest_holder, changed=ports.fetched_changed,
        )  # fmt: skip
        self._stages = Stages(
            engine, weights, threads=threads, emit=self._emit,
            tell=lambda report: ports.send(NodeId(report.fence.coordinator), report),
        )  # fmt: skip
        self._models = Models(
            engine, self._local, self._tunnels, self._directory,
            threads=threads, package=ports.package, emit=self._emit, failed=ports.failed,
        )  # fmt: skip
        self._tunnels.offer(Purpose.ENGINE, self._stages.serve, engine_admission(ports.held))
        source = WeightsSource(self._config.state_dir / "models", self._stage_weights, engine.reach)
        self._tunnels.offer(Purpose.WEIGHTS, source.serve, source.admit)

    def _nearest_holder(self, model: str, manifest: str, coordinator: NodeId) -> NodeId | None:
        assert self._ports is not None, "attached before"
        return nearest_holder(self._ports.view(), model, manifest, coordinator)

    def _stage_weights(self, worker: NodeId, opening: Opening) -> StageWeights | str:
        assert self._models is not None, "offered once it is there"
        assert self._ports is not None, "attached before"
        if opening.fence is not None and opening.fence.coordinator != self._local:
            return shared_weights(self._ports.view(), self._ports.package(opening.model), worker, opening)
        run = self._models.get(opening.model)
        running = None if run is None else (run.plan, run.fence)
        return stage_weights(running, self._ports.package(opening.model), worker, opening)

    # --- clients ---

    async def _serve_api(self, tunnel: Tunnel) -> None:
        await serve_inner(tunnel, str(self._directory / INNER_SOCKET))

    def _inner_server(self, gateway: Gateway) -> ControlServer:
        from meshnode.engine.serving.process import listen_at

        listener = listen_at(str(self._directory / INNER_SOCKET))
        listener.setblocking(False)
        return ControlServer(gateway.app(inner=True), listener)

    def _outer_servers(self, gateway: Gateway) -> list[ControlServer]:
        """None where the port is taken: the node serves its mesh all the same. `localhost` is `::1` for many clients,
        so that is listened on too, where this machine has it and nobody else does."""
        port = self._config.api_port
        app: ASGIApp = ApiGate(gateway.app(inner=False), self._config.api_key, self._stalled)
        try:
            listener = tcp_listener(API_HOST, port)
        except OSError as error:
            reason = f"{error.strerror or error}{port_holder(port, 'tcp')}"
            advice = "set api_port to a free port, or to 0 for any"
            self.api_problem = f"{API_HOST}:{port}: {reason}; {advice}"
            self._emit(ApiUnavailable(f"{API_HOST}:{port}", reason, advice))
            return []
        port = listener.getsockname()[1]
        self.api_address = f"http://{API_HOST}:{port}/v1"
        self._emit(ApiListening(self.api_address))
        listeners = [listener]
        with suppress(OSError):
            listeners.append(tcp_listener(API_HOST_V6, port))
        return [ControlServer(app, each) for each in listeners]

    def _stalled(self, reason: str) -> None:
        self._emit(ApiFailed("", self._local, reason))

    # --- StageRunner ---

    def start_stage(self, held: Held) -> None:
        """See `StageRunner`. A coordinator's own layers are loaded by its model's process."""
        is_own = held.fence.coordinator == self._local or not held.ranges
        if not is_own and self._stages is not None and self._tasks is not None:
            self._stages.start(held, self._tasks)

    def stop_stage(self, held: Held, reason: str) -> None:
        """See `StageRunner`."""
        if self._stages is not None:
            self._stages.stop(held)
        self._tunnels.cut(reason, model=held.model, fence=held.fence)

    def run_plan(self, model: str, plan: SplitPlan, fence: Fence) -> None:
        """See `StageRunner`."""
        if self._models is not None and self._tasks is not None:
            self._models.run(model, plan, fence, self._tasks)

    def stop_plan(self, model: str, fence: Fence, reason: str) -> None:
        """See `StageRunner`."""
        if self._models is not None:
            self._models.stop(model, fence, reason)
        self._tunnels.cut(reason, model=model, fence=fence)

    def set_gate(self, model: str, gate: Gate) -> None:
        """See `StageRunner`."""
        if self._models is not None:
            self._models.set_gate(model, gate)

    # --- what else it is told, and tells ---

    def stage_reported(self, worker: NodeId, message: Message) -> None:
        """A worker tells how its stage of a plan of this node's is."""
        if isinstance(message, StageReport) and self._models is not None:
            self._models.stage_reported(worker, message)

    def fetched(self) -> Mapping[str, tuple[FetchedLayers, ...]]:
        """By model, the layers that this node fetched from coordinators and keeps."""
        return {} if self._weights is None else self._weights.fetched

    def pids(self) -> frozenset[int]:
        """Processes whose memory is this node's own: what they hold is reserved, and not somebody else's."""
        stages = frozenset() if self._stages is None else self._stages.pids()
        return stages | (frozenset() if self._models is None else self._models.pids())

    def status(self, model: str) -> dict[str, Any] | None:
        """How far `model` is on this node; None where it is not run here."""
        return None if self._models is None else self._models.status(model)


def _socket_directory(state_dir: Path) -> Path:
    """An empty folder that only this user can enter: in the state directory, or beside the control socket's usual place
    where that path would be too long for a socket's address. Raises `OSError`, and `SocketPlaceError` where somebody
    else has made a folder of that name."""
    folder = state_dir / SOCKETS_FOLDER
    above: tuple[Path, ...] = ()
    if len(os.fsencode(folder)) + LONGEST_NAME > MAX_PATH_BYTES:
        folder = socket_path(state_dir, None).parent / SOCKETS_FOLDER
        above = (folder.parent.parent, folder.parent)
    for each in above:
        each.mkdir(mode=0o700, exist_ok=True)
        require_private(each)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    require_private(folder)
    return folder


def _remove_socket_directory(folder: Path, state_dir: Path) -> None:
    """Leave nothing of it, nor of the one made for it outside the state directory unless the control socket is there,
    which goes later and takes it along."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent != state_dir:
        with suppress(OSError):
            folder.parent.rmdir()
