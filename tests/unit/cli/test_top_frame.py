"""What one frame of `meshnode top` shows, for meshes and terminals of all sizes."""

from __future__ import annotations

import re
from datetime import datetime

import pytest
from fixed_answers import FixedAnswers
from large_views import an_uneven_mesh
from rich.text import Text

from meshnode.cli.top_frame import VIEWS, Picture, frame
from meshnode.control.overview import overview_of

NOW = datetime(2026, 1, 2, 12, 30, 45)
SHORTFALL = {
    "result": "shortfall", "kind": "aggregate", "required_bytes": 302_136_317_812, "available_bytes": 154_600_000_000,
    "short_by_bytes": 147_536_317_812, "short_layers": 31, "layers": 62,
    "remedies": [{"asks": "add a node with at least 154.6GB usable", "sufficient": True, "closes_bytes": 1}],
}  # fmt: skip


def a_picture(count: int) -> Picture:
    """The picture of an uneven mesh of `count` nodes that is short for a model."""
    answers = FixedAnswers()
    answers.seen = an_uneven_mesh(count)
    local = answers.seen.local
    answers.told = {"node": local, "short": local[:10], "name": "attic", "role": "worker", "draining": False}
    answers.pursued = [{"model": "a-large-model", "phase": "short", "result": SHORTFALL, "run": None}]
    picture = Picture(parts=dict(overview_of(answers)))
    stamp = "2026-01-02T12:00:00.000Z"
    picture.take({"events": [{"id": 1, "timestamp": stamp, "level": "info", "event": "link.up", "peer": local}]})
    return picture


def texts(lines: list[Text]) -> str:
    """The frame as text."""
    return "\n".join(line.plain for line in lines)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", [(80, 24), (20, 5), (40, 12), (120, 40), (250, 80), (80, 1)])
@pytest.mark.parametrize("count", [1, 3, 16, 64])
def test_frame_fits_its_terminal_exactly(count: int, size: tuple[int, int], view: str) -> None:
    width, height = size
    lines = frame(a_picture(count), width, height, view=view, now=NOW, ascii_only=False)
    assert len(lines) == height
    assert [line.plain for line in lines if line.cell_len > width] == []


def test_at_80_by_24_everything_that_matters_is_on_the_first_view() -> None:
    shown = texts(frame(a_picture(16), 80, 24, now=NOW, ascii_only=False))
    for text in (
        "attic", "live", "nodes 14 alive, 1 suspect, 1 dead", "12 direct, 2 relayed", "a-large-model short",
        "needs 302.1GB, there is 154.6GB: short by 147.5GB", "would help: add a node with at least 154.6GB usable",
        "Not used, and what to do", "q quit",
    ):  # fmt: skip
        assert text in shown, shown
    assert "more nodes" in shown


def test_what_a_coordinator_holds_itself_is_no_split_of_its_own() -> None:
    answers = FixedAnswers()
    answers.seen = an_uneven_mesh(4)
    local, other = answers.seen.local, "z" * 52
    stage = {
        "model": "m",
        "phase": "stage",
        "coordinator": local,
        "layer_start": 0,
        "layer_end": 0,
        "reserved_bytes": 9,
    }
    answers.pursued = [stage, stage | {"model": "n", "coordinator": other, "layer_end": 8}]
    answers.told = {"node": local, "short": local[:10], "name": "attic", "role": "worker", "draining": False}
    shown = texts(frame(Picture(parts=dict(overview_of(answers))), 120, 30, now=NOW, ascii_only=False))
    assert "layers 0-7 here" in shown
    assert "0--1" not in shown


def test_model_that_is_being_loaded_shows_what_it_waits_for() -> None:
    picture = a_picture(4)
    progress = "waiting for stages: mfrggzdfmz fetching weights 42% of 0.2GB"
    picture.parts["splits"] = [{"model": "m", "phase": "running", "run": {"progress": progress}, "result": None}]
    assert f"m running {progress}" in texts(frame(picture, 120, 30, now=NOW, ascii_only=False))


def test_small_mesh_shows_each_node_with_its_memory() -> None:
    shown = texts(frame(a_picture(4), 80, 30, now=NOW, ascii_only=False))
    assert "declared" in shown
    assert "link.up" in shown
    assert "more nodes" not in shown


@pytest.mark.parametrize("width", [60, 72, 80])
def test_figures_stay_where_it_is_narrow(width: int) -> None:
    shown = texts(frame(a_picture(4), width, 30, now=NOW, ascii_only=False))
    head = next(line for line in shown.splitlines() if line.startswith("NODE"))
    assert head.endswith("USED/USABLE")
    (own,) = [line for line in shown.splitlines() if " * " in line]
    assert re.match(r"\d+\.\d/\d+\.\dGB\b", own[head.index("USED/USABLE") :])


def test_rtt_view_marks_what_is_no_measurement() -> None:
    shown = texts(frame(a_picture(16), 160, 30, view="r", now=NOW, ascii_only=False))
    assert "~" in shown.partition("unknown")[2]
    narrow = texts(frame(a_picture(16), 80, 30, view="r", now=NOW, ascii_only=False))
    assert "more columns" in narrow


def test_hostile_name_can_move_no_cursor_and_turn_no_text() -> None:
    shown = texts(frame(a_picture(4), 200, 40, now=NOW, ascii_only=False))
    assert "<img src=x" in shown
    assert "\0" not in shown
    assert "\u202e" not in shown
    assert "\x1b" not in shown


def test_terminal_without_utf_8_gets_ascii_only() -> None:
    for view in VIEWS:
        lines = frame(a_picture(8), 80, 24, view=view, now=NOW, ascii_only=True)
        assert texts(lines).isascii()


def test_node_that_is_gone_is_said_above_what_it_said_last() -> None:
    picture = a_picture(3)
    picture.lost_since = NOW
    shown = texts(frame(picture, 80, 24, now=NOW, ascii_only=False))
    assert "NOT ANSWERING since 12:30:45" in shown
    assert "a-large-model" in shown


def test_before_the_first_picture_it_says_that_it_waits() -> None:
    assert "waiting for" in texts(frame(Picture(), 80, 24, now=NOW, ascii_only=False))
