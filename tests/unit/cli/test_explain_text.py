"""How `plan --explain` reads, for machines of a file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from meshnode.cli.plan import command

MODEL = "llama-3.3-70b-q4_k_m"
NODES = """
links = "free"
[[node]]
id = "desk"
usable_bytes = "24GB"
memory_bandwidth_gb_s = 1000
[[node]]
id = "mac"
usable_bytes = "48GB"
memory_bandwidth_gb_s = 400
[[node]]
id = "old"
usable_bytes = "48GB"
memory_bandwidth_gb_s = 50
"""


@pytest.fixture
def nodes_file(tmp_path: Path) -> Path:
    file = tmp_path / "nodes.toml"
    file.write_text(NODES, encoding="utf-8")
    return file


def told(nodes_file: Path, *words: str) -> str:
    done = CliRunner().invoke(command, [MODEL, "--nodes", str(nodes_file), "--context", "4096", *words])
    assert done.exit_code == 0, done.output
    return done.output


def test_explanation_says_who_is_in_and_out_what_binds_and_the_next_best(nodes_file: Path) -> None:
    text = told(nodes_file, "--explain")
    rows = {line.split()[0]: line for line in text.partition("Why each node is in or out:")[2].splitlines() if line}
    assert rows["desk"].split()[1] == "in"
    assert rows["old"].split()[1] == "out"
    assert "slower than every node used" in rows["old"]
    assert "What binds:" in text
    assert "on mac takes longest" in text
    assert "WEIGHTS" in text.partition("Memory by part:")[2]
    assert re.search(r"Runner-up: without desk, on [a-z, ]+: [0-9.]+(ms per token| stages) instead of [0-9.]+", text), (
        text
    )


def test_without_the_option_nothing_is_explained(nodes_file: Path) -> None:
    assert "Why each node" not in told(nodes_file)


def test_json_carries_the_explanation(nodes_file: Path) -> None:
    plan = json.loads(told(nodes_file, "--explain", "--json"))
    assert {verdict["node"]: verdict["used"] for verdict in plan["explanation"]["nodes"]} == {
        "desk": True, "mac": True, "old": False,
    }  # fmt: skip
    assert plan["explanation"]["runner_up"]["without"] == "desk"
