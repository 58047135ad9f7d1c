from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType

from meshnode.models import EMBEDDING, OUTPUT, ModelFileError
from meshnode.models.gguf_file import part_paths, read_gguf
from planner import CHAIN, ModelSpec, Workload
from planner.memory import memory_need

HEAVY = {0, 1, 4, 7, 10, 13, 15, 16, 17}


def kv_per_token(spec: ModelSpec) -> int:
    """f16 KV bytes per token over the layers without a window."""
    return sum(2 * (layer.k_width + layer.v_width) for layer in spec.each_layer if layer.window == 0)


def read(path: Path) -> Any:
    return read_gguf(str(path), part_paths(path))


def test_real_file_has_exact_bytes_for_every_layer(gemma: Path) -> None:
    spec = read(gemma).spec
    expected = [3_995_648 if layer in HEAVY else 3_596_288 for layer in range(18)]
    assert [layer.weight_bytes for layer in spec.each_layer] == expected
    assert (spec.embedding_bytes, spec.output_bytes, spec.tied_embedding) == (178_257_920, 2_560, True)
    assert spec.file_bytes == 246_587_904


def test_real_file_has_its_shape(gemma: Path) -> None:
    package = read(gemma)
    spec = package.spec
    assert (package.name, package.architecture) == ("gemma-3-270m-q4_k_m", "gemma3")
    assert (spec.vocabulary, spec.hidden_size, spec.native_context) == (262_144, 640, 32_768)
    assert (spec.head_count, spec.feed_forward_width, spec.attention_width) == (4, 2048, 1024)


def test_real_file_has_full_attention_in_layers_5_11_17(gemma: Path) -> None:
    layers = read(gemma).spec.each_layer
    assert [number for number, layer in enumerate(layers) if layer.window == 0] == [5, 11, 17]
    assert {layer.window for layer in layers} == {0, 512}
    assert {(layer.k_width, layer.v_width) for layer in layers} == {(256, 256)}


@pytest.mark.parametrize(
    ("swa_full", "context", "expected_mib"), [(True, 8192, (56, 88)), (False, 8192, (14, 25)), (True, 2048, (14, 22))]
)
def test_real_file_gives_the_kv_that_the_engine_allocated(
    gemma: Path, swa_full: bool, context: int, expected_mib: tuple[int, int]
) -> None:
    """What llama-cpp-python 0.3.36 logged for a split 7 + 11: KV of full and sliding layers together, per device."""
    workload = Workload(context=context, swa_full=swa_full)
    kv = memory_need(read(gemma).spec, workload, CHAIN).kv_prefix
    assert (kv[7] / 2**20, (kv[18] - kv[7]) / 2**20) == expected_mib


def test_vocabulary_arrays_are_skipped_and_not_held(gemma: Path) -> None:
    """If this fails, the gguf library renamed what `_open` overrides: reading works but takes seconds."""
    from meshnode.models.gguf_bounds import check_gguf_bounds
    from meshnode.models.gguf_file import _open

    reader = _open(gemma, check_gguf_bounds(gemma))
    assert reader.fields["tokenizer.ggml.tokens"].data == []


