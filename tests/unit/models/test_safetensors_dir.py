from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from meshnode.models import ModelFileError, ModelPackage
from meshnode.models.safetensors_dir import read_safetensors

LAYER_BYTES = 2 * 64 * (32 + 128)


def read(directory: Path) -> ModelPackage:
    return read_safetensors(str(directory), directory)


@pytest.fixture
def config_of(make: Any, tmp_path: Path) -> Any:
    """The package of a two-shard directory with this config and that many layers."""

    def build(config: dict[str, Any], layers: int | None = None, **tensors: Any) -> ModelPackage:
        count = layers if layers is not None else config.get("num_hidden_layers", 2)
        return read(
            make.write_safetensors(tmp_path / "model", config, [make.hf_tensors(range(count), **tensors)], index=False)
        )

    return build


def kv_bytes(package: ModelPackage) -> list[int]:
    return [2 * (layer.k_width + layer.v_width) for layer in package.spec.each_layer]


def test_sharded_directory_is_summed_by_layer(make: Any, tmp_path: Path) -> None:
    shards = [make.hf_tensors([0, 1], head=False), make.hf_tensors([2], embedding=False)]
    package = read(make.write_safetensors(tmp_path / "some-model", make.llama_config(3), shards))
    spec = package.spec
    assert package.name == "some-model"
    assert [layer.weight_bytes for layer in spec.each_layer] == [LAYER_BYTES] * 3
    assert (spec.embedding_bytes, spec.output_bytes, spec.tied_embedding) == (12_800, 12_928, False)
    assert (spec.vocabulary, spec.hidden_size, spec.native_context, spec.head_count) == (100, 64, 4096, 4)
    assert kv_bytes(package) == [2 * 2 * 2 * 16] * 3


def test_layer_over_two_shards_is_one_layer(make: Any, tmp_path: Path) -> None:
    tensors = make.hf_tensors([0])
    names = sorted(tensors)
    shards = [{name: tensors[name] for name in names[:3]}, {name: tensors[name] for name in names[3:]}]
    assert read(make.write_safetensors(tmp_path / "m", make.llama_config(1), shards)).spec.file_bytes == sum(
        2 * int(np.prod(shape)) for shape in tensors.values()
    )


def test_single_file_needs_no_index(config_of: Any, make: Any) -> None:
    assert config_of(make.llama_config()).spec.layer_count == 2


def test_model_without_lm_head_is_tied(config_of: Any, make: Any) -> None:
    assert config_of(make.llama_config(), head=False).spec.tied_embedding


def test_text_config_of_a_multimodal_model_is_used(config_of: Any, make: Any) -> None:
    package = config_of({"model_type": "llava", "text_config": make.llama_config(2)}, 2)
    assert package.spec.hidden_size == 64


def test_head_dim_of_the_config_decides(config_of: Any, make: Any) -> None:
    assert kv_bytes(config_of(make.llama_config(head_dim=128))) == [2 * 2 * 2 * 128] * 2


def test_latent_attention_stores_one_latent(config_of: Any, make: Any) -> None:
    package = config_of(make.llama_config(kv_lora_rank=512, qk_rope_head_dim=64))
    assert kv_bytes(package) == [1152] * 2


def test_layer_types_decide_about_windows(config_of: Any, make: Any) -> None:
    types = ["sliding_attention", "full_attention"]
    package = config_of(make.llama_config(sliding_window=128, layer_types=types))
    assert [layer.window for layer in package.spec.each_layer] == [128, 0]


def test_window_that_is_switched_off_is_none(config_of: Any, make: Any) -> None:
    package = config_of(make.llama_config(sliding_window=128, use_sliding_window=False))
    assert [layer.window for layer in package.spec.each_layer] == [0, 0]


def test_window_without_pattern_is_in_every_layer(config_of: Any, make: Any) -> None:
    package = config_of(make.llama_config(sliding_window=4096))
    assert [layer.window for layer in package.spec.each_layer] == [4096, 4096]


