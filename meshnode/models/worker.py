"""The child process that reads model files: the only place where `gguf`, `safetensors` and numpy are imported.

Speaks JSON as `meshnode.child` has it. Errors of the files are answers, not crashes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from meshnode.child import Json, serve
from meshnode.models import gguf_file, safetensors_dir
from meshnode.models.errors import ModelFileError
from meshnode.models.gguf_file import read_gguf, read_gguf_file
from meshnode.models.package import ModelPackage, PackageFile, PackageKind
from meshnode.models.safetensors_dir import read_safetensors, read_shard
from meshnode.models.tensors import parts_in, table_digest

_MAX_DATA_BYTES = 4 * 2**30
"""Memory of the child beyond mapped files: a header that slips past every check still can't take the machine."""


def main(argument: Json) -> Json:
    """`["package", ref, kind, [path, ...]]` -> `{"package": ...}`; `["present", kind, [path, ...]]` -> `{"files":
    ...}`; either -> `{"error": [path, field, found, expected]}`."""
    _limit_memory()
    try:
        match argument:
            case ["package", str(ref), str(kind), [*paths]]:
                return {"package": msgspec.to_builtins(read_package(ref, PackageKind(kind), _paths(paths)))}
            case ["present", str(kind), [*paths]]:
                return {"files": msgspec.to_builtins(read_present(PackageKind(kind), _paths(paths)))}
    except ModelFileError as error:
        return {"error": [error.path, error.field, error.found, error.expected]}
    except MemoryError:
        return {"error": ["model", "header", f"more than {_MAX_DATA_BYTES} bytes to hold", "far less"]}
    raise ValueError(f"expected a request for package or present files, got {argument!r}")


def _paths(texts: list[Json]) -> list[Path]:
    return [Path(str(text)) for text in texts]


def read_package(ref: str, kind: PackageKind, paths: list[Path]) -> ModelPackage:
    """Read a package's files in this very process. Raises `ModelFileError`."""
    if kind is PackageKind.GGUF:
        return read_gguf(ref, paths)
    return read_safetensors(ref, paths[0])


def read_present(kind: PackageKind, paths: list[Path]) -> list[PackageFile]:
    """What the readable ones of some model files hold; a file that is missing or damaged is left out."""
    found = []
    for path in paths:
        try:
            tensors = read_gguf_file(path).tensors if kind is PackageKind.GGUF else read_shard(path, 0)
        except ModelFileError:
            continue
        dialect = gguf_file.DIALECT if kind is PackageKind.GGUF else safetensors_dir.DIALECT
        size_bytes = path.stat().st_size
        found.append(PackageFile(str(path), size_bytes, parts_in(tensors, dialect), table_digest(tensors)))
    return found


def _limit_memory() -> None:
    # RLIMIT_DATA counts private memory only (Linux 4.7 on), not the mapped model file.
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard == resource.RLIM_INFINITY or hard > _MAX_DATA_BYTES:
            resource.setrlimit(resource.RLIMIT_DATA, (_MAX_DATA_BYTES, hard))


if __name__ == "__main__":
    serve(main)
