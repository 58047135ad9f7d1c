"""The OpenAI-compatible interface of a node: requests for any model of the mesh, answered where it runs.

What lives here: `Gateway`, the routes and what becomes of a request. What does not: who may ask
(`meshnode.engine.api.gate`), running models (`meshnode.engine.runs.models`), HTTP over a stream
(`meshnode.engine.http1`).

    client ──HTTP──> gateway of any node ──tunnel──> inner gateway of the coordinator ──Unix socket──> model's process

The same application serves both ends: the inner one only answers for models that run on its own node, so that a
request never travels on. An answer that breaks off after its head can only say so in its body: a streamed one ends with
an `error` event, one that was not begun yet becomes a 503 with `Retry-After`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import anyio
from anyio.abc import ByteStream
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from meshnode.engine.api.turns import Busy, Turns
from meshnode.engine.http1 import Answer, AnswerBroken, ask, whole_body
from meshnode.engine.runs.models import Models
from meshnode.engine.runs.run import Run, RunState
from meshnode.engine.wishes.completion import model_of
from meshnode.engine.wishes.wrong import WrongWish
from meshnode.events import ApiFailed, Event
from meshnode.membership.view import MeshView
from meshnode.request_body import BodyRefused, read_bounded
from meshnode.split import Chosen, Gate, NotWanted, choose_coordinator
from meshnode.tunnel import Opening, Purpose, TunnelError, TunnelRefusal, TunnelRefused, Tunnels, splice
from proto.ids import NodeId, short

MAX_BODY_BYTES: Final = 8 * 2**20
"""A context of a million tokens is about 5 MB of text."""
MAX_BODIES_BYTES: Final = 64 * 2**20
"""Of all requests that are being answered; other nodes' are among them."""
MAX_ANSWER_BYTES: Final = 32 * 2**20
"""Of an answer that is held whole: another node may send what it likes."""
GONE: Final = 499
"""The status of an answer that nobody is there to read."""
BODY_S: Final = 60.0
HOLD_S: Final = 20.0
"""How long a request waits while a stage's node is suspected: it is dead or refuted within about 6 s."""
RETRY_S: Final = 5
"""`Retry-After` of a model that is being loaded or replanned."""
SHORT_RETRY_S: Final = 30
"""The same where something has to change first: a shortfall, a missing node."""
MOST_NAMED: Final = 20
_KEPT_HEADERS: Final = (b"content-type", b"retry-after")


class ApiError(Exception):
    """An answer that says why not, in OpenAI's shape."""

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None, retry_s: int = 0) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_s = retry_s
        super().__init__(message)

    @property
    def content(self) -> dict[str, Any]:
        """The body."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The answer, with `Retry-After` where trying again makes sense."""
        headers = {"Retry-After": str(self.retry_s)} if self.retry_s else {}
        return JSONResponse(self.content, status_code=self.status, headers=headers)


@dataclass(frozen=True)
class WhyNot:
    """Why a model does not run: a shortfall's text, what is wrong with its files, what is being done. `soon` where that
    ends by itself; `replanning` where it ran before."""

    text: str
    soon: bool = False
    replanning: bool = False


@dataclass(frozen=True)
class GatewayPorts:
    """What a gateway needs of the node around it. `why_not` says why a model wanted here does not run; `models`
    is None on a node without an engine."""

    view: Callable[[], MeshView]
    why_not: Callable[[str], WhyNot | None]
    emit: Callable[[Event], None]
    models: Callable[[], Models | None]


