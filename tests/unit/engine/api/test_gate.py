"""Who may use the OpenAI-compatible interface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from meshnode.engine.api import gate as api_gate
from meshnode.engine.api.gate import ApiGate


async def ask(gate: ApiGate, method: str = "POST", **headers: str) -> tuple[int, dict[str, str]]:
    """The status and headers of a request."""
    named = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/v1/completions", "query_string": b"", "headers": named}
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await gate(scope, receive, send)
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def a_gate(key: str | None = None) -> ApiGate:
    return ApiGate(PlainTextResponse("answered"), key, lambda _: None)


@pytest.mark.parametrize("host", ["127.0.0.1:9337", "localhost", "[::1]:9337", "LOCALHOST:1"])
async def test_programs_of_this_machine_are_answered(host: str) -> None:
    assert (await ask(a_gate(), host=host))[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "10.0.0.5:9337", "[::1"])
async def test_name_that_is_not_loopback_is_refused(host: str) -> None:
    assert (await ask(a_gate(), host=host))[0] == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example", "file://"])
async def test_page_from_elsewhere_is_refused(origin: str) -> None:
    assert (await ask(a_gate(), host="127.0.0.1", origin=origin))[0] == 403


async def test_page_of_this_machine_is_answered_and_may_read_it() -> None:
    origin = "http://localhost:3000"
    status, headers = await ask(a_gate(), host="127.0.0.1:9337", origin=origin)
    assert (status, headers["access-control-allow-origin"]) == (200, origin)
    status, headers = await ask(a_gate("key"), "OPTIONS", host="127.0.0.1:9337", origin=origin)
    assert (status, headers["access-control-allow-origin"]) == (204, origin)


@pytest.mark.parametrize(("given", "status"), [("Bearer right", 200), ("Bearer wrong", 401), ("right", 200), ("", 401)])
async def test_key_is_asked_for_where_one_is_set(given: str, status: int) -> None:
    assert (await ask(a_gate("right"), host="localhost", authorization=given))[0] == status


async def pieces() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


@pytest.mark.parametrize("response", [PlainTextResponse("answered"), StreamingResponse(pieces())])
async def test_client_that_stops_reading_is_let_go(response: Response, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_gate, "STALL_S", 0.05)
    told: list[str] = []
    gate = ApiGate(response, None, told.append)

    async def hear_nothing() -> Any:
        await anyio.sleep_forever()

    async def stall(_: Any) -> None:
        await anyio.sleep_forever()

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", b"localhost")]}
    await gate(scope, hear_nothing, stall)
    assert told
    assert "read nothing" in told[0]
