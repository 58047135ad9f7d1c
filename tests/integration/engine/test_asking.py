"""What clients of a real model ask and do, on the API of a node that only uses the mesh: all works, or is one error."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from asking_models import Answered, Json, ModelClient
from engine_meshes import CONTEXT, MODEL, SPREAD, client_of, engines_of
from making_nodes import Nodes, RunningNode

from meshnode.engine.api.turns import MAX_REQUESTS

pytestmark = pytest.mark.engine

PROMPT = "Once upon a time"
HELLO = [{"role": "user", "content": "Say hello."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"hot": {"type": "boolean"}}, "required": ["hot"]},
    },
}
Worker = Callable[..., RunningNode]


def test_clients_of_openai_get_what_they_ask_for_or_one_clear_error(nodes: Nodes, worker: Worker, gguf: Path) -> None:
    attic = worker("attic", *SPREAD, "--quorum", "2", "--model", str(gguf))
    token = attic.invite("--uses", "9")
    study = worker("study", "--model-dir", str(gguf.parent), token=token)
    sofa = nodes.start("sofa", "--client", token=token)
    attic.wait_event("split.serving")
    client = client_of(sofa)
    client.wait_answer(MODEL, PROMPT)

    assert_chat_is_answered(client)
    assert_what_can_not_be_honoured_is_refused(client)
    assert_stream_ends_as_clients_expect(client)
    assert_crowd_is_told_to_come_back_and_costs_nobody(attic, client)
    assert_clean_stop(attic, study, client)


def chat(client: ModelClient, **fields: Any) -> Answered:
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 4, "temperature": 0}
    return client.post("/chat/completions", body | fields)


def assert_chat_is_answered(client: ModelClient) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Say"}, {"type": "text", "text": "hello."}]}]
    plain: list[Json] = [
        {},
        {"messages": parts},
        {"tools": [TOOL], "tool_choice": "none"},
        {"n": 1, "max_tokens": None},
    ]
    for fields in plain:
        answer = chat(client, **{"max_tokens": 4, **fields, "stop": ["\n"]})
        assert answer.status == 200, (fields, answer)
        assert answer.content["choices"][0]["message"]["role"] == "assistant"

    called = chat(client, tools=[TOOL], tool_choice="required", max_tokens=40).content["choices"][0]
    assert called["finish_reason"] == "tool_calls"
    (call,) = called["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert isinstance(json.loads(call["function"]["arguments"])["hot"], bool)

    schema = {"type": "object", "properties": {"kind": {"enum": ["cat", "dog"]}}, "required": ["kind"]}
    form = {"type": "json_schema", "json_schema": {"name": "animal", "schema": schema}}
    told = chat(client, response_format=form, max_tokens=40).content["choices"][0]["message"]["content"]
    assert json.loads(told)["kind"] in ("cat", "dog")


def assert_what_can_not_be_honoured_is_refused(client: ModelClient) -> None:
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    refused: dict[str, Json] = {
        "messages[0].content[0]": {"messages": picture}, "tool_choice": {"tools": [TOOL]}, "n": {"n": 2},
        "logprobs": {"logprobs": True}, "max_tokens": {"max_tokens": 0}, "stream_options": {"stream_options": 5},
        "response_format": {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "x"}}}},
    }  # fmt: skip
    for param, fields in refused.items():
        answer = chat(client, **fields)
        assert (answer.status, answer.content["error"]["param"]) == (400, param), answer
    long = [{"role": "user", "content": "word " * (CONTEXT + 10)}]
    for stream in (False, True):
        over = chat(client, messages=long, stream=stream)
        assert (over.status, over.content["error"]["code"]) == (400, "context_length_exceeded")
    strange = client.post("/completions", {"model": MODEL, "prompt": [10**9], "max_tokens": 1})
    assert (strange.status, strange.content["error"]["param"]) == (400, "prompt")
    for broken in (b"", b"{", b"[]", b"\xff", b'{"model": 5}', b"[" * 100_000):
        with requested(client, broken) as answered:
            assert answered.status == 400
            assert json.loads(answered.read())["error"]["type"] == "invalid_request_error"
    with requested(client, b'{"model": "' + b"m" * (9 * 2**20) + b'"}') as answered:
        assert answered.status == 413


def assert_stream_ends_as_clients_expect(client: ModelClient) -> None:
    chunks = list(client.stream(MODEL, PROMPT, 5, stream_options={"include_usage": True}))
    assert {(chunk["id"], chunk["model"]) for chunk in chunks} == {(chunks[0]["id"], MODEL)}
    assert [bool(chunk["choices"]) for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"


def assert_crowd_is_told_to_come_back_and_costs_nobody(attic: RunningNode, client: ModelClient) -> None:
    """As many as fit wait without reading a byte; one more is told at once. When they go, nothing works on for them."""
    body = json.dumps({"model": MODEL, "prompt": PROMPT, "max_tokens": 1500, "stream": True}).encode()
    with ExitStack() as crowd:
        for _ in range(MAX_REQUESTS):
            connection = opened(client)
            crowd.callback(connection.close)
            send(connection, body)
        busy = wait_for(lambda: next((one for one in (client.complete(MODEL, PROMPT, 1),) if one.status == 503), None))
        assert busy.content["error"]["code"] == "busy"
        assert int(busy.headers["retry-after"]) > 0
        assert client.models() == [MODEL]
    assert client.wait_answer(MODEL, PROMPT).status == 200
    (engine,) = engines_of(attic)
    wait_for(lambda: not works(engine))


def assert_clean_stop(attic: RunningNode, study: RunningNode, client: ModelClient) -> None:
    """SIGTERM while an answer is made: the client is told, the peers see it leave, no engine process stays."""
    engines = [*engines_of(attic), *engines_of(study)]
    assert len(engines) == 3, "the model's process, a companion and its server"
    events = client.stream(MODEL, PROMPT, 1500)
    assert "choices" in next(events)
    attic.process.send_signal(signal.SIGTERM)
    last = list(events)[-1]
    assert last["error"]["code"] == "engine_lost"
    assert attic.process.wait(60) == 0
    assert study.wait_event("peer.left")["peer"] == attic.node
    psutil.wait_procs(engines, timeout=60)
    assert not any(engine.is_running() for engine in engines)
    gone = wait_for(lambda: next((one for one in (client.complete(MODEL, PROMPT, 1),) if one.status == 404), None))
    assert gone.content["error"]["code"] == "model_not_found"


# --- pieces ---


def wait_for(look: Callable[[], Any], within_s: float = 60.0) -> Any:
    """What `look` gives, once it gives something."""
    until = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def works(engine: psutil.Process) -> bool:
    """Whether it used the processor for a good part of the time that it was looked at."""
    before, began = sum(engine.cpu_times()[:2]), time.monotonic()
    time.sleep(0.3)
    return sum(engine.cpu_times()[:2]) - before > 0.1 * (time.monotonic() - began)


def opened(client: ModelClient) -> http.client.HTTPConnection:
    parts = urlsplit(client.base)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)


def send(connection: http.client.HTTPConnection, body: bytes) -> None:
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})


@contextmanager
def requested(client: ModelClient, body: bytes) -> Iterator[http.client.HTTPResponse]:
    """The answer to a body that is no request of ours."""
    connection = opened(client)
    try:
        send(connection, body)
        yield connection.getresponse()
    finally:
        connection.close()
