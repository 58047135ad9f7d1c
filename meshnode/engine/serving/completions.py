"""OpenAI's completion routes over one loaded model: checks, queue, streaming, cancelling.

What lives here: the HTTP of the model's process. What does not: loading it (`meshnode.engine.serving.process`), and the
node's side of the interface, which clients talk to (`meshnode.engine.api.gateway`).

The model answers one request at a time; the others wait in the order they came. Tokens are produced into a buffer that
a request's `max_tokens` bounds, so a client that stalls reading holds memory of a few KB and nobody else up. A client
that has gone ends its request at the next token.
"""

from __future__ import annotations

import asyncio
import json
import queue
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import anyio
import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from meshnode.engine.wishes.completion import CompletionWish, parse_completion
from meshnode.engine.wishes.texts import require_breaks, require_size
from meshnode.engine.wishes.wrong import WrongWish

Json = dict[str, Any]
DONE: Final = b"data: [DONE]\n\n"


class Job:
    """One request for the engine's thread. `steps` are the engine's chunks, a `WrongWish` where it refuses, and None
    at the end; `usage` is there by then."""

    def __init__(self, wish: CompletionWish) -> None:
        self.wish = wish
        self.usage: Json = {}
        self.cancelled = False
        self._loop = asyncio.get_running_loop()
        self._steps: asyncio.Queue[Json | WrongWish | None] = asyncio.Queue()

    def tell(self, step: Json | WrongWish | None) -> None:
        """From the engine's thread."""
        self._loop.call_soon_threadsafe(self._steps.put_nowait, step)

    async def steps(self) -> AsyncIterator[Json | WrongWish]:
        """As they come. Leaving the loop cancels the request."""
        try:
            while (step := await self._steps.get()) is not None:
                yield step
        finally:
            self.cancelled = True


class EngineThread:
    """Gives the engine one job after the other, in the order they came. The engine blocks, so it has its own thread.
    `counted` is told after each, in that thread: tokens read and made since the start, and the newest job's speed."""

    def __init__(self, llama: Any, counted: Callable[[Json], None]) -> None:  # noqa: ANN401  # it brings no types
        self._llama = llama
        self._counted = counted
        self._total = {"prompt": 0, "completion": 0}
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True, name="engine").start()

    def take(self, job: Job) -> None:
        """Queue `job`."""
        self._jobs.put(job)

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if not job.cancelled:
                self._answer(job)
            job.tell(None)

    def _answer(self, job: Job) -> None:
        llama, started_s = self._llama, time.monotonic()
        llama.is_cancelled = lambda: job.cancelled
        # Refused before it runs, it has read nothing; the figures of the one before stand there still.
        llama.prompt_tokens = llama.completion_tokens = 0
        try:
            for chunk in self._chunks(job.wish):
                job.tell(chunk)
        except ValueError as error:
            # The class has no error types of its own; the one about the context says so in words.
            if "exceed context window" in str(error):
                job.tell(WrongWish("messages", f"{error}"[:300], code="context_length_exceeded"))
            else:
                job.tell(WrongWish("request", f"{error}"[:300]))
        except Exception as error:  # noqa: BLE001  # a template or a library at fault costs this request only
            job.tell(WrongWish("request", f"{type(error).__name__}: {error}"[:300], code="engine_error"))
        prompt, completion = llama.prompt_tokens, llama.completion_tokens
        job.usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        self._total["prompt"] += prompt
        self._total["completion"] += completion
        self._counted({**self._total, "per_second": round(completion / max(1e-3, time.monotonic() - started_s), 3)})

    def _chunks(self, wish: CompletionWish) -> Iterator[Json]:
        create: Callable[..., Iterator[Json]] = (
            self._llama.create_chat_completion if wish.chat else self._llama.create_completion
        )
        return create(**wish.options, stream=True)


