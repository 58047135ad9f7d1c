"""The splits of a running node: the models it pursues, and the stages it holds for others.

What lives here: `Splits`, which joins `meshnode.split.SplitDesk` to this node: its links, its state directory, its
config. What does not: every decision about a split (`meshnode.split`). Made by the node, run in its task group.

A model named in the config is pursued as soon as its figures are known. Without an engine (`meshnode.engine`) nothing
is carried out: a pursuit ends in a plan, or in a shortfall that says what is short, and begins anew when the mesh
changes; stages that others ask for are refused with that reason.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from meshnode.asking import asked_of, parse_wish
from meshnode.config import NodeConfig
from meshnode.durable import StateError
from meshnode.engine.api.gateway import WhyNot
from meshnode.engine.room import EngineRoom, RoomPorts
from meshnode.engine.weights.cache import LocalPackage
from meshnode.events import ConfigInvalid, Event, StateUnsaved
from meshnode.inventory import packages_of
from meshnode.mesh import Mesh
from meshnode.models import InventoryEntry
from meshnode.models.package import ModelPackage, PackageKind
from meshnode.offers import MAX_WORD
from meshnode.planning import plan_or_refusal, settle_settings, split_request
from meshnode.readiness import InvalidRequest, Purpose
from meshnode.resources import MachineCapacity
from meshnode.split import (
    HOST_MEMORY,
    SPLIT_MESSAGES,
    DeskPorts,
    FenceFile,
    Fences,
    Phase,
    PlanAsked,
    Pursuit,
    PursuitSettings,
    Reservations,
    SplitDesk,
)
from meshnode.state import StateDirectory
from planner import InvalidPlanInput
from proto.engines import RpcVersion
from proto.ids import NodeId
from proto.messages import StageReport
from proto.parts import FetchedLayers

FENCES_FIX = "delete it: coordinators then learn the generations to go above from their workers' refusals"
NO_ENGINE = "this node has no engine to run stages with"
DRAINING = "this node is draining"
_SOON: Final = {
    Phase.PLANNING: "a plan is being made",
    Phase.RESERVING: "its stages are being reserved",
    Phase.RUNNING: "its plan begins to run",
    Phase.REPLANNING: "it is being replanned",
}
"""Phases of a pursuit that end by themselves, for clients."""
_WAITING: Final = (Phase.WAITING, Phase.BELOW_QUORUM)


class Splits:
    """All splits of one node. All calls from the event loop's thread."""

    def __init__(
        self,
        config: NodeConfig,
        state: StateDirectory,
        local: NodeId,
        mesh: Mesh,
        room: EngineRoom,
        *,
        clock: Callable[[], float],
        emit: Callable[[Event], None],
    ) -> None:
        """Raises `StateError` where the stored promises are damaged."""
        self._config = config
        self._room = room
        self._local = local
        self._emit = emit
        self._file = state.file("fences.json", FenceFile, FENCES_FIX)
        self._fences = Fences(self._file.load())
        self._reservations = Reservations(local, self._fences)
        self._generations: dict[str, int] = {}
        self._pursued: dict[str, ModelPackage] = {}
        self._changed: Callable[[], None] = lambda: None
        ports = DeskPorts(
            post=mesh.send,
            emit=emit,
            store_fences=self._store_fences,
            reserved_changed=lambda _: self._changed(),
            advertise=self._advertise,
            stages=room,
            make_plan=plan_or_refusal,
        )
        self._desk = SplitDesk(local, mesh, clock, self._reservations, ports)
        self._local_packages: dict[str, LocalPackage] = {}
        self._unreadable: dict[str, str] = {}
        self._at_hand: list[ModelPackage] = []
        self._draining = False
        self._capacity: MachineCapacity | None = None
        room.attach(
            RoomPorts(
                view=mesh.view, held=self._reservations.held, package=self._package, send=mesh.send,
                fetched_changed=self._fetched_changed, failed=self._desk.run_failed, why_not=self._why_not,
            )
        )  # fmt: skip
        for kind in SPLIT_MESSAGES:
            mesh.handle(kind, self._desk.receive)
        mesh.handle(StageReport, room.stage_reported)

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call `changed` when what this node can offer changed: bytes reserved, or a model it coordinates."""
        self._changed = changed

    def configure(self, config: NodeConfig) -> None:
        """Go by `config` for what begins from now on."""
        self._config = config

    async def run(self) -> None:
        """Drive everything until cancelled."""
        await self._desk.run()

    def stop(self) -> None:
        """The node stops: give everything back, in good time for the peers to hear it."""
        self._desk.stop("the node stops")

    # --- what the node tells it ---

    def machine_seen(self, capacity: MachineCapacity) -> None:
        """What stages may fill now."""
        self._capacity = capacity
        self._offer()

    def drain(self, draining: bool) -> None:
        """Take no new stages, or take them again."""
        self._draining = draining
        self._offer()

    def _offer(self) -> None:
        if self._capacity is None:
            return
        usable = {device.id[:MAX_WORD]: device.usable_bytes for device in self._capacity.devices}
        refuses = NO_ENGINE if self._room.engine is None else DRAINING if self._draining else None
        self._reservations.offer({**usable, HOST_MEMORY: self._capacity.host_usable_bytes}, refuses)

    def models_seen(self, entries: Iterable[InventoryEntry]) -> None:
        """Pursue every model of the config whose figures are known; a changed file is a new pursuit."""
        entries = tuple(entries)
        self._at_hand = packages_of(entries)
        wanted = {
            entry.name: entry for entry in entries if entry.ref in self._config.models and entry.whole is not None
        }
        for name in [name for name in self._pursued if name not in wanted]:
            self._drop(name, "its files are gone, or the config names it no more")
        self._unreadable = {
            entry.name: str(entry.error)
            for entry in entries
            if entry.ref in self._config.models and entry.whole is None and entry.error is not None
        }
        self._local_packages = {
            entry.name: LocalPackage(entry.whole, entry.manifest)
            for entry in entries
            if entry.whole is not None and entry.manifest is not None and entry.whole.kind is PackageKind.GGUF
        }
        for name, entry in wanted.items():
            if entry.whole is not None and self._pursued.get(name) != entry.whole:
                if name in self._pursued:
                    self._drop(name, "its files changed")
                self._pursue(entry, entry.whole)

    def members_removed(self, nodes: Iterable[NodeId]) -> None:
        """These nodes are no members any more: what they coordinate here ends at once."""
        self._desk.removed(frozenset(nodes))

    # --- what it tells the node ---

    def reserved(self) -> dict[str, int]:
        """Bytes held by running splits, by device."""
        return self._reservations.reserved()

    def generations(self) -> Mapping[str, int]:
        """The plan's number of every model that this node coordinates now."""
        return self._generations

    def fetched(self) -> Mapping[str, tuple[FetchedLayers, ...]]:
        """By model, the layers that this node fetched from coordinators and keeps."""
        return self._room.fetched()

    def _fetched_changed(self) -> None:
        self._changed()

    @property
    def has_engine(self) -> bool:
        """Whether stages can run here."""
        return self._room.engine is not None

    @property
    def engine_word(self) -> str | None:
        """The engine as the mesh is told of it; None where there is none."""
        return None if self._room.engine is None else self._room.engine.word

    @property
    def api_address(self) -> str:
        """Where clients of models are answered; nothing where the port is taken."""
        return self._room.api_address

    @property
    def api_problem(self) -> str:
        """Why clients of models are answered nowhere; nothing where they are."""
        return self._room.api_problem

    def engine_pids(self) -> frozenset[int]:
        """Processes whose memory is reserved, and not somebody else's."""
        return self._room.pids()

    def status(self) -> list[dict[str, object]]:
        """Plain JSON of every pursuit and every stage held."""
        room, shown = self._room, self._desk.status()
        return [{"state": each["phase"], "run": room.status(each["model"]), **each} for each in shown]

    # --- pieces ---

    def _pursue(self, entry: InventoryEntry, package: ModelPackage) -> None:
        try:
            request = replace(
                split_request(self._config, package, Purpose.RUN, manifest=entry.manifest),
                rpc_version=self._rpc_version(package),
            )
            asked = self._asked(package)
        except (InvalidPlanInput, InvalidRequest) as error:
            self._emit(ConfigInvalid(error.field, str(error.found)[:80], error.expected, f"model {entry.ref}"))
            return
        carry_out = self._rpc_version(package) is not None
        settings = PursuitSettings(carry_out=carry_out, force_split=self._config.force_split)
        rng = random.Random(os.urandom(16))
        pursuit = Pursuit(self._local, request, asked, self._fences, rng, settings)
        self._pursued[entry.name] = package
        self._desk.pursue(entry.name, pursuit, settle_settings(self._config).confirm_s)

    def _asked(self, package: ModelPackage) -> PlanAsked:
        config = self._config
        fields = {
            "model": package.name, "context": config.context, "lanes": config.lanes, "kv_type": config.kv_type,
            "k_type": config.k_type, "v_type": config.v_type, "objective": config.objective, "engine": config.engine,
        }  # fmt: skip
        return asked_of(parse_wish(fields), package, self._at_hand)

    def _rpc_version(self, package: ModelPackage) -> RpcVersion | None:
        """The version of the engine that is to run `package`; None where it is only planned. llama.cpp reads GGUF."""
        engine = self._room.engine
        return engine.rpc_version if engine is not None and package.kind is PackageKind.GGUF else None

    def _package(self, model: str) -> LocalPackage | None:
        return self._local_packages.get(model)

    def _why_not(self, model: str) -> WhyNot | None:
        """Why a model that is wanted here does not run, in the words of its pursuit, or of who read its files."""
        if (problem := self._unreadable.get(model)) is not None:
            return WhyNot(f"{model} can't be read: {problem}")
        shown = next((each for each in self._desk.status() if each["model"] == model and "phase" in each), None)
        if shown is None:
            return None
        result, phase = shown.get("result") or {}, Phase(str(shown["phase"]))
        short = result.get("message") if result.get("result") == "shortfall" else None
        if phase in _SOON and not (phase is Phase.PLANNING and short):
            cause = f": {shown['problem']}" if shown.get("problem") else ""
            return WhyNot(f"{model}: {_SOON[phase]}{cause}", soon=True, replanning=phase is Phase.REPLANNING)
        if phase is Phase.PLANNED and not self.has_engine:
            return WhyNot(f"{model} is only planned: {NO_ENGINE} (the event engine.missing says why)")
        # A shortfall holds while the mesh is looked at again: what was missing then is what a client should know.
        waits = f"{model} waits for nodes to take part: quorum {self._config.quorum}" if phase in _WAITING else ""
        return WhyNot(str(shown.get("problem") or short or waits or f"{model} does not run: {phase.value}"))

    def _drop(self, name: str, reason: str) -> None:
        del self._pursued[name]
        self._desk.drop(name, reason)

    def _advertise(self, model: str, generation: int | None) -> None:
        if generation is None:
            self._generations.pop(model, None)
        else:
            self._generations[model] = generation
        self._changed()

    def _store_fences(self, file: FenceFile) -> None:
        try:
            self._file.save(file)
        except StateError as error:
            # The promise still holds in this process; only a restart could break it, and that is reported.
            self._emit(StateUnsaved(path=str(error.path), problem=error.found, advice=error.fix))
