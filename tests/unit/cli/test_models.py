"""`meshnode models` where no node runs: what can be planned all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshnode.cli import models, plan
from meshnode.models import profile_names


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A config with one model directory, in which lies a file of this name and no content to speak of."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny-Q4_0.gguf").write_bytes(b"GGUF")
    file = tmp_path / "node.toml"
    lines = (f'state_dir = "{tmp_path / "state"}"', f'model_dirs = ["{tmp_path / "models"}"]')
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def asked(*words: str | Path) -> Result:
    return CliRunner().invoke(models.command, [str(word) for word in words])


def test_files_of_the_configs_directories_and_profiles_are_listed(config_file: Path) -> None:
    done = asked("--config", config_file)
    assert done.exit_code == 0
    assert "no node runs" in done.output
    assert "tiny-Q4_0" in done.output
    assert all(name in done.output for name in profile_names())


def test_json_says_that_no_node_runs(config_file: Path, tmp_path: Path) -> None:
    done = asked("--config", config_file, "--json")
    assert done.exit_code == 0
    answer = json.loads(done.output)
    assert answer == {
        "running": False,
        "models": [],
        "files": [{"ref": "tiny-Q4_0", "kind": "gguf", "path": str(tmp_path / "models" / "tiny-Q4_0.gguf")}],
        "model_dirs": [str(tmp_path / "models")],
        "profiles": list(profile_names()),
    }


def test_without_model_directories_the_key_is_named(tmp_path: Path) -> None:
    done = asked("--state-dir", tmp_path)
    assert done.exit_code == 0
    assert "model_dirs" in done.output


def test_name_that_is_listed_is_one_that_can_be_planned(config_file: Path, tmp_path: Path) -> None:
    nodes_file = tmp_path / "nodes.toml"
    nodes_file.write_text('[[node]]\nid = "a"\nusable_bytes = "1GB"\n', encoding="utf-8")
    words = ["tiny-Q4_0", "--nodes", str(nodes_file), "--config", str(config_file)]
    done = CliRunner().invoke(plan.command, words)
    assert done.exit_code == 2
    assert "models/tiny-Q4_0.gguf" in done.output  # it was found, and could not be read


def test_layers_that_a_node_fetched_and_keeps_are_shown_as_such() -> None:
    holder = {"node": "a" * 52, "cached_bytes": 0, "fetched": [{"layer_start": 0, "layer_end": 8}]}
    assert models._held(holder) == "layers 0-7 fetched"
    assert models._held(holder | {"fetched": []}) == "0.0GB"
    assert models._held(holder | {"cached_bytes": 2 * 10**9}) == "2.0GB"


def test_nodes_of_a_model_are_shown_by_name() -> None:
    node, other = "a" * 52, "b" * 52
    holder = {"node": node, "cached_bytes": 2 * 10**9}
    model = {"ref": "m", "is_profile": False, "wanted_by": [node, other], "complete_at": [node], "holders": [holder]}
    wanted = "aaaaaaaaaa (attic), bbbbbbbbbb"
    assert models._row(model, {node: "attic"}) == (
        "m",
        "files",
        wanted,
        "aaaaaaaaaa (attic)",
        "aaaaaaaaaa (attic) 2.0GB",
    )