class ModelRoutes:
    """Answers requests to one model. `llama` is a `CountingLlama`; `counted` as for `EngineThread`."""

    def __init__(self, llama: Any, model: str, counted: Callable[[Json], None]) -> None:  # noqa: ANN401
        self._llama = llama
        self._model = model
        self._thread = EngineThread(llama, counted)

    def app(self) -> Starlette:
        """The application."""
        routes = [
            Route("/health", self._health),
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
        ]
        return Starlette(routes=routes)

    async def _health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _completions(self, request: Request) -> Response:
        return await self._answer(request, chat=False)

    async def _chat(self, request: Request) -> Response:
        return await self._answer(request, chat=True)

    async def _answer(self, request: Request, *, chat: bool) -> Response:
        try:
            body = await request.body()
            require_size(len(body), self._llama.n_ctx())
            wish = parse_completion(body, chat=chat)
            await anyio.to_thread.run_sync(self._require_sense, wish)
        except WrongWish as wrong:
            return JSONResponse(wrong.to_dict(), status_code=wrong.status)
        job = Job(wish)
        self._thread.take(job)
        return await (self._begun(job, request) if wish.stream else self._whole(job, request))

    def _require_sense(self, wish: CompletionWish) -> None:
        """What only the model can tell, told before the request waits for its turn. A chat is counted by its template,
        when it runs."""
        require_breaks(wish.options)
        for name, value in wish.options.items():
            self._llama.vocabulary.require_quick(name, value)
        prompt = wish.options.get("prompt")
        if isinstance(prompt, str):
            count = len(self._llama.tokenize(prompt.encode(), add_bos=True, special=True))
            if count >= self._llama.n_ctx():
                raise _over_context(count, self._llama.n_ctx())
        elif prompt is not None and not all(0 <= token < self._llama.n_vocab() for token in prompt):
            raise WrongWish("prompt", f"found a token outside of 0 to {self._llama.n_vocab() - 1}, this model's tokens")
        for name, schema in wish.schemas.items():
            self._llama.check_schema(name, schema)

    # --- the two kinds of answers ---

    async def _begun(self, job: Job, request: Request) -> Response:
        """A stream's head goes out with its first token: what is refused before that has a status of its own."""
        steps = job.steps()
        first: Json | WrongWish | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when_gone, request, job, tasks.cancel_scope)
            first = await anext(steps, None)
            tasks.cancel_scope.cancel()
        if isinstance(first, WrongWish):
            return JSONResponse(first.to_dict(), status_code=first.status)
        return StreamingResponse(self._streamed(job, first, steps), media_type="text/event-stream")

    async def _streamed(
        self, job: Job, first: Json | None, steps: AsyncIterator[Json | WrongWish]
    ) -> AsyncIterator[bytes]:
        last = first
        if first is not None:
            yield _event({**first, "model": self._model})
        async for step in steps:
            if isinstance(step, WrongWish):
                yield _event(step.to_dict())
                return
            last = step
            yield _event({**step, "model": self._model})
        if job.wish.include_usage and last is not None:
            yield _event({**last, "model": self._model, "choices": [], "usage": job.usage})
        yield DONE

    async def _whole(self, job: Job, request: Request) -> Response:
        chunks: list[Json] = []
        wrong: WrongWish | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when_gone, request, job, tasks.cancel_scope)
            async for step in job.steps():
                if isinstance(step, WrongWish):
                    wrong = step
                else:
                    chunks.append(step)
            tasks.cancel_scope.cancel()
        if wrong is not None:
            return JSONResponse(wrong.to_dict(), status_code=wrong.status)
        whole = (joined_chat if job.wish.chat else joined_text)(chunks)
        return JSONResponse({**whole, "model": self._model, "usage": job.usage})


async def _cancel_when_gone(request: Request, job: Job, scope: anyio.CancelScope) -> None:
    """The body is read, so the next message of the client can only be its end."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    job.cancelled = True
    scope.cancel()


def joined_text(chunks: list[Json]) -> Json:
    """The chunks of a streamed text completion as one answer."""
    choices = [chunk["choices"][0] for chunk in chunks]
    last = choices[-1] if choices else {}
    return {
        "id": chunks[0]["id"] if chunks else "",
        "object": "text_completion",
        "created": chunks[0]["created"] if chunks else 0,
        "choices": [
            {
                "index": 0,
                "text": "".join(choice["text"] for choice in choices),
                "logprobs": None,
                "finish_reason": last.get("finish_reason"),
            }
        ],
    }


def joined_chat(chunks: list[Json]) -> Json:
    """The chunks of a streamed chat completion as one answer, tool calls included."""
    message: Json = {"role": "assistant", "content": ""}
    calls: dict[int, Json] = {}
    finish = None
    for chunk in chunks:
        choice = chunk["choices"][0]
        delta = choice["delta"]
        message["content"] += delta.get("content") or ""
        for call in delta.get("tool_calls") or ():
            _add_call(calls, call)
        finish = choice.get("finish_reason") or finish
    if calls:
        message = {"role": "assistant", "content": message["content"] or None, "tool_calls": list(calls.values())}
    return {
        "id": chunks[0]["id"] if chunks else "",
        "object": "chat.completion",
        "created": chunks[0]["created"] if chunks else 0,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
    }


def _add_call(calls: dict[int, Json], delta: Json) -> None:
    function = delta.get("function") or {}
    call = calls.setdefault(
        int(delta.get("index", 0)), {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    )
    call["id"] = delta.get("id") or call["id"]
    call["function"]["name"] = function.get("name") or call["function"]["name"]
    call["function"]["arguments"] += function.get("arguments") or ""


def _over_context(count: int, context: int) -> WrongWish:
    return WrongWish(
        "prompt", f"{count} tokens do not fit the context of {context} tokens", code="context_length_exceeded"
    )


def _event(content: Json) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"


def serve(llama: Any, model: str, listener: socket.socket, counted: Callable[[Json], None]) -> None:  # noqa: ANN401
    """Answers on `listener` until the process is ended. `counted` as for `EngineThread`."""
    config = uvicorn.Config(
        ModelRoutes(llama, model, counted).app(), http="h11", ws="none", lifespan="off", log_config=None,
        access_log=False, server_header=False, date_header=False, timeout_keep_alive=5,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])
