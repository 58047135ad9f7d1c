"""The live page's port: closed until `meshnode ui` asks, then open, on the same port and for the same sessions after a
restart, until `meshnode ui --close`.

What lives here: `PageDoor` and its state file's shape. What does not: the application (`meshnode.control.page_app`) and
its gate. Made by the node, which gives it a task group to serve in.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from typing import Annotated, Final, Protocol

import anyio.abc
from msgspec import Meta, Struct

from meshnode.control.live import Live
from meshnode.control.page_app import page_app
from meshnode.control.page_gate import PageGate
from meshnode.control.page_session import CODE_LIFETIME_S, PageSessions
from meshnode.control.server import ControlServer, tcp_listener
from meshnode.control.shapes import Json
from meshnode.control.streams import Slots
from meshnode.control.surface import ControlError, ControlSurface
from meshnode.durable import StateError
from meshnode.events import ControlListening, ControlRefused, Event, StateUnsaved

MAX_PAGES: Final = 16
"""Pages open at once."""
LOOPBACK: Final = "127.0.0.1"
PAGE_FILE: Final = "page.json"
PAGE_FIX: Final = "delete it: `meshnode ui` makes it anew, and open pages sign in again"


class PageFile(Struct, frozen=True):
    """`is_open`: serve after a start without being asked. `port`: where it was served last; 0 for never."""

    secret: Annotated[bytes, Meta(min_length=32, max_length=32)]
    is_open: bool = False
    port: Annotated[int, Meta(ge=0, le=65_535)] = 0


class PageStore(Protocol):
    """Where `PageFile` is kept."""

    def load(self) -> PageFile | None:
        """What is stored."""

    def save(self, value: PageFile) -> None:
        """Store it."""


class PageDoor:
    """Serves the page in `tasks` while it is open. `port` 0 is one that the system chooses."""

    def __init__(
        self,
        store: PageStore,
        surface: ControlSurface,
        live: Live,
        tasks: anyio.abc.TaskGroup,
        *,
        port: int,
        emit: Callable[[Event], None],
        refused: Callable[[str, str], None],
    ) -> None:
        """Raises `StateError` where the stored sessions are damaged."""
        self._store = store
        self._surface = surface
        self._live = live
        self._tasks = tasks
        self._port = port
        self._emit = emit
        self._refused = refused
        self._kept = store.load() or PageFile(secrets.token_bytes(32))
        self._sessions = PageSessions(self._kept.secret, self._secret_renewed)
        self.slots = Slots(MAX_PAGES)
        self._server: ControlServer | None = None
        self._address: tuple[str, int] | None = None

    def reopen(self) -> None:
        """Serve again where the last run did. A port that is taken now is told, and keeps no node from starting."""
        if self._kept.is_open:
            try:
                self._serve()
            except ControlError as error:
                self._emit(ControlRefused(route="/", reason=error.message))

    def open(self) -> Json:
        """Serve, and a URL that signs one browser in. Raises `ControlError`."""
        host, port = self._serve()
        url = f"http://{host}:{port}/#{self._sessions.new_code()}"
        return {"url": url, "address": f"{host}:{port}", "expires_s": CODE_LIFETIME_S}

    def close(self) -> Json:
        """Serve no more, and end all sessions."""
        was_open = self._server is not None
        self.quit()
        self._sessions.end_all()
        self._keep(is_open=False)
        return {"closed": was_open}

    def quit(self) -> None:
        """The node stops: let go of the port."""
        if self._server is not None:
            self._server.quit()
            self._server = self._address = None

    def _serve(self) -> tuple[str, int]:
        if self._address is not None:
            return self._address
        listener = self._listener()
        host, port = listener.getsockname()
        app = page_app(self._surface, self._live, self._sessions, self.slots)
        self._server = ControlServer(PageGate(app, self._sessions, self._refused), listener)
        self._address = (host, port)
        self._tasks.start_soon(self._server.serve)
        self._emit(ControlListening(address=f"http://{host}:{port}"))
        self._keep(is_open=True, port=port)
        return self._address

    def _listener(self) -> socket.socket:
        """On the configured port, else on the last one, else on any."""
        wanted = [self._port] if self._port else [self._kept.port, 0]
        problem: OSError | None = None
        for port in wanted:
            try:
                return tcp_listener(LOOPBACK, port)
            except OSError as error:
                problem = error
        assert problem is not None, "some port was tried"
        message = f"the page can't listen on {LOOPBACK}:{wanted[0]}: {problem.strerror}"
        raise ControlError(409, "port_in_use", message, advice="set page_port to a free one, or leave it out")

    def _secret_renewed(self, secret: bytes) -> None:
        self._kept = PageFile(secret, self._kept.is_open, self._kept.port)
        self._save()

    def _keep(self, *, is_open: bool, port: int | None = None) -> None:
        kept = PageFile(self._kept.secret, is_open, self._kept.port if port is None else port)
        if kept != self._kept:
            self._kept = kept
            self._save()

    def _save(self) -> None:
        try:
            self._store.save(self._kept)
        except StateError as error:
            # The page works all the same; after a restart it has to be opened anew.
            self._emit(StateUnsaved(path=str(error.path), problem=error.found, advice=error.fix))
