"""Nodes and engines that die while a real model answers: the client is told what happened, and the mesh goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from asking_models import Json, ModelClient
from engine_meshes import MODEL, SPREAD, client_of
from making_nodes import Nodes, RunningNode

pytestmark = pytest.mark.engine

PROMPT = "Once upon a time"
LONG = 1500
"""More tokens than are made before something dies."""
Worker = Callable[..., RunningNode]


def a_mesh_of_three(worker: Worker, gguf: Path) -> tuple[RunningNode, list[RunningNode]]:
    """A coordinator and two workers, each with a stage."""
    attic = worker("attic", *SPREAD, "--quorum", "3", "--model", str(gguf))
    token = attic.invite("--uses", "9")
    others = [worker(name, "--model-dir", str(gguf.parent), token=token) for name in ("study", "loft")]
    attic.wait_event("split.serving")
    return attic, others


def ends_with_error(client: ModelClient, then: Callable[[], None]) -> Json:
    """Streams a long answer, does `then` once tokens flow, and returns the error it ends with."""
    seen = 0
    last: Json = {}
    for event in client.stream(MODEL, PROMPT, LONG):
        last, seen = event, seen + 1
        if seen == 5:
            then()
    assert "error" in last, last
    error: Json = last["error"]
    return error


def test_killed_engine_of_a_worker_is_named_and_its_node_left_out(worker: Worker, gguf: Path) -> None:
    attic, (study, loft) = a_mesh_of_three(worker, gguf)
    client = client_of(study)
    engine = loft.wait_event("stage.started")["pid"]

    error = ends_with_error(client, lambda: os.kill(engine, signal.SIGKILL))
    assert error["code"] == "engine_lost"
    assert f"{loft.node[:10]}: the stage's engine process ended: signal SIGKILL" in error["message"]
    died = loft.wait_event("engine.died")
    assert (died["part"], died["how"]) == ("stage", "signal SIGKILL")
    attic.wait_event("split.load_failed", lambda event: event["node"] == loft.node)
    attic.wait_event("split.serving", lambda event: event["generation"] > 1)
    assert client.wait_answer(MODEL, PROMPT).status == 200
    stages = attic.events("split.planned")[-1]["stages"]
    assert not any(stage.startswith(loft.node) for stage in stages)
    assert loft.control().get("/v1/status")["node"] == loft.node

    # A node that dies as a whole: its peers see that it is gone, and the rest carries on alone.
    gone = study.node
    error = ends_with_error(client_of(attic), lambda: os.kill(study.pid, signal.SIGKILL))
    assert error["code"] == "engine_lost"
    attic.wait_event("peer.dead", lambda event: event["peer"] == gone)
    began = time.monotonic()
    assert client_of(attic).wait_answer(MODEL, PROMPT, within_s=90).status == 200
    assert time.monotonic() - began < 90
    assert not any(stage.startswith(gone) for stage in attic.events("split.planned")[-1]["stages"])


def test_removed_member_holds_no_stage_any_more(worker: Worker, gguf: Path) -> None:
    attic, (study, loft) = a_mesh_of_three(worker, gguf)
    engine = loft.wait_event("stage.started")["pid"]
    gone = loft.node
    attic.verb("remove", gone, "--yes")
    assert loft.process.wait(60) == 1
    assert not Path(f"/proc/{engine}").exists()
    assert client_of(study).wait_answer(MODEL, PROMPT, within_s=90).status == 200
    assert not any(stage.startswith(gone) for stage in attic.events("split.planned")[-1]["stages"])


def test_coordinator_that_dies_is_replaced_with_a_higher_generation(
    nodes: Nodes, worker: Worker, gguf: Path
) -> None:  # fmt: skip
    attic = worker("attic", *SPREAD, "--model", str(gguf))
    token = attic.invite("--uses", "9")
    study = worker("study", "--declare-host", "1GB", *SPREAD[:-2], "--model", str(gguf), token=token)
    loft = worker("loft", token=token)
    sofa = nodes.start("sofa", "--client", token=token)
    first = attic.wait_event("split.serving")["generation"]
    os.kill(attic.pid, signal.SIGKILL)
    second = study.wait_event("split.serving", within_s=90)
    assert second["generation"] > first
    assert client_of(sofa).wait_answer(MODEL, PROMPT, within_s=60).status == 200
    assert loft.process.poll() is None


def test_shortfall_is_told_to_clients_with_when_to_try_again(nodes: Nodes, worker: Worker, gguf: Path) -> None:
    attic = nodes.start(
        "attic", "--declare-usable", "500MB", "--quorum", "1", "--context", "2048", "--dwell-s", "0.2",
        "--first-quorum-window-s", "0.2", "--deadline-s", "2", "--pending-s", "0.5", "--model", str(gguf),
    )  # fmt: skip
    attic.wait_event("split.shortfall")
    answer = client_of(attic).complete(MODEL, PROMPT)
    assert answer.status == 503
    assert "split capacity for gemma3-270m" in answer.error
    assert int(answer.headers["retry-after"]) > 0
