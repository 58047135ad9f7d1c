"""A folder of fetched tensors: what is whole, what is under way, and that the one never looks like the other.

What lives here: `FetchedFolder`. What does not: who fills it (`meshnode.engine.weights.fetch_process`), the folders of
local models (`meshnode.engine.weights.fill_process`).

    <state>/weights/from-<coordinator>-<manifest>/
        rpc/<fnv>                    whole and verified; the engine reads here
        whole/<tensor>.<sha256>      a note of its name there: what it is
        parts/<tensor>.<sha256>      under way: as long as it is, it is right, or the digest will tell
        fetched.json                 for which model, and which layers are complete

One folder for each coordinator and manifest: whose list of digests was believed, and nobody else's engine looks there.
A part's name says of which bytes it is a part: it is gone on with only where the source names the same digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from proto.parts import MAX_FETCHED, FetchedLayers

SERVER_FOLDER: Final = "rpc"
"""llama.cpp's own `rpc-server` looks into a folder of this name below `LLAMA_CACHE`."""
ABOUT: Final = "fetched.json"
PREFIX: Final = "from-"
_NAMED: Final = re.compile(r"^(?P<name>.+)\.(?P<digest>[0-9a-f]{64})$")
_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9]+")
_FNV: Final = re.compile(r"^[0-9a-f]{16}$")
_MAX_ABOUT_BYTES: Final = 64 * 1024


def folder_name(source: str, manifest: str) -> str:
    """What the folder of this source's tensors is called; no folder of local files begins so."""
    return f"{PREFIX}{source}-{plain_name(manifest)}"


def plain_name(manifest: str) -> str:
    """A manifest as a part of a path."""
    return _NOT_A_NAME.sub("-", manifest)


@dataclass(frozen=True, slots=True)
class Have:
    """What is here of the tensor with this digest: its first `size_bytes` bytes. `is_whole`: all, and verified."""

    digest: bytes
    size_bytes: int
    is_whole: bool


@dataclass(frozen=True, slots=True)
class About:
    """What a folder says of itself. `ranges` are layers [start, end) whose large tensors are all there."""

    model: str
    source: str
    manifest: str
    ranges: tuple[tuple[int, int], ...]


class FetchedFolder:
    """The folder at `place`; one process at a time changes it. Everything raises `OSError`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.server = place / SERVER_FOLDER
        self._whole = place / "whole"
        self._parts = place / "parts"

    def make(self) -> None:
        """Make what is missing of it, and let it be changed."""
        for folder in (self.place, self._whole, self._parts, self.server):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.server.chmod(0o700)

    def close(self) -> None:
        """Only to be read from now on."""
        self.server.chmod(0o500)

    # --- tensors ---

    def have(self) -> dict[str, Have]:
        """What is here, by tensor: the whole one, or a part."""
        parts = _named_in(self._parts)
        found = {name: Have(digest, path.stat().st_size, is_whole=False) for name, digest, path in parts}
        for name, digest, path in list(_named_in(self._whole)):
            try:
                found[name] = Have(digest, self._target(path).stat().st_size, is_whole=True)
            except OSError:  # its file is gone
                path.unlink()
        return found

    def part(self, name: str, digest: bytes) -> Path:
        """Where the part of these bytes is kept."""
        return self._parts / f"{name}.{digest.hex()}"

    def finish(self, name: str, digest: bytes, fnv: str) -> None:
        """The part is verified: it appears under its hash, complete and read-only."""
        part = self.part(name, digest)
        part.chmod(0o400)
        part.rename(self.server / fnv)
        (self._whole / part.name).write_text(fnv, encoding="ascii")

    def discard(self, name: str) -> None:
        """Forget what is here of a tensor; its file too, unless another tensor is the same bytes."""
        for other, _, path in list(_named_in(self._parts)):
            if other == name:
                path.unlink()
        for other, _, path in list(_named_in(self._whole)):
            if other == name:
                target = self._target(path)
                path.unlink()
                if all(self._target(rest) != target for _, _, rest in _named_in(self._whole)):
                    target.unlink(missing_ok=True)

    def _target(self, note: Path) -> Path:
        """The file that a note in `whole` is about; one that is none names no file."""
        text = note.read_bytes()[:17].decode("ascii", "replace")
        return self.server / (text if _FNV.match(text) else "none")

    def keep_only(self, names: Collection[str], *, parts_only: bool = False) -> None:
        """Discard all tensors, or just parts, of other names. Layers that lack whole ones are told of no more."""
        for name, _, path in list(_named_in(self._parts)):
            if name not in names:
                path.unlink()
        for name, _, _ in list(_named_in(self._whole)) if not parts_only else ():
            if name not in names:
                self._untell()
                self.discard(name)

    def _is_linked(self, target: Path) -> bool:
        return any(path.resolve() == target for _, _, path in _named_in(self._whole))

    # --- what it says of itself ---

    def about(self) -> About | None:
        """What was written last; None where nothing, or no sense, was."""
        try:
            with (self.place / ABOUT).open("rb") as file:
                fields = json.loads(file.read(_MAX_ABOUT_BYTES))
            return _about_of(fields)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _untell(self) -> None:
        """Layers are complete no more."""
        (self.place / ABOUT).unlink(missing_ok=True)

    def tell(self, about: About) -> None:
        """Write it, whole or not at all."""
        aside = self.place / f".{ABOUT}"
        fields = {**{name: getattr(about, name) for name in ("model", "source", "manifest")}, "ranges": about.ranges}
        aside.write_text(json.dumps(fields), encoding="utf-8")
        aside.rename(self.place / ABOUT)


def _about_of(fields: dict[str, Any]) -> About:
    ranges = tuple((int(start), int(end)) for start, end in fields["ranges"])
    return About(str(fields["model"]), str(fields["source"]), str(fields["manifest"]), ranges)


def fetched_layers(root: Path) -> dict[str, tuple[FetchedLayers, ...]]:
    """By model, what the folders below `root` say of themselves; what the mesh can't be told is left out."""
    found: dict[str, list[FetchedLayers]] = {}
    told = 0
    for place in sorted(root.glob(f"{PREFIX}*")):
        about = FetchedFolder(place).about()
        if about is None or place.name != folder_name(about.source, about.manifest):
            continue
        for start, end in about.ranges[: MAX_FETCHED - told]:
            told += 1
            found.setdefault(about.model, []).append(FetchedLayers(about.source, about.manifest, start, end))
    return {model: tuple(layers) for model, layers in found.items()}


def joined(ranges: Collection[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Ranges as few as possible, in order."""
    result: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        elif start < end:
            result.append((start, end))
    return tuple(result)


def size_of(folder: Path) -> int:
    """Bytes of the files below `folder`."""
    sizes = 0
    for file in folder.rglob("*"):
        try:
            sizes += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:  # another stage's part became whole meanwhile
            continue
    return sizes


def _named_in(folder: Path) -> Iterator[tuple[str, bytes, Path]]:
    for path in folder.iterdir() if folder.is_dir() else ():
        if (match := _NAMED.match(path.name)) is not None:
            yield match["name"], bytes.fromhex(match["digest"]), path
