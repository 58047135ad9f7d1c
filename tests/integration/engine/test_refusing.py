"""What the engine or the node will not load: one clear error, on every node, and nobody else is hurt."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_meshes import MODEL, PACE, SPREAD, both_engines, client_of, reserved_on
from making_nodes import MESHNODE, Nodes, RunningNode

pytestmark = pytest.mark.engine

PROMPT = "Once upon a time"
KNOWN, UNKNOWN = b"blk.3.attn_q.weight", b"blk.3.attn_z.weight"
Worker = Callable[..., RunningNode]


@both_engines
def test_files_that_will_not_load_are_told_with_the_reason_and_others_still_are(
    worker: Worker, engine: tuple[str, ...], gguf: Path, tmp_path: Path
) -> None:
    """One file that only the engine finds wrong, and one that changes between its plan and its load."""
    strange, changing = tmp_path / "strange.gguf", tmp_path / "changing.gguf"
    content = gguf.read_bytes()
    strange.write_bytes(content.replace(KNOWN, UNKNOWN, 1))
    changing.write_bytes(content)
    attic = worker("attic", "--declare-usable", "3GB", "--model", str(strange), "--model", str(gguf))
    token = attic.invite("--uses", "9")
    study = worker("study", *SPREAD, "--quorum", "3", "--model", str(changing), token=token)
    client = client_of(study)
    study.wait_event("model.indexed", lambda event: event["model"] == "changing")
    with changing.open("r+b") as file:
        file.seek(-64, os.SEEK_END)
        file.write(os.urandom(64))

    died = attic.wait_event("engine.died")
    assert (died["part"], died["how"]) == ("model", "exit code 1" if engine else "exit code 70")
    assert any(f"tensor '{KNOWN.decode()}' not found" in line for line in died["last_lines"])
    attic.wait_event("split.withdrawn", lambda event: event["model"] == "strange")
    client.wait_model(MODEL)
    refused = client.complete("strange", PROMPT, 1)
    assert (refused.status, refused.content["error"]["code"]) == (503, "not_running")
    assert f"tensor '{KNOWN.decode()}' not found" in refused.error
    assert int(refused.headers["retry-after"]) > 0
    assert "strange: failed" in attic.verb("status")
    assert client.wait_answer(MODEL, PROMPT).status == 200

    worker("loft", token=token)
    failed = study.wait_event("split.load_failed")
    assert "changing.gguf changed since the plan was made" in failed["reason"]
    changed = client_of(attic).complete("changing", PROMPT, 1)
    assert changed.status == 503
    assert int(changed.headers["retry-after"]) > 0
    assert client.wait_answer(MODEL, PROMPT).status == 200


def test_engine_that_gets_no_memory_is_told_as_that_and_the_node_lives(nodes: Nodes, gguf: Path) -> None:
    """A limit of the process stands for a machine that has less than was declared."""
    short = ("prlimit", "--data=700000000", *MESHNODE)
    attic = nodes.start("attic", *PACE, "--declare-usable", "3GB", "--model", str(gguf), program=short)
    died = attic.wait_event("engine.died")
    assert (died["part"], died["how"]) == ("model", "exit code 70")
    assert any("failed to allocate" in line for line in died["last_lines"])
    attic.wait_event("split.withdrawn")
    answer = client_of(attic).complete(MODEL, PROMPT, 1)
    assert (answer.status, answer.content["error"]["code"]) == (503, "not_running")
    assert "failed to allocate" in answer.error
    assert reserved_on(attic) == 0