class Gateway:
    """Answers clients of this node, and those of other nodes for the models that run here."""

    def __init__(self, local: NodeId, tunnels: Tunnels, ports: GatewayPorts) -> None:
        self._local = local
        self._tunnels = tunnels
        self._ports = ports
        self._turns = Turns()
        self._body_bytes = 0

    def app(self, *, inner: bool) -> Starlette:
        """The application; `inner` answers only for what runs here."""

        async def complete(request: Request) -> Response:
            return await self._complete(request, inner)

        routes = [
            Route("/health", _health),
            Route("/v1/models", self._list),
            Route("/v1/models/{model:path}", self._show),
            Route("/v1/chat/completions", complete, methods=["POST"]),
            Route("/v1/completions", complete, methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={404: _no_route, 405: _no_route})

    # --- what there is ---

    async def _list(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._entry(name) for name in self._running()]})

    async def _show(self, request: Request) -> Response:
        name = request.path_params["model"]
        return JSONResponse(self._entry(name)) if name in self._running() else self._unknown(name).response()

    def _entry(self, name: str) -> dict[str, Any]:
        choice = choose_coordinator(self._ports.view(), name)
        node = choice.node if isinstance(choice, Chosen) else None
        return {"id": name, "object": "model", "created": 0, "owned_by": "meshnode", "meshnode": {"coordinator": node}}

    def _running(self) -> list[str]:
        """Models that somebody coordinates by a plan, by name."""
        return sorted(_named(self._ports.view(), lambda entry: entry.generation is not None))

    def _unknown(self, name: str) -> ApiError:
        running = self._running()
        waiting = sorted(_named(self._ports.view(), lambda entry: entry.wanted) - set(running))
        there_is = f"running now: {_some(running)}" if running else "none is running now"
        wanted = f"; waiting for the mesh: {_some(waiting)}" if waiting else ""
        return ApiError(
            404, "model_not_found", f"there is no model {name[:100]!r} in this mesh; {there_is}{wanted}", param="model"
        )

    # --- one request ---

    async def _complete(self, request: Request, inner: bool) -> Response:
        read = bytearray()
        try:
            await self._read_body(request, read)
            body = bytes(read)
            name = model_of(body)
            # Not the URL's path: that is put together from the Host header, which is the client's.
            path = str(request.scope["path"])
            return await _unless_gone(request, lambda: self._answer_or_busy(name, path, body, inner))
        except WrongWish as wrong:
            return JSONResponse(wrong.to_dict(), status_code=wrong.status)
        except ApiError as error:
            return error.response()
        finally:
            self._body_bytes -= len(read)

    async def _read_body(self, request: Request, read: bytearray) -> None:
        """The request's body, bounded in bytes and time, and in bytes together with all others. Raises `ApiError`."""

        def take(size_bytes: int) -> None:
            if self._body_bytes + size_bytes > MAX_BODIES_BYTES:
                text = f"the bodies of requests to this node take {self._body_bytes} bytes together already"
                raise ApiError(503, "busy", text, retry_s=RETRY_S)
            self._body_bytes += size_bytes

        try:
            await read_bounded(request.stream(), read, most_bytes=MAX_BODY_BYTES, within_s=BODY_S, taken=take)
        except BodyRefused as refused:
            raise ApiError(refused.status, refused.code, refused.message) from refused

    async def _answer_or_busy(self, name: str, path: str, body: bytes, inner: bool) -> Response:
        try:
            return await self._answer(name, path, body, inner)
        except Busy as busy:
            raise ApiError(503, "busy", f"{name}: {busy}", retry_s=RETRY_S) from busy

    async def _answer(self, name: str, path: str, body: bytes, inner: bool) -> Response:
        choice = choose_coordinator(self._ports.view(), name)
        if isinstance(choice, NotWanted):
            wanted = name in _named(self._ports.view(), lambda entry: entry.wanted)
            raise self._not_running(name) if wanted else self._unknown(name)
        # Where nobody holds the model, the one that speaks for those who want it knows why.
        node = choice.node if isinstance(choice, Chosen) else choice.speaker
        if node == self._local:
            return await self._answer_here(name, path, body)
        if inner:
            raise ApiError(503, "moved", f"{name} is coordinated by {short(node)} now", retry_s=1)
        return await self._answer_there(node, name, path, body)

    def _not_running(self, name: str) -> ApiError:
        why = self._ports.why_not(name) or WhyNot(f"{name} is not running")
        code = "replanning" if why.replanning else "loading" if why.soon else "not_running"
        return ApiError(503, code, why.text, retry_s=RETRY_S if why.soon else SHORT_RETRY_S)

    async def _answer_here(self, name: str, path: str, body: bytes) -> Response:
        models = self._ports.models()
        run = None if models is None else models.get(name)
        if models is None or run is None:
            raise self._not_running(name)
        asked = models.request_for(run, path, body)

        async def why() -> str:
            return f"{name}: {await models.why_over(run)}"

        async with AsyncExitStack() as stack:
            stack.enter_context(self._turns.here(name))
            await self._until_open(models, run)
            try:
                stream = await models.connect(run)
                stack.callback(models.answered, run)
                stack.push_async_callback(stream.aclose)
                answer = await models.in_our_words(path, await ask(stream, "POST", path, _JSON, asked))
            except (OSError, AnswerBroken) as error:
                raise self._lost(name, self._local, await why()) from error
            return await self._pass_on(answer, stack.pop_all(), name, self._local, why)

    async def _until_open(self, models: Models, run: Run) -> None:
        """Returns once requests may go to `run`. Raises `ApiError` where they may not soon."""
        with anyio.move_on_after(HOLD_S):
            while models.gate(run.model) is Gate.HOLD and run.state is RunState.SERVING:
                await run.changed.wait()
        if run.state is RunState.OVER:
            raise ApiError(503, "replanning", f"{run.model}: {run.cause or 'it is being replanned'}", retry_s=RETRY_S)
        if run.state is not RunState.SERVING:
            raise ApiError(503, "loading", f"{run.model} is {run.progress}", retry_s=RETRY_S)
        if models.gate(run.model) is not Gate.OPEN:
            raise ApiError(503, "replanning", f"{run.model} waits for a suspected node", retry_s=RETRY_S)

    async def _answer_there(self, node: NodeId, name: str, path: str, body: bytes) -> Response:
        async def why() -> str:
            return f"{name}: the connection to {short(node)}, which coordinates it, was lost"

        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._turns.towards(node))
            try:
                tunnel = await self._tunnels.open(node, Opening(Purpose.API, name))
                stack.push_async_callback(tunnel.aclose)
                answer = await ask(tunnel, "POST", path, _JSON, body)
            except TunnelError as error:
                if isinstance(error, TunnelRefused) and error.code == TunnelRefusal.TOO_MANY:
                    raise ApiError(503, "busy", f"{name}: {short(node)}: {error.text}", retry_s=RETRY_S) from error
                raise self._lost(name, node, f"{name}: {short(node)}, which coordinates it: {error}") from error
            except (AnswerBroken, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                raise self._lost(name, node, await why()) from error
            return await self._pass_on(answer, stack.pop_all(), name, node, why)

    def _lost(self, name: str, node: NodeId, reason: str) -> ApiError:
        self._ports.emit(ApiFailed(name, node, reason[:300]))
        return ApiError(503, "engine_lost", reason, retry_s=RETRY_S)

    async def _pass_on(
        self, answer: Answer, stack: AsyncExitStack, name: str, node: NodeId, why: Callable[[], Any]
    ) -> Response:
        """The other side's answer: a stream as it comes, anything else whole."""
        kept = ((key, value) for key, value in answer.headers.items() if key in _KEPT_HEADERS)
        headers = {key.decode(): value.decode("latin-1") for key, value in kept}
        if answer.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
            events = self._events(answer, name, node, why)
            return _Stream(events, stack, status_code=answer.status, headers=headers)
        async with stack:
            try:
                whole = await whole_body(answer, MAX_ANSWER_BYTES)
            except AnswerBroken as error:
                raise self._lost(name, node, await why()) from error
        return Response(whole, status_code=answer.status, headers=headers)

    async def _events(self, answer: Answer, name: str, node: NodeId, why: Callable[[], Any]) -> AsyncIterator[bytes]:
        try:
            async for piece in answer.body:
                yield piece
        except AnswerBroken:
            error = self._lost(name, node, await why())
            yield b"data: " + json.dumps(error.content).encode() + b"\n\n"


class _Stream(StreamingResponse):
    """A streamed answer, which owns what it is read from: that is given back also where the client went before the
    first byte, when its events are not even begun."""

    def __init__(self, events: AsyncIterator[bytes], stack: AsyncExitStack, **more: Any) -> None:  # noqa: ANN401
        super().__init__(events, **more)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._stack.aclose()


_JSON: Final = ((b"content-type", b"application/json"),)


async def _health(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _no_route(request: Request, _error: Exception) -> Response:
    routes = "GET /v1/models, POST /v1/chat/completions, POST /v1/completions"
    message = f"{request.method} {request.url.path[:100]} is not served here; there is {routes}"
    return ApiError(404, "not_found", message).response()


async def _unless_gone(request: Request, answer: Callable[[], Awaitable[Response]]) -> Response:
    """What `answer` gives, unless the client goes before: then it is cancelled, so that no engine works for nobody. The
    body is read, so the next message of the client can only be its end. Raises `ApiError` and `WrongWish`."""
    given: Response | ApiError | WrongWish | None = None
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        try:
            given = await answer()
        except (ApiError, WrongWish) as error:  # raised here it would come out of the group wrapped
            given = error
        tasks.cancel_scope.cancel()
    if isinstance(given, Exception):
        raise given
    return Response(status_code=GONE) if given is None else given


def _named(view: MeshView, counts: Callable[[Any], bool]) -> set[str]:
    return {
        entry.ref
        for node in view.alive()
        for entry in (() if node.offer is None else node.offer.models)
        if not entry.is_profile and counts(entry)
    }


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - MOST_NAMED
    return ", ".join(listed[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


async def serve_inner(tunnel: ByteStream, path: str) -> None:
    """An `api` tunnel from another node: its request goes to this node's inner gateway at the Unix socket `path`."""
    await splice(tunnel, await anyio.connect_unix(path))
