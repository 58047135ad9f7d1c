"""What of its models a node has at hand: complete, partly, or not at all, in bytes and by layer range.

The daemon reads it at start and when a file changes, puts the sums into its offer and answers a coordinator's question
about a layer range. Unknown stays unknown: a set that lacks a part can't say how large that part is, unless somebody
who has it all tells (`against`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from meshnode.child import ChildFailed, call_in_child
from meshnode.models.errors import ModelFileError
from meshnode.models.load import WORKER, error_in, load_model, stamped_paths
from meshnode.models.manifest import sampled_manifest
from meshnode.models.package import EMBEDDING, OUTPUT, ModelPackage, PackageFile, PackageKind
from meshnode.models.refs import find_models, resolve_ref


class Presence(StrEnum):
    """How much of a model is at hand. `PROFILE` has figures and no files; `UNREADABLE` files are damaged."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    ABSENT = "absent"
    PROFILE = "profile"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class InventoryEntry:
    """One model as this node has it.

    `cached_parts` are bytes at hand by part (layer index, `EMBEDDING`, `OUTPUT`); `whole` is the package they are
    judged against, None where nobody has told. `manifest` is there for complete packages only. `error` says why a
    model is not complete.
    """

    ref: str
    name: str
    presence: Presence
    cached_parts: Mapping[int, int]
    whole: ModelPackage | None = None
    manifest: str | None = None
    error: ModelFileError | None = None

    @property
    def cached_bytes(self) -> int:
        """All tensor bytes at hand."""
        return sum(self.cached_parts.values())

    @property
    def missing_bytes(self) -> int | None:
        """Tensor bytes not at hand; None where the whole is not known."""
        if self.whole is None:
            return None
        return self.missing_of(0, self.whole.spec.layer_count, embedding=True, output=True)

    def cached_of(self, layer_start: int, layer_end: int, *, embedding: bool = False, output: bool = False) -> int:
        """Tensor bytes at hand of layers [layer_start, layer_end) and the endpoints asked for."""
        return sum(self.cached_parts.get(part, 0) for part in _parts(layer_start, layer_end, embedding, output))

    def missing_of(
        self, layer_start: int, layer_end: int, *, embedding: bool = False, output: bool = False
    ) -> int | None:  # fmt: skip
        """Tensor bytes not at hand of a range, None where the whole is not known."""
        if self.whole is None:
            return None
        wanted = self.whole.bytes_of(layer_start, layer_end, embedding=embedding, output=output)
        return max(0, wanted - self.cached_of(layer_start, layer_end, embedding=embedding, output=output))


async def read_inventory(
    refs: Sequence[str],
    *,
    cache_dir: Path,
    model_dirs: Sequence[Path] = (),
    against: Mapping[str, ModelPackage] | None = None,
) -> tuple[InventoryEntry, ...]:
    """The entries of `refs` in order, then of every other model in `model_dirs`.

    `against` has packages by name as complete holders describe them, for models of which this node lacks files. Never
    raises for a model: what is wrong with it is in its entry.
    """
    import anyio.to_thread

    entries: dict[str, InventoryEntry] = {}
    for ref in [*refs, *await anyio.to_thread.run_sync(_others, model_dirs)]:
        entry = await read_entry(ref, cache_dir=cache_dir, model_dirs=model_dirs, against=against or {})
        entries.setdefault(entry.name, entry)
    return tuple(entries.values())


async def read_entry(
    ref: str, *, cache_dir: Path, model_dirs: Sequence[Path], against: Mapping[str, ModelPackage]
) -> InventoryEntry:
    """One ref's entry."""
    import anyio.to_thread

    try:
        package = await load_model(ref, cache_dir=cache_dir, model_dirs=model_dirs)
        if package.kind is PackageKind.PROFILE:
            return InventoryEntry(ref, package.name, Presence.PROFILE, {}, whole=package)
        manifest = await anyio.to_thread.run_sync(lambda: sampled_manifest(package, cache_dir=cache_dir))
        return InventoryEntry(ref, package.name, Presence.COMPLETE, _sum(package.files), package, manifest)
    except ModelFileError as error:
        return await _incomplete(ref, error, model_dirs, against)


async def _incomplete(
    ref: str, error: ModelFileError, model_dirs: Sequence[Path], against: Mapping[str, ModelPackage]
) -> InventoryEntry:
    """Something is missing or damaged: count what can be read of it."""
    try:
        resolved = resolve_ref(ref, model_dirs=model_dirs)
    except ModelFileError:
        return InventoryEntry(ref, ref, Presence.ABSENT, {}, against.get(ref), error=error)
    if resolved.kind is PackageKind.PROFILE:
        return InventoryEntry(ref, resolved.name, Presence.UNREADABLE, {}, error=error)
    paths = [path for path in stamped_paths(resolved) if path.suffix != ".json"]
    question = ["present", resolved.kind.value, [str(path.absolute()) for path in paths]]
    try:
        answer = await call_in_child(WORKER, msgspec.to_builtins(question))
    except ChildFailed:
        answer = None
    files = () if error_in(answer) or not isinstance(answer, dict) else answer["files"]
    cached = _sum(msgspec.convert(files, tuple[PackageFile, ...]))
    whole = against.get(resolved.name)
    presence = Presence.PARTIAL if cached else Presence.UNREADABLE
    return InventoryEntry(ref, resolved.name, presence, cached, whole, error=error)


def _others(model_dirs: Sequence[Path]) -> list[str]:
    return [found.ref for found in find_models(model_dirs)]


def _parts(layer_start: int, layer_end: int, embedding: bool, output: bool) -> list[int]:
    endpoints = [part for part, asked in ((EMBEDDING, embedding), (OUTPUT, output)) if asked]
    return [*range(layer_start, layer_end), *endpoints]


def _sum(files: Iterable[PackageFile]) -> dict[int, int]:
    sums: dict[int, int] = {}
    for file in files:
        for held in file.holds:
            sums[held.part] = sums.get(held.part, 0) + held.bytes
    return sums
