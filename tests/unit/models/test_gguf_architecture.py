"""KV bytes, windows and state of each kind of model: headers with the real architectures' keys, and what real
engines were reported to take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meshnode.models.gguf_file import part_paths, read_gguf
from planner import CHAIN, CacheType, ModelSpec, Workload
from planner.memory import memory_need


@pytest.fixture
def spec_of(make: Any, tmp_path: Path) -> Any:
    """A model of an architecture from its keys; each layer has tiny tensors, of the kinds `layer_tensors` names."""

    def build(arch: str, keys: dict[str, Any], layer_tensors: Any = lambda layer: ["attn_k"]) -> ModelSpec:
        tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (8, 32)}
        for layer in range(keys["block_count"]):
            for name in layer_tensors(layer):
                tensors[f"blk.{layer}.{name}.weight"] = (1, 32)
        path = make.write_gguf(tmp_path / f"{arch}.gguf", keys, tensors, arch=arch)
        return read_gguf(str(path), part_paths(path)).spec

    return build


def full_kv(spec: ModelSpec) -> int:
    return sum(2 * (layer.k_width + layer.v_width) for layer in spec.each_layer if not layer.window)


def attention(layers: int, heads: int, kv_heads: int, length: int, hidden: int, **more: Any) -> dict[str, Any]:
    return {
        "block_count": layers,
        "embedding_length": hidden,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": length,
        "attention.value_length": length,
        **{key.replace("__", "."): value for key, value in more.items()},
    }


@pytest.mark.parametrize(
    ("arch", "keys", "kv_bytes_per_token"),
    [
        ("llama", attention(32, 32, 8, 128, 4096), 131_072),
        ("llama", attention(80, 64, 8, 128, 8192), 327_680),
        ("qwen3moe", attention(48, 32, 4, 128, 2048), 98_304),
        ("qwen3", attention(64, 64, 8, 128, 5120), 262_144),
        ("qwen3moe", attention(94, 64, 4, 128, 4096), 192_512),
        ("qwen3moe", attention(62, 96, 8, 128, 6144), 253_952),
    ],
)
def test_grouped_query_models_match_the_reference_table(
    spec_of: Any, arch: str, keys: dict[str, Any], kv_bytes_per_token: int
) -> None:
    assert full_kv(spec_of(arch, keys)) == kv_bytes_per_token


def test_head_length_defaults_to_hidden_size_over_heads(spec_of: Any) -> None:
    keys = {"block_count": 32, "embedding_length": 4096, "attention.head_count": 32, "attention.head_count_kv": 8}
    assert full_kv(spec_of("llama", keys)) == 131_072


def test_model_without_kv_head_count_has_as_many_as_heads(spec_of: Any) -> None:
    keys = {"block_count": 2, "embedding_length": 64, "attention.head_count": 4}
    assert full_kv(spec_of("gpt2", keys)) == 2 * 2 * 2 * 64


@pytest.mark.parametrize(("layers", "windowed", "full_bytes"), [(24, 12, 24_576), (36, 18, 36_864)])
def test_gpt_oss_has_every_second_layer_windowed(spec_of: Any, layers: int, windowed: int, full_bytes: int) -> None:
    spec = spec_of("gpt-oss", attention(layers, 64, 8, 64, 2880, attention__sliding_window=128))
    assert full_kv(spec) == full_bytes
    assert [layer.window for layer in spec.each_layer] == [128, 0] * windowed


def test_gpt_oss_120b_takes_what_the_engine_reported(spec_of: Any) -> None:
    """70.88 MiB of full-attention KV at 2,016 cells, as reported."""
    spec = spec_of("gpt-oss", attention(36, 64, 8, 64, 2880, attention__sliding_window=128))
    assert full_kv(spec) * 2016 / 2**20 == pytest.approx(70.88, abs=0.005)


@pytest.mark.parametrize(("arch", "layers"), [("deepseek2", 61)])
def test_latent_attention_stores_one_latent(spec_of: Any, arch: str, layers: int) -> None:
    keys = attention(
        layers, 128, 1, 576, 7168,
        attention__value_length=512, attention__key_length_mla=192, attention__value_length_mla=128,
        attention__kv_lora_rank=512,
    )  # fmt: skip
    spec = spec_of(arch, keys)
    assert full_kv(spec) == 70_272
    assert {(layer.k_width, layer.v_width) for layer in spec.each_layer} == {(576, 0)}


def test_latent_attention_takes_what_the_engine_reported_with_q8_0(spec_of: Any) -> None:
    """1,166.62 MiB with q8_0 at 32,768 tokens, as reported for DeepSeek-V3."""
    keys = attention(61, 128, 1, 576, 7168, attention__key_length_mla=192, attention__value_length_mla=128)
    need = memory_need(
        spec_of("deepseek2", keys), Workload(context=32_768, k_type=CacheType.Q8_0, v_type=CacheType.Q8_0), CHAIN
    )
    assert need.kv_prefix[-1] / 2**20 == pytest.approx(1166.62, abs=0.01)


def test_latent_attention_of_an_old_file_is_stored_unfolded(spec_of: Any) -> None:
    keys = attention(1, 128, 128, 192, 7168, attention__value_length=128, attention__kv_lora_rank=512)
    assert full_kv(spec_of("deepseek2", keys)) == 81_920


def test_qwen3_next_has_attention_in_every_fourth_layer_and_state_in_the_others(spec_of: Any) -> None:
    keys = attention(
        48, 16, 2, 256, 2048,
        ssm__conv_kernel=4, ssm__inner_size=4096, ssm__state_size=128, ssm__group_count=16, full_attention_interval=4,
    )  # fmt: skip
    spec = spec_of("qwen3next", keys, lambda layer: ["attn_k"] if layer % 4 == 3 else ["attn_qkv", "ssm_out"])
    assert full_kv(spec) == 24_576
    assert sum(layer.state_bytes for layer in spec.each_layer) / 2**20 == pytest.approx(75.375)
    assert [bool(layer.state_bytes) for layer in spec.each_layer] == [True, True, True, False] * 12


def test_interval_is_known_where_the_file_does_not_say_it(spec_of: Any) -> None:
    keys = attention(8, 16, 2, 256, 2048, ssm__inner_size=64, ssm__state_size=16)
    spec = spec_of("qwen3next", keys, lambda layer: ["ssm_out"] if layer % 4 != 3 else ["attn_k"])
    assert [layer.k_width for layer in spec.each_layer] == [0, 0, 0, 512] * 2


def test_layers_with_zero_kv_heads_have_no_kv(spec_of: Any) -> None:
    spec = spec_of("deci", attention(4, 8, 0, 128, 1024, attention__head_count_kv=[8, 0, 4, 0]))
    assert [layer.k_width for layer in spec.each_layer] == [1024, 0, 512, 0]


def test_layer_without_kv_heads_and_without_recurrence_has_no_state(spec_of: Any) -> None:
    """Nemotron-H: Mamba, feed-forward alone, attention."""
    keys = attention(
        3, 8, 0, 128, 1024, attention__head_count_kv=[0, 0, 8],
        ssm__conv_kernel=4, ssm__inner_size=64, ssm__state_size=16, ssm__group_count=2,
    )  # fmt: skip
    spec = spec_of("nemotron_h", keys, lambda layer: [["ssm_in"], ["ffn_up"], ["attn_k"]][layer])
    assert [layer.state_bytes for layer in spec.each_layer] == [4 * (3 * (64 + 2 * 2 * 16) + 16 * 64), 0, 0]


def test_pure_recurrence_has_no_kv(spec_of: Any) -> None:
    keys = {
        "block_count": 2, "embedding_length": 64, "attention.head_count": 0,
        "ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16,
    }  # fmt: skip
    spec = spec_of("mamba", keys, lambda layer: ["ssm_in"])
    assert full_kv(spec) == 0
    assert spec.each_layer[0].state_bytes == 4 * (3 * 128 + 16 * 128)


def test_falcon_h1_has_both_in_each_layer(spec_of: Any) -> None:
    keys = attention(2, 8, 2, 64, 512, ssm__conv_kernel=4, ssm__inner_size=64, ssm__state_size=16)
    spec = spec_of("falcon-h1", keys, lambda layer: ["attn_k", "ssm_in"])
    assert [(layer.k_width, layer.state_bytes > 0) for layer in spec.each_layer] == [(128, True)] * 2


@pytest.mark.parametrize(
    ("arch", "keys", "tensor", "elements"),
    [
        ("rwkv7", {"wkv.head_size": 64}, "time_mix_key", 2 * 512 + 512 * 64),
        ("lfm2", {"shortconv.l_cache": 3}, "shortconv.conv", 512 * 2),
        ("kimi-linear", {"kda.head_dim": 32, "ssm.conv_kernel": 4}, "ssm_conv1d_q", 3 * 3 * 256 + 8 * 32 * 32),
    ],
)
def test_other_recurrences_have_their_own_state(
    spec_of: Any, arch: str, keys: dict[str, Any], tensor: str, elements: int
) -> None:
    spec = spec_of(arch, {**attention(1, 8, 0, 64, 512), **keys}, lambda layer: [tensor])
    assert spec.each_layer[0].state_bytes == 4 * elements
    assert full_kv(spec) == 0


def test_pattern_array_of_the_file_decides(spec_of: Any) -> None:
    keys = attention(3, 8, 2, 64, 512, attention__sliding_window=1024)
    keys["attention.sliding_window_pattern"] = [True, False, True]
    assert [layer.window for layer in spec_of("gemma4", keys).each_layer] == [1024, 0, 1024]


def test_pattern_period_of_the_file_decides(spec_of: Any) -> None:
    keys = attention(6, 8, 2, 64, 512, attention__sliding_window=512, attention__sliding_window_pattern=3)
    assert [layer.window for layer in spec_of("gemma3", keys).each_layer] == [512, 512, 0] * 2


def test_full_layer_may_come_first(spec_of: Any) -> None:
    keys = attention(4, 8, 2, 64, 512, attention__sliding_window=4096)
    assert [layer.window for layer in spec_of("smallthinker", keys).each_layer] == [0, 4096, 4096, 4096]


def test_windowed_layers_may_have_heads_of_another_length(spec_of: Any) -> None:
    keys = attention(
        2, 8, 2, 512, 512, attention__sliding_window=1024, attention__key_length_swa=256,
        attention__value_length_swa=128, attention__sliding_window_pattern=[True, False],
    )  # fmt: skip
    spec = spec_of("gemma4", keys)
    assert [(layer.k_width, layer.v_width) for layer in spec.each_layer] == [(512, 256), (1024, 1024)]


def test_layers_that_share_the_cache_of_earlier_ones_have_none(spec_of: Any) -> None:
    spec = spec_of("gemma4", attention(4, 8, 2, 64, 512, attention__shared_kv_layers=3))
    assert [layer.k_width for layer in spec.each_layer] == [128, 0, 0, 0]


def test_window_without_known_pattern_counts_full_and_says_so(make: Any, tmp_path: Path) -> None:
    keys = {**make.llama_keys(), "attention.sliding_window": 128}
    path = make.write_gguf(tmp_path / "m.gguf", keys, make.llama_tensors(), arch="newcomer")
    package = read_gguf("m", [path])
    assert {layer.window for layer in package.spec.each_layer} == {0}
    assert "newcomer has a window of 128" in package.notes[0]
