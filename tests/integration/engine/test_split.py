"""A real model over real nodes: the same tokens as on one device, whoever asks, and nothing sent that is there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from asking_models import ModelClient
from engine_meshes import CONTEXT, MODEL, PACE, PROGRAMS, SPREAD, both_engines, client_of, engines_of, reserved_on
from making_nodes import Nodes, RunningNode

from meshnode.engine.confinement import landlock

pytestmark = pytest.mark.engine

PROMPTS = ("The capital of France is", "Once upon a time, in a village by the sea,")
LARGE_BYTES = 178_257_920
"""Of this model only the head is over the 10 MiB from which the engine looks tensors up by hash."""
SMALL_BYTES = 68_332_544
"""All layers' tensors: the engine always sends those."""
LOGGED_TO_BYTES = 12_000
"""Sizes are logged with two decimals of a MiB, each buffer for itself."""
Worker = Callable[..., RunningNode]


@both_engines
def test_split_answers_token_for_token_as_one_device(
    nodes: Nodes, engine: tuple[str, ...], worker: Worker, gguf: Path
) -> None:  # fmt: skip
    attic = worker("attic", *SPREAD, "--quorum", "3", "--model", str(gguf))
    token = attic.invite("--uses", "9")
    study, loft = (worker(name, "--model-dir", str(gguf.parent), token=token) for name in ("study", "loft"))
    sofa = nodes.start("sofa", "--client", token=token)
    attic.wait_event("split.serving")
    assert_large_tensors_stayed_at_home(attic)
    alone = nodes.start("alone", *PACE, *engine, "--model", str(gguf))
    alone.wait_event("split.serving")

    stages = attic.events("split.planned")[-1]["stages"]
    assert {stage.split("/")[0] for stage in stages} == {attic.node, study.node, loft.node}
    expected = [client_of(alone).complete(MODEL, prompt, 48) for prompt in PROMPTS]
    assert all(answer.content["usage"]["completion_tokens"] == 48 for answer in expected)
    assert_tokens_are_counted(alone, [answer.content["usage"] for answer in expected])
    for node in (attic, study, sofa):
        answers = [client_of(node).complete(MODEL, prompt, 48) for prompt in PROMPTS]
        assert [answer.text for answer in answers] == [answer.text for answer in expected]
    assert_memory_is_as_predicted(attic, 3)
    assert_memory_is_as_predicted(alone, 1)
    assert_streamed_as_it_comes(client_of(sofa), expected[0].text)
    assert_wrong_requests_are_one_clear_error_each(client_of(sofa))
    assert_nobody_else_reaches_the_stage(study)


def assert_tokens_are_counted(node: RunningNode, usages: list[dict[str, int]]) -> None:
    """In the status and in the metrics, since the model serves; llama-server is asked after an answer."""
    expected = [sum(usage[f"{kind}_tokens"] for usage in usages) for kind in ("prompt", "completion")]
    until = time.monotonic() + 10
    while (tokens := tokens_of(node))[:2] != expected:
        assert time.monotonic() < until, (tokens, expected)
    assert tokens[2] > 0
    assert f'meshnode_tokens_total{{model="{MODEL}",kind="completion"}}' in node.control().text("/metrics")


def tokens_of(node: RunningNode) -> list[float]:
    """Read, made, and made per second."""
    (run,) = [split["run"] for split in node.json("status")["splits"] if split["state"] == "running"]
    return [(run["tokens"] or {}).get(kind, 0) for kind in ("prompt", "completion", "per_second")]


def assert_memory_is_as_predicted(coordinator: RunningNode, nodes: int) -> None:
    """Weights and cache to the byte, as far as the engine's log tells it, but where a file is mapped: there found is
    what lies between the first and the last of a stage's tensors, at most all of it. Compute buffers to 2 %; but
    llama-server makes the outputs of one token a lane, where the plan has room for a whole micro-batch's, and keeps no
    copies of what comes in where the CPU has the first layers."""
    rows = coordinator.events("split.memory_check")
    assert len({row["node"] for row in rows}) == nodes
    for row in rows:
        if row["mapped"]:
            most = LARGE_BYTES + SMALL_BYTES + LOGGED_TO_BYTES
            assert row["predicted_weights_bytes"] - LOGGED_TO_BYTES <= row["weights_bytes"] <= most, row
        else:
            assert row["weights_bytes"] == pytest.approx(row["predicted_weights_bytes"], abs=LOGGED_TO_BYTES), row
        assert row["cache_bytes"] == pytest.approx(row["predicted_cache_bytes"], abs=LOGGED_TO_BYTES), row
        if by_programs(coordinator):
            assert row["compute_bytes"] <= 1.02 * row["predicted_compute_bytes"], row
        else:
            assert row["compute_bytes"] == pytest.approx(row["predicted_compute_bytes"], rel=0.02), row


