from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from meshnode.models import ModelFileError, ModelPackage, complete_manifest, sampled_manifest
from meshnode.models.gguf_file import part_paths, read_gguf


def package_of(path: Path) -> ModelPackage:
    return read_gguf(str(path), part_paths(path))


@pytest.fixture
def small(make: Any, tmp_path: Path) -> Path:
    return Path(make.write_gguf(tmp_path / "m.gguf", make.llama_keys(), make.llama_tensors()))


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_same_content_under_another_name_is_the_same_package(small: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "renamed.gguf"
    other.parent.mkdir()
    other.write_bytes(small.read_bytes())
    assert sampled_manifest(package_of(small)) == sampled_manifest(package_of(other))


def test_other_content_of_the_same_shape_is_another_package(small: Path) -> None:
    before = sampled_manifest(package_of(small))
    flip_last_byte(small)
    assert sampled_manifest(package_of(small)) != before


def test_other_metadata_is_another_package(make: Any, tmp_path: Path, small: Path) -> None:
    other = make.write_gguf(tmp_path / "o.gguf", make.llama_keys(context_length=8192), make.llama_tensors())
    assert sampled_manifest(package_of(small)) != sampled_manifest(package_of(other))


def test_both_kinds_say_which_they_are(small: Path) -> None:
    package = package_of(small)
    sampled = sampled_manifest(package)
    complete = anyio.run(lambda: complete_manifest(package))
    assert sampled is not None
    assert complete is not None
    assert (sampled.split(":")[0], complete.split(":")[0]) == ("sampled1", "sha256")
    assert max(len(sampled), len(complete)) <= 128


def test_manifest_of_the_real_file_is_fixed(gemma: Path) -> None:
    """Nodes of different versions compare it: a change of the rule needs a new prefix."""
    assert sampled_manifest(package_of(gemma)) == "sampled1:af993f629d8330c40cc04b53f3613376854dda2d145b4d9e"


async def test_complete_hash_reports_progress_to_the_end(gemma: Path, tmp_path: Path) -> None:
    package = package_of(gemma)
    seen: list[tuple[int, int]] = []
    await complete_manifest(package, cache_dir=tmp_path, on_progress=lambda done, whole: seen.append((done, whole)))
    assert seen == sorted(seen)
    assert seen[-1] == (package.size_bytes, package.size_bytes)


async def test_complete_hash_is_remembered(small: Path, tmp_path: Path) -> None:
    package = package_of(small)
    first = await complete_manifest(package, cache_dir=tmp_path / "cache")
    progress: list[int] = []
    again = await complete_manifest(
        package, cache_dir=tmp_path / "cache", on_progress=lambda done, _: progress.append(done)
    )
    assert (again, progress) == (first, [])


def test_sampled_hash_is_remembered_until_the_file_changes(small: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = sampled_manifest(package_of(small), cache_dir=cache)
    assert sampled_manifest(package_of(small), cache_dir=cache) == before
    flip_last_byte(small)
    assert sampled_manifest(package_of(small), cache_dir=cache) != before


def test_file_that_changed_since_it_was_read_is_refused(small: Path) -> None:
    package = package_of(small)
    with small.open("ab") as file:
        file.write(b"more")
    with pytest.raises(ModelFileError, match="file size"):
        sampled_manifest(package)


def test_file_that_is_gone_is_refused(small: Path) -> None:
    package = package_of(small)
    small.unlink()
    with pytest.raises(ModelFileError, match="No such file"):
        sampled_manifest(package)
