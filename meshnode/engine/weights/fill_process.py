"""Fills a folder of the weights cache: large tensors of local files, each in a file named by its hash.

What lives here: the child's main function; it maps model files and imports numpy. What does not: which folder, and when
(`meshnode.engine.weights.cache`).

llama.cpp's RPC client asks the server by hash before it sends a tensor of more than 10 MiB (ggml-rpc.cpp,
`HASH_THRESHOLD`), and the server looks for a file of that name, 16 hex digits, in its cache directory. Smaller ones are
always sent. A tied model's head is its token embedding once more.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import psutil

from meshnode.engine.confinement.reach import Reach, give_up_the_rest
from meshnode.engine.confinement.rights import drop_rights, end_with_parent, limit_resources
from meshnode.engine.words import Speaker
from meshnode.models.errors import ModelFileError
from meshnode.models.gguf_file import DIALECT, TensorPlace, tensor_places
from meshnode.models.tensors import layer_of
from planner.sizes import format_gb

THRESHOLD_BYTES: Final = 10 * 2**20
KEEP_FREE_BYTES: Final = 2**30
"""Disk space that is left alone."""
_STEP_BYTES: Final = 16 * 2**20
OUTPUT: Final = "output.weight"
EMBEDDING: Final = "token_embd.weight"
_INDEX: Final = "hashes.json"


@dataclass(frozen=True, slots=True)
class FillOrders:
    """Layers [layer_start, layer_end) of `paths`, and the output head where `head`, into `folder`. `room_bytes` is what
    the whole cache may still grow by; None has no limit but the disk."""

    paths: tuple[str, ...]
    folder: str
    layer_start: int
    layer_end: int
    head: bool
    room_bytes: int | None
    reach: Reach = field(default_factory=Reach)

    def to_argument(self) -> str:
        """The one word of the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, text: str) -> FillOrders:
        """What `to_argument` made."""
        fields = json.loads(text)
        return cls(**{**fields, "paths": tuple(fields["paths"]), "reach": Reach.from_fields(fields["reach"])})


def main(arguments: Sequence[str]) -> int:
    """Says `{"done", "total"}` as it goes and last `{"filled": ...}` or `{"skipped": reason, "needed": bytes}`."""
    orders = FillOrders.from_argument(arguments[0])
    end_with_parent()
    speaker = Speaker()
    limit_resources()
    drop_rights()
    give_up_the_rest(orders.reach.also(reads=orders.paths, writes=[orders.folder]))
    try:
        _fill(orders, speaker)
    except (ModelFileError, OSError) as error:
        speaker.say(skipped=str(error)[:300], needed=0)
    return 0


def large_tensors(
    places: Iterable[TensorPlace], ranges: Sequence[tuple[int, int]], head: bool
) -> list[TensorPlace]:  # fmt: skip
    """Those of layers [start, end) of each of `ranges`, and of the output head, that the engine looks up by hash."""
    named = {place.name: place for place in places if place.size_bytes > THRESHOLD_BYTES}
    wanted = [place for place in named.values() if _is_layer_of(place.name, ranges)]
    last = named.get(OUTPUT) or named.get(EMBEDDING)
    return [*wanted, last] if head and last is not None else wanted


def _is_layer_of(name: str, ranges: Sequence[tuple[int, int]]) -> bool:
    layer = layer_of(name, DIALECT)
    return layer is not None and any(start <= layer < end for start, end in ranges)


def _fill(orders: FillOrders, speaker: Speaker) -> None:
    folder = Path(orders.folder)
    places = tensor_places([Path(path) for path in orders.paths])
    tensors = large_tensors(places, [(orders.layer_start, orders.layer_end)], orders.head)
    known = _read_index(folder)
    missing = [place for place in tensors if not _is_there(folder, known.get(place.name), place)]
    needed = sum(place.size_bytes for place in missing)
    largest = max((place.size_bytes for place in tensors), default=0)
    if (problem := no_room(shutil.disk_usage(folder).free, needed, largest, orders.room_bytes)) is not None:
        speaker.say(skipped=problem, needed=needed)
        return
    folder.chmod(0o700)
    done = 0
    # Hashing is the slow part; numpy lets threads work side by side.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        copies = {pool.submit(_copy, folder, place): place for place in missing}
        for copied in as_completed(copies):
            place = copies[copied]
            known[place.name] = copied.result()
            done += place.size_bytes
            speaker.say(done=done, total=needed)
    _write_index(folder, known)
    # The server reads here and must never write: what a coordinator sends is not what a manifest confirmed.
    folder.chmod(0o500)
    total = sum(place.size_bytes for place in tensors)
    speaker.say(filled=True, tensors=len(tensors), total=total, written=needed)


def no_room(disk_bytes: int, needed: int, largest: int, room_bytes: int | None) -> str | None:
    """Why `needed` bytes more can't be kept, with figures; None where they can. `disk_bytes` are free on the disk,
    `room_bytes` is what the cache may grow by, `largest` the largest tensor."""
    free = disk_bytes - KEEP_FREE_BYTES
    if needed > free:
        return f"{format_gb(needed)} needed on disk, {format_gb(max(0, free))} free beyond a reserve of 1.1GB"
    if room_bytes is not None and needed > room_bytes:
        return f"{format_gb(needed)} needed, max_weights_cache leaves {format_gb(max(0, room_bytes))}"
    available = psutil.virtual_memory().available
    if largest > available:
        return f"a tensor of {format_gb(largest)} is read whole into memory, {format_gb(available)} is available"
    return None


def _copy(folder: Path, place: TensorPlace) -> str:
    """Hashes and copies one tensor; the file appears complete or not at all. Returns its name."""
    from meshnode.engine.weights.fnv import OFFSET, fnv1a_64

    aside = folder / f".{place.name}"
    value = OFFSET
    with place.path.open("rb") as source, aside.open("wb") as target:
        with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            for begin in range(place.offset, place.offset + place.size_bytes, _STEP_BYTES):
                piece = mapped[begin : min(begin + _STEP_BYTES, place.offset + place.size_bytes)]
                value = fnv1a_64(piece, value)
                target.write(piece)
        target.flush()
        os.fsync(target.fileno())
    aside.chmod(0o400)
    name = f"{value:016x}"
    aside.rename(folder / name)
    return name


def _is_there(folder: Path, name: str | None, place: TensorPlace) -> bool:
    if name is None or len(name) != 16:
        return False
    try:
        return (folder / name).stat().st_size == place.size_bytes
    except OSError:
        return False


def _read_index(folder: Path) -> dict[str, str]:
    """Hashes of tensors by name, so that a filled folder need not be hashed again."""
    try:
        found = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def _write_index(folder: Path, known: dict[str, str]) -> None:
    (folder / _INDEX).write_text(json.dumps(known), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
