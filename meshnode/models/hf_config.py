"""What a `config.json` of the transformers library says about memory: KV widths, windows, state, experts.

Sources: the configuration classes of transformers (`configuration_*.py`), whose names these keys are. Multimodal models
keep the language model's keys under `text_config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshnode.models.errors import ModelFileError, shown
from meshnode.models.gguf_architecture import has_window
from meshnode.models.metadata import MAX_LAYERS, MAX_WIDTH, Metadata
from meshnode.models.tensors import Experts, LayerMemory

_F32_BYTES = 4
_LAYER_COUNT_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_HEAD_KEYS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_HIDDEN_KEYS = ("hidden_size", "n_embd", "d_model")
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len")
_EXPERT_KEYS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
_EXPERTS_USED_KEYS = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "top_k_experts")
_FEED_FORWARD_KEYS = ("intermediate_size", "n_inner", "ffn_dim")

_WINDOW_PERIOD = {"gemma2": 2, "gemma3_text": 6, "gemma3": 6, "cohere2": 4, "gpt_oss": 2}
"""Families whose older configs leave the period of full-attention layers to the code."""

_FULL = frozenset({"full_attention", "attention", "global_attention", "global", "hybrid"})
_WINDOWED = frozenset({"sliding_attention", "chunked_attention", "local_attention", "local"})
_RECURRENT = frozenset({"linear_attention", "mamba", "mamba2", "linear", "recurrent", "ssm"})
_WITHOUT_CACHE = frozenset({"mlp", "moe", "ffn"})


@dataclass(frozen=True, slots=True)
class ConfigDescription:
    """The language model a config.json describes. Widths in elements, 0 where unknown."""

    architecture: str
    layers: tuple[LayerMemory, ...]
    experts: Experts
    hidden_size: int
    vocabulary: int
    native_context: int
    head_count: int
    feed_forward_width: int
    attention_width: int


def describe_config(path: str, config: Mapping[str, object]) -> ConfigDescription:
    """Read a parsed config.json. Raises `ModelFileError` for keys that are missing or impossible."""
    values = _language_model(path, config)
    metadata = Metadata(path, values)
    layer_count = metadata.first_whole(_LAYER_COUNT_KEYS, maximum=MAX_LAYERS)
    if layer_count == 0:
        found = "0" if any(metadata.has(key) for key in _LAYER_COUNT_KEYS) else "nothing"
        raise ModelFileError(path, "num_hidden_layers", found, f"a whole number from 1 to {MAX_LAYERS}")
    hidden = metadata.first_whole(_HIDDEN_KEYS)
    if hidden == 0:
        raise ModelFileError(path, "hidden_size", "nothing", f"a whole number from 1 to {MAX_WIDTH}")
    heads = metadata.first_whole(_HEAD_KEYS)
    experts = _experts(metadata)
    k_width, v_width = _kv_widths(metadata, hidden, heads)
    kinds = _layer_kinds(metadata, layer_count)
    window = metadata.whole("sliding_window", 0, maximum=1 << 32) or metadata.whole("attention_chunk_size", 0)
    state = _state_bytes(metadata, hidden) if "recurrent" in kinds else 0
    return ConfigDescription(
        architecture=metadata.text("model_type", "unknown"),
        layers=tuple(_layer(kind, k_width, v_width, window, state) for kind in kinds),
        experts=experts,
        hidden_size=hidden,
        vocabulary=metadata.whole("vocab_size", 0, maximum=1 << 28),
        native_context=metadata.first_whole(_CONTEXT_KEYS, maximum=1 << 32),
        head_count=heads,
        feed_forward_width=_feed_forward_width(metadata, experts),
        attention_width=min(MAX_WIDTH, heads * (metadata.whole("head_dim", 0) or (hidden // heads if heads else 0))),
    )


def _language_model(path: str, config: Mapping[str, object]) -> dict[str, object]:
    nested = config.get("text_config", config.get("llm_config"))
    if nested is None:
        return dict(config)
    if not isinstance(nested, dict):
        raise ModelFileError(path, "text_config", shown(nested), "an object")
    return {**config, **nested}


def _experts(metadata: Metadata) -> Experts:
    count = metadata.first_whole(_EXPERT_KEYS)
    used = metadata.first_whole(_EXPERTS_USED_KEYS)
    if count <= 1:
        return Experts()
    if not 1 <= used <= count:
        raise ModelFileError(metadata.path, "num_experts_per_tok", str(used), f"1 to the {count} experts there are")
    return Experts(count, used)


def _kv_widths(metadata: Metadata, hidden: int, heads: int) -> tuple[int, int]:
    """(K, V) elements per token and layer. With latent attention one latent and its rope part are stored, once."""
    if (rank := metadata.whole("kv_lora_rank", 0)) > 0:
        return rank + metadata.whole("qk_rope_head_dim", 0), 0
    kv_heads = metadata.first_whole(("num_key_value_heads", "n_head_kv", "num_kv_heads"), heads)
    if metadata.flag("multi_query", False):
        kv_heads = 1
    head = metadata.whole("head_dim", 0) or (hidden // heads if heads else 0)
    value = metadata.whole("v_head_dim", 0) or head
    if kv_heads * max(head, value) > MAX_WIDTH:
        raise ModelFileError(metadata.path, "num_key_value_heads", str(kv_heads), f"a width of at most {MAX_WIDTH}")
    return kv_heads * head, kv_heads * value


def _layer_kinds(metadata: Metadata, layer_count: int) -> list[str]:
    """`full`, `windowed`, `recurrent` or `none` for each layer: by an explicit list, else by the rule of its family."""
    listed = metadata.texts("layer_types") or metadata.texts("layers_block_type")
    if listed is not None:
        if len(listed) < layer_count:
            expected = f"one entry for each of {layer_count} layers"
            raise ModelFileError(metadata.path, "layer_types", f"{len(listed)} entries", expected)
        return [_kind(metadata, name) for name in listed[:layer_count]]
    if (pattern := metadata.text("hybrid_override_pattern", "-")) != "-":
        return _hybrid_kinds(metadata, pattern, layer_count)
    if (interval := metadata.whole("full_attention_interval", 0)) > 0:
        return ["full" if (layer + 1) % interval == 0 else "recurrent" for layer in range(layer_count)]
    if not metadata.whole("sliding_window", 0, maximum=1 << 32) or not metadata.flag("use_sliding_window", True):
        return ["full"] * layer_count
    default = _WINDOW_PERIOD.get(metadata.text("model_type", "unknown"), 0)
    if (period := metadata.whole("sliding_window_pattern", default)) > 0:
        return ["windowed" if has_window(layer, period) else "full" for layer in range(layer_count)]
    # Qwen2: the first `max_window_layers` keep full attention. Others (Mistral) have the window in every layer.
    full = metadata.whole("max_window_layers", 0, maximum=MAX_LAYERS)
    return ["full" if layer < full else "windowed" for layer in range(layer_count)]


def _kind(metadata: Metadata, name: str) -> str:
    for names, kind in ((_FULL, "full"), (_WINDOWED, "windowed"), (_RECURRENT, "recurrent"), (_WITHOUT_CACHE, "none")):
        if name in names:
            return kind
    raise ModelFileError(metadata.path, "layer_types", shown(name), "full_attention, sliding_attention or the like")


def _hybrid_kinds(metadata: Metadata, pattern: str, layer_count: int) -> list[str]:
    """Nemotron-H: one letter per layer, M for Mamba, * for attention, - and E for feed-forward alone."""
    kinds = {"M": "recurrent", "*": "full", "-": "none", "E": "none"}
    if len(pattern) != layer_count or not set(pattern) <= kinds.keys():
        expected = f"{layer_count} letters of M, *, - and E"
        raise ModelFileError(metadata.path, "hybrid_override_pattern", shown(pattern), expected)
    return [kinds[letter] for letter in pattern]


def _layer(kind: str, k_width: int, v_width: int, window: int, state: int) -> LayerMemory:
    if kind == "recurrent":
        return LayerMemory(state_bytes=state)
    if kind == "none":
        return LayerMemory()
    return LayerMemory(k_width, v_width, window if kind == "windowed" else 0)


def _state_bytes(metadata: Metadata, hidden: int) -> int:
    """As `gguf_state`: 4 x ((conv - 1)(inner + 2 x groups x state) + state x inner), under the names of gated delta
    nets (Qwen3-Next) or of Mamba 2."""
    if (value_heads := metadata.whole("linear_num_value_heads", 0, maximum=1 << 16)) > 0:
        inner = value_heads * metadata.whole("linear_value_head_dim", maximum=1 << 16)
        state = metadata.whole("linear_key_head_dim", maximum=1 << 16)
        groups = metadata.whole("linear_num_key_heads", maximum=1 << 16)
        conv = metadata.whole("linear_conv_kernel_dim", 1, minimum=1, maximum=1 << 16)
    else:
        inner = metadata.first_whole(("mamba_d_ssm", "mamba_inner_size")) or (
            metadata.first_whole(("mamba_n_heads", "mamba_num_heads"), maximum=1 << 16)
            * metadata.first_whole(("mamba_d_head", "mamba_head_dim"), maximum=1 << 16)
        )
        inner = inner or metadata.whole("mamba_expand", 2, maximum=64) * hidden
        state = metadata.first_whole(("mamba_d_state", "ssm_state_size", "state_size"), maximum=1 << 16)
        groups = metadata.first_whole(("mamba_n_groups", "n_groups"), maximum=1 << 16)
        conv = max(1, metadata.first_whole(("mamba_d_conv", "conv_kernel"), 4, maximum=1 << 16))
    elements = (conv - 1) * (inner + 2 * groups * state) + state * inner
    if elements > 1 << 40:
        raise ModelFileError(metadata.path, "recurrent state", f"{elements} elements", "far fewer")
    return elements * _F32_BYTES


def _feed_forward_width(metadata: Metadata, experts: Experts) -> int:
    dense = metadata.first_whole(_FEED_FORWARD_KEYS, maximum=1 << 26)
    if experts.count == 0:
        return dense
    one = metadata.whole("moe_intermediate_size", dense)
    shared = metadata.whole("shared_expert_intermediate_size", metadata.whole("n_shared_experts", 0) * one)
    return min(1 << 26, experts.used * one + shared)
