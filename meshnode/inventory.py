"""The models of this node as it tells them to the mesh: what is wanted, what is at hand, kept fresh.

What lives here: `Inventory`, `packages_of`. What does not: reading files (`meshnode.models`), sending the offer
(`meshnode.keeping`). Run by the daemon. A model is known to the mesh by its name, not by the path it has here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import anyio
from msgspec import structs

from meshnode.config import NodeConfig
from meshnode.events import Event, ModelIndexed, ModelUnreadable
from meshnode.models import InventoryEntry, ModelPackage, Presence, read_inventory
from proto.parts import MAX_MODELS, FetchedLayers, ModelOffer

INTERVAL_S = 60.0
"""How often files are looked at; an unchanged one costs a stat."""
MAX_REF = 512
MAX_NAMED = 16
"""Models kept in mind that were named by their path and are in no model directory."""


class Inventory:
    """Reads the models of the config and of its directories. `changed` is called when something about them changed."""

    def __init__(self, config: NodeConfig, changed: Callable[[], None], emit: Callable[[Event], None]) -> None:
        self._config = config
        self._changed = changed
        self._emit = emit
        self._entries: tuple[InventoryEntry, ...] = ()
        self._named: tuple[str, ...] = ()
        self._look_now = anyio.Event()
        self.is_known = False
        """False until the first reading is done: nothing can be said of what is missing before."""

    def configure(self, config: NodeConfig) -> None:
        """Go by `config` from now on, and look at its models at once."""
        self._config = config
        self._look_now.set()

    @property
    def entries(self) -> tuple[InventoryEntry, ...]:
        """Everything known, the models of the config first."""
        return self._entries

    @property
    def cache_dir(self) -> Path:
        """Where results of reading model files are kept."""
        return self._config.state_dir / "models"

    def find(self, name: str) -> InventoryEntry | None:
        """The entry of a model by its name in the mesh."""
        return next((entry for entry in self._entries if entry.name == name), None)

    def unreadable(self) -> list[dict[str, str]]:
        """Models that can't be read, or are not there: each with its name and the problem in one line."""
        return [{"model": entry.name, "problem": str(entry.error)} for entry in self._entries if _is_unreadable(entry)]

    def offers(
        self, generations: Mapping[str, int], fetched: Mapping[str, tuple[FetchedLayers, ...]]
    ) -> tuple[ModelOffer, ...]:
        """What the mesh is told of each model; `generations` are the plans by which this node coordinates some,
        `fetched` the layers that it keeps of models whose files it lacks."""
        wanted = set(self._config.models)
        entries = self._entries[:MAX_MODELS]
        offers = [_offer(entry, entry.ref in wanted, generations.get(entry.name)) for entry in entries]
        named = {offer.ref for offer in offers}
        others = [_only_fetched(model) for model in fetched if model not in named]
        told = [
            offer if offer.complete else structs.replace(offer, fetched=fetched.get(offer.ref, ()))
            for offer in [*offers, *others]
        ]
        return tuple(told[:MAX_MODELS])

    async def learn(self, ref: str) -> None:
        """The operator named a model by its path: it is at hand, and the mesh is told so, for as long as this node
        runs or until `MAX_NAMED` others were named after it."""
        self._named = (*(other for other in self._named if other != ref), ref)[-MAX_NAMED:]
        await self.read()

    async def watch(self) -> None:
        """Read now, then look again for ever."""
        while True:
            self._look_now = anyio.Event()
            await self.read()
            with anyio.move_on_after(INTERVAL_S):
                await self._look_now.wait()

    async def read(self) -> None:
        """One reading; files are read off the event loop, and only those that changed."""
        read_for = self._config
        found = await read_inventory(
            (*self._config.models, *self._named), cache_dir=self.cache_dir, model_dirs=self._config.model_dirs
        )
        before = {entry.name: entry for entry in self._entries}
        for entry in found:
            if before.get(entry.name) != entry:
                self._tell(entry)
        news = found != self._entries or not self.is_known or self._config is not read_for
        self._entries, self.is_known = found, True
        if news:
            self._changed()

    def _tell(self, entry: InventoryEntry) -> None:
        error = entry.error
        if error is not None and _is_unreadable(entry):
            self._emit(ModelUnreadable(entry.name, error.path, error.field, error.found, error.expected))
        elif entry.whole is not None:
            spec = entry.whole.spec
            complete = entry.presence is Presence.COMPLETE
            self._emit(ModelIndexed(entry.name, spec.layer_count, spec.file_bytes, complete, entry.manifest))


def packages_of(entries: Iterable[InventoryEntry]) -> list[ModelPackage]:
    """The packages whose figures are known."""
    return [entry.whole for entry in entries if entry.whole is not None]


def _is_unreadable(entry: InventoryEntry) -> bool:
    return entry.error is not None and entry.presence in (Presence.UNREADABLE, Presence.ABSENT)


def _only_fetched(model: str) -> ModelOffer:
    """A model of which this node has no file."""
    return ModelOffer(model[:MAX_REF], None, wanted=False, complete=False, cached_bytes=0, missing_bytes=None)


def _offer(entry: InventoryEntry, wanted: bool, generation: int | None) -> ModelOffer:
    is_profile = entry.presence is Presence.PROFILE
    unknown = entry.presence is Presence.UNREADABLE
    return ModelOffer(
        ref=entry.name[:MAX_REF],
        manifest=entry.manifest,
        wanted=wanted,
        complete=entry.presence is Presence.COMPLETE,
        cached_bytes=None if is_profile or unknown else entry.cached_bytes,
        missing_bytes=None if is_profile or unknown else entry.missing_bytes,
        is_profile=is_profile,
        generation=generation,
    )
