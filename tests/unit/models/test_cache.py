from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshnode.models import cache as cache_module
from meshnode.models.cache import FileCache, stamp_files


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> FileCache[list[int]]:
    return FileCache(tmp_path / "cache", "kind", list[int])


def test_result_comes_back(cache: FileCache[list[int]], model: Path) -> None:
    cache.put(stamp_files([model]), [1, 2])
    assert cache.get(stamp_files([model])) == [1, 2]


def test_changed_size_is_a_miss(cache: FileCache[list[int]], model: Path) -> None:
    cache.put(stamp_files([model]), [1])
    model.write_bytes(b"longer content")
    assert cache.get(stamp_files([model])) is None


def test_changed_time_is_a_miss_to_the_nanosecond(cache: FileCache[list[int]], model: Path) -> None:
    cache.put(stamp_files([model]), [1])
    found = model.stat()
    os.utime(model, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    assert cache.get(stamp_files([model])) is None


def test_file_that_comes_or_goes_is_a_miss(cache: FileCache[list[int]], model: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    cache.put(stamp_files([model, second]), [1])
    second.write_bytes(b"")
    assert cache.get(stamp_files([model, second])) is None


def test_changed_file_replaces_its_entry(cache: FileCache[list[int]], model: Path, tmp_path: Path) -> None:
    cache.put(stamp_files([model]), [1])
    model.write_bytes(b"other")
    cache.put(stamp_files([model]), [2])
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version":1}', b"[" * 100_000, b"\xff" * 50])
def test_damaged_entry_is_a_miss(cache: FileCache[list[int]], model: Path, tmp_path: Path, content: bytes) -> None:
    cache.put(stamp_files([model]), [1])
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(content)
    assert cache.get(stamp_files([model])) is None


def test_entry_of_another_type_is_a_miss(model: Path, tmp_path: Path) -> None:
    FileCache(tmp_path, "kind", str).put(stamp_files([model]), "text")
    assert FileCache(tmp_path, "kind", list[int]).get(stamp_files([model])) is None


def test_entry_of_other_code_is_a_miss(
    cache: FileCache[list[int]], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(stamp_files([model]), [1])
    monkeypatch.setattr(cache_module, "CACHE_VERSION", 999)
    assert cache.get(stamp_files([model])) is None


def test_failed_write_leaves_nothing_behind(
    cache: FileCache[list[int]], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_replace(source: object, target: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", no_replace)
    with pytest.raises(OSError, match="disk full"):
        cache.put(stamp_files([model]), [1])
    assert list((tmp_path / "cache").iterdir()) == []
