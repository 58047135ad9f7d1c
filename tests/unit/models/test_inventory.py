from __future__ import annotations

from pathlib import Path
from typing import Any

from meshnode.models import InventoryEntry, Presence, read_inventory
from meshnode.models.gguf_file import part_paths, read_gguf
from meshnode.models.safetensors_dir import read_safetensors


async def the_entry(ref: Path | str, tmp_path: Path, **more: Any) -> InventoryEntry:
    (entry,) = await read_inventory([str(ref)], cache_dir=tmp_path / "cache", **more)
    return entry


async def test_complete_model_misses_nothing(make: Any, tmp_path: Path) -> None:
    path = make.write_gguf(tmp_path / "m.gguf", make.llama_keys(3), make.llama_tensors(3))
    entry = await the_entry(path, tmp_path)
    assert entry.whole is not None
    assert (entry.presence, entry.missing_bytes) == (Presence.COMPLETE, 0)
    assert entry.cached_bytes == entry.whole.spec.file_bytes
    assert entry.manifest is not None


async def test_layer_range_is_counted_alone(make: Any, tmp_path: Path) -> None:
    path = make.write_gguf(tmp_path / "m.gguf", make.llama_keys(3), make.llama_tensors(3))
    entry = await the_entry(path, tmp_path)
    layer = 2 * 64 * (64 + 128)
    assert entry.cached_of(1, 3) == 2 * layer
    assert entry.cached_of(0, 1, embedding=True) == layer + 12_800
    assert entry.missing_of(0, 3, output=True) == 0


async def test_set_that_lacks_a_part_is_partial_and_its_lack_unknown(make: Any, tmp_path: Path) -> None:
    make.write_gguf(tmp_path / "m.gguf", make.llama_keys(4), make.llama_tensors(4), max_tensors_per_part=3)
    (tmp_path / "m-00003-of-00004.gguf").unlink()
    entry = await the_entry(tmp_path / "m-00001-of-00004.gguf", tmp_path)
    assert (entry.presence, entry.missing_bytes, entry.manifest) == (Presence.PARTIAL, None, None)
    assert entry.error is not None
    assert "part 3 of 4" in entry.error.field


async def test_lack_is_known_once_a_complete_holder_tells(make: Any, tmp_path: Path) -> None:
    make.write_gguf(tmp_path / "m.gguf", make.llama_keys(4), make.llama_tensors(4), max_tensors_per_part=3)
    first = tmp_path / "m-00001-of-00004.gguf"
    whole = read_gguf("m", part_paths(first))
    (tmp_path / "m-00003-of-00004.gguf").unlink()
    entry = await the_entry(first, tmp_path, against={"m": whole})
    lacking = sum(held.bytes for held in whole.files[2].holds)
    assert entry.missing_bytes == lacking
    assert entry.cached_bytes == whole.spec.file_bytes - lacking


async def test_partial_safetensors_count_what_is_there(make: Any, tmp_path: Path) -> None:
    shards = [make.hf_tensors([0, 1], head=False), make.hf_tensors([2], embedding=False)]
    directory = make.write_safetensors(tmp_path / "m", make.llama_config(3), shards)
    whole = read_safetensors("m", directory)
    (directory / "model-00002-of-00002.safetensors").unlink()
    entry = await the_entry(directory, tmp_path, against={"m": whole})
    layer = 2 * 64 * (32 + 128)
    assert entry.presence is Presence.PARTIAL
    assert (entry.cached_of(0, 3), entry.missing_of(0, 3)) == (2 * layer, layer)


async def test_model_that_is_nowhere_is_absent(tmp_path: Path) -> None:
    entry = await the_entry("no-such-model", tmp_path)
    assert (entry.presence, entry.cached_bytes, entry.missing_bytes) == (Presence.ABSENT, 0, None)


async def test_absent_model_lacks_all_of_what_a_holder_tells(make: Any, tmp_path: Path) -> None:
    path = make.write_gguf(tmp_path / "m.gguf", make.llama_keys(), make.llama_tensors())
    whole = read_gguf("m", [path])
    entry = await the_entry("no-such-model", tmp_path, against={"no-such-model": whole})
    assert entry.missing_bytes == whole.spec.file_bytes


async def test_damaged_file_is_unreadable_and_others_are_unaffected(make: Any, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    good = make.write_gguf(models / "good.gguf", make.llama_keys(), make.llama_tensors())
    (models / "bad.gguf").write_bytes(good.read_bytes()[:200])
    entries = await read_inventory([], cache_dir=tmp_path / "cache", model_dirs=[models])
    assert [(entry.name, entry.presence) for entry in entries] == [
        ("bad", Presence.UNREADABLE),
        ("good", Presence.COMPLETE),
    ]


async def test_model_named_and_found_in_a_directory_is_one_entry(make: Any, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    make.write_gguf(models / "m.gguf", make.llama_keys(), make.llama_tensors())
    entries = await read_inventory(["m"], cache_dir=tmp_path / "cache", model_dirs=[models])
    assert [entry.ref for entry in entries] == ["m"]
