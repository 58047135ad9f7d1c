"""What a model's name on the command line means to a daemon that runs elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshnode.cli.wishes import wish_of


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a model file, and one file with the name of a profile."""
    (tmp_path / "gemma.gguf").touch()
    (tmp_path / "kimi-k2-4bit").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("word", ["gemma.gguf", "./gemma.gguf"])
def test_file_of_this_directory_is_sent_with_its_whole_path(here: Path, word: str) -> None:
    assert wish_of(word, {})["model"] == str(here / "gemma.gguf")


@pytest.mark.parametrize("word", ["kimi-k2-4bit", "absent.gguf", "~no-such-user-here/x.gguf", "x" * 5000])
def test_profiles_and_what_is_not_here_are_sent_as_they_are(word: str) -> None:
    assert wish_of(word, {})["model"] == word


def test_options_that_were_not_given_are_left_out() -> None:
    given = {"context": 4096, "lanes": None, "forbidden_boundaries": ()}
    assert wish_of("m", given) == {"model": "m", "context": 4096}
