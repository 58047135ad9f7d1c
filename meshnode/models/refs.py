"""Model refs: what a user types for a model, led to files. No file's content is read here beyond four magic bytes.

A ref is one of
- a GGUF file, or any part of a set of several (`name-00002-of-00006.gguf`);
- a directory with one GGUF file or set, or with safetensors files and a `config.json`;
- a profile file (`*.toml`);
- a bare name: a profile of `configs/models`, or a model in one of the node's model directories.

A bare name means the profile if there is one; write `./name` for a file or directory of the same name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshnode.models.errors import ModelFileError, shown
from meshnode.models.gguf_file import model_name, part_paths
from meshnode.models.package import PackageKind
from meshnode.models.safetensors_dir import CONFIG_NAME, INDEX_NAME

_MODEL_SUFFIXES = frozenset({".gguf", ".safetensors", ".toml"})
_MAX_DEPTH = 3
"""Model directories are walked this deep: directory, publisher, model."""
_MAX_MODELS = 1000
_CLOSE_NAMES = 3
_MAX_REF_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class ResolvedRef:
    """Where a ref led: `paths` are the GGUF parts in order (existing or not), the safetensors directory, or the
    profile file."""

    ref: str
    kind: PackageKind
    paths: tuple[Path, ...]

    @property
    def name(self) -> str:
        """What the model will be called before it is read."""
        if self.kind is PackageKind.GGUF:
            return model_name(self.paths[0])
        return self.paths[0].stem if self.kind is PackageKind.PROFILE else self.paths[0].resolve().name


def profile_directories() -> tuple[Path, ...]:
    """Where profiles are: next to this package in an installation, in `configs/models` of a checkout."""
    package = Path(__file__).resolve().parent.parent
    candidates = (package / "configs" / "models", package.parent / "configs" / "models")
    return tuple(directory for directory in candidates if directory.is_dir())


def profile_names(directories: Iterable[Path] | None = None) -> dict[str, Path]:
    """Every profile by its name (its file's stem), sorted; the first directory wins."""
    found: dict[str, Path] = {}
    for directory in profile_directories() if directories is None else directories:
        for path in directory.glob("*.toml"):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def resolve_ref(
    ref: str, *, model_dirs: Sequence[Path] = (), profile_dirs: Iterable[Path] | None = None
) -> ResolvedRef:
    """Find what `ref` means. Raises `ModelFileError` with near names where it means nothing."""
    text = ref.strip()
    if not text or not text.isprintable() or len(text) > _MAX_REF_CHARACTERS:
        raise ModelFileError(shown(ref), "model", "no name", "a file, a directory or a profile's name")
    try:
        return _resolve(text, model_dirs, profile_names(profile_dirs))
    except (OSError, RuntimeError) as error:  # a directory that may not be read, a path too long, an unknown ~user
        raise ModelFileError(text, "model", str(error), "a path that can be looked at") from error


def _resolve(ref: str, model_dirs: Sequence[Path], profiles: dict[str, Path]) -> ResolvedRef:
    is_bare = os.sep not in ref and "/" not in ref
    if is_bare and (profile := _by_name(ref, profiles)) is not None:
        return ResolvedRef(ref, PackageKind.PROFILE, (profile,))
    path = Path(ref).expanduser()
    if path.is_dir():
        return _in_directory(ref, path)
    if path.exists() or not is_bare:
        return _at_file(ref, path)
    at_hand = find_models(model_dirs)
    for found in at_hand:
        if ref.lower() in {found.name.lower(), found.paths[0].name.lower()}:
            return ResolvedRef(ref, found.kind, found.paths)
    raise _unknown(ref, [*profiles, *(found.name for found in at_hand)])


def find_models(model_dirs: Sequence[Path]) -> tuple[ResolvedRef, ...]:
    """Every package in the model directories, by path, at most a thousand. Projectors (`mmproj`) are no models."""
    found: list[ResolvedRef] = []
    for directory in model_dirs:
        for level in _directories(directory.expanduser(), _MAX_DEPTH):
            found += _packages_in(level)
            if len(found) >= _MAX_MODELS:
                return tuple(found[:_MAX_MODELS])
    return tuple(found)


def _directories(directory: Path, depth: int) -> Iterator[Path]:
    """`directory` and what is in it, `depth` levels down, without following links back up."""
    if not directory.is_dir():
        return
    yield directory
    if depth > 0:
        for child in sorted(directory.iterdir()):
            if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
                yield from _directories(child, depth - 1)


def _packages_in(directory: Path) -> list[ResolvedRef]:
    packages = [ResolvedRef(str(paths[0]), PackageKind.GGUF, paths) for paths in _gguf_sets(directory)]
    if _has_safetensors(directory):
        packages.append(ResolvedRef(str(directory), PackageKind.SAFETENSORS, (directory,)))
    return packages


def _by_name(name: str, profiles: dict[str, Path]) -> Path | None:
    wanted = name.removesuffix(".toml").lower()
    return next((path for known, path in profiles.items() if known.lower() == wanted), None)


def _in_directory(ref: str, directory: Path) -> ResolvedRef:
    sets = _gguf_sets(directory)
    if sets and _has_safetensors(directory):
        raise ModelFileError(
            str(directory), "directory", "GGUF and safetensors files", f"one; name {CONFIG_NAME} or the GGUF file"
        )
    if len(sets) > 1:
        names = ", ".join(model_name(paths[0]) for paths in sets)
        raise ModelFileError(str(directory), "directory", f"{len(sets)} GGUF models ({names})", "one; name its file")
    if sets:
        return ResolvedRef(ref, PackageKind.GGUF, sets[0])
    if _has_safetensors(directory):
        return ResolvedRef(ref, PackageKind.SAFETENSORS, (directory,))
    raise ModelFileError(str(directory), "directory", "no model files", "*.gguf, or *.safetensors and config.json")


def _gguf_sets(directory: Path) -> list[tuple[Path, ...]]:
    """One entry per model: parts of a set stand together, named by any part that is there."""
    sets = {part_paths(path) for path in directory.glob("*.gguf") if not path.name.lower().startswith("mmproj")}
    return sorted(sets)


def _has_safetensors(directory: Path) -> bool:
    return (directory / INDEX_NAME).exists() or any(directory.glob("*.safetensors"))


def _at_file(ref: str, path: Path) -> ResolvedRef:
    if not path.exists():
        siblings = _candidates(path.parent)
        # A later part named of a set whose first is there is a question of the set, not of the name.
        if path.suffix == ".gguf" and any(part.exists() for part in part_paths(path)):
            return ResolvedRef(ref, PackageKind.GGUF, part_paths(path))
        raise _unknown(ref, siblings)
    if path.suffix == ".toml":
        return ResolvedRef(ref, PackageKind.PROFILE, (path,))
    if path.suffix == ".safetensors" or path.name in {INDEX_NAME, CONFIG_NAME}:
        return ResolvedRef(ref, PackageKind.SAFETENSORS, (path.parent,))
    if path.suffix == ".gguf" or _magic(path) == b"GGUF":
        return ResolvedRef(ref, PackageKind.GGUF, part_paths(path))
    raise ModelFileError(str(path), "file", "no model's file name", "*.gguf, *.safetensors, *.toml or a directory")


def _candidates(directory: Path) -> list[str]:
    """What a mistyped path in `directory` may have meant: model files, profiles, and directories with models."""
    if not directory.is_dir():
        return []
    return [
        item.name for item in sorted(directory.iterdir())
        if item.suffix in _MODEL_SUFFIXES or (item.is_dir() and (_gguf_sets(item) or _has_safetensors(item)))
    ]  # fmt: skip


def _magic(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise ModelFileError(str(path), "file", str(error.strerror or error), "a readable file") from error


def _unknown(ref: str, names: Sequence[str]) -> ModelFileError:
    import difflib  # not held by a node that knows its models

    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(ref.rsplit("/", 1)[-1].lower(), by_lower, n=_CLOSE_NAMES, cutoff=0.5)
    if near:
        expected = "a known name; did you mean " + " or ".join(by_lower[name] for name in near) + "?"
    elif names:
        shown = sorted(names)[:10]
        expected = "one of " + ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
    else:
        expected = "a model's file or directory, or a name that `meshnode models` lists"
    return ModelFileError(ref, "model", "no file, directory or profile of this name", expected)
