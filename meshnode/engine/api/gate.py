"""Who may use the OpenAI-compatible interface: programs of this machine, pages from this machine, and the key if set.

What lives here: `ApiGate`, an ASGI wrapper. What does not: the routes (`meshnode.engine.api.gateway`).

Loopback is not a boundary: a browser on this machine runs pages of strangers. `Host` must be a loopback name, since DNS
rebinding points a stranger's name at 127.0.0.1; `Origin`, where a browser sends it, must be one too, and is then
answered with the CORS headers that let a page of this machine read the answer (Fetch standard, CORS protocol). With a
key, each request carries it as `Authorization: Bearer KEY`, as OpenAI's clients do. A client that stops reading is let
go after `STALL_S`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshnode.control.access import LOOPBACK_NAMES

STALL_S: Final = 60.0
"""A socket's buffers are full and nothing was read for this long: nobody reads any more."""


class ApiGate:
    """Lets a request through to `app` only with the right host, origin and key. `stalled` is told of clients let go."""

    def __init__(self, app: ASGIApp, key: str | None, stalled: Callable[[str], None]) -> None:
        self._app = app
        self._key = key
        self._stalled = stalled

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        # A browser asks first, without the key, whether it may send one (Fetch standard, CORS preflight).
        is_preflight = origin is not None and scope["method"] == "OPTIONS"
        refusal = self._refusal(headers, origin, is_preflight)
        if refusal is not None:
            await refusal(scope, receive, send)
        elif origin is not None and is_preflight:
            await Response(status_code=204, headers=_cors(origin))(scope, receive, send)
        else:
            await self._serve(scope, receive, send, origin)

    def _refusal(self, headers: Headers, origin: str | None, is_preflight: bool) -> Response | None:
        if _host_of("//" + headers.get("host", "")) not in LOOPBACK_NAMES:
            return _refused(403, "wrong_host", "this interface answers to loopback names only")
        if origin is not None and _host_of(origin) not in LOOPBACK_NAMES:
            return _refused(403, "wrong_origin", "pages of other sites may not use this interface")
        if is_preflight:
            return None
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if self._key is not None and not hmac.compare_digest(given.encode(), self._key.encode()):
            return _refused(401, "invalid_api_key", "send `Authorization: Bearer KEY` with this node's api_key")
        return None

    async def _serve(self, scope: Scope, receive: Receive, send: Send, origin: str | None) -> None:
        has_stalled = False

        async def send_in_time(message: Message) -> None:
            nonlocal has_stalled
            if origin is not None and message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_cors(origin))
            with anyio.move_on_after(STALL_S) as patience:
                await send(message)
            if patience.cancelled_caught:
                has_stalled = True
                raise OSError("the client stopped reading")

        try:
            await self._app(scope, receive, send_in_time)
        except Exception:
            # What a response makes of an error in `send` depends on its kind; that it was this one is known here.
            if not has_stalled:
                raise
            self._stalled(f"the client read nothing for {STALL_S:g} s")


def _refused(status: int, code: str, message: str) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": error}, status_code=status)


def _cors(origin: str) -> dict[str, str]:
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Headers": "authorization, content-type",
        "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
        "Vary": "Origin",
    }


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
