"""What stands before the live page: the right host, the right origin, a session, and headers that bind the browser.

What lives here: `PageGate`, an ASGI wrapper. What does not: sessions (`meshnode.control.page_session`) and what is
served (`meshnode.control.page_app`).

Another web page in the same browser can send requests to any loopback port. It must be able neither to read nor to
drive anything:

- `Host` must be a loopback name, so that a stranger's name pointed at 127.0.0.1 (DNS rebinding) gets nothing.
- `Origin`, where it is sent, must be this very origin, port and all; `Sec-Fetch-Site`, where it is sent, must say the
  same, except for a link that somebody follows to the page itself.
- Data needs the session in a header, which no other page can know or set; no answer carries a CORS header.
- The page's own rights are bound by Content-Security-Policy: scripts, styles and connections of this origin only,
  no markup made from text (Trusted Types), no frame around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshnode.control.access import is_loopback_host
from meshnode.control.page_session import PageSessions

SESSION_ROUTE: Final = "/page/session"
OPEN_PREFIX: Final = "/page/files/"
"""The page's own files: the same for everybody, nothing of the mesh in them."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
_OWN_SITE: Final = frozenset({b"", b"same-origin", b"none"})

Problem = tuple[int, str, str]


class PageGate:
    """Lets requests through to `app`. `refused(route, reason)` is told of the others."""

    def __init__(self, app: ASGIApp, sessions: PageSessions, refused: Callable[[str, str], None]) -> None:
        self._app = app
        self._sessions = sessions
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_bound(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        headers: dict[bytes, bytes] = {name.lower(): value for name, value in scope["headers"]}
        problem = self._problem(scope["method"], scope["path"], headers)
        if problem is None:
            await self._app(scope, receive, send_bound)
            return
        status, code, text = problem
        self._refused(scope["path"][:80], code)
        answer = JSONResponse(
            {"error": {"code": code, "message": text}}, status_code=status, headers={"Cache-Control": "no-store"}
        )
        await answer(scope, receive, send_bound)

    def _problem(self, method: str, path: str, headers: dict[bytes, bytes]) -> Problem | None:
        host = headers.get(b"host", b"")
        if not is_loopback_host(host):
            return 403, "wrong_host", "the page answers to loopback names only"
        origin = headers.get(b"origin")
        if origin is not None and not _is_origin_of(origin, host):
            return 403, "wrong_origin", "pages of other sites may not use this one"
        is_document = method in ("GET", "HEAD") and path == "/"
        if headers.get(b"sec-fetch-site", b"") not in _OWN_SITE and not (
            is_document and headers.get(b"sec-fetch-mode") == b"navigate"
        ):
            return 403, "wrong_site", "pages of other sites may not use this one"
        if is_document or path.startswith(OPEN_PREFIX) or path == SESSION_ROUTE:
            return None
        kind, _, session = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind != "Bearer" or not self._sessions.is_open(session):
            return 401, "no_session", "this page is not signed in (any more): run `meshnode ui`"
        return None


def _is_origin_of(origin: bytes, host: bytes) -> bool:
    """Whether `origin` is `http://` and the very `host`, with its port, that the request was sent to."""
    try:
        parts = urlsplit(origin.decode("latin-1"))
    except ValueError:
        return False
    return parts.scheme == "http" and parts.netloc.encode("latin-1") == host
