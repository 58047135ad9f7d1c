"""`meshnode ui` as its operator uses it, without a browser: the address, what it opens, and closing it."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from making_nodes import DEADLINE_S, Nodes, RunningNode, a_free_port


def asked(address: str, route: str, session: str = "", *, body: object = None) -> tuple[int, Any]:
    """Status and JSON, or bytes, of one request to the page."""
    connection = http.client.HTTPConnection(address, timeout=DEADLINE_S)
    headers = {"Authorization": f"Bearer {session}"} if session else {}
    method = "GET" if body is None else "POST"
    connection.request(method, route, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    # Of a stream only its beginning.
    content = answer.read(200) if route.startswith("/page/live") else answer.read()
    connection.close()
    is_json = str(answer.getheader("content-type")).startswith("application/json")
    return answer.status, json.loads(content) if is_json else content


def signed_in(node: RunningNode) -> tuple[str, str]:
    """The page's address and a session."""
    url = node.verb("ui", "--no-open").strip()
    address, _, code = url.removeprefix("http://").partition("/#")
    status, answer = asked(address, "/page/session", body={"code": code})
    assert status == 200
    return address, str(answer["session"])


def test_page_is_opened_when_asked_for_survives_a_restart_and_is_closed_again(nodes: Nodes) -> None:
    attic = nodes.start("attic")
    assert len(attic.events("control.listening")) == 1
    address, session = signed_in(attic)
    assert address.startswith("127.0.0.1:")
    status, page = asked(address, "/")
    assert status == 200
    assert b"<title>meshnode</title>" in page
    assert asked(address, "/page/live", session)[1].startswith(b"event: hello\n")
    assert asked(address, "/v1/status", session)[0] == 404
    attic.stop()
    attic = nodes.start("attic")
    assert asked(address, "/page/live", session)[0] == 200
    assert attic.verb("ui", "--close") == "the page is closed, all browsers are signed out\n"
    assert attic.verb("ui", "--close") == "the page was not open\n"
    with pytest.raises(ConnectionRefusedError):
        asked(address, "/")
    again, _ = signed_in(attic)
    assert asked(again, "/page/live", session)[0] == 401


def test_no_code_and_no_session_stands_in_any_log_or_event(nodes: Nodes) -> None:
    attic = nodes.start("attic")
    url = attic.verb("ui", "--no-open").strip()
    address, session = signed_in(attic)
    asked(address, "/page/live", session)
    asked(address, "/page/live", session + "x")
    attic.wait_event("control.refused", lambda event: event["reason"] == "no_session")
    for text in (attic.log.read_text(encoding="utf-8"), attic.verb("events", "--level", "debug")):
        assert url.partition("#")[2] not in text
        assert session not in text


def test_page_port_of_the_config_is_the_pages_port(nodes: Nodes) -> None:
    port = a_free_port()
    attic = nodes.start("attic", "--page-port", str(port))
    assert attic.json("ui", "--no-open")["address"] == f"127.0.0.1:{port}"
