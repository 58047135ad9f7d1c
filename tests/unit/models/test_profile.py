from __future__ import annotations

from pathlib import Path

import pytest

from meshnode.models import (
    ModelFileError,
    PackageKind,
    load_model,
    load_model_blocking,
    profile_names,
    sampled_manifest,
)
from meshnode.models.profile import read_profile

PROFILE = """
name = "small-model"
native_context = 4096
embedding_bytes = 1000
output_bytes = 2000
tied_embedding = false
vocabulary = 100
hidden_size = 64

[[layers]]
count = 3
weight_bytes = 500
active_weight_bytes = 100
kv_bytes_per_token = 4096

[[layers]]
count = 1
weight_bytes = 700
kv_bytes_per_token = 4096
window = 512
"""


def a_profile(path: Path, text: str = PROFILE) -> Path:
    path.write_text(text)
    return path


async def test_profile_is_loaded_without_any_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent")
    package = await load_model(str(a_profile(tmp_path / "p.toml")), cache_dir=tmp_path)
    assert (package.kind, package.name, package.spec.layer_count) == (PackageKind.PROFILE, "small-model", 4)
    assert package.spec.file_bytes == 3 * 500 + 700 + 3000


def test_profile_has_no_files_and_no_identity(tmp_path: Path) -> None:
    package = load_model_blocking(str(a_profile(tmp_path / "p.toml")), cache_dir=tmp_path)
    assert (package.files, package.size_bytes, sampled_manifest(package)) == ((), 0, None)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("weight_bytes = 500", "weight_bytes = -5"), "weight_bytes"),
        (("count = 3", "count = 0"), "count"),
        (("vocabulary = 100", 'vocabulary = "many"'), "vocabulary"),
        (("[[layers]]", "[[layer]]"), "layer"),
        (("hidden_size", "hiden_size"), "hiden_size"),
        (('name = "small-model"', "name ="), "TOML"),
    ],
)
def test_wrong_field_is_named_with_the_file(tmp_path: Path, change: tuple[str, str], field: str) -> None:
    path = a_profile(tmp_path / "p.toml", PROFILE.replace(*change))
    with pytest.raises(ModelFileError) as caught:
        read_profile("p", path)
    assert caught.value.path == str(path)
    assert field in caught.value.field
    assert "\n" not in str(caught.value)


def test_profile_without_layers_is_refused(tmp_path: Path) -> None:
    path = a_profile(tmp_path / "p.toml", PROFILE.split("[[layers]]")[0])
    with pytest.raises(ModelFileError, match="layers"):
        read_profile("p", path)


def test_profile_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelFileError, match="TOML"):
        read_profile("p", path)


def test_profile_far_too_large_is_not_parsed(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="more than 1048576 bytes"):
        read_profile("p", a_profile(tmp_path / "p.toml", "#" * (2**20 + 1)))


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_that_comes_with_meshnode_is_read(name: str, tmp_path: Path) -> None:
    assert load_model_blocking(name, cache_dir=tmp_path).spec.layer_count > 0
