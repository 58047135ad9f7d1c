"""The control interface over its real socket: routes, errors, the event stream."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.from_thread
import pytest
from fixed_answers import FixedAnswers

from meshnode.cli.client import ControlClient
from meshnode.cli.failures import Failure
from meshnode.control.app import MAX_BODY_BYTES, control_app
from meshnode.control.place import bind
from meshnode.control.ring import EventRing
from meshnode.control.server import ControlServer
from meshnode.logs import Record


class Running:
    """The server in a thread of its own, since the client blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ring = EventRing(capacity=100)
        self.surface = FixedAnswers()
        self.client = ControlClient(path, path.parent)

    def add(self, name: str, level: str = "info") -> None:
        record: Record = {"timestamp": "2026-01-01T00:00:00.000Z", "level": level, "event": name}
        self.portal.call(self.ring.add, record)

    def serve(self, portal: anyio.from_thread.BlockingPortal) -> ControlServer:
        self.portal = portal
        return portal.call(self._server)

    async def _server(self) -> ControlServer:
        return ControlServer(control_app(self.surface, self.ring), bind(self.path, configured=True))


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    served = Running(tmp_path_factory.mktemp("c") / "s")
    with anyio.from_thread.start_blocking_portal() as portal:
        server = served.serve(portal)
        ended = portal.start_task_soon(server.serve)
        yield served
        portal.call(served.ring.close)
        portal.call(server.quit)
        ended.result(timeout=10)


def raw(running: Running, request: bytes) -> bytes:
    """The status line that a handmade request gets."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(running.path))
        connection.sendall(request)
        return connection.recv(65_536).split(b"\r\n")[0]


def test_plain_figures_come_as_json(running: Running) -> None:
    assert running.client.get("/v1/status") == {"node": "n"}
    assert running.client.get("/v1/peers") == {"peers": []}
    assert running.client.get("/v1/rtt") == {"nodes": [], "pairs": []}


def test_bodies_reach_the_daemon(running: Running) -> None:
    assert running.client.post("/v1/invites", {"role": "client"}) == {"echo": {"role": "client"}}


def test_refusal_carries_its_sentence_and_an_exit_code(running: Running) -> None:
    with pytest.raises(Failure, match="may not invite") as refused:
        running.client.get("/v1/invites")
    assert refused.value.exit_code == 1


def test_wrong_field_is_bad_usage_and_named(running: Running) -> None:
    with pytest.raises(Failure, match="node: found 'x', expected a node of the mesh") as refused:
        running.client.post("/v1/remove", {"node": "x"})
    assert refused.value.exit_code == 2


def test_error_in_the_middle_of_a_stream_is_its_last_line(running: Running) -> None:
    assert list(running.client.lines("/v1/splits", {})) == [
        {"type": "waiting"},
        {"type": "error", "error": {"code": "gone", "message": "the mesh is gone"}},
    ]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", b"400"), (b"[]", b"400"), (b'"x"', b"400"), (b"\xff", b"400"), (b"x" * (MAX_BODY_BYTES + 1), b"413")],
    ids=["cut", "list", "text", "no utf-8", "too large"],
)
def test_bad_bodies_are_refused(running: Running, body: bytes, status: bytes) -> None:
    head = b"POST /v1/plan HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert raw(running, head + body).split()[1] == status


def test_unknown_route_and_wrong_method_are_json_errors(running: Running) -> None:
    with pytest.raises(Failure, match="Not Found"):
        running.client.get("/v1/nothing")
    with pytest.raises(Failure, match="Method Not Allowed"):
        running.client.delete("/v1/status")


def test_past_events_are_listed_by_name(running: Running) -> None:
    for name in ("peer.joined", "link.up", "peer.left"):
        running.add(name)
    answer = running.client.get("/v1/events?follow=0&name=peer.")
    assert [(event["id"], event["event"]) for event in answer["events"]] == [(1, "peer.joined"), (3, "peer.left")]


def test_stream_brings_past_and_later_events(running: Running) -> None:
    running.add("node.started")
    stream = running.client.events("/v1/events")
    assert next(stream)["event"] == "node.started"
    threading.Timer(0.05, running.add, ["peer.joined"]).start()
    assert next(stream)["event"] == "peer.joined"


def test_reader_that_fell_behind_is_told_so_in_the_stream(running: Running) -> None:
    for number in range(250):
        running.add(f"e.{number}")
    stream = running.client.events("/v1/events?after=10")
    first = next(stream)
    assert (first["event"], first["count"], first["id"]) == ("stream.missed", 140, 150)
    assert next(stream)["id"] == 151


def test_stream_ends_when_the_daemon_does(running: Running) -> None:
    running.add("node.stopping")
    running.portal.call(running.ring.close)
    assert [event["event"] for event in running.client.events("/v1/events")] == ["node.stopping"]


def test_readiness_is_a_status_code(running: Running) -> None:
    assert b"200" in raw(running, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    running.surface.ready = False
    assert b"503" in raw(running, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")


def test_metrics_are_plain_text(running: Running) -> None:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(running.path))
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.getheader("content-type", "").startswith("text/plain; version=0.0.4")
    assert answer.read() == b"meshnode_links 2\n"
    connection.close()


def test_nobody_there_is_exit_code_3_with_advice(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no node runs") as refused:
        ControlClient(tmp_path / "s", tmp_path).get("/v1/status")
    assert refused.value.exit_code == 3
    assert "meshnode run" in refused.value.advice
