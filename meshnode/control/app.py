"""The control interface as HTTP: routes, JSON, the event stream.

What lives here: `control_app`. What does not: listening (`meshnode.control.server`), who may ask (`place`, `access`),
the answers themselves (the daemon's `ControlSurface`).

Errors have one shape, `{"error": {"code", "message", ...}}`, with HTTP's own status codes. Bodies are JSON objects of
at most 64 KiB. `POST /v1/splits` answers with one JSON object per line (`application/x-ndjson`) while it waits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import anyio
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from meshnode.control.live import Live
from meshnode.control.overview import overview_of
from meshnode.control.ring import Entry, EventRing, Missed, number_of
from meshnode.control.shapes import Json, peers_of, rtt_matrix_of
from meshnode.control.streams import BoundedStream, Slots
from meshnode.control.surface import ControlError, ControlSurface
from meshnode.request_body import BodyRefused, read_bounded

MAX_BODY_BYTES = 64 * 1024
BODY_DEADLINE_S = 5.0
KEEP_ALIVE_S = 15.0
"""An idle event stream carries a comment this often, so that proxies and clients see that it lives."""
MAX_PAGE = 10_000
"""Most events in one plain answer: the whole ring."""
STREAM_BATCH = 200
"""Most events written at once: about 60 KB, one socket buffer."""


class JsonResponse(Response):
    """Any plain JSON value."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """The bytes of the body."""
        return msgspec.json.encode(content)


class Door(Protocol):
    """The live page's port (`meshnode.control.page_door`), as this interface opens and closes it."""

    def open(self) -> Json:
        """Serve the page, and a URL that signs one browser in."""

    def close(self) -> Json:
        """Serve it no more, and end all its sessions."""


def control_app(
    surface: ControlSurface, ring: EventRing, *, live: Live | None = None, door: Door | None = None
) -> Starlette:
    """The application; one serves all listeners. `live` and `door` are the page's, where there is one."""
    handlers = _Handlers(surface, ring, live or Live(surface, ring))
    routes = [
        Route("/v1/status", handlers.read(surface.status)),
        Route("/v1/config", handlers.read(surface.config)),
        Route("/v1/peers", handlers.read(lambda: {"peers": peers_of(surface.view())})),
        Route("/v1/rtt", handlers.read(lambda: rtt_matrix_of(surface.view()))),
        Route("/v1/capacity", handlers.read(surface.capacity)),
        Route("/v1/models", handlers.read(surface.models)),
        Route("/v1/splits", handlers.read(lambda: {"splits": surface.splits()})),
        Route("/v1/splits", handlers.split, methods=["POST"]),
        Route("/v1/plan", handlers.act(surface.plan), methods=["POST"]),
        Route("/v1/invites", handlers.read(lambda: {"invites": surface.invites()})),
        Route("/v1/invites", handlers.act(surface.create_invite), methods=["POST"]),
        Route("/v1/invites/{token_id}", handlers.revoke, methods=["DELETE"]),
        Route("/v1/approvals", handlers.read(surface.approvals)),
        Route("/v1/approvals", handlers.act(surface.approve), methods=["POST"]),
        Route("/v1/remove", handlers.act(surface.remove_node), methods=["POST"]),
        Route("/v1/drain", handlers.act(surface.drain), methods=["POST"]),
        Route("/v1/doctor", handlers.act(surface.doctor), methods=["POST"]),
        Route("/v1/events", handlers.events),
        Route("/v1/overview", handlers.read(lambda: overview_of(surface))),
        Route("/v1/live", handlers.live),
        *([] if door is None else [Route("/v1/page", _door_handler(door), methods=["POST", "DELETE"])]),
        Route("/metrics", handlers.metrics),
        Route("/healthz", handlers.healthz),
        Route("/readyz", handlers.readyz),
    ]
    return Starlette(routes=routes, exception_handlers=ERROR_ANSWERS)


Handler = Callable[[Request], Awaitable[Response]]


def _door_handler(door: Door) -> Handler:
    async def handle(request: Request) -> Response:
        return JsonResponse(door.open() if request.method == "POST" else door.close())

    return handle