def by_programs(node: RunningNode) -> bool:
    return bool(node.wait_event("engine.found")["kind"] == PROGRAMS)


def assert_large_tensors_stayed_at_home(coordinator: RunningNode) -> None:
    tunnels = coordinator.json("status")["tunnels"]["open"]
    sent = sum(tunnel["sent_bytes"] for tunnel in tunnels if tunnel["purpose"] == "engine")
    closed = coordinator.events("tunnel.closed")
    sent += sum(event["sent_bytes"] for event in closed if event["purpose"] == "engine")
    assert sent < SMALL_BYTES + LARGE_BYTES // 100


def assert_streamed_as_it_comes(client: ModelClient, expected: str) -> None:
    chunks = list(client.stream(MODEL, PROMPTS[0], 48, stream_options={"include_usage": True}))
    pieces = [chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"]]
    assert len(pieces) > 10
    assert "".join(pieces) == expected
    assert chunks[-1]["usage"]["completion_tokens"] == 48
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
    answer = client.post("/chat/completions", chat)
    assert answer.status == 200, answer
    assert answer.content["choices"][0]["message"]["role"] == "assistant"


def assert_wrong_requests_are_one_clear_error_each(client: ModelClient) -> None:
    unknown = client.complete("llama-9", "x")
    assert (unknown.status, unknown.content["error"]["code"]) == (404, "model_not_found")
    assert MODEL in unknown.error
    over = client.complete(MODEL, "word " * (CONTEXT + 10))
    assert (over.status, over.content["error"]["code"]) == (400, "context_length_exceeded")
    assert str(CONTEXT) in over.error
    wrong = client.complete(MODEL, "x", temperature="hot")
    assert (wrong.status, wrong.content["error"]["param"]) == (400, "temperature")
    elsewhere = client.get("/models", Origin="https://evil.example")
    assert elsewhere.status == 403
    rebound = client.get("/models", Host="evil.example")
    assert rebound.status == 403
    assert client.models() == [MODEL]


def assert_nobody_else_reaches_the_stage(worker: RunningNode) -> None:
    """Its server listens in a network of its own: no port of this machine leads there."""
    started: dict[str, Any] = worker.wait_event("stage.started")
    assert started["private_network"] is True
    assert (started["landlock"], started["tcp_only"]) == (landlock.abi(), True)
    theirs = {Path(f"/proc/{process.pid}/ns/net").readlink() for process in [psutil.Process(started["pid"])]}
    assert theirs.isdisjoint({Path("/proc/self/ns/net").readlink()})


def test_capacity_is_live_and_a_further_model_sees_what_is_left(nodes: Nodes, gguf: Path, tmp_path: Path) -> None:
    """There is room for two. The third waits with a shortfall, and runs in the place of one that is not wanted any
    more; an engine that crashed gives its bytes back too."""
    files = [tmp_path / f"{name}.gguf" for name in ("one", "two", "three")]
    for file in files:
        file.hardlink_to(gguf)
    config = tmp_path / "node.toml"

    def want(*models: Path) -> None:
        config.write_text(f"models = {[str(model) for model in models]}\n")

    want(*files[:2])
    options = (*PACE, "--quorum", "1", "--declare-usable", "2GB", "--declare-host", "4GB", "--config", str(config))
    attic = nodes.start("attic", *options)
    for model in ("one", "two"):
        attic.wait_event("split.serving", lambda event, model=model: event["model"] == model)  # type: ignore[misc]
    held = reserved_on(attic)
    assert 0 < held < 2e9
    client = client_of(attic)
    client.wait_model("two")
    assert client.models() == ["one", "two"]
    answers = [client.complete(model, PROMPTS[0], 8) for model in ("one", "two")]
    assert [answer.status for answer in answers] == [200, 200]
    assert all(one.text == two.text for one, two in pairwise(answers))

    want(*files)
    os.kill(attic.pid, signal.SIGHUP)
    left = attic.wait_event("split.shortfall", lambda event: event["model"] == "three")
    assert left["available_bytes"] == 2_000_000_000 - held
    want(files[0], files[2])
    os.kill(attic.pid, signal.SIGHUP)
    attic.wait_event("split.serving", lambda event: event["model"] == "three")
    assert reserved_on(attic) == held
    client.wait_model("three")
    assert client.models() == ["one", "three"]

    os.kill(engines_of(attic)[0].pid, signal.SIGKILL)
    died = attic.wait_event("engine.died")
    assert died["how"].startswith("signal SIGKILL")
    assert client.wait_answer(died["model"], PROMPTS[0]).status == 200
    assert reserved_on(attic) == held
