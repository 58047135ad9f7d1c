"""Nodes and engines that die while a real model answers: the client is told what happened, and the mesh goes on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from asking_models import Answered, Json, ModelClient
from engine_meshes import MODEL, PACE, SPREAD, client_of, engines_of
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
    """Streams a long answer and waits for another one, does `then` once tokens flow, and returns the error that both
    end with. The second waits for its turn behind the first."""
    whole: list[Answered] = []
    waiting = threading.Thread(target=lambda: whole.append(client.complete(MODEL, PROMPT, LONG)))
    seen = 0
    last: Json = {}
    for event in client.stream(MODEL, PROMPT, LONG):
        last, seen = event, seen + 1
        if seen == 1:
            waiting.start()
        if seen == 10:
            then()
    assert "error" in last, last
    error: Json = last["error"]
    waiting.join(60)
    (answer,) = whole
    assert (answer.status, answer.content["error"]) == (503, error)
    assert int(answer.headers["retry-after"]) > 0
    return error


def test_engine_that_dies_is_named_to_clients_of_every_node_and_the_split_goes_on(
    nodes: Nodes, worker: Worker, gguf: Path
) -> None:  # fmt: skip
    attic, (study, loft) = a_mesh_of_three(worker, gguf)
    sofa = nodes.start("sofa", "--client", token=attic.invite())
    client = client_of(sofa)
    client.wait_model(MODEL)
    client.wait_answer(MODEL, PROMPT)
    engine = loft.wait_event("stage.started")["pid"]

    error = ends_with_error(client, lambda: os.kill(engine, signal.SIGSEGV))
    assert error["code"] == "engine_lost"
    assert f"{loft.node[:10]}: the stage's engine process ended: signal SIGSEGV" in error["message"]
    died = loft.wait_event("engine.died")
    assert (died["part"], died["how"]) == ("stage", "signal SIGSEGV")
    attic.wait_event("split.load_failed", lambda event: event["node"] == loft.node)
    second = attic.wait_event("split.serving", lambda event: event["generation"] > 1)["generation"]
    assert client.wait_answer(MODEL, PROMPT).status == 200
    replanned = attic.wait_event("split.replanned")
    assert (replanned["node"], len(replanned["lost"])) == (loft.node, 1)
    assert "signal SIGSEGV" in replanned["cause"]
    stages = attic.events("split.planned")[-1]["stages"]
    assert replanned["stages"] == stages
    assert not any(stage.startswith(loft.node) for stage in stages)
    assert loft.control().get("/v1/status")["node"] == loft.node

    # The model's own process: no worker's report explains that, so its own end is told.
    (engine,) = (each.pid for each in engines_of(attic))
    error = ends_with_error(client, lambda: os.kill(engine, signal.SIGABRT))
    assert error["code"] == "engine_lost"
    assert f"{attic.node[:10]}: the model's engine process ended: signal SIGABRT" in error["message"]
    attic.wait_event("split.serving", lambda event: event["generation"] > second)
    assert client.wait_answer(MODEL, PROMPT).status == 200

    # A node that dies as a whole: its engine goes with it, its peers see it, and the rest carries on.
    gone, engines = study.node, engines_of(study)
    error = ends_with_error(client, lambda: os.kill(study.pid, signal.SIGKILL))
    assert error["code"] == "engine_lost"
    psutil.wait_procs(engines, timeout=60)
    assert engines
    assert not any(each.is_running() for each in engines)
    attic.wait_event("peer.dead", lambda event: event["peer"] == gone)
    assert client.wait_answer(MODEL, PROMPT, within_s=90).status == 200
    assert not any(stage.startswith(gone) for stage in attic.events("split.planned")[-1]["stages"])


def test_split_that_lost_too_much_is_withdrawn_with_the_shortfall_and_comes_back_with_the_node(
    nodes: Nodes, gguf: Path
) -> None:  # fmt: skip
    """Neither of the two can hold the model alone."""
    small = (*PACE, "--declare-usable", "780MB", "--declare-host", "2GB")
    attic = nodes.start("attic", *small, "--model", str(gguf))
    token = attic.invite("--uses", "9")
    study = nodes.start("study", *small, "--model-dir", str(gguf.parent), token=token)
    sofa = nodes.start("sofa", "--client", token=token)
    attic.wait_event("split.serving")
    client = client_of(sofa)
    client.wait_answer(MODEL, PROMPT)
    os.kill(study.pid, signal.SIGKILL)
    attic.wait_event("split.withdrawn")
    attic.wait_event("split.shortfall")
    answer = client.complete(MODEL, PROMPT)
    assert (answer.status, answer.content["error"]["code"]) == (503, "not_running")
    assert "split capacity for gemma3-270m" in answer.error
    assert int(answer.headers["retry-after"]) > 0
    # What the lost split had taken is offered again, to the last byte.
    assert [device["reserved_bytes"] for device in attic.json("capacity")["devices"]] == [0]
    assert engines_of(attic) == []
    assert client.models() == []

    nodes.start("study", *small, "--model-dir", str(gguf.parent))
    assert client.wait_answer(MODEL, PROMPT, within_s=90).status == 200


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
    engines = engines_of(attic)
    os.kill(attic.pid, signal.SIGKILL)
    second = study.wait_event("split.serving", within_s=90)
    assert second["generation"] > first
    for node in (sofa, loft, study):
        assert client_of(node).wait_answer(MODEL, PROMPT, within_s=60).status == 200
    assert not any(each.is_running() for each in engines)


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
