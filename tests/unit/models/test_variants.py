"""Smaller files of the same model are found by name and shape, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshnode.asking import asked_of, parse_wish
from meshnode.models import ModelPackage, PackageKind, neighbours, smaller_variants
from meshnode.models.variants import family
from planner import LayerSpec, ModelSpec


def a_package(name: str, layer_bytes: int = 100, layers: int = 4, architecture: str = "llama") -> ModelPackage:
    spec = ModelSpec(name, (LayerSpec(count=layers, weight_bytes=layer_bytes),), hidden_size=64)
    return ModelPackage(ref=name, kind=PackageKind.GGUF, spec=spec, architecture=architecture)


@pytest.mark.parametrize(
    "name",
    [
        "Llama-3.3-70B-Q4_K_M", "Llama-3.3-70B-UD-Q4_K_XL", "llama-3.3-70b.IQ2_XXS", "Llama-3.3-70B-BF16",
        "Llama-3.3-70B-Q8_0-00001-of-00002", "Llama-3.3-70B-4bit", "Llama-3.3-70B-MXFP4",
    ],
)  # fmt: skip
def test_type_of_the_weights_is_no_part_of_a_models_family(name: str) -> None:
    assert family(name) == "llama-3.3-70b"


@pytest.mark.parametrize(
    "other",
    [
        a_package("m-Q8_0", 200), a_package("m-Q4_K_M", 100), a_package("n-Q2_K", 50),
        a_package("m-Q2_K", 50, layers=3), a_package("m-Q2_K", 50, architecture="qwen3"),
    ],
    ids=["larger", "itself", "another name", "other layers", "another architecture"],
)  # fmt: skip
def test_file_that_is_not_the_same_model_in_fewer_bytes_is_no_variant(other: ModelPackage) -> None:
    assert smaller_variants(a_package("m-Q4_K_M"), [other]) == ()


def test_smaller_file_of_the_same_model_is_a_variant() -> None:
    smaller = a_package("m-Q2_K", 50)
    assert smaller_variants(a_package("m-Q4_K_M"), [smaller]) == (smaller.spec,)


def test_whoever_asks_for_a_plan_asks_with_the_smaller_files_at_hand() -> None:
    smaller, larger = a_package("m-Q2_K", 50), a_package("m-Q8_0", 200)
    asked = asked_of(parse_wish({"model": "m-Q4_K_M"}), a_package("m-Q4_K_M"), [larger, smaller])
    assert asked.smaller_files == (smaller.spec,)


def test_files_beside_a_model_are_neighbours_by_name_whoever_has_no_file_has_none(tmp_path: Path) -> None:
    for name in ("m-Q4_K_M.gguf", "m-Q2_K.gguf", "n-Q2_K.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    assert neighbours(str(tmp_path / "m-Q4_K_M.gguf")) == (str(tmp_path / "m-Q2_K.gguf"),)
    assert neighbours("llama-3.3-70b-q4_k_m") == ()
