"""What a GGUF's metadata says about memory: KV widths, windows and recurrent state, layer by layer.

Follows llama.cpp, which is what will allocate it (`src/llama-hparams.cpp`, `src/llama-kv-cache.cpp`, and each
architecture's loader under `src/models/`). Where a rule lives in llama.cpp's code and not in the file, the small tables
below carry it. An unknown architecture goes by the generic rules, which only ever overstate: full attention everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from meshnode.models.errors import ModelFileError
from meshnode.models.gguf_state import state_bytes
from meshnode.models.metadata import MAX_WIDTH, Metadata
from meshnode.models.tensors import Experts, LayerMemory

_WINDOW_PERIOD: dict[str, tuple[int, bool]] = {
    "afmoe": (4, False),
    "cohere2": (4, False),
    "exaone-moe": (4, False),
    "exaone4": (4, False),
    "gemma-embedding": (6, False),
    "gemma2": (2, False),
    "gemma3": (6, False),
    "gemma3n": (5, False),
    "gpt-oss": (2, False),
    "laguna": (4, True),
    "llama4": (4, False),
    "modern-bert": (3, True),
    "olmo2": (4, False),
    "phi3": (1, False),
    "plamo3": (8, False),
    "smallthinker": (4, True),
}
"""Period of the sliding-window pattern and whether the full-attention layer comes first in it, where the loader has it
built in: with period n, layer i has a window if i mod n < n - 1 (first: i mod n != 0). 1: none has."""

_BUILT_IN_WINDOW = {"llama4": 8192}
"""llama4 attends in chunks of 8,192, which the cache keeps like a window; the file doesn't say so."""

_FULL_ATTENTION_INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
"""Every n-th layer has attention, the others a linear recurrence; the value is the loader's default."""

_ATTENTION_BESIDE_RECURRENCE = {"falcon-h1"}
"""Each layer has both at once. In every other hybrid a layer has one or the other."""

_LAYERS_WITH_KV = {"gemma3n": 20}
"""Later layers share the cache of earlier ones (newer files say so in `attention.shared_kv_layers`)."""

_SIDE_CACHES_UNKNOWN = {"deepseek4"}
"""Caches compressed by a scheme of their own; counted as full attention, which is more than they take."""

_RECURRENT_TENSOR = re.compile(r"^blk\.(\d{1,6})\.(ssm_|shortconv\.|time_mix_)")


@dataclass(frozen=True, slots=True)
class Description:
    """A model's layers and what else of the metadata the planner needs. Widths in elements, 0 where unknown."""

    layers: tuple[LayerMemory, ...]
    experts: Experts
    feed_forward_width: int
    attention_width: int
    notes: tuple[str, ...]


def describe(architecture: str, metadata: Metadata, layer_count: int, tensor_names: Sequence[str]) -> Description:
    """Read the architecture's keys (`metadata` has its prefix). Raises `ModelFileError` for impossible values."""
    windows, notes = _windows(architecture, metadata, layer_count)
    recurrent = _recurrent_layers(tensor_names)
    state = state_bytes(metadata) if recurrent else 0
    with_kv = _layers_with_kv(architecture, metadata, layer_count, recurrent)
    widths = _kv_widths(metadata, layer_count, windows)
    layers = tuple(
        LayerMemory(
            k_width=widths[layer][0] if with_kv[layer] else 0,
            v_width=widths[layer][1] if with_kv[layer] else 0,
            window=windows[layer] if with_kv[layer] else 0,
            state_bytes=state if layer in recurrent else 0,
        )
        for layer in range(layer_count)
    )
    if architecture in _SIDE_CACHES_UNKNOWN:
        notes = [*notes, f"{architecture} compresses its cache; counted as full attention, it takes less"]
    experts = _experts(metadata)
    attention_width = min(MAX_WIDTH, metadata.largest("attention.head_count") * _head_lengths(metadata)[0])
    return Description(layers, experts, _feed_forward_width(metadata, experts), attention_width, tuple(notes))


def _head_lengths(metadata: Metadata) -> tuple[int, int]:
    """(key, value) length of a head; by default embedding length over heads."""
    heads = metadata.largest("attention.head_count")
    default = metadata.whole("embedding_length", minimum=1) // heads if heads else 0
    return metadata.whole("attention.key_length", default), metadata.whole("attention.value_length", default)


