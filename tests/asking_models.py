"""A client of the OpenAI-compatible interface, with the standard library: what tests and the bench ask models with."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
ANSWER_S = 120.0


@dataclass(frozen=True)
class Answered:
    """An answer: status, headers by lower-case name, and its JSON."""

    status: int
    headers: dict[str, str]
    content: Json

    @property
    def text(self) -> str:
        """The first choice's text."""
        return str(self.content["choices"][0]["text"])

    @property
    def error(self) -> str:
        """The error's message."""
        return str(self.content["error"]["message"])


class ModelClient:
    """Talks to one node; `base` is what its `api.listening` event says, such as `http://127.0.0.1:9337/v1`."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._parts = urlsplit(base)

    def get(self, route: str, **headers: str) -> Answered:
        """GET, below `/v1`."""
        return self._read(self._send("GET", route, None, headers))

    def post(self, route: str, body: Json, **headers: str) -> Answered:
        """POST, below `/v1`."""
        return self._read(self._send("POST", route, body, headers))

    def models(self) -> list[str]:
        """Names of the models that run."""
        return [entry["id"] for entry in self.get("/models").content["data"]]

    def wait_model(self, model: str, within_s: float = 60.0) -> None:
        """Return once the node was told that `model` runs."""
        until = time.monotonic() + within_s
        while model not in (found := self.models()):
            assert time.monotonic() < until, found
            time.sleep(0.05)

    def complete(self, model: str, prompt: str, max_tokens: int = 32, **more: Any) -> Answered:
        """A greedy completion."""
        return self.post("/completions", _greedy(model, prompt, max_tokens) | more)

    def stream(self, model: str, prompt: str, max_tokens: int = 32, **more: Any) -> Iterator[Json]:
        """The events of a streamed greedy completion, without the last `[DONE]`."""
        answer = self._send("POST", "/completions", _greedy(model, prompt, max_tokens) | {"stream": True} | more, {})
        assert answer.status == 200, answer.read()
        try:
            while line := answer.readline():
                if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                    yield json.loads(line[6:])
        finally:
            answer.close()

    def wait_answer(self, model: str, prompt: str, max_tokens: int = 8, within_s: float = 60.0) -> Answered:
        """The first completion that succeeds; until then only answers that say when to try again are right."""
        until = time.monotonic() + within_s
        while True:
            answer = self.complete(model, prompt, max_tokens)
            if answer.status == 200:
                return answer
            assert answer.status == 503, answer
            assert int(answer.headers["retry-after"]) > 0
            assert time.monotonic() < until, answer
            time.sleep(0.2)

    def _send(self, method: str, route: str, body: Json | None, headers: dict[str, str]) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self._parts.hostname or "", self._parts.port, timeout=ANSWER_S)
        content = None if body is None else json.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, self._parts.path + route, content, {"Content-Type": "application/json"} | named)
        return connection.getresponse()

    def _read(self, answer: http.client.HTTPResponse) -> Answered:
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answered(answer.status, headers, json.loads(answer.read() or b"{}"))


def _greedy(model: str, prompt: str, max_tokens: int) -> Json:
    return {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
