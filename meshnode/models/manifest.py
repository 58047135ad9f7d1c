"""A package's identity: do two nodes have the same files?

Two hashes, told apart by their beginning, so that nobody takes one for the other:
- `sampled1:...` over sizes, tensor tables and samples of the content: the first MiB of each file (a GGUF's metadata),
its last 64 KiB and 256 blocks of 4 KiB between. Takes well under a second for any size; this is what nodes compare. It
tells other quantisations, versions and fine-tunes apart (they differ nearly everywhere), not a flipped bit.
- `sha256:...` over every byte, computed on demand off the event loop: against damage.
File names don't count: the same files under other names are the same package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from meshnode.models.cache import FileCache, stamp_files
from meshnode.models.errors import ModelFileError
from meshnode.models.package import ModelPackage, PackageFile

SAMPLED = "sampled1"
COMPLETE = "sha256"
_HEAD_BYTES = 2**20
_TAIL_BYTES = 64 * 2**10
_BLOCKS = 256
_BLOCK_BYTES = 4 * 2**10
_STEP_BYTES = 16 * 2**20

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


def sampled_manifest(package: ModelPackage, *, cache_dir: Path | None = None) -> str | None:
    """The identity that nodes compare; None for a profile, which has no files. Reads about 2 MiB per file.

    Raises `ModelFileError` where a file is gone or has another size than when the package was read.
    """
    if not package.files:
        return None
    stamps = stamp_files([Path(file.path) for file in package.files])
    cache = None if cache_dir is None else FileCache(cache_dir, SAMPLED, str)
    if cache is not None and (known := cache.get(stamps)) is not None:
        return known
    digest = hashlib.sha256(f"meshnode package {SAMPLED} {package.kind}\n".encode())
    for file in package.files:
        digest.update(f"{file.size_bytes} {file.tensors_digest}\n".encode())
        for sample in _samples(file):
            digest.update(sample)
    manifest = f"{SAMPLED}:{digest.hexdigest()[:48]}"
    if cache is not None:
        cache.put(stamps, manifest)
    return manifest


async def complete_manifest(
    package: ModelPackage, *, cache_dir: Path | None = None, on_progress: Progress | None = None
) -> str | None:
    """The hash of every byte, computed in a thread step by step, so that cancelling takes effect within one step.

    None for a profile. Raises `ModelFileError` as `sampled_manifest` does.
    """
    import anyio.to_thread

    if not package.files:
        return None
    stamps = stamp_files([Path(file.path) for file in package.files])
    cache = None if cache_dir is None else FileCache(cache_dir, COMPLETE, str)
    if cache is not None and (known := cache.get(stamps)) is not None:
        return known
    whole = hashlib.sha256(f"meshnode package {COMPLETE} {package.kind}\n".encode())
    done = 0
    for file in package.files:
        one = hashlib.sha256()
        with _open(file) as content:
            while chunk := await anyio.to_thread.run_sync(_hash_step, content, one):
                done += chunk
                if on_progress is not None:
                    on_progress(done, package.size_bytes)
        whole.update(f"{file.size_bytes} {one.hexdigest()}\n".encode())
    manifest = f"{COMPLETE}:{whole.hexdigest()}"
    if cache is not None:
        await anyio.to_thread.run_sync(cache.put, stamps, manifest)
    return manifest


def _hash_step(content: BinaryIO, digest: hashlib._Hash) -> int:
    chunk = content.read(_STEP_BYTES)
    digest.update(chunk)
    return len(chunk)


def _samples(file: PackageFile) -> list[bytes]:
    """Head, tail and evenly spaced blocks; a small file is read whole."""
    with _open(file) as content:
        if file.size_bytes <= _HEAD_BYTES + _TAIL_BYTES:
            return [content.read()]
        samples = [content.read(_HEAD_BYTES)]
        between = file.size_bytes - _HEAD_BYTES - _TAIL_BYTES
        for block in range(_BLOCKS):
            content.seek(_HEAD_BYTES + between * block // _BLOCKS)
            samples.append(content.read(_BLOCK_BYTES))
        content.seek(file.size_bytes - _TAIL_BYTES)
        samples.append(content.read(_TAIL_BYTES))
        return samples


def _open(file: PackageFile) -> BinaryIO:
    path = Path(file.path)
    try:
        content = path.open("rb")
    except OSError as error:
        raise ModelFileError(file.path, "file", str(error.strerror or error), "the file that was read") from error
    size = path.stat().st_size
    if size != file.size_bytes:
        content.close()
        raise ModelFileError(file.path, "file size", str(size), f"{file.size_bytes}, as when it was read")
    return content
