"""A model's routes, without a model: what is answered before one is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshnode.engine.serving.completions import ModelRoutes
from meshnode.engine.wishes.texts import BYTES_BESIDE, BYTES_PER_TOKEN

CONTEXT = 512


class NeverAsked:
    """In the place of a loaded model, of which only the context is known."""

    def n_ctx(self) -> int:
        return CONTEXT

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the model was asked: {name}")


@pytest.mark.parametrize(
    ("route", "field"),
    [("/v1/completions", "prompt"), ("/v1/chat/completions", "messages"), ("/v1/chat/completions", "tools")],
)
async def test_request_far_over_the_context_is_refused_uncounted(route: str, field: str) -> None:
    text = " " * (CONTEXT * BYTES_PER_TOKEN + BYTES_BESIDE)
    value = text if field == "prompt" else [{"role": "user", "content": text}]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}], field: value}).encode()
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": route, "query_string": b"", "headers": [],
        "scheme": "http", "server": ("127.0.0.1", 1), "asgi": {"version": "3.0"},
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    await ModelRoutes(NeverAsked(), "m", lambda _: None).app()(scope, receive, send)
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["error"]["code"] == "context_length_exceeded"