def test_first_layers_of_qwen2_keep_full_attention(config_of: Any, make: Any) -> None:
    config = make.llama_config(sliding_window=4096, use_sliding_window=True, max_window_layers=1)
    assert [layer.window for layer in config_of(config).spec.each_layer] == [0, 4096]


def test_pattern_of_gemma_is_known_where_the_config_lacks_it(config_of: Any, make: Any) -> None:
    package = config_of(make.llama_config(6, model_type="gemma3_text", sliding_window=512))
    assert [layer.window for layer in package.spec.each_layer] == [512] * 5 + [0]


def test_linear_attention_has_state_and_no_kv(config_of: Any, make: Any) -> None:
    """Qwen3-Next: 75.375 MiB in 36 layers."""
    package = config_of(
        make.llama_config(
            4,
            layer_types=["linear_attention"] * 3 + ["full_attention"],
            linear_conv_kernel_dim=4,
            linear_key_head_dim=128,
            linear_value_head_dim=128,
            linear_num_key_heads=16,
            linear_num_value_heads=32,
        )
    )
    assert [layer.state_bytes for layer in package.spec.each_layer] == [2_195_456] * 3 + [0]
    assert kv_bytes(package)[:3] == [0, 0, 0]


def test_hybrid_pattern_of_letters(config_of: Any, make: Any) -> None:
    config = make.llama_config(
        3, hybrid_override_pattern="M-*", mamba_num_heads=4, mamba_head_dim=16, ssm_state_size=16, n_groups=1
    )
    package = config_of(config)
    assert [layer.state_bytes > 0 for layer in package.spec.each_layer] == [True, False, False]
    assert [width > 0 for width in kv_bytes(package)] == [False, False, True]


def test_experts_are_read_by_the_share_that_is_used(make: Any, tmp_path: Path) -> None:
    tensors = make.hf_tensors([0])
    experts = {f"model.layers.0.mlp.experts.{number}.up_proj.weight": (32, 64) for number in range(8)}
    shared = {"model.layers.0.mlp.shared_expert.up_proj.weight": (32, 64)}
    config = make.llama_config(1, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32)
    package = read(make.write_safetensors(tmp_path / "m", config, [{**tensors, **experts, **shared}], index=False))
    one = 2 * 32 * 64
    layer = package.spec.each_layer[0]
    assert (layer.weight_bytes, layer.active_weight_bytes) == (LAYER_BYTES + 9 * one, LAYER_BYTES + 3 * one)


def test_prediction_layers_and_vision_towers_are_left_out(make: Any, tmp_path: Path) -> None:
    extra = {"model.layers.2.mlp.up_proj.weight": (8, 8), "model.visual.blocks.0.attn.weight": (4, 4)}
    package = read(
        make.write_safetensors(
            tmp_path / "m", make.llama_config(2), [{**make.hf_tensors([0, 1]), **extra}], index=False
        )
    )
    assert (package.left_out_bytes, package.layers_in_files) == (2 * 64 + 2 * 16, 3)


def test_packed_weights_have_no_parameter_count(make: Any, tmp_path: Path) -> None:
    directory = make.write_safetensors(tmp_path / "m", make.llama_config(1), [make.hf_tensors([0])], index=False)
    tensors = {name: np.zeros(shape, np.float16) for name, shape in make.hf_tensors([0]).items()}
    packed = {**tensors, "model.layers.0.mlp.up_proj.weight": np.zeros((128, 8), np.uint32)}
    save_file(packed, directory / "model.safetensors")
    assert read(directory).spec.each_layer[0].active_parameters is None


def test_index_naming_a_missing_shard_names_it(make: Any, tmp_path: Path) -> None:
    shards = [make.hf_tensors([0, 1], head=False), make.hf_tensors([2], embedding=False)]
    directory = make.write_safetensors(tmp_path / "m", make.llama_config(3), shards)
    (directory / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        ModelFileError, match=r"weight_map: found model-00002-of-00002\.safetensors, and no such file"
    ) as caught:
        read(directory)
    assert caught.value.path.endswith("model.safetensors.index.json")


