"""The weights cache: large tensors of local models where the engine finds them by hash, so that they cross no network.

What lives here: `WeightsCache`: which folder a stage uses, filling it, removing what is of no use. What does not:
hashing and copying (`meshnode.engine.weights_process`), the stage that reads it (`meshnode.engine.stages`).

    <state>/weights/<manifest>/rpc/<hash>      one folder per manifest, filled from local files of that manifest only

It is a second copy of the tensors on disk. Folders that no stage uses are removed when another one is about to be
filled; until then they stay, because a replan or a restart often brings the same model back. Without a cache a stage
works all the same: the coordinator's engine then sends the tensors.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio.to_thread

from meshnode.child import child_environment
from meshnode.engine.devices import engine_environment
from meshnode.engine.process import Word, running
from meshnode.engine.reach import Reach
from meshnode.engine.weights_process import FillOrders
from meshnode.events import Event, WeightsFilled, WeightsRemoved, WeightsSkipped
from meshnode.models import ModelFileError, sampled_manifest
from meshnode.models.package import ModelPackage
from meshnode.split import Held
from proto.messages import Fence

FILL_MODULE: Final = "meshnode.engine.weights_process"
SERVER_FOLDER: Final = "rpc"
"""llama.cpp's own `rpc-server` looks into a folder of this name below `LLAMA_CACHE`."""
_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9]+")


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
    (None: the disk does); `reach` is what engine processes may use."""

    def __init__(
        self,
        root: Path,
        most_bytes: int | None,
        package: Callable[[str], LocalPackage | None],
        emit: Callable[[Event], None],
        reach: Reach,
    ) -> None:
        self._reach = reach
        self._root = root
        self._most_bytes = most_bytes
        self._package = package
        self._emit = emit
        self._used: Counter[str] = Counter()
        self._folder_of: dict[tuple[str, Fence], str] = {}

    async def prepare(self, held: Held, told: Callable[[int, int], None]) -> str | None:
        """The directory for the stage's server, filled; None where there is nothing to fill it from, or no room. `told`
        gets (bytes done, bytes in all)."""
        local = self._package(held.model)
        if local is None or self._most_bytes == 0:
            return None
        try:
            now = await anyio.to_thread.run_sync(sampled_manifest, local.package)
        except ModelFileError as error:
            self._emit(WeightsSkipped(held.model, 0, str(error)[:300]))
            return None
        if now != local.manifest:
            self._emit(WeightsSkipped(held.model, 0, "its files changed since the plan was made"))
            return None
        name = _NOT_A_NAME.sub("-", local.manifest)
        self._folder_of[held.model, held.fence] = name
        self._used[name] += 1
        await self.remove_unused()
        folder = self._root / name / SERVER_FOLDER
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        outcome = await self._fill(held, local, folder, told)
        return str(folder) if self._tell(held, outcome) else None

    def release(self, held: Held) -> None:
        """The stage is over. Its folder stays until room is wanted: a replan often brings the same model back."""
        name = self._folder_of.pop((held.model, held.fence), None)
        if name is not None:
            self._used[name] -= 1
            self._used += Counter()

    async def remove_unused(self) -> None:
        """Remove every folder that no stage uses."""
        for name, freed in await anyio.to_thread.run_sync(_remove_others, self._root, frozenset(self._used)):
            self._emit(WeightsRemoved(name, freed))

    # --- pieces ---

    async def _fill(self, held: Held, local: LocalPackage, folder: Path, told: Callable[[int, int], None]) -> Word:
        """The last word of the filling process."""
        spec = local.package.spec
        room = None if self._most_bytes is None else self._most_bytes - _size_of(self._root)
        orders = FillOrders(
            local.paths, str(folder), held.layer_start, held.layer_end, held.layer_end == spec.layer_count, room,
            self._reach,
        )  # fmt: skip
        command = [sys.executable, "-m", FILL_MODULE, orders.to_argument()]
        async with running(command, child_environment(engine_environment(()))) as process:
            async for word in process.words:
                if "done" not in word:
                    return word
                told(_whole(word, "done"), _whole(word, "total"))
            return {"skipped": f"the filling process ended: {await process.wait()}"}

    def _tell(self, held: Held, word: Word) -> bool:
        if word.get("filled") is True:
            total, written = _whole(word, "total"), _whole(word, "written")
            self._emit(WeightsFilled(held.model, _whole(word, "tensors"), total, written))
            return True
        self._emit(WeightsSkipped(held.model, _whole(word, "needed"), str(word.get("skipped"))[:300]))
        return False


def _remove_others(root: Path, kept: frozenset[str]) -> list[tuple[str, int]]:
    """Removes every folder of `root` but `kept`; what they were called and held."""
    removed = []
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.name in kept:
            continue
        freed = _size_of(folder)
        for inner in [folder, *folder.iterdir()]:
            inner.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)
        removed.append((folder.name, freed))
    return removed


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _whole(word: Word, name: str) -> int:
    value = word.get(name)
    return value if isinstance(value, int) else 0
