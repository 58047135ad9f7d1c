"""A worker without the model's files: it fetches what its stage is made of, goes on after a kill, and keeps it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from engine_meshes import MODEL, PACE, SPREAD, client_of
from making_nodes import Nodes, RunningNode

pytestmark = pytest.mark.engine

PROMPT = "The capital of France is"
LARGE_BYTES = 178_257_920
"""The head, which is the embedding once more: the one tensor of this model that is looked up by hash."""
ALL_BYTES = 246_587_904
SMALL_BYTES = ALL_BYTES - LARGE_BYTES
"""All layers' tensors: the engine always sends those."""
SLOW = ("--tunnel-carrier", "quic")
"""At most 24 MiB/s: a kill at a tenth meets it half way."""


def test_worker_without_files_fetches_goes_on_after_a_kill_and_serves(nodes: Nodes, gguf: Path) -> None:
    # Too small for the head, so that the worker holds it.
    coordinator = (*PACE, *SPREAD, *SLOW, "--declare-usable", "300MB", "--quorum", "2", "--model", str(gguf))
    worker = (*PACE, *SLOW, "--declare-usable", "900MB")
    attic = nodes.start("attic", *coordinator)
    study = nodes.start("study", *worker, token=attic.invite())
    assert attic.wait_event("split.planned")["missing_bytes"] == ALL_BYTES
    attic.wait_event("split.loading", lambda event: event["step"] == "fetching")
    assert fetching_share(attic, study) < 100
    study.stop(signal.SIGKILL)

    study = nodes.start("study", *worker)
    begun = study.wait_event("weights.fetching")
    assert begun["source"] == attic.node
    assert (begun["total_bytes"], begun["resumed_bytes"] > LARGE_BYTES // 20) == (LARGE_BYTES, True)
    fetched = study.wait_event("weights.fetched")
    assert fetched["received_bytes"] + begun["resumed_bytes"] == LARGE_BYTES
    assert study.events("weights.rejected") == []
    attic.wait_event("split.serving")
    answer = client_of(study).complete(MODEL, PROMPT, 24)

    assert attic.stop() == 0
    again = nodes.start("attic", *coordinator)
    assert again.wait_event("split.planned")["missing_bytes"] == 0
    again.wait_event("split.serving")
    assert sent_bytes(again, "weights") < LARGE_BYTES // 100
    assert sent_bytes(again, "weights") + sent_bytes(again, "engine") < SMALL_BYTES + LARGE_BYTES // 100
    assert client_of(again).complete(MODEL, PROMPT, 24).text == answer.text
    alone = nodes.start("alone", *PACE, "--model", str(gguf))
    alone.wait_event("split.serving")
    assert client_of(alone).complete(MODEL, PROMPT, 24).text == answer.text


def fetching_share(coordinator: RunningNode, worker: RunningNode) -> int:
    """Percent of the worker's stage that is there, as the coordinator's status has it."""
    run = next(split["run"] for split in coordinator.json("status")["splits"] if split.get("run"))
    (stage,) = run["stages"]
    assert (stage["node"], stage["state"]) == (worker.node, "fetching")
    return int(100 * stage["done_bytes"] / stage["total_bytes"])


def sent_bytes(node: RunningNode, purpose: str) -> int:
    """What its tunnels for that have sent."""
    tunnels = node.json("status")["tunnels"]["open"]
    sent = sum(tunnel["sent_bytes"] for tunnel in tunnels if tunnel["purpose"] == purpose)
    closed = node.events("tunnel.closed")
    return int(sent + sum(event["sent_bytes"] for event in closed if event["purpose"] == purpose))