def test_tensor_that_its_shard_lacks_is_named(make: Any, tmp_path: Path) -> None:
    directory = make.write_safetensors(tmp_path / "m", make.llama_config(1), [make.hf_tensors([0])])
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.layers.0.gone.weight"] = "model-00001-of-00001.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(ModelFileError, match=r"weight_map of 'model\.layers\.0\.gone\.weight'"):
        read(directory)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/x.safetensors", "x.bin", 5, None, "a\0.safetensors"])
def test_index_cannot_lead_out_of_its_directory(make: Any, tmp_path: Path, name: Any) -> None:
    directory = make.write_safetensors(tmp_path / "m", make.llama_config(1), [make.hf_tensors([0])])
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"t": name}}))
    with pytest.raises(ModelFileError, match="weight_map of 't'"):
        read(directory)


def test_file_cut_short_names_the_tensor(make: Any, tmp_path: Path) -> None:
    directory = make.write_safetensors(tmp_path / "m", make.llama_config(1), [make.hf_tensors([0])], index=False)
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelFileError, match=r"tensor 'model\..*: found the file ends at byte \d+, expected its bytes"):
        read(directory)


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, 40_000])
def test_header_longer_than_the_file_is_refused(make: Any, tmp_path: Path, length: int) -> None:
    directory = make.write_safetensors(tmp_path / "m", make.llama_config(1), [make.hf_tensors([0])], index=False)
    (directory / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}" + bytes(100))
    with pytest.raises(ModelFileError, match="header length: found the file ends at byte 110"):
        read(directory)


def test_header_over_the_limit_is_not_read(make: Any, tmp_path: Path) -> None:
    directory = make.write_safetensors(tmp_path / "m", make.llama_config(1), [make.hf_tensors([0])], index=False)
    with (directory / "model.safetensors").open("wb") as file:
        file.write((50 * 2**20).to_bytes(8, "little"))
        file.truncate(60 * 2**20)
    with pytest.raises(ModelFileError, match="header length: found 52428800, expected at most 33554432"):
        read(directory)


def test_directory_without_config_says_so(make: Any, tmp_path: Path) -> None:
    directory = make.write_safetensors(tmp_path / "m", make.llama_config(1), [make.hf_tensors([0])], index=False)
    (directory / "config.json").unlink()
    with pytest.raises(ModelFileError, match=r"config\.json: file: found No such file or directory"):
        read(directory)


def test_several_files_without_index_are_refused(make: Any, tmp_path: Path) -> None:
    directory = make.write_safetensors(tmp_path / "m", make.llama_config(1), [make.hf_tensors([0])] * 2)
    (directory / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelFileError, match=r"2 \.safetensors files and no model\.safetensors\.index\.json"):
        read(directory)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"num_key_value_heads": 1 << 23, "head_dim": 1 << 20}, "num_key_value_heads"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"layer_types": ["full_attention", "psychic"]}, "layer_types"),
        ({"layer_types": 7}, "layer_types"),
        ({"text_config": []}, "text_config"),
        ({"num_experts": 8, "num_experts_per_tok": 9}, "num_experts_per_tok"),
        ({"hybrid_override_pattern": "MMMX"}, "hybrid_override_pattern"),
    ],
)
def test_impossible_config_is_named(make: Any, tmp_path: Path, change: dict[str, Any], field: str) -> None:
    config = {**make.llama_config(), **change}
    directory = make.write_safetensors(tmp_path / "m", config, [make.hf_tensors([0, 1])], index=False)
    with pytest.raises(ModelFileError) as caught:
        read(directory)
    assert caught.value.field == field
    assert caught.value.path.endswith("config.json")


@pytest.mark.parametrize("content", ["", "[]", "nonsense", "[" * 100_000, '{"a": 1' + "0" * 5000 + "}"])
def test_config_that_is_no_object_is_refused(make: Any, tmp_path: Path, content: str) -> None:
    directory = make.write_safetensors(tmp_path / "m", make.llama_config(1), [make.hf_tensors([0])], index=False)
    (directory / "config.json").write_text(content)
    with pytest.raises(ModelFileError, match=r"config\.json: JSON"):
        read(directory)