class _Handlers:
    def __init__(self, surface: ControlSurface, ring: EventRing, live: Live) -> None:
        self._surface = surface
        self._ring = ring
        self._live = live
        self._slots = Slots()

    def read(self, figure: Callable[[], object]) -> Handler:
        async def handle(_request: Request) -> Response:
            return JsonResponse(figure())

        return handle

    def act(self, action: Callable[[Json], Awaitable[Json]]) -> Handler:
        async def handle(request: Request) -> Response:
            return JsonResponse(await action(await read_body(request)))

        return handle

    async def revoke(self, request: Request) -> Response:
        return JsonResponse(await self._surface.revoke_invite(request.path_params["token_id"]))

    async def split(self, request: Request) -> Response:
        progress = self._surface.split(await read_body(request))
        return StreamingResponse(_lines(progress), media_type="application/x-ndjson")

    async def events(self, request: Request) -> Response:
        after = whole_parameter(request, "after", 0)
        prefix = request.query_params.get("name", "")
        if request.query_params.get("follow", "1") in {"0", "false"}:
            kept = map(_entry, self._ring.since(after, at_most=MAX_PAGE))
            return JsonResponse({"events": [entry for entry in kept if _named(entry, prefix)]})
        return BoundedStream(_server_sent(self._ring, after, prefix), self._slots)

    async def live(self, request: Request) -> Response:
        return BoundedStream(self._live.follow(whole_parameter(request, "after", 0)), self._slots)

    async def metrics(self, _request: Request) -> Response:
        return PlainTextResponse(self._surface.metrics(), media_type="text/plain; version=0.0.4")

    async def healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(self, _request: Request) -> Response:
        ready, waiting_for = self._surface.readiness()
        return PlainTextResponse(f"{'ready' if ready else waiting_for}\n", status_code=200 if ready else 503)


async def read_body(request: Request) -> Json:
    """The request's JSON object, bounded in bytes and time; an empty body is `{}`. Raises `ControlError`."""
    body = bytearray()
    try:
        await read_bounded(request.stream(), body, most_bytes=MAX_BODY_BYTES, within_s=BODY_DEADLINE_S)
    except BodyRefused as refused:
        raise ControlError(refused.status, refused.code, refused.message) from refused
    try:
        content = msgspec.json.decode(bytes(body)) if body else {}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ControlError(400, "bad_request", f"the body is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ControlError.bad_field("body", type(content).__name__, "a JSON object")
    return content


async def _lines(progress: AsyncIterator[Json]) -> AsyncIterator[bytes]:
    """An error after the first line can't change the status any more: it becomes the last line."""
    try:
        async for step in progress:
            yield msgspec.json.encode(step) + b"\n"
    except ControlError as error:
        yield msgspec.json.encode({"type": "error", **error.to_dict()}) + b"\n"


async def _server_sent(ring: EventRing, after: int, prefix: str) -> AsyncIterator[bytes]:
    """The ring as an event stream (WHATWG HTML, section 9.2): id, event name, one JSON object."""
    yield b": meshnode events\n\n"
    number = after
    while not (ring.closed and number >= ring.newest):
        if batch := ring.since(number, at_most=STREAM_BATCH):
            number = number_of(batch[-1])
            yield b"".join(_frame(entry) for entry in map(_entry, batch) if _named(entry, prefix))
            continue
        with anyio.move_on_after(KEEP_ALIVE_S) as pause:
            await ring.wait_beyond(number)
        if pause.cancelled_caught:
            yield b": still here\n\n"


def _frame(entry: Json) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (entry["id"], entry["event"].encode(), msgspec.json.encode(entry))


def _entry(found: Entry | Missed) -> Json:
    if isinstance(found, Missed):
        return {"id": found.upto, "event": "stream.missed", "level": "warning", "count": found.count}
    return {"id": found.number, **found.record}


def _named(entry: Json, prefix: str) -> bool:
    return entry["event"] == "stream.missed" or str(entry["event"]).startswith(prefix)


def whole_parameter(request: Request, name: str, default: int) -> int:
    """A query parameter that is a whole number. Raises `ControlError`."""
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise ControlError.bad_field(name, text[:40], "a whole number")
    return int(text)


async def _answer_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ControlError)
    # Whoever is turned away for want of room shall not keep a connection either.
    headers = {"Connection": "close"} if error.status == 503 else None
    return JsonResponse(error.to_dict(), status_code=error.status, headers=headers)


async def _answer_bug(_request: Request, error: Exception) -> Response:
    """Starlette raises it again after this answer, so that the log has its traceback."""
    message = f"{type(error).__name__} in the node; its log has more"
    return JsonResponse({"error": {"code": "internal", "message": message}}, status_code=500)


async def _answer_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    return JsonResponse({"error": {"code": code, "message": error.detail}}, status_code=error.status_code)


ERROR_ANSWERS: dict[Any, Any] = {ControlError: _answer_error, HTTPException: _answer_http, Exception: _answer_bug}
"""How an application of this daemon answers what its handlers raise."""
