"""Who may look at the live page: whoever was given a code by `meshnode ui`, for as long as the session lasts.

What lives here: `PageSessions`. What does not: HTTP (`meshnode.control.page_gate`) and the port (`page_door`).

A code is random, for one use, and lives for minutes. It stands in the fragment of the URL that `meshnode ui` opens: a
browser sends that to nobody and writes it into no log, and the page takes it out of the address bar before anything
else. The page gives the code for a session, which it keeps in its tab and sends as a header. No cookie: cookies don't
know ports, and the next program on this machine's loopback would be sent it too.

A session is a time and a random number under a MAC, so that none has to be stored and a restarted node knows them
again. It can do nothing but look and ask for plans. A code that is used twice was seen by somebody else, and so the
first use may have been theirs: all sessions end then (the rule of RFC 6749, section 10.5, for the same case).
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Final

CODE_LIFETIME_S: Final = 300
SESSION_LIFETIME_S: Final = 7 * 24 * 3600
MAX_CODES: Final = 32
"""Codes remembered, used ones included, so that a second use is seen."""
_CONTEXT: Final = b"meshnode/page-session/v1"


class PageSessions:
    """Codes and sessions under `secret`. `renewed` stores a new secret. `clock` is Unix seconds."""

    def __init__(self, secret: bytes, renewed: Callable[[bytes], None], clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._renewed = renewed
        self._clock = clock
        self._codes: dict[str, tuple[float, bool]] = {}

    def new_code(self) -> str:
        """A code for one session."""
        while len(self._codes) >= MAX_CODES:
            del self._codes[next(iter(self._codes))]
        code = secrets.token_urlsafe(24)
        self._codes[code] = (self._clock() + CODE_LIFETIME_S, False)
        return code

    def exchange(self, code: str) -> str | None:
        """A session for `code`; None where it is unknown, old or used. A used one ends all sessions."""
        expires_s, used = self._codes.get(code, (0.0, False))
        if used:
            self.end_all()
            return None
        if expires_s <= self._clock():
            return None
        self._codes[code] = (expires_s, True)
        begin = f"{int(self._clock())}.{secrets.token_urlsafe(12)}"
        return f"{begin}.{self._mac(begin)}"

    def is_open(self, session: str) -> bool:
        """Whether `session` was given here and lasts."""
        begin, _, mac = session.rpartition(".")
        if not begin.isascii() or not mac.isascii() or not hmac.compare_digest(mac, self._mac(begin)):
            return False
        since_s = int(begin.partition(".")[0])
        return self._clock() - since_s < SESSION_LIFETIME_S

    def end_all(self) -> None:
        """Every session and code is worth nothing any more."""
        self._codes.clear()
        self._secret = secrets.token_bytes(32)
        self._renewed(self._secret)

    def _mac(self, begin: str) -> str:
        return hmac.new(self._secret, _CONTEXT + begin.encode(), sha256).hexdigest()
