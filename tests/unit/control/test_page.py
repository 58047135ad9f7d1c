"""The live page's server side: signing in, what is refused, the headers, the picture and its stream."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest
from serving_page import ServedPage, a_page

from meshnode.control.page_app import page_files
from meshnode.control.page_door import MAX_PAGES, PAGE_FILE, PageDoor
from meshnode.control.page_gate import PageGate
from meshnode.control.page_session import CODE_LIFETIME_S, SESSION_LIFETIME_S, PageSessions


@pytest.fixture
def page(tmp_path: Path) -> Iterator[ServedPage]:
    """A page that is served."""
    with a_page(tmp_path) as served:
        yield served


# --- signing in ------------------------------------------------------------------------------------


def test_code_of_the_address_signs_one_browser_in(page: ServedPage) -> None:
    headers = page.sign_in()
    assert next(page.follow(headers))[0] == "hello"


def test_code_stands_where_browsers_send_it_to_nobody(page: ServedPage) -> None:
    before, _, code = page.opened["url"].partition("#")
    assert before == f"http://{page.address}/"
    assert len(code) == 32


def test_code_used_twice_is_refused_and_ends_the_session_it_gave(page: ServedPage) -> None:
    code = page.code()
    _, _, body = page.ask("/page/session", method="POST", body={"code": code})
    headers = {"Authorization": f"Bearer {json.loads(body)['session']}"}
    assert page.ask("/page/session", method="POST", body={"code": code})[0] == 401
    assert page.ask("/page/live", headers)[0] == 401


@pytest.mark.parametrize("code", ["", "x" * 32, None, 7, ["a"]])
def test_any_other_code_is_refused(page: ServedPage, code: object) -> None:
    assert page.ask("/page/session", method="POST", body={"code": code})[0] == 401


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer ", "Bearer x", "Bearer 1.a.b", "Basic x", "Bearer é", "Bearer " + "9" * 400 + ".a." + "0" * 64],
)
def test_without_a_session_nothing_of_the_mesh_is_told(page: ServedPage, authorization: str) -> None:
    for method, route in (("GET", "/page/live"), ("POST", "/page/plan")):
        headers = {"Authorization": authorization} if authorization else {}
        status, _, body = page.ask(route, headers, method=method)
        assert (status, json.loads(body)["error"]["code"]) == (401, "no_session")
    assert ("/page/live", "no_session") in page.refused


def test_code_and_session_end_with_time() -> None:
    now = [1_000_000.0]
    sessions = PageSessions(bytes(32), lambda _: None, lambda: now[0])
    late, timely = sessions.new_code(), sessions.new_code()
    session = sessions.exchange(timely)
    assert session is not None
    now[0] += CODE_LIFETIME_S
    assert sessions.exchange(late) is None
    assert sessions.is_open(session)
    now[0] += SESSION_LIFETIME_S
    assert not sessions.is_open(session)


def test_session_is_known_again_after_a_restart_and_not_after_closing(page: ServedPage) -> None:
    headers = page.sign_in()
    assert stat.S_IMODE((page.state / PAGE_FILE).stat().st_mode) == 0o600
    first = page.door
    page.call(first.quit)

    async def restarted() -> PageDoor:
        door = await page.open_door()
        door.reopen()
        return door

    page.door = page.call(restarted)
    assert page.call(page.door.open)["address"] == page.address
    assert next(page.follow(headers))[0] == "hello"
    assert page.call(page.door.close) == {"closed": True}
    page.door = page.call(restarted)
    with pytest.raises(ConnectionRefusedError):
        page.ask("/")


# --- other web pages -------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "192.168.1.5", "[::1"])
def test_strangers_name_for_this_machine_gets_nothing(page: ServedPage, host: str) -> None:
    headers = page.sign_in()
    for route in ("/", "/page/files/main.js", "/page/live"):
        assert page.ask(route, {**headers, "Host": host})[0] in (400, 403)


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost:{port}", "https://127.0.0.1:{port}"],
)
def test_page_of_another_origin_is_refused_even_with_a_session(page: ServedPage, origin: str) -> None:
    sent = origin.format(port=page.address.split(":")[1])
    for route, method in (("/page/live", "GET"), ("/page/plan", "POST"), ("/page/session", "POST")):
        status, answer, _ = page.ask(route, {**page.sign_in(), "Origin": sent}, method=method)
        assert status == 403
        assert not [name for name in answer if name.startswith("access-control-")]


@pytest.mark.parametrize("site", ["cross-site", "same-site", "elsewhere"])
def test_request_that_a_browser_marks_as_anothers_is_refused(page: ServedPage, site: str) -> None:
    marked = {**page.sign_in(), "Sec-Fetch-Site": site}
    assert page.ask("/page/live", marked)[0] == 403
    assert page.ask("/page/files/main.js", {**marked, "Sec-Fetch-Mode": "no-cors"})[0] == 403
    assert page.ask("/", {**marked, "Sec-Fetch-Mode": "no-cors"})[0] == 403
    assert page.ask("/", {**marked, "Sec-Fetch-Mode": "navigate"})[0] == 200


def test_own_page_is_let_in(page: ServedPage) -> None:
    own = {**page.sign_in(), "Origin": f"http://{page.address}", "Sec-Fetch-Site": "same-origin"}
    assert page.ask("/page/plan", own, method="POST", body={"model": "known"})[0] == 200


def test_every_answer_binds_the_browser(page: ServedPage) -> None:
    headers = page.sign_in()
    asked = [page.ask("/"), page.ask("/page/files/main.js"), page.ask("/page/live"), page.ask("/nothing", headers)]
    for _, answer, _ in asked:
        policy = answer["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer["x-content-type-options"] == "nosniff"
        assert answer["referrer-policy"] == "no-referrer"


def test_page_has_no_route_that_changes_anything(page: ServedPage) -> None:
    headers = page.sign_in()
    for route in ("/v1/invites", "/v1/remove", "/v1/drain", "/v1/status", "/v1/page", "/metrics"):
        for method in ("GET", "POST", "DELETE"):
            assert page.ask(route, headers, method=method)[0] == 404


@pytest.mark.parametrize(
    "wish", [{"model": "/etc/passwd"}, {"model": "other"}, {}, {"model": "known", "coordinator": "x"}, {"model": None}]
)
def test_plan_is_made_for_known_models_only(page: ServedPage, wish: dict[str, object]) -> None:
    assert page.ask("/page/plan", page.sign_in(), method="POST", body=wish)[0] == 400


# --- files -----------------------------------------------------------------------------------------


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href"):
                self.found.append(value or "")
            if name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")
            if name == "id":
                self.ids.add(value or "")


def test_page_is_made_of_its_own_files_only(page: ServedPage) -> None:
    links = _Links()
    links.feed(page.ask("/")[2].decode())
    assert links.inline == []
    for link in links.found:
        assert link.startswith(("#", "/page/files/")), link
        if link.startswith("#"):
            assert link[1:] in links.ids
        else:
            assert page.ask(link)[0] == 200
    texts = {name: content.decode() for name, content in page_files().items()}
    for name, text in texts.items():
        assert "innerHTML" not in text, name
        outside = text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in outside, name
        assert "https://" not in outside, name


def test_file_that_the_browser_has_is_not_sent_again(page: ServedPage) -> None:
    _, headers, body = page.ask("/page/files/page.css")
    assert len(body) > 1000
    status, _, again = page.ask("/page/files/page.css", {"If-None-Match": headers["etag"]})
    assert (status, again) == (304, b"")


@pytest.mark.parametrize("name", ["..%2f__init__.py", "../__init__.py", "nothing.js", "%00", "page.css/"])
def test_no_other_file_is_served(page: ServedPage, name: str) -> None:
    assert page.ask(f"/page/files/{name}", page.sign_in())[0] in (404, 401)


# --- the stream ------------------------------------------------------------------------------------


def a_record(number: int) -> dict[str, object]:
    return {"timestamp": "2026-01-01T00:00:00.000Z", "level": "info", "event": "peer.updated", "n": number}


def test_stream_brings_the_whole_picture_then_what_changed(page: ServedPage) -> None:
    stream = page.follow(page.sign_in())
    assert next(stream)[0] == "hello"
    parts: dict[str, Any] = {}
    while len(parts) < 8:
        kind, content = next(stream)
        assert kind == "part"
        parts[content["part"]] = content["value"]
    assert set(parts) == {"node", "mesh", "peers", "rtt", "models", "splits", "asked", "verdicts"}
    page.surface.pursued = [{"model": "m", "phase": "running"}]
    page.call(page.ring.add, a_record(1))
    assert next(stream) == ("part", {"part": "splits", "value": [{"model": "m", "phase": "running"}]})
    kind, content = next(stream)
    assert (kind, content["events"][0]["n"], content["missed"]) == ("events", 1, 0)


def test_storm_of_events_is_counted_instead_of_sent(page: ServedPage) -> None:
    stream = page.follow(page.sign_in())
    while next(stream)[1].get("part") != "verdicts":
        pass

    async def storm() -> None:
        for number in range(1, 1001):
            page.ring.add(a_record(number))

    page.call(storm)
    kind, content = next(stream)
    assert kind == "events"
    assert len(content["events"]) == 200
    assert content["events"][-1]["n"] == 1000


def test_reader_of_an_earlier_run_is_given_this_runs_events(page: ServedPage) -> None:
    page.call(page.ring.add, a_record(1))
    found = [content for kind, content in _first(page, "/page/live?after=900") if kind == "events"]
    assert [event["n"] for event in found[0]["events"]] == [1]


def _first(page: ServedPage, route: str) -> list[tuple[str, Any]]:
    stream = page.follow(page.sign_in(), route)
    return [next(stream) for _ in range(10)]


def test_one_page_too_many_is_told_so_and_the_others_go_on(page: ServedPage) -> None:
    headers = page.sign_in()
    streams = [page.follow(headers) for _ in range(MAX_PAGES)]
    for stream in streams:
        assert next(stream)[0] == "hello"
    status, answer, body = page.ask("/page/live", headers)
    assert (status, json.loads(body)["error"]["code"]) == (503, "too_many_streams")
    assert answer["connection"] == "close"
    assert page.ask("/")[0] == 200
    streams[0].close()
    page.call(page.ring.add, a_record(1))
    assert [kind for kind, _ in (next(streams[1]) for _ in range(9))][-1] == "events"


async def test_gate_answers_http_only() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nothing else is let through")

    gate = PageGate(app, PageSessions(bytes(32), lambda _: None), lambda *_: None)
    await gate({"type": "websocket", "path": "/page/live", "headers": []}, anyio.sleep_forever, anyio.sleep)  # type: ignore[arg-type]
