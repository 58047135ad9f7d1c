"""The weights cache: large tensors where the engine finds them by hash, so that they cross no network at a load.

What lives here: `WeightsCache`: which folder a stage uses, filling it, removing what is of no use. What does not:
hashing and copying local files (`meshnode.engine.weights.fill_process`), fetching what is not here
(`meshnode.engine.weights.fetch`), the stage that reads it (`meshnode.engine.stage.stages`).

    <state>/weights/<manifest>/rpc/<hash>                       filled from local files of that manifest only
    <state>/weights/from-<coordinator>-<manifest>/rpc/<hash>    fetched, on the word of that coordinator only

What one coordinator's word filled no other's split uses: a stage sees one folder. It is a second copy of the tensors
on disk. Folders that no stage has used for ten minutes are removed when another one is about to be filled, and sooner
where room is wanted; until then they stay, because a replan or a restart often brings the same model back, and what was
fetched of it half way. Without a cache a stage works all the same: the coordinator's engine then sends the tensors.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio.to_thread

from meshnode.child import child_environment
from meshnode.engine.confinement.reach import Reach
from meshnode.engine.devices import engine_environment
from meshnode.engine.process import Word, running
from meshnode.engine.weights.fetch import Fetching, Nearest, OpenTunnel
from meshnode.engine.weights.fill_process import KEEP_FREE_BYTES, FillOrders
from meshnode.engine.weights.folder import SERVER_FOLDER, fetched_layers, plain_name, size_of
from meshnode.events import Event, WeightsFilled, WeightsRemoved, WeightsSkipped
from meshnode.models import ModelFileError, sampled_manifest
from meshnode.models.package import ModelPackage
from meshnode.split import Held
from proto.messages import Fence
from proto.parts import FetchedLayers

FILL_MODULE: Final = "meshnode.engine.weights.fill_process"
KEEP_S: Final = 600.0
"""A folder that was used so lately stays, unless room is wanted."""
Told = Callable[[int, int, bool], None]
"""Gets (bytes done, bytes in all, whether they are fetched)."""


@dataclass(frozen=True)
class LocalPackage:
    """A model of which this node has all files."""

    package: ModelPackage
    manifest: str

    @property
    def paths(self) -> tuple[str, ...]:
        """Its files, the first part first."""
        return tuple(file.path for file in self.package.files)


class WeightsCache:
    """The cache in `root`. `package` gives what this node has of a model by its name; `most_bytes` bounds the cache
    (None: the disk does); `open_tunnel` leads to who coordinates, and to a member that is `nearest` and has the same;
    `reach` is what engine processes may use; `keep_s` is how long unused folders stay; `changed` is
    called when `fetched` is another."""

    def __init__(
        self,
        root: Path,
        most_bytes: int | None,
        package: Callable[[str], LocalPackage | None],
        open_tunnel: OpenTunnel,
        emit: Callable[[Event], None],
        reach: Reach,
        nearest: Nearest,
        keep_s: float = KEEP_S,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._reach = reach
        self._root = root
        self._most_bytes = most_bytes
        self._package = package
        self._emit = emit
        self._keep_s = keep_s
        self._changed = changed
        self.fetched: Mapping[str, tuple[FetchedLayers, ...]] = {}
        """By model, layers whose large tensors were fetched and are kept."""
        self._fetching = Fetching(root, most_bytes, open_tunnel, self._claim_for, emit, reach, nearest)
        self._used: Counter[str] = Counter()
        self._folder_of: dict[tuple[str, Fence], str] = {}
        self._filling: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    async def prepare(self, held: Held, told: Told) -> str | None:
        """The directory for the stage's server, filled from files of this node, or else fetched; None where there is
        nothing to fill it from, or no room."""
        if self._most_bytes == 0:
            return None
        local = self._package(held.model)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if local is None:
            folder = await self._fetching.fetch(held, lambda done, total: told(done, total, True))
            await self.look()
            return folder
        try:
            now = await anyio.to_thread.run_sync(sampled_manifest, local.package)
        except ModelFileError as error:
            self._emit(WeightsSkipped(held.model, 0, str(error)[:300]))
            return None
        if now != local.manifest:
            self._emit(WeightsSkipped(held.model, 0, "its files changed since the plan was made"))
            return None
        return await self._prepare_local(held, local, told)

    async def look(self) -> None:
        """See what is kept of earlier loads."""
        found = await anyio.to_thread.run_sync(fetched_layers, self._root)
        if found != self.fetched:
            self.fetched = found
            self._changed()

    def release(self, held: Held) -> None:
        """The stage is over. Its folder stays until room is wanted: a replan often brings the same model back."""
        name = self._folder_of.pop((held.model, held.fence), None)
        if name is not None:
            self._used[name] -= 1
            self._used += Counter()
            _touch(self._root / name)

    async def remove_unused(self, keep_s: float) -> None:
        """Remove every folder that no stage uses, or has used for `keep_s`."""
        kept = frozenset(self._used)
        for name, freed in await anyio.to_thread.run_sync(_remove_others, self._root, kept, keep_s):
            self._emit(WeightsRemoved(name, freed))
        await self.look()

    # --- whose a folder is ---

    def _claim_for(self, held: Held) -> Callable[[str, int], AbstractAsyncContextManager[None]]:
        return lambda name, needed: self._claim(held, name, needed)

    @asynccontextmanager
    async def _claim(self, held: Held, name: str, needed: int) -> AsyncIterator[None]:
        """The stage uses this folder until it is released, and is the only one to fill it inside. Room is made: for
        `needed` bytes, less what is there of them, even of folders that were used lately."""
        before = self._folder_of.get((held.model, held.fence))
        if before != name:
            self.release(held)
            self._folder_of[held.model, held.fence] = name
            self._used[name] += 1
        async with self._filling[name]:
            _touch(self._root / name)
            await self.remove_unused(self._keep_s)
            lacking = needed - await anyio.to_thread.run_sync(size_of, self._root / name)
            if lacking > await anyio.to_thread.run_sync(_room_in, self._root, self._most_bytes):
                await self.remove_unused(0)
            yield

    # --- pieces ---

    async def _prepare_local(self, held: Held, local: LocalPackage, told: Told) -> str | None:
        name = plain_name(local.manifest)
        head = held.layer_end == local.package.spec.layer_count
        needed = local.package.bytes_of(held.layer_start, held.layer_end, output=head)
        async with self._claim(held, name, needed):
            folder = self._root / name / SERVER_FOLDER
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            outcome = await self._fill(held, local, folder, told)
            return str(folder) if self._tell(held, outcome) else None

    async def _fill(self, held: Held, local: LocalPackage, folder: Path, told: Told) -> Word:
        """The last word of the filling process."""
        spec = local.package.spec
        room = None if self._most_bytes is None else self._most_bytes - size_of(self._root)
        orders = FillOrders(
            local.paths, str(folder), held.layer_start, held.layer_end, held.layer_end == spec.layer_count, room,
            self._reach,
        )  # fmt: skip
        command = [sys.executable, "-m", FILL_MODULE, orders.to_argument()]
        async with running(command, child_environment(engine_environment(()))) as process:
            async for word in process.words:
                if "done" not in word:
                    return word
                told(_whole(word, "done"), _whole(word, "total"), False)
            return {"skipped": f"the filling process ended: {await process.wait()}"}

    def _tell(self, held: Held, word: Word) -> bool:
        if word.get("filled") is True:
            total, written = _whole(word, "total"), _whole(word, "written")
            self._emit(WeightsFilled(held.model, _whole(word, "tensors"), total, written))
            return True
        self._emit(WeightsSkipped(held.model, _whole(word, "needed"), str(word.get("skipped"))[:300]))
        return False


def _remove_others(root: Path, kept: frozenset[str], keep_s: float) -> list[tuple[str, int]]:
    """Removes every folder of `root` but `kept`, and those touched less than `keep_s` ago; what they were called and
    held."""
    removed = []
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.name in kept or (keep_s > 0 and time.time() - folder.stat().st_mtime < keep_s):
            continue
        freed = size_of(folder)
        for inner in [folder, *folder.iterdir()]:
            inner.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)
        removed.append((folder.name, freed))
    return removed


def _room_in(root: Path, most_bytes: int | None) -> int:
    """Bytes by which the cache may grow."""
    free = shutil.disk_usage(root).free - KEEP_FREE_BYTES
    return free if most_bytes is None else min(free, most_bytes - size_of(root))


def _touch(folder: Path) -> None:
    if folder.is_dir():
        os.utime(folder)


def _whole(word: Word, name: str) -> int:
    value = word.get(name)
    return value if isinstance(value, int) else 0