def test_file_cut_in_half_names_the_tensor_and_both_sizes(gemma: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.gguf"
    half.write_bytes(gemma.read_bytes()[: 253_113_024 // 2])
    with pytest.raises(ModelFileError) as caught:
        read(half)
    assert caught.value.path == str(half)
    assert caught.value.field == "tensor 'token_embd.weight'"
    assert caught.value.found == "the file ends at byte 126556512"
    assert "\n" not in str(caught.value)


def test_file_cut_in_its_vocabulary_names_the_key(gemma: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    with gemma.open("rb") as whole:
        cut.write_bytes(whole.read(2**20))
    with pytest.raises(ModelFileError, match=r"key 'tokenizer\.ggml\.tokens': found the file ends at byte 1048576"):
        read(cut)


def test_plain_model_is_summed_by_layer(make: Any, tmp_path: Path) -> None:
    path = make.write_gguf(tmp_path / "m.gguf", make.llama_keys(3), make.llama_tensors(3))
    package = read(path)
    assert [layer.weight_bytes for layer in package.spec.each_layer] == [2 * 64 * (64 + 128)] * 3
    assert package.spec.layers[0].count == 3
    assert (package.spec.embedding_bytes, package.spec.output_bytes) == (12_800, 12_800 + 2 * 64)
    assert not package.spec.tied_embedding
    assert {held.part for held in package.files[0].holds} == {0, 1, 2, EMBEDDING, OUTPUT}


def test_model_without_head_tensor_is_tied(make: Any, tmp_path: Path) -> None:
    path = make.write_gguf(tmp_path / "m.gguf", make.llama_keys(), make.llama_tensors(head=False))
    assert read(path).spec.tied_embedding


def test_quantised_tensor_counts_its_blocks(make: Any, tmp_path: Path) -> None:
    tensors = make.llama_tensors(1, extra={"blk.0.ffn_down.weight": (4, 144)})
    kinds = {"blk.0.ffn_down.weight": GGMLQuantizationType.Q4_K}
    path = make.write_gguf(tmp_path / "m.gguf", make.llama_keys(1), tensors, quantised=kinds)
    layer = read(path).spec.each_layer[0]
    assert layer.weight_bytes == 2 * 64 * (64 + 128) + 4 * 144
    assert layer.active_parameters == 64 * (64 + 128) + 4 * 256


def test_experts_are_read_by_the_share_that_is_used(make: Any, tmp_path: Path) -> None:
    extra = {"blk.0.ffn_gate_exps.weight": (8, 32, 64), "blk.0.ffn_gate_shexp.weight": (32, 64)}
    keys = make.llama_keys(1, expert_count=8, expert_used_count=2, expert_feed_forward_length=32)
    path = make.write_gguf(tmp_path / "m.gguf", keys, make.llama_tensors(1, extra=extra))
    package = read(path)
    layer = package.spec.each_layer[0]
    whole, experts = 2 * 64 * (64 + 128) + 2 * 9 * 32 * 64, 2 * 8 * 32 * 64
    assert (layer.weight_bytes, layer.active_weight_bytes) == (whole, whole - experts + experts // 4)
    assert package.spec.feed_forward_width == 2 * 32


def test_prediction_layers_are_left_out(make: Any, tmp_path: Path) -> None:
    keys = make.llama_keys(3, nextn_predict_layers=1)
    package = read(make.write_gguf(tmp_path / "m.gguf", keys, make.llama_tensors(3)))
    assert (package.spec.layer_count, package.layers_in_files) == (2, 3)
    assert package.left_out_bytes == 2 * 64 * (64 + 128)


def test_set_of_parts_is_read_as_one(make: Any, tmp_path: Path) -> None:
    whole = read(make.write_gguf(tmp_path / "whole.gguf", make.llama_keys(4), make.llama_tensors(4)))
    make.write_gguf(tmp_path / "m.gguf", make.llama_keys(4), make.llama_tensors(4), max_tensors_per_part=3)
    package = read(tmp_path / "m-00001-of-00004.gguf")
    assert package.name == "m"
    assert len(package.files) == 4
    assert package.spec.layers == whole.spec.layers


def test_first_part_may_hold_metadata_only(make: Any, tmp_path: Path) -> None:
    make.write_gguf(
        tmp_path / "m.gguf", make.llama_keys(), make.llama_tensors(), max_tensors_per_part=3, small_first_part=True
    )
    (first,) = tmp_path.glob("m-00001-of-*.gguf")
    package = read(first)
    assert package.files[0].holds == ()
    assert package.spec.layer_count == 2


def test_any_part_stands_for_the_set(make: Any, tmp_path: Path) -> None:
    make.write_gguf(tmp_path / "m.gguf", make.llama_keys(4), make.llama_tensors(4), max_tensors_per_part=3)
    assert read(tmp_path / "m-00003-of-00004.gguf").spec.layer_count == 4


def test_missing_part_is_named(make: Any, tmp_path: Path) -> None:
    make.write_gguf(tmp_path / "m.gguf", make.llama_keys(4), make.llama_tensors(4), max_tensors_per_part=3)
    (tmp_path / "m-00002-of-00004.gguf").unlink()
    with pytest.raises(ModelFileError, match=r"m-00002-of-00004\.gguf: part 2 of 4: found no such file"):
        read(tmp_path / "m-00001-of-00004.gguf")


def test_part_of_another_set_is_refused(make: Any, tmp_path: Path) -> None:
    make.write_gguf(tmp_path / "m.gguf", make.llama_keys(4), make.llama_tensors(4), max_tensors_per_part=3)
    (tmp_path / "m-00002-of-00004.gguf").write_bytes((tmp_path / "m-00003-of-00004.gguf").read_bytes())
    with pytest.raises(ModelFileError, match=r"split\.no: found 2, expected 1"):
        read(tmp_path / "m-00001-of-00004.gguf")


def test_zero_layers_is_one_clear_error(make: Any, tmp_path: Path) -> None:
    path = make.write_gguf(tmp_path / "m.gguf", make.llama_keys(0), make.llama_tensors(0))
    with pytest.raises(ModelFileError, match=r"llama\.block_count: found 0, expected a whole number from 1 to 4096"):
        read(path)


def test_layer_without_tensors_is_named(make: Any, tmp_path: Path) -> None:
    path = make.write_gguf(tmp_path / "m.gguf", make.llama_keys(5), make.llama_tensors(4))
    with pytest.raises(ModelFileError, match="tensors of layer 4: found none"):
        read(path)


def test_model_without_tensors_is_refused(make: Any, tmp_path: Path) -> None:
    path = make.write_gguf(tmp_path / "m.gguf", make.llama_keys(), {})
    with pytest.raises(ModelFileError, match="tensor count: found 0"):
        read(path)


@pytest.mark.parametrize(
    ("keys", "field"),
    [
        ({"attention.head_count_kv": [2]}, "attention.head_count_kv"),
        ({"attention.head_count_kv": "many"}, "attention.head_count_kv"),
        ({"block_count": 100_000}, "block_count"),
        ({"nextn_predict_layers": 2}, "nextn_predict_layers"),
        ({"expert_count": 4, "expert_used_count": 9}, "expert_used_count"),
        ({"embedding_length": 0}, "embedding_length"),
        ({"general.type": "adapter"}, "general.type"),
        ({"attention.key_length": 1 << 30}, "attention.key_length"),
    ],
)
def test_impossible_metadata_is_named(make: Any, tmp_path: Path, keys: dict[str, Any], field: str) -> None:
    path = make.write_gguf(tmp_path / "m.gguf", {**make.llama_keys(), **keys}, make.llama_tensors())
    with pytest.raises(ModelFileError) as caught:
        read(path)
    assert caught.value.field.endswith(field)


def test_missing_key_is_named(make: Any, tmp_path: Path) -> None:
    keys = make.llama_keys()
    del keys["block_count"]
    with pytest.raises(ModelFileError, match=r"llama\.block_count: found nothing"):
        read(make.write_gguf(tmp_path / "m.gguf", keys, make.llama_tensors()))


def test_big_endian_file_is_read_alike(make: Any, tmp_path: Path) -> None:
    little = read(make.write_gguf(tmp_path / "l.gguf", make.llama_keys(), make.llama_tensors()))
    big = read(make.write_gguf(tmp_path / "b.gguf", make.llama_keys(), make.llama_tensors(), big_endian=True))
    assert big.spec.layers == little.spec.layers


def test_other_file_is_not_taken_for_a_gguf(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ModelFileError, match=r"magic: found b'PK"):
        read(path)


@pytest.mark.parametrize("size", [0, 3, 23])
def test_file_too_short_for_any_header(tmp_path: Path, size: int) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF\x03"[:size].ljust(size, b"\0"))
    with pytest.raises(ModelFileError, match=f"header: found {size} bytes"):
        read(path)


@pytest.mark.parametrize(
    ("name", "counts"), [("tensor count", (1 << 60, 0)), ("key count", (0, 1 << 60)), ("version", None)]
)
def test_absurd_counts_are_refused_before_anything_is_read(tmp_path: Path, name: str, counts: Any) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3 if counts else 9, *(counts or (0, 0))) + bytes(64))
    with pytest.raises(ModelFileError, match=name):
        read(path)


def test_absurd_array_length_is_refused(tmp_path: Path) -> None:
    key = struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 0, 1 << 40)
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + bytes(1000))
    with pytest.raises(ModelFileError, match=r"length of key 'a': found 1099511627776, expected at most 16777216"):
        read(path)
