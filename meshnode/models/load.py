"""A model ref to a package: resolve, look into the cache, else read in a child process.

The daemon and the command line come in here. Nothing heavy is imported: profiles are TOML, everything else is read by
`worker` in a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from meshnode.child import ChildFailed, Json, call_in_child, call_in_child_blocking
from meshnode.models.cache import FileCache, FileStamp, stamp_files
from meshnode.models.errors import ModelFileError
from meshnode.models.package import ModelPackage, PackageKind
from meshnode.models.profile import read_profile
from meshnode.models.refs import ResolvedRef, resolve_ref
from meshnode.models.safetensors_dir import CONFIG_NAME, INDEX_NAME

WORKER = "meshnode.models.worker"
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class _Unread:
    """A ref whose files have to be read; `stamps` are the files as they were before that."""

    resolved: ResolvedRef
    stamps: tuple[FileStamp, ...]
    cache_dir: Path

    @property
    def question(self) -> Json:
        paths: list[Json] = [str(path.absolute()) for path in self.resolved.paths]
        return ["package", self.resolved.ref, self.resolved.kind.value, paths]


async def load_model(ref: str, *, cache_dir: Path, model_dirs: Sequence[Path] = ()) -> ModelPackage:
    """The package that `ref` leads to, with files read off the event loop. Cancelling ends the child.

    Raises `ModelFileError` for everything that can be wrong with ref or files.
    """
    import anyio.to_thread

    known = await anyio.to_thread.run_sync(_look_up, ref, cache_dir, model_dirs)
    if isinstance(known, ModelPackage):
        return known
    try:
        answer = await call_in_child(WORKER, known.question)
    except ChildFailed as error:
        raise _worker_died(known, error) from error
    return await anyio.to_thread.run_sync(_accept, known, answer)


def load_model_blocking(ref: str, *, cache_dir: Path, model_dirs: Sequence[Path] = ()) -> ModelPackage:
    """`load_model` for callers without an event loop; the reading still happens in a child process."""
    known = _look_up(ref, cache_dir, model_dirs)
    if isinstance(known, ModelPackage):
        return known
    try:
        answer = call_in_child_blocking(WORKER, known.question, timeout_s=_TIMEOUT_S)
    except ChildFailed as error:
        raise _worker_died(known, error) from error
    return _accept(known, answer)


def error_in(answer: Json) -> ModelFileError | None:
    """The error a worker answered with, if it did."""
    match answer:
        case {"error": [str(path), str(field), str(found), str(expected)]}:
            return ModelFileError(path, field, found, expected)
    return None


def _look_up(ref: str, cache_dir: Path, model_dirs: Sequence[Path]) -> ModelPackage | _Unread:
    """Everything short of reading: the profile, the cached package, or what has to be read."""
    resolved = resolve_ref(ref, model_dirs=model_dirs)
    if resolved.kind is PackageKind.PROFILE:
        return read_profile(resolved.ref, resolved.paths[0])
    stamps = stamp_files(stamped_paths(resolved))
    cached = package_cache(cache_dir).get(stamps)
    if cached is not None:
        return replace(cached, ref=resolved.ref)
    return _Unread(resolved, stamps, cache_dir)


def _accept(unread: _Unread, answer: Json) -> ModelPackage:
    """The worker's answer as a package, remembered. Raises the error it answered with."""
    if (error := error_in(answer)) is not None:
        raise error
    if not isinstance(answer, dict) or "package" not in answer:
        raise ModelFileError(str(unread.resolved.paths[0]), "worker", repr(answer)[:200], "a package or an error")
    package = msgspec.convert(answer["package"], ModelPackage)
    try:
        package_cache(unread.cache_dir).put(unread.stamps, package)
    except OSError:
        # A full or read-only disk costs a read the next time, and nothing now.
        return package
    return package


def _worker_died(unread: _Unread, error: ChildFailed) -> ModelFileError:
    """Out of memory, or a file that shrank while it was mapped."""
    return ModelFileError(str(unread.resolved.paths[0]), "reading", str(error), "a file that can be read to its end")


def package_cache(cache_dir: Path) -> FileCache[ModelPackage]:
    """Packages as read before."""
    return FileCache(cache_dir, "package", ModelPackage)


def stamped_paths(resolved: ResolvedRef) -> list[Path]:
    """The files whose change makes a cached result stale."""
    if resolved.kind is not PackageKind.SAFETENSORS:
        return list(resolved.paths)
    directory = resolved.paths[0]
    return [directory / CONFIG_NAME, directory / INDEX_NAME, *sorted(directory.glob("*.safetensors"))]
