"""The live page in a real browser: over real nodes, over large made-up meshes, and against another web page.

Run by `make test-page`, since it needs Chromium; everything of the page's server side is tested without it.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from driving_browser import Browser, Tab
from large_views import an_uneven_mesh
from making_nodes import Nodes, RunningNode
from serving_page import ServedPage, a_page

pytestmark = pytest.mark.browser

QUICK = ("--dwell-s", "0.3", "--first-quorum-window-s", "0.3", "--pending-s", "0.5", "--deadline-s", "15")
MODEL = ("--model", "qwen3-coder-480b-a35b-q4_k_xl", "--context", "108288")
LIVE = "document.querySelector('#connection').textContent === 'live'"


def rows(table: str) -> str:
    """JavaScript: the rows of a table as texts."""
    return f"[...document.querySelectorAll('{table} tbody tr')].map((row) => row.innerText.replace(/\\s+/g, ' '))"


def shows(selector: str, text: str) -> str:
    """JavaScript: whether an element's text holds `text`."""
    return f"document.querySelector({json.dumps(selector)}).innerText.includes({json.dumps(text)})"


@pytest.fixture(scope="module")
def started_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests."""
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def browser(started_browser: Browser) -> Iterator[Browser]:
    """The browser, without tabs of another test."""
    yield started_browser
    started_browser.close_tabs()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nodes, RunningNode, str]]:
    """Two workers that are short for the model they want, a client, and the token for more."""
    nodes = Nodes(tmp_path_factory.mktemp("mesh"), tmp_path_factory.mktemp("c"))
    try:
        attic = nodes.start("attic", *QUICK, *MODEL, "--declare-usable", "80GB")
        token = attic.invite("--uses", "50")
        study = nodes.start("study", *QUICK, "--declare-usable", "74.6GB", token=token)
        sofa = nodes.start("sofa", *QUICK, "--client", token=token)
        nodes.all_know_all([attic, study, sofa])
        attic.wait_event("split.shortfall", lambda event: "participants [" in event["message"])
        attic.json("plan", MODEL[1], *MODEL[2:], code=4)
        yield nodes, attic, token
    finally:
        nodes.end()


@pytest.fixture
def tab(browser: Browser, mesh: tuple[Nodes, RunningNode, str]) -> Tab:
    """The page of the real node, signed in and live."""
    found = browser.open(mesh[1].json("ui", "--no-open")["url"])
    found.wait(LIVE)
    found.wait(f"{rows('#nodes')}.length >= 3")
    return found


# --- real nodes ------------------------------------------------------------------------------------


def test_code_is_out_of_the_address_at_once_and_in_no_request(
    browser: Browser, mesh: tuple[Nodes, RunningNode, str]
) -> None:
    url = mesh[1].json("ui", "--no-open")["url"]
    tab = browser.open(url)
    tab.wait(LIVE)
    origin, _, code = url.partition("#")
    assert tab.run("location.href") == origin
    assert all(request["url"].startswith(origin) for request in tab.requests)
    assert not any(code in request["url"] for request in tab.requests)
    session = tab.run("sessionStorage.getItem('meshnode-session')")
    assert not any(session in request["url"] for request in tab.requests)
    assert tab.run("document.cookie") == ""
    assert tab.problems == []


def test_page_without_a_code_says_how_to_sign_in_and_shows_nothing(
    browser: Browser, mesh: tuple[Nodes, RunningNode, str]
) -> None:
    url = mesh[1].json("ui", "--no-open")["url"]
    tab = browser.open(url.partition("#")[0])
    tab.wait(shows("#banner", "meshnode ui"))
    assert "study" not in tab.run("document.body.innerText")
    # Another address in the same tab changes the fragment only, so the browser loads nothing anew.
    tab.run(f"location.hash = {json.dumps(url.partition('#')[2])}")
    tab.wait(LIVE)


def test_everything_asked_of_the_page_is_on_it(tab: Tab) -> None:
    nodes = tab.run(rows("#nodes"))
    assert any(row.startswith("attic ") and "this node worker alive" in row for row in nodes)
    assert any(row.startswith("study ") and "worker alive direct" in row and "74.6GB" in row for row in nodes)
    assert any(row.startswith("sofa ") and "client alive direct" in row for row in nodes)
    assert tab.run("document.querySelectorAll('#topology .node').length") == 3
    assert tab.run("document.querySelectorAll('#topology .link.direct').length") == 2
    assert any("declared" in row and "74.6GB 0.0GB 74.6GB" in row for row in tab.run(rows("#memory")))
    for text in ("short by 147.5GB", "What would help, least effort first", "then it fits", "add a node"):
        tab.wait(shows("#splits", text))
    for place in ("#asked", "#outsiders"):
        tab.wait(shows(place, "client"))
        tab.wait(shows(place, "meshnode invite --role worker"))
    tab.wait("document.querySelectorAll('#rtt td:not(.own):not(.none):not(.corner)').length >= 4")
    tab.wait(shows("#events", "split.shortfall"))
    assert tab.problems == []


def test_where_a_model_could_go_is_asked_by_keyboard_and_shown_as_stages(tab: Tab) -> None:
    tab.run("document.querySelector('#ask-model').value = 'qwen3-32b-q4_k_m'")
    tab.run("document.querySelector('#ask-context').value = '8192'")
    tab.run("document.querySelector('#ask-objective').focus()")
    tab.press("Tab")
    assert tab.run("document.activeElement.textContent") == "Where could it go?"
    tab.press("Enter")
    tab.wait("document.querySelectorAll('#answer .stage').length >= 1")
    assert "layers 0-" in tab.text("#answer .stage")
    assert tab.run("document.querySelectorAll('#answer .strip rect').length") >= 1


def test_node_that_joins_appears_and_one_that_leaves_goes(tab: Tab, mesh: tuple[Nodes, RunningNode, str]) -> None:
    nodes, _, token = mesh
    tab.run("document.querySelector('#ask-context').focus()")
    loft = nodes.start("loft", *QUICK, "--declare-usable", "5GB", token=token)
    tab.wait(f"{rows('#nodes')}.some((row) => row.startsWith('loft') && row.includes('alive'))")
    tab.wait("document.querySelectorAll('#topology .node').length === 4")
    tab.wait(f"{rows('#memory')}.some((row) => row.startsWith('loft') && row.includes('5.0GB'))")
    tab.wait(shows("#events", "peer.joined"))
    assert loft.stop() == 0
    tab.wait(f"{rows('#nodes')}.some((row) => row.startsWith('loft') && row.includes('left'))")
    tab.wait("document.querySelectorAll('#topology .node').length === 3")
    assert tab.run("document.activeElement.id") == "ask-context"


def test_events_are_filtered_and_paused(tab: Tab) -> None:
    tab.run("document.querySelector('#filter-level').value = 'debug'")
    typed = (
        "const box = document.querySelector('#filter-text'); box.value = 'peer.'; box.dispatchEvent(new Event('input'))"
    )
    tab.run(f"{{ {typed} }}")
    names = "[...document.querySelectorAll('#events tbody th')].map((cell) => cell.firstChild.textContent)"
    tab.wait(f"{names}.length && {names}.every((name) => name.startsWith('peer.'))")
    tab.run("document.querySelector('#pause').click()")
    assert tab.run("document.querySelector('#pause').getAttribute('aria-pressed')") == "true"


def test_page_says_that_its_node_is_gone_and_goes_on_when_it_is_back(
    browser: Browser, mesh: tuple[Nodes, RunningNode, str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nodes = Nodes(tmp_path, tmp_path_factory.mktemp("c"))
    try:
        alone = nodes.start("alone")
        tab = browser.open(alone.json("ui", "--no-open")["url"])
        tab.wait(LIVE)
        tab.wait(shows("#topology", "meshnode invite"))
        alone.stop()
        tab.wait("document.querySelector('#connection').textContent === 'not answering'")
        tab.wait(shows("#banner", "This node was stopped"))
        assert "alone" in tab.text("#nodes")
        nodes.start("alone")
        tab.wait(LIVE)
        assert tab.run("document.querySelector('#banner').hidden")
        tab.wait(shows("#events", "node.started"))
    finally:
        nodes.end()


# --- large and hostile meshes ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedPage]:
    """A page with a made-up mesh of 64 nodes behind it."""
    with a_page(tmp_path_factory.mktemp("page")) as page:
        show_mesh(page, 64)
        yield page


def show_mesh(page: ServedPage, count: int) -> None:
    """Put a mesh of `count` nodes behind the page."""
    page.surface.seen = an_uneven_mesh(count)
    local = page.surface.seen.local
    page.surface.told = {"node": local, "short": local[:10], "name": "attic", "role": "worker", "version": "0"}


@pytest.fixture
def large(browser: Browser, made: ServedPage) -> Tab:
    """A tab that shows the made-up mesh."""
    tab = browser.open(made.call(made.door.open)["url"])
    tab.wait(f"{rows('#nodes')}.length >= 64")
    return tab


def test_hostile_name_is_text_and_nothing_else(large: Tab) -> None:
    large.wait(shows("#nodes", "<img src=x onerror=alert(1)>"))
    assert large.run("document.querySelectorAll('main img, main script').length") == 0
    assert "\u202e" not in large.run("document.body.textContent")
    assert "\0" not in large.run("document.body.textContent")
    assert large.problems == []


@pytest.mark.parametrize("width", [400, 1280])
def test_no_mesh_makes_the_page_wider_than_its_window(large: Tab, width: int) -> None:
    large.resize(width, 900)
    large.wait(f"innerWidth === {width}")
    assert large.run("document.documentElement.scrollWidth") <= width


def test_estimates_are_hatched_and_figures_can_be_read_without_seeing_colours(large: Tab) -> None:
    large.wait("document.querySelectorAll('#rtt td.hatched').length > 100")
    texts = large.run("[...document.querySelectorAll('#rtt td.hatched')].slice(0, 50).map((cell) => cell.textContent)")
    assert all(text.startswith("~") for text in texts)
    images = large.run("getComputedStyle(document.querySelector('#rtt td.hatched')).backgroundImage")
    assert "repeating-linear-gradient" in images


def test_picture_marks_paths_and_states(large: Tab) -> None:
    for selector in (".link.direct", ".link.relayed", ".node.suspect", ".node.dead .cross", ".node.client rect"):
        assert large.run(f"document.querySelectorAll('#topology {selector}').length") > 0, selector
    assert "direct link" in large.run("document.querySelector('#topology svg').getAttribute('aria-label')")


NAMELESS = """(() => {
  const wrong = [];
  for (const box of document.querySelectorAll('input, select, textarea, button'))
    if (!(box.labels?.length || box.textContent.trim())) wrong.push(box.outerHTML);
  for (const table of document.querySelectorAll('table')) if (!table.caption?.textContent && table.rows.length) wrong.push('table ' + table.id);
  for (const section of document.querySelectorAll('section')) if (!document.getElementById(section.getAttribute('aria-labelledby'))) wrong.push(section.id);
  for (const box of document.querySelectorAll('.wide')) if (box.tabIndex !== 0 || !box.getAttribute('aria-label')) wrong.push('box ' + box.innerHTML.slice(0, 60));
  for (const svg of document.querySelectorAll('svg')) if (svg.getAttribute('aria-hidden') !== 'true' && !svg.getAttribute('aria-label')) wrong.push('svg ' + svg.outerHTML.slice(0, 80));
  if (document.querySelectorAll('main').length !== 1 || document.querySelectorAll('h1').length !== 1) wrong.push('landmarks');
  return wrong;
})()"""

PALE = """(() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return { r, g, b, a }; };
  const light = ({ r, g, b }) => [r, g, b].map((c) => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
  const ground = (element) => { for (let at = element; at; at = at.parentElement) { const c = parse(getComputedStyle(at).backgroundColor); if (c.a === 1) return c; } return { r: 255, g: 255, b: 255 }; };
  const pale = new Set();
  for (const element of document.querySelectorAll('body *')) {
    if (element.closest('svg, option, .unseen, [hidden]') || ![...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) pale.add(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
  }
  return [...pale];
})()"""


def test_everything_has_a_name_for_those_who_cannot_see_it(large: Tab, tab: Tab) -> None:
    assert large.run(NAMELESS) == []
    assert tab.run(NAMELESS) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_stands_out_from_its_ground(large: Tab, tab: Tab, dark: bool) -> None:
    """WCAG 2.1, 1.4.3: a contrast of 4.5 at least."""
    for page in (large, tab):
        page.colours(dark=dark)
        assert page.run(PALE) == []


def test_focus_is_seen_wherever_the_keyboard_leads(large: Tab) -> None:
    seen = []
    for _ in range(12):
        large.press("Tab")
        seen.append(
            large.run("[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]")
        )
    assert seen[0][0] == "A"
    assert all(style == "solid" for _, style in seen)


# --- another web page in the same browser ----------------------------------------------------------


class _Elsewhere(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title><body>elsewhere")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the library's name
        pass


@contextmanager
def another_site() -> Iterator[str]:
    """The address of another web page on this machine's loopback."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


ATTEMPTS: dict[str, Callable[[str, str], str]] = {
    "read the page": lambda url, _: f"fetch('{url}')",
    "read a file": lambda url, _: f"fetch('{url}page/files/main.js')",
    "read the mesh": lambda url, session: (
        f"fetch('{url}page/live', {{headers: {{Authorization: 'Bearer {session}'}}}})"
    ),
    "ask for a plan": lambda url, session: (
        f"fetch('{url}page/plan', {{method: 'POST', body: '{{}}', headers: {{Authorization: 'Bearer {session}'}}}})"
    ),
    "use up a code": lambda url, code: (
        f"fetch('{url}page/session', {{method: 'POST', body: JSON.stringify({{code: '{code}'}})}})"
    ),
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_another_web_page_can_neither_read_nor_drive(
    browser: Browser, made: ServedPage, attempt: Callable[[str, str], str]
) -> None:
    """Even one that knows the session or the code, which it has no way to."""
    code = made.code(made.call(made.door.open))
    secret = code if attempt is ATTEMPTS["use up a code"] else made.sign_in()["Authorization"].removeprefix("Bearer ")
    url = f"http://{made.address}/"
    with another_site() as address:
        tab = browser.open(address)
        come_of_it = tab.run(f"{attempt(url, secret)}.then((answer) => 'read ' + answer.status, (e) => e.name)")
    assert come_of_it == "TypeError"
    assert made.ask("/page/session", method="POST", body={"code": code})[0] == 200


def test_another_web_page_can_neither_frame_it_nor_run_its_scripts(browser: Browser, made: ServedPage) -> None:
    url = f"http://{made.address}/"
    with another_site() as address:
        tab = browser.open(address)
        tab.run(f"document.body.append(Object.assign(document.createElement('iframe'), {{ src: '{url}' }}))")
        script = f"new Promise((done) => {{ const tag = document.createElement('script'); tag.type = 'module'; tag.src = '{url}page/files/main.js'; tag.onload = () => done('ran'); tag.onerror = () => done('refused'); document.body.append(tag); }})"
        assert tab.run(script) == "refused"
    assert "net::ERR_BLOCKED_BY_RESPONSE" in tab.failed
    assert not any(request["url"].endswith("page.css") for request in tab.requests)
