from __future__ import annotations

from pathlib import Path

import pytest

from meshnode.models import ModelFileError, PackageKind, find_models, profile_names, resolve_ref


def touch(path: Path, content: bytes = b"GGUF") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def profiles(tmp_path: Path) -> list[Path]:
    for name in ("qwen3-coder-480b", "qwen3-30b-a3b", "llama-3.1-8b"):
        touch(tmp_path / "profiles" / f"{name}.toml", b"")
    return [tmp_path / "profiles"]


def test_gguf_file(tmp_path: Path) -> None:
    path = touch(tmp_path / "m.gguf")
    found = resolve_ref(str(path))
    assert (found.kind, found.paths, found.name) == (PackageKind.GGUF, (path,), "m")


def test_part_leads_to_all_parts(tmp_path: Path) -> None:
    path = touch(tmp_path / "big-00002-of-00003.gguf")
    found = resolve_ref(str(path))
    assert [part.name for part in found.paths] == [f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert found.name == "big"


def test_missing_part_of_a_set_that_is_there_leads_to_the_set(tmp_path: Path) -> None:
    touch(tmp_path / "big-00002-of-00003.gguf")
    assert len(resolve_ref(str(tmp_path / "big-00001-of-00003.gguf")).paths) == 3


def test_directory_with_one_set(tmp_path: Path) -> None:
    for number in (1, 2):
        touch(tmp_path / f"big-0000{number}-of-00002.gguf")
    touch(tmp_path / "mmproj-big.gguf")
    assert len(resolve_ref(str(tmp_path)).paths) == 2


def test_directory_with_two_models_asks_for_one(tmp_path: Path) -> None:
    touch(tmp_path / "a.gguf")
    touch(tmp_path / "b.gguf")
    with pytest.raises(ModelFileError, match=r"2 GGUF models \(a, b\), expected one; name its file"):
        resolve_ref(str(tmp_path))


def test_directory_with_both_formats_asks_for_one(tmp_path: Path) -> None:
    touch(tmp_path / "a.gguf")
    touch(tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError, match="GGUF and safetensors files"):
        resolve_ref(str(tmp_path))


@pytest.mark.parametrize("name", ["", "config.json", "model.safetensors.index.json", "model.safetensors"])
def test_safetensors_directory_by_itself_or_its_files(tmp_path: Path, name: str) -> None:
    for file in ("config.json", "model.safetensors.index.json", "model.safetensors"):
        touch(tmp_path / "m" / file, b"{}")
    found = resolve_ref(str(tmp_path / "m" / name))
    assert (found.kind, found.paths) == (PackageKind.SAFETENSORS, (tmp_path / "m",))


def test_profile_by_path(tmp_path: Path) -> None:
    path = touch(tmp_path / "p.toml")
    assert resolve_ref(str(path)).kind is PackageKind.PROFILE


@pytest.mark.parametrize("name", ["llama-3.1-8b", "LLAMA-3.1-8B", "llama-3.1-8b.toml", " llama-3.1-8b "])
def test_profile_by_name(profiles: list[Path], name: str) -> None:
    found = resolve_ref(name, profile_dirs=profiles)
    assert (found.kind, found.name) == (PackageKind.PROFILE, "llama-3.1-8b")


def test_bare_name_means_the_profile_and_a_path_the_directory(
    profiles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "llama-3.1-8b" / "m.gguf")
    monkeypatch.chdir(tmp_path)
    assert resolve_ref("llama-3.1-8b", profile_dirs=profiles).kind is PackageKind.PROFILE
    assert resolve_ref("./llama-3.1-8b", profile_dirs=profiles).kind is PackageKind.GGUF


def test_bare_name_is_found_in_the_model_directories(profiles: list[Path], tmp_path: Path) -> None:
    path = touch(tmp_path / "models" / "someone" / "My-Model.gguf")
    assert resolve_ref("my-model", model_dirs=[tmp_path / "models"], profile_dirs=profiles).paths == (path,)


def test_miss_suggests_near_names(profiles: list[Path]) -> None:
    with pytest.raises(ModelFileError, match=r"did you mean qwen3-30b-a3b or qwen3-coder-480b\?"):
        resolve_ref("qwen3-30b", profile_dirs=profiles)


def test_miss_without_near_names_lists_some(profiles: list[Path]) -> None:
    with pytest.raises(ModelFileError, match=r"one of llama-3\.1-8b, qwen3-30b-a3b, qwen3-coder-480b"):
        resolve_ref("zzzzzz", profile_dirs=profiles)


def test_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    touch(tmp_path / "gemma-3-270m.gguf")
    with pytest.raises(ModelFileError, match=r"did you mean gemma-3-270m\.gguf\?"):
        resolve_ref(str(tmp_path / "gemma-3-27m.gguf"))


@pytest.mark.parametrize("ref", ["", "  ", "a\nb", "\0"])
def test_ref_that_is_no_name(ref: str) -> None:
    with pytest.raises(ModelFileError, match="model: found"):
        resolve_ref(ref)


def test_missing_file_lists_what_could_be_meant_and_nothing_else(tmp_path: Path) -> None:
    for name in ("notes.txt", "zeta.gguf", "alpha.toml"):
        touch(tmp_path / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "sets").mkdir()
    touch(tmp_path / "sets" / "model.gguf")
    with pytest.raises(ModelFileError, match=r"model: found no file.*, expected one of alpha\.toml, sets, zeta\.gguf$"):
        resolve_ref(str(tmp_path / "qqqqqqqq.gguf"))
    with pytest.raises(ModelFileError, match=r"expected a model's file or directory, or a name that `meshnode models`"):
        resolve_ref(str(tmp_path / "empty" / "qqqqqqqq.gguf"))


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no model's file name"):
        resolve_ref(str(touch(tmp_path / "notes.txt", b"hello")))


def test_gguf_is_known_by_its_magic(tmp_path: Path) -> None:
    assert resolve_ref(str(touch(tmp_path / "blob-sha256-abc", b"GGUF...."))).kind is PackageKind.GGUF


def test_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no model files"):
        resolve_ref(str(tmp_path))


def test_part_number_beyond_the_count_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="file name"):
        resolve_ref(str(touch(tmp_path / "m-00005-of-00002.gguf")))


def test_model_directories_are_walked_but_not_for_ever(tmp_path: Path) -> None:
    touch(tmp_path / "a.gguf")
    touch(tmp_path / "org" / "m" / "b-00001-of-00002.gguf")
    touch(tmp_path / "hf" / "config.json")
    touch(tmp_path / "hf" / "model.safetensors")
    touch(tmp_path / "1" / "2" / "3" / "4" / "deep.gguf")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert sorted(found.name for found in find_models([tmp_path])) == ["a", "b", "hf"]


def test_model_directory_that_is_missing_has_no_models(tmp_path: Path) -> None:
    assert find_models([tmp_path / "gone"]) == ()


def test_installed_profiles_have_names() -> None:
    assert all(path.suffix == ".toml" for path in profile_names().values())
