from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from meshnode.models import ModelFileError, load_model, load_model_blocking
from meshnode.models.gguf_file import part_paths, read_gguf


async def test_real_file_is_read_in_a_child_and_equals_reading_it_here(gemma: Path, tmp_path: Path) -> None:
    package = await load_model(str(gemma), cache_dir=tmp_path)
    assert package == read_gguf(str(gemma), part_paths(gemma))


async def test_second_load_needs_no_child(gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await load_model(str(gemma), cache_dir=tmp_path)
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert await load_model(str(gemma), cache_dir=tmp_path) == first


async def test_changed_file_is_read_again(make: Any, tmp_path: Path) -> None:
    path = make.write_gguf(tmp_path / "m.gguf", make.llama_keys(2), make.llama_tensors(2))
    await load_model(str(path), cache_dir=tmp_path / "cache")
    make.write_gguf(path, make.llama_keys(3), make.llama_tensors(3))
    assert (await load_model(str(path), cache_dir=tmp_path / "cache")).spec.layer_count == 3


async def test_new_shard_index_makes_the_cached_result_stale(make: Any, tmp_path: Path) -> None:
    directory = make.write_safetensors(tmp_path / "m", make.llama_config(1), [make.hf_tensors([0])])
    await load_model(str(directory), cache_dir=tmp_path / "cache")
    config = directory / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 1', '"num_hidden_layers": 2'))
    with pytest.raises(ModelFileError, match="tensors of layer 1"):
        await load_model(str(directory), cache_dir=tmp_path / "cache")


async def test_error_of_the_file_crosses_the_process_border_whole(make: Any, tmp_path: Path) -> None:
    path = make.write_gguf(tmp_path / "m.gguf", make.llama_keys(0), make.llama_tensors(0))
    with pytest.raises(ModelFileError) as caught:
        await load_model(str(path), cache_dir=tmp_path)
    assert (caught.value.path, caught.value.field, caught.value.found) == (str(path), "llama.block_count", "0")


async def test_child_that_dies_is_an_error_of_the_file(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make.write_gguf(tmp_path / "m.gguf", make.llama_keys(), make.llama_tensors())
    monkeypatch.setattr("meshnode.models.load.WORKER", "meshnode.no_such_module")
    with pytest.raises(ModelFileError, match="reading: found child process"):
        await load_model(str(path), cache_dir=tmp_path)


async def test_cache_that_cannot_be_written_costs_nothing_but_time(make: Any, tmp_path: Path) -> None:
    path = make.write_gguf(tmp_path / "m.gguf", make.llama_keys(), make.llama_tensors())
    blocked = tmp_path / "file-in-the-way"
    blocked.write_bytes(b"")
    assert (await load_model(str(path), cache_dir=blocked)).spec.layer_count == 2


async def test_loop_runs_on_while_a_file_is_read(gemma: Path, tmp_path: Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.sleep(0.005)
            ticks += 1

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await load_model(str(gemma), cache_dir=tmp_path)
        group.cancel_scope.cancel()
    assert ticks >= 5


def test_blocking_load_reads_the_same(make: Any, tmp_path: Path) -> None:
    path = make.write_gguf(tmp_path / "m.gguf", make.llama_keys(), make.llama_tensors())
    assert load_model_blocking(str(path), cache_dir=tmp_path).spec == read_gguf("m", [path]).spec


def test_ref_of_the_question_is_kept_though_the_cache_knows_another(make: Any, tmp_path: Path) -> None:
    path = make.write_gguf(tmp_path / "m.gguf", make.llama_keys(), make.llama_tensors())
    load_model_blocking(str(path), cache_dir=tmp_path)
    assert load_model_blocking(str(tmp_path), cache_dir=tmp_path).ref == str(tmp_path)


@pytest.mark.parametrize("room", ["meshnode.models", "meshnode.resources"])
def test_importing_the_room_loads_nothing_heavy(room: str) -> None:
    script = (
        f"import sys, {room}; from meshnode.resources import *;"
        "survey_machine(OfferSettings(), SystemProbe());"
        "print(sorted({'numpy', 'gguf', 'safetensors', 'rich', 'scipy'} & set(sys.modules)))"
    )
    root = str(Path(__file__).resolve().parents[3])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
