"""Hostile model files: every reader answers with a package or with `ModelFileError`, and never takes much memory.

The readers run in this process, so that a crash or a runaway allocation is the test's own.
"""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from meshnode.models import ModelFileError
from meshnode.models.gguf_file import read_gguf
from meshnode.models.refs import resolve_ref
from meshnode.models.safetensors_dir import read_safetensors

MAX_PYTHON_BYTES = 64 * 2**20
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Fails if more than 64 MiB were held at once (files here are a few KiB)."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MAX_PYTHON_BYTES
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def gguf_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    writer = GGUFWriter(path, "llama")
    for key, value in {
        "block_count": 2, "embedding_length": 32, "attention.head_count": 2, "attention.head_count_kv": 1,
        "expert_count": 4, "expert_used_count": 2, "attention.sliding_window": 64, "nextn_predict_layers": 0,
    }.items():  # fmt: skip
        writer.add_uint32(f"llama.{key}", value)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])
    writer.add_array("llama.attention.sliding_window_pattern", [True, False])
    for name in ("token_embd.weight", "blk.0.attn_k.weight", "blk.1.ffn_up_exps.weight", "output.weight"):
        writer.add_tensor(name, np.zeros((2, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


CONFIG = {
    "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    "vocab_size": 10, "layer_types": ["full_attention", "sliding_attention"], "sliding_window": 64,
    "num_experts": 4, "num_experts_per_tok": 2, "model_type": "x", "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def safetensors_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("st") / "model.safetensors"
    names = ("model.embed_tokens.weight", "model.layers.0.a.weight", "model.layers.1.b.weight", "lm_head.weight")
    save_file({name: np.zeros((2, 32), np.float16) for name in names}, path)
    return path.read_bytes()


def read_or_refuse(read: Callable[[], object]) -> None:
    with bounded_memory(), suppress(ModelFileError):
        read()


edits = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9)), min_size=1, max_size=4)


def mutate(content: bytes, changes: list[tuple[float, bytes]]) -> bytes:
    """Overwrite some bytes at relative places."""
    mutated = bytearray(content)
    for place, new in changes:
        start = int(place * (len(content) - 1))
        mutated[start : start + len(new)] = new
    return bytes(mutated)


@FUZZ
@given(length=st.floats(0, 1))
def test_gguf_cut_anywhere(gguf_bytes: bytes, tmp_path: Path, length: float) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes[: int(length * len(gguf_bytes))])
    read_or_refuse(lambda: read_gguf("m", [path]))


@settings(FUZZ, max_examples=600)
@given(changes=edits)
@example(changes=[(0.0, b"GGUF\x03\x00\x00\x00"), (0.002, b"\xff" * 8)])
def test_gguf_with_bytes_overwritten(gguf_bytes: bytes, tmp_path: Path, changes: list[tuple[float, bytes]]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(mutate(gguf_bytes, changes))
    read_or_refuse(lambda: read_gguf("m", [path]))


@FUZZ
@given(
    offset=st.integers(8, 700),
    value=st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1, 2**24, 2**20]),
)
def test_gguf_with_any_length_replaced(gguf_bytes: bytes, tmp_path: Path, offset: int, value: int) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes[:offset] + struct.pack("<Q", value) + gguf_bytes[offset + 8 :])
    read_or_refuse(lambda: read_gguf("m", [path]))


@FUZZ
@given(tail=st.binary(max_size=300), counts=st.tuples(st.integers(0, 20), st.integers(0, 20)))
def test_gguf_of_random_bytes_after_a_good_beginning(tmp_path: Path, tail: bytes, counts: tuple[int, int]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, *counts) + tail)
    read_or_refuse(lambda: read_gguf("m", [path]))


@pytest.fixture
def model_dir(safetensors_bytes: bytes, tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes)
    return tmp_path


def test_the_unharmed_files_are_read(gguf_bytes: bytes, model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf_bytes)
    assert read_gguf("m", [tmp_path / "m.gguf"]).spec.layer_count == 2
    assert read_safetensors("m", model_dir).spec.layer_count == 2


@FUZZ
@given(changes=edits)
def test_safetensors_with_bytes_overwritten(
    safetensors_bytes: bytes, model_dir: Path, changes: list[tuple[float, bytes]]
) -> None:
    (model_dir / "model.safetensors").write_bytes(mutate(safetensors_bytes, changes))
    read_or_refuse(lambda: read_safetensors("m", model_dir))


@FUZZ
@given(length=st.floats(0, 1))
def test_safetensors_cut_anywhere(safetensors_bytes: bytes, model_dir: Path, length: float) -> None:
    cut = safetensors_bytes[: int(length * len(safetensors_bytes))]
    (model_dir / "model.safetensors").write_bytes(cut)
    read_or_refuse(lambda: read_safetensors("m", model_dir))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
tensor_entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F16", "BF16", "F4", "U64", "X"]) | json_values,
        "shape": st.lists(st.integers(-2, 2**64), max_size=4) | json_values,
        "data_offsets": st.lists(st.integers(-2, 2**64), max_size=3) | json_values,
    },
)


@FUZZ
@given(
    header=st.dictionaries(st.text(max_size=20), tensor_entries | json_values, max_size=4), data=st.binary(max_size=64)
)
def test_safetensors_with_any_header(model_dir: Path, header: dict[str, Any], data: bytes) -> None:
    encoded = json.dumps(header).encode()
    (model_dir / "model.safetensors").write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)
    read_or_refuse(lambda: read_safetensors("m", model_dir))


@settings(FUZZ, max_examples=400)
@given(changes=st.dictionaries(st.sampled_from([*CONFIG, "text_config", "kv_lora_rank", "hybrid_override_pattern",
    "full_attention_interval", "linear_num_value_heads", "max_window_layers", "multi_query", "use_sliding_window",
    "sliding_window_pattern", "layers_block_type", "n_shared_experts", "intermediate_size"]),
    json_values | st.integers(-1, 2**70), max_size=4))  # fmt: skip
def test_config_with_any_values(model_dir: Path, changes: dict[str, Any]) -> None:
    (model_dir / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    read_or_refuse(lambda: read_safetensors("m", model_dir))


@FUZZ
@given(content=json_values | st.dictionaries(st.just("weight_map"), json_values, min_size=1))
def test_index_with_any_content(model_dir: Path, content: Any) -> None:
    (model_dir / "model.safetensors.index.json").write_text(json.dumps(content))
    read_or_refuse(lambda: read_safetensors("m", model_dir))


@FUZZ
@given(content=st.binary(max_size=200))
def test_config_of_random_bytes(model_dir: Path, content: bytes) -> None:
    (model_dir / "config.json").write_bytes(content)
    read_or_refuse(lambda: read_safetensors("m", model_dir))


@FUZZ
@given(ref=st.text(max_size=60))
@example(ref="x" * 5000)
@example(ref="a/" * 3000)
@example(ref="~nobody/x")
def test_any_text_as_a_ref(ref: str) -> None:
    with suppress(ModelFileError):
        resolve_ref(ref)
