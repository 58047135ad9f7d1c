"""Serves the live page for real, with fixed answers behind it: for tests of its server side, and of what it shows."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.from_thread
from fixed_answers import FixedAnswers

from meshnode.control.live import Live
from meshnode.control.page_door import PAGE_FILE, PAGE_FIX, PageDoor, PageFile
from meshnode.control.ring import EventRing
from meshnode.durable import VersionedFile
from meshnode.events import Event

Headers = dict[str, str]


class ServedPage:
    """A page with fixed answers behind it, served for real; `ask` is one request of a browser."""

    tasks: anyio.abc.TaskGroup

    def __init__(self, state: Path) -> None:
        self.state = state
        self.ring = EventRing(capacity=300)
        self.surface = FixedAnswers()
        self.refused: list[tuple[str, str]] = []
        self.events: list[Event] = []

    async def open_door(self) -> PageDoor:
        store = VersionedFile(self.state / PAGE_FILE, PageFile, fix=PAGE_FIX)
        live = Live(self.surface, self.ring)
        return PageDoor(
            store, self.surface, live, self.tasks, port=0, emit=self.events.append,
            refused=lambda route, reason: self.refused.append((route, reason)),
        )  # fmt: skip

    def begin(self, portal: anyio.from_thread.BlockingPortal) -> None:
        """Open its port."""
        self._portal = portal
        self.door = portal.call(self.open_door)
        self.opened = portal.call(self.door.open)
        self.address = self.opened["address"]

    def call(self, function: Any, *arguments: Any) -> Any:
        """In the server's thread."""
        return self._portal.call(function, *arguments)

    def connection(self) -> http.client.HTTPConnection:
        """A new one to the page's port."""
        host, port = self.address.split(":")
        return http.client.HTTPConnection(host, int(port), timeout=10)

    def ask(
        self, route: str, headers: Headers | None = None, *, method: str = "GET", body: object = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one request."""
        connection = self.connection()
        content = None if body is None else json.dumps(body)
        connection.request(method, route, content, {"Host": self.address, **(headers or {})})
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return found

    def code(self, opened: dict[str, Any] | None = None) -> str:
        """The code in the address."""
        return str((opened or self.opened)["url"].partition("#")[2])

    def sign_in(self) -> Headers:
        """The headers of a browser that is signed in."""
        status, _, body = self.ask("/page/session", method="POST", body={"code": self.code(self.call(self.door.open))})
        assert status == 200
        return {"Authorization": f"Bearer {json.loads(body)['session']}"}

    def follow(self, headers: Headers, route: str = "/page/live") -> Generator[tuple[str, Any]]:
        """The frames of the stream: kind and content."""
        connection = self.connection()
        connection.request("GET", route, headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200
        kind = ""
        while line := answer.readline():
            if line.startswith(b"event: "):
                kind = line[7:-1].decode()
            elif line.startswith(b"data: "):
                yield kind, json.loads(line[6:])


@contextmanager
def a_page(state: Path) -> Iterator[ServedPage]:
    """A page in a thread of its own, since the tests block."""
    served = ServedPage(state)
    with anyio.from_thread.start_blocking_portal() as portal:
        ready, done = threading.Event(), anyio.Event()

        async def life() -> None:
            async with anyio.create_task_group() as tasks:
                served.tasks = tasks
                ready.set()
                await done.wait()

        ended = portal.start_task_soon(life)
        assert ready.wait(10)
        served.begin(portal)
        yield served
        portal.call(served.ring.close)
        portal.call(served.door.quit)
        portal.call(done.set)
        ended.result(timeout=10)