def _kv_widths(metadata: Metadata, layer_count: int, windows: Sequence[int]) -> list[tuple[int, int]]:
    """Elements of K and V per token: KV heads x head length, layer by layer.

    With multi-head latent attention (both `_mla` keys there, as llama.cpp's `is_mla` has it) only K is stored and
    `key_length` is the latent's width with its rope part (576). A lightning indexer keeps one more key per token.
    """
    heads = metadata.per_layer("attention.head_count_kv", layer_count, metadata.largest("attention.head_count"))
    key, value = _head_lengths(metadata)
    key_windowed = metadata.whole("attention.key_length_swa", key)
    value_windowed = metadata.whole("attention.value_length_swa", value)
    indexer = metadata.whole("attention.indexer.key_length", 0)
    latent = metadata.whole("attention.key_length_mla", 0) > 0 and metadata.whole("attention.value_length_mla", 0) > 0
    widths = []
    for count, window in zip(heads, windows, strict=True):
        k_width = count * (key_windowed if window else key) + (indexer if count else 0)
        v_width = 0 if latent else count * (value_windowed if window else value)
        if max(k_width, v_width) > MAX_WIDTH:
            found = f"{count} KV heads of {key} and {value}"
            raise ModelFileError(
                metadata.path, metadata.prefix + "attention.head_count_kv", found, f"a width of at most {MAX_WIDTH}"
            )
        widths.append((k_width, v_width))
    return widths


def _windows(architecture: str, metadata: Metadata, layer_count: int) -> tuple[list[int], list[str]]:
    """The window of each layer in tokens (0: full attention), and notes where it had to be assumed."""
    window = metadata.whole("attention.sliding_window", _BUILT_IN_WINDOW.get(architecture, 0), maximum=1 << 32)
    if window == 0:
        return [0] * layer_count, []
    pattern = metadata.values.get(metadata.prefix + "attention.sliding_window_pattern")
    if isinstance(pattern, list | tuple):
        flags = metadata.per_layer("attention.sliding_window_pattern", layer_count)
        return [window if flag else 0 for flag in flags], []
    period, full_first = _WINDOW_PERIOD.get(architecture, (0, False))
    if architecture not in _WINDOW_PERIOD and pattern is None:
        note = f"{architecture} has a window of {window} and no known pattern; counted as full attention, it takes less"
        return [0] * layer_count, [note]
    period = metadata.whole("attention.sliding_window_pattern", period, maximum=1 << 20)
    return [window if has_window(layer, period, full_first) else 0 for layer in range(layer_count)], []


def has_window(layer: int, period: int, full_first: bool = False) -> bool:
    """llama.cpp's `set_swa_pattern`: in each group of `period` layers one has full attention, the last or the first."""
    if period == 0:
        return True
    return layer % period != 0 if full_first else layer % period < period - 1


def _recurrent_layers(tensor_names: Sequence[str]) -> frozenset[int]:
    """Layers with the tensors of a recurrence. They are the surest sign: of layers without KV some have no state."""
    return frozenset(int(match[1]) for name in tensor_names if (match := _RECURRENT_TENSOR.match(name)))


def _layers_with_kv(architecture: str, metadata: Metadata, layer_count: int, recurrent: frozenset[int]) -> list[bool]:
    interval = metadata.whole("full_attention_interval", _FULL_ATTENTION_INTERVAL.get(architecture, 0))
    shared = metadata.whole("attention.shared_kv_layers", 0)
    first_without = min(
        layer_count - shared, _LAYERS_WITH_KV.get(architecture, layer_count) if shared == 0 else layer_count
    )
    beside = architecture in _ATTENTION_BESIDE_RECURRENCE
    with_kv = []
    for layer in range(layer_count):
        has_attention = (layer + 1) % interval == 0 if interval else beside or layer not in recurrent
        with_kv.append(has_attention and layer < first_without)
    return with_kv


def _experts(metadata: Metadata) -> Experts:
    count = metadata.largest("expert_count")
    used = metadata.largest("expert_used_count")
    if used > count or (count and not used):
        raise ModelFileError(
            metadata.path, metadata.prefix + "expert_used_count", str(used), f"1 to expert_count, which is {count}"
        )
    return Experts(count, used)


def _feed_forward_width(metadata: Metadata, experts: Experts) -> int:
    """The widest feed-forward one token passes: the dense one, or its experts and the shared ones."""
    dense = metadata.largest("feed_forward_length")
    if experts.count == 0:
        return dense
    one = metadata.largest("expert_feed_forward_length", dense)
    shared = metadata.largest("expert_shared_feed_forward_length", metadata.largest("expert_shared_count") * one)
    mixture = experts.used * one + shared
    has_dense_layers = metadata.whole("leading_dense_block_count", 0) > 0
    return min(1 << 26, max(mixture, dense) if has_dense_layers else mixture)
