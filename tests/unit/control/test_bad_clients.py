"""Clients that are slow, greedy, or say nothing: bounded and refused, and nobody else waits for them."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_page import ServedPage, a_page

from meshnode.control import connection, streams
from meshnode.control.connection import MAX_CONNECTIONS
from meshnode.control.page_door import MAX_PAGES
from meshnode.control.server import MAX_HEAD_BYTES

DEADLINE_S = 20.0


@pytest.fixture
def page(tmp_path: Path) -> Iterator[ServedPage]:
    """A page that is served."""
    with a_page(tmp_path) as served:
        yield served


def connected(page: ServedPage) -> socket.socket:
    """A connection that has said nothing yet."""
    host, port = page.address.split(":")
    found = socket.create_connection((host, int(port)), timeout=DEADLINE_S)
    found.settimeout(DEADLINE_S)
    return found


def is_cut_off(client: socket.socket) -> bool:
    """Whether the other side ended the connection, once it did."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_silent_client_is_cut_off(page: ServedPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.2)
    with connected(page) as client:
        assert is_cut_off(client)
    assert page.ask("/")[0] == 200


def test_head_sent_byte_by_byte_is_cut_off_while_others_are_answered(
    page: ServedPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.3)
    with connected(page) as client:
        deadline = time.monotonic() + DEADLINE_S
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < deadline:
                client.sendall(b"G")
                assert page.ask("/")[0] == 200
            raise AssertionError("it was never cut off")


def test_stream_and_slow_question_are_not_cut_off(page: ServedPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.1)
    monkeypatch.setattr("meshnode.control.live.REFRESH_S", 0.05)
    stream = page.follow(page.sign_in())
    started = time.monotonic()
    while time.monotonic() - started < 0.5:
        page.call(page.ring.add, {"timestamp": "", "level": "info", "event": "x"})
        next(stream)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 2 * MAX_HEAD_BYTES,
        b"G" * 2 * MAX_HEAD_BYTES,
        b"\0\1\2\r\n\r\n",
    ],
    ids=["header", "line", "no HTTP"],
)
def test_oversized_or_senseless_head_is_refused(page: ServedPage, head: bytes) -> None:
    with connected(page) as client:
        client.sendall(head)
        assert client.recv(100).split()[1] == b"400"


def test_silent_clients_can_take_no_place_from_others(page: ServedPage) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connected(page)) for _ in range(MAX_CONNECTIONS + 20)]
        assert page.ask("/")[0] == 200
        assert is_cut_off(silent[0])


def test_page_that_never_reads_ends_and_gives_its_place_back(page: ServedPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STALL_S", 0.3)
    session = page.sign_in()
    page.surface.pursued = [{"model": "m" * 1_000_000, "phase": "short"}]
    with connected(page) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = f"GET /page/live HTTP/1.1\r\nHost: {page.address}\r\nAuthorization: {session['Authorization']}\r\n\r\n"
        client.sendall(head.encode())
        deadline = time.monotonic() + DEADLINE_S
        number = 0
        while page.door.slots.taken < 1:
            assert time.monotonic() < deadline
        while page.door.slots.taken:
            number += 1
            page.surface.pursued = [{"model": str(number) * 1_000_000, "phase": "short"}]
            page.call(page.ring.add, {"timestamp": "", "level": "info", "event": "x"})
            assert time.monotonic() < deadline, "it holds its place for ever"
            time.sleep(0.02)


def test_body_that_is_too_large_or_no_object_is_refused(page: ServedPage) -> None:
    headers = page.sign_in()
    assert page.ask("/page/plan", headers, method="POST", body={"model": "x" * 70_000})[0] == 413
    assert page.ask("/page/plan", headers, method="POST", body=["known"])[0] == 400


def test_thousand_subscribers_are_refused_beyond_the_bound_and_cost_the_others_nothing(page: ServedPage) -> None:
    headers = page.sign_in()
    taken = [page.follow(headers) for _ in range(MAX_PAGES)]
    for stream in taken:
        next(stream)
    refused = 0
    for _ in range(1_000 - len(taken)):
        client = page.connection()
        client.request("GET", "/page/live", headers=headers)
        answer = client.getresponse()
        refused += answer.status == 503 and json.loads(answer.read())["error"]["code"] == "too_many_streams"
        client.close()
    assert refused == 1_000 - len(taken)
    page.call(page.ring.add, {"timestamp": "", "level": "info", "event": "x"})
    for stream in taken:
        while next(stream)[0] != "events":
            pass
