"""Who may use the control interface over TCP: whoever holds the token, from this machine, and no web page elsewhere.

What lives here: `TokenGate`, an ASGI wrapper for the opt-in loopback listener. What does not: the Unix socket, whose
directory's mode is its access control (`meshnode.control.place`).

Three checks, because loopback is not a boundary: a browser on this machine runs pages of strangers. `Host` must be a
loopback name (DNS rebinding points a stranger's name at 127.0.0.1), `Origin`, where a browser sends it, must be one too
(cross-site requests), and the token must be right (other users of the machine).
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN_FILE = "control-token"
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


def ensure_token(state_dir: Path) -> str:
    """The token of this state directory; made with mode 0600 where there is none. Raises `OSError`."""
    path = state_dir / TOKEN_FILE
    try:
        token = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        token = ""
    if len(token) >= 32:
        return token
    token = secrets.token_urlsafe(32)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
    return token


class TokenGate:
    """Lets a request through to `app` only with the right host, origin and token. `refused(route, reason)` is told."""

    def __init__(self, app: ASGIApp, token: str, refused: Callable[[str, str], None]) -> None:
        self._app = app
        self._token = token
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        problem = self._problem({name.lower(): value for name, value in scope["headers"]})
        if problem is None:
            await self._app(scope, receive, send)
            return
        status, code, text = problem
        self._refused(scope["path"], code)
        await JSONResponse({"error": {"code": code, "message": text}}, status_code=status)(scope, receive, send)

    def _problem(self, headers: dict[bytes, bytes]) -> tuple[int, str, str] | None:
        if not is_loopback_host(headers.get(b"host", b"")):
            return 403, "wrong_host", "the control interface answers to loopback names only"
        origin = headers.get(b"origin")
        if origin is not None and _origin_host(origin) not in LOOPBACK_NAMES:
            return 403, "wrong_origin", "pages of other sites may not use the control interface"
        given = headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        if not hmac.compare_digest(given, self._token.encode()):
            return 401, "wrong_token", f"send `Authorization: Bearer TOKEN`: the state directory's file {TOKEN_FILE}"
        return None


def is_loopback_host(value: bytes) -> bool:
    """Whether a `Host` header, with or without a port, is a name of this machine's loopback."""
    try:
        return urlsplit("//" + value.decode("latin-1")).hostname in LOOPBACK_NAMES
    except ValueError:
        return False


def _origin_host(value: bytes) -> str:
    try:
        return urlsplit(value.decode("latin-1")).hostname or ""
    except ValueError:
        return ""
