"""A gateway and clients or nodes that don't play fair, over a real Unix socket where another process would be."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.abc import ByteStream, SocketStream
from making_views import MODEL, a_node, a_view

from meshnode.engine.api.gateway import Gateway, GatewayPorts
from meshnode.engine.http1 import Answer, AnswerBroken, ask, whole_body
from meshnode.engine.runs.run import RunState
from meshnode.engine.wishes.llama_server import server_request
from meshnode.split import Gate

DEADLINE_S = 30.0


@dataclass
class OneModel:
    """`Models` with one model, whose process is whoever listens at `path`."""

    path: Path
    model: str = MODEL
    state: RunState = RunState.SERVING
    gates: Gate = Gate.OPEN
    changed: anyio.Event = field(default_factory=anyio.Event)

    def get(self, model: str) -> OneModel | None:
        return self if model == self.model else None

    def gate(self, model: str) -> Gate:
        return self.gates

    async def connect(self, run: OneModel) -> ByteStream:
        return await anyio.connect_unix(self.path)

    def request_for(self, run: OneModel, path: str, body: bytes) -> bytes:
        return server_request(body, path, 512)

    async def in_our_words(self, path: str, answer: Answer) -> Answer:
        return answer

    def answered(self, run: OneModel) -> None:
        pass

    async def why_over(self, run: OneModel) -> str:
        return "the connection to the engine broke"


@asynccontextmanager
async def an_engine(path: Path, serve: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[OneModel]:
    """Somebody in the place of a model's process, who does what `serve` does with each connection."""
    listener = await anyio.create_unix_listener(path)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield OneModel(path)
        tasks.cancel_scope.cancel()


async def posted(model: OneModel, receive: Callable[[], Awaitable[Any]], host: bytes = b"127.0.0.1") -> int:
    """The status of the answer to a completion request whose messages `receive` gives."""
    view = a_view(a_node("a"))
    ports = GatewayPorts(lambda: view, lambda _: None, lambda _: None, lambda: model)  # type: ignore[arg-type, return-value]
    app = Gateway(view.local, None, ports).app(inner=True)  # type: ignore[arg-type]
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/completions", "query_string": b"",
        "headers": [(b"host", host)], "scheme": "http", "server": ("127.0.0.1", 1), "asgi": {"version": "3.0"},
    }  # fmt: skip
    statuses: list[int] = []

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if message["type"] == "http.response.start" else [])

    with anyio.fail_after(DEADLINE_S):
        await app(scope, receive, send)
    return statuses[0]


def a_client(stays: anyio.Event | None = None, prompt: str = "Hello") -> Callable[[], Awaitable[Any]]:
    """Sends a request, and goes once `stays` is set; never without it."""
    body = json.dumps({"model": MODEL, "prompt": prompt}).encode()
    messages = [{"type": "http.request", "body": body}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await (stays or anyio.Event()).wait()
        return {"type": "http.disconnect"}

    return receive


async def test_engine_does_not_work_on_for_a_client_that_has_gone(tmp_path: Path) -> None:
    gone, ended = anyio.Event(), anyio.Event()

    async def never_answer(stream: SocketStream) -> None:
        await stream.receive()
        gone.set()
        with contextlib.suppress(anyio.EndOfStream):
            while True:
                await stream.receive()
        ended.set()

    async with an_engine(tmp_path / "m.sock", never_answer) as model:
        await posted(model, a_client(gone))
        with anyio.fail_after(DEADLINE_S):
            await ended.wait()


async def answer_whole(stream: SocketStream) -> None:
    """A short answer, well made."""
    await stream.receive()
    await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")


async def test_request_waits_while_a_node_is_suspected_and_is_answered_then(tmp_path: Path) -> None:
    async with an_engine(tmp_path / "m.sock", answer_whole) as model:
        model.gates = Gate.HOLD
        statuses: list[int] = []

        async def ask_it() -> None:
            statuses.append(await posted(model, a_client()))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_it)
            await anyio.wait_all_tasks_blocked()
            assert statuses == []
            model.gates = Gate.OPEN
            model.changed.set()
        assert statuses == [200]


@pytest.mark.parametrize("host", [b"127.0.0.1", b"127.0.0.1/slots?"])
async def test_engine_is_asked_for_the_route_alone(tmp_path: Path, host: bytes) -> None:
    heard: list[bytes] = []

    async def answer(stream: SocketStream) -> None:
        heard.append(await stream.receive())
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    async with an_engine(tmp_path / "m.sock", answer) as model:
        assert await posted(model, a_client(), host) == 200
    assert heard[0].startswith(b"POST /v1/completions HTTP/1.1\r\n")


async def test_request_that_would_end_an_engine_does_not_reach_it(tmp_path: Path) -> None:
    async def answer(stream: SocketStream) -> None:
        raise AssertionError("it was asked")

    async with an_engine(tmp_path / "m.sock", answer) as model:
        assert await posted(model, a_client(prompt="=" * 30_000)) == 400


async def test_answer_without_end_is_let_go() -> None:
    ours, theirs = socket.socketpair()

    async def flood(stream: SocketStream) -> None:
        await stream.receive()
        with contextlib.suppress(anyio.BrokenResourceError):
            await stream.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            while True:
                await stream.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flood, await SocketStream.from_socket(theirs))
        async with await SocketStream.from_socket(ours) as stream:
            answer = await ask(stream, "POST", "/v1/completions")
            with anyio.fail_after(DEADLINE_S), pytest.raises(AnswerBroken, match="over 1000000 bytes"):
                await whole_body(answer, 1_000_000)
