"""`meshnode top` in a terminal of 80 by 24, over real nodes."""

from __future__ import annotations

import json
import signal

import pytest
from driving_terminal import Terminal
from making_nodes import Nodes

PIPE_WIDTH = 200


def test_mesh_is_shown_live_and_the_terminal_is_left_as_it_was(nodes: Nodes) -> None:
    attic = nodes.start("attic", "--declare-usable", "80GB")
    with Terminal(attic, ["top"]) as terminal:
        terminal.shows("attic *", "80.0GB declared", "live", "q quit")
        study = nodes.start("study", "--declare-usable", "74.6GB", token=attic.invite("--uses", "9"))
        terminal.shows("study", "74.6GB", "2 alive", "1 direct")
        terminal.press(b"r")
        terminal.shows("RTT in ms")
        terminal.press(b"e")
        terminal.shows("peer.joined")
        terminal.resize(100, 30)
        terminal.press(b"o")
        terminal.shows("USED/USABLE", study.node[:10])
        study.stop()
        terminal.shows("1 left")
        attic.stop()
        terminal.shows("NOT ANSWERING since")
        nodes.start("attic", "--declare-usable", "81GB")
        terminal.shows("live", "81.0GB")
        terminal.press(b"q")
        assert terminal.ended() == 0
        assert terminal.is_as_before()


@pytest.mark.parametrize(
    ("end", "code"), [(b"\x03", 0), (signal.SIGTERM, 128 + signal.SIGTERM)], ids=["Ctrl-C", "SIGTERM"]
)
def test_however_it_ends_the_terminal_is_left_as_it_was(nodes: Nodes, end: bytes | int, code: int) -> None:
    with Terminal(nodes.start("attic"), ["top"]) as terminal:
        terminal.shows("attic *")
        if isinstance(end, bytes):
            terminal.press(end)
        else:
            terminal.signal(end)
        assert terminal.ended() == code
        assert terminal.is_as_before()


def test_once_prints_one_frame_and_json_the_whole_picture(nodes: Nodes) -> None:
    attic = nodes.start("attic", "--declare-usable", "80GB")
    text = attic.verb("top", "--once")
    assert "attic *" in text
    assert "80.0GB declared" in text
    assert "\x1b" not in text
    assert "q quit" not in text
    assert max(map(len, text.splitlines())) <= PIPE_WIDTH
    assert max(map(len, attic.verb("top", COLUMNS="80").splitlines())) <= 80
    picture = json.loads(attic.verb("top", "--json"))
    assert picture["node"]["name"] == "attic"
    assert [verdict["verdict"] for verdict in picture["verdicts"]] == ["participant"]
    attic.stop()
    attic.verb("top", "--once", code=3)
