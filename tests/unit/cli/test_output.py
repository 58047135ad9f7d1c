"""Units and wordings of single figures, and events as lines."""

from __future__ import annotations

import click
import pytest
from rich.console import Console

from meshnode.cli import output
from meshnode.cli.events import line_of
from meshnode.cli.failures import Failure
from meshnode.cli.output import duration, gigabytes, print_table, printable, rtt
from meshnode.cli.values import DURATION, USES

FIGURE = {"min_ms": 0.234, "estimated": False, "corroborated": True}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.04, "0.0s"), (9.94, "9.9s"), (59, "59s"), (61, "1m01s"), (7384, "2h03m"), (200_000, "2d7h")],
)
def test_durations_have_two_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_unknown_is_never_zero() -> None:
    assert gigabytes(None) == "-"
    assert rtt(None) == "unknown"


def test_rtt_marks_estimates_and_thin_measurements() -> None:
    assert rtt(FIGURE) == "0.2ms"
    assert rtt(FIGURE | {"corroborated": False}) == "?0.2ms"
    assert rtt(FIGURE | {"min_ms": 0.04}) == "<0.1ms"
    assert rtt(FIGURE | {"estimated": True, "min_ms": 31.25}) == "~31.2ms"


def test_estimate_of_a_short_path_says_no_more_than_that() -> None:
    assert rtt(FIGURE | {"estimated": True}) == "~<5ms"
    assert rtt(FIGURE | {"estimated": True, "corroborated": False, "min_ms": 5.0}) == "~5.0ms"


def test_tables_in_a_pipe_cut_nothing_off(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "B"), [("x" * 90, "y" * 90)])
    assert "x" * 90 in capsys.readouterr().out


def test_markup_of_a_peer_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A",), [("[red]x[/red]",)])
    assert "[red]x[/red]" in capsys.readouterr().out


def test_control_characters_are_shown_as_question_marks() -> None:
    assert printable("a\x07b\x1b]0;c") == "a?b?]0;c"


def test_event_line_shortens_ids_and_names_bytes() -> None:
    node = "mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dzpiydcmrtgq2q"
    event = {"id": 1, "timestamp": "2026-01-01T00:00:00.000Z", "level": "info", "event": "peer.joined", "peer": node,
             "usable_bytes": 80 * 10**9, "accusers": [node], "advice": ""}  # fmt: skip
    line = click.unstyle(line_of(event))
    assert line[9:] == "info    peer.joined          peer=mfrggzdfmz usable_bytes=80.0GB accusers=[mfrggzdfmz]"
    assert "usable_bytes=2.3MB" in line_of(event | {"usable_bytes": 2_300_000}), "0.0GB would read as none"
    line = click.unstyle(line_of(event, {node: "attic"}.__getitem__))
    assert "peer=mfrggzdfmz (attic) usable_bytes=80.0GB accusers=[mfrggzdfmz (attic)]" in line


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("1h", 3600), ("7d", 604_800), ("90s", 90)])
def test_times_are_read(text: str, seconds: int) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["1", "0h", "-1h", "1y", "", "1h30m"])
def test_wrong_times_say_what_is_right(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected a time such as 30m, 1h or 7d"):
        DURATION.convert(text, None, None)


@pytest.mark.parametrize(("text", "uses"), [("1", 1), ("1000", 1000), ("unlimited", None)])
def test_uses_are_read(text: str, uses: int | None) -> None:
    assert USES.convert(text, None, None) == uses


@pytest.mark.parametrize("text", ["0", "1001", "many", "-1", "1.5"])
def test_wrong_uses_say_what_is_right(text: str) -> None:
    with pytest.raises(click.BadParameter, match="from 1 to 1000, or `unlimited`"):
        USES.convert(text, None, None)


PEER_COLUMNS = ("NODE", "NAME", "ADDRESS", "SINCE", "NOTE")


def on_a_terminal_of(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "console", lambda: Console(width=width, highlight=False, color_system=None))


def test_narrow_terminal_loses_spare_columns_and_breaks_no_id(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal_of(40, monkeypatch)
    print_table(PEER_COLUMNS, [("mfrggzdfmz", "attic (this node)", "127.0.0.1:50519", "5.1s", "-")],
                spare=("SINCE", "ADDRESS", "NOTE"))  # fmt: skip
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "NODE        NAME",
        "mfrggzdfmz  attic (this node)",
        "(left out, the terminal is too narrow: NOTE, SINCE, ADDRESS)",
    ]


def test_wide_terminal_keeps_spare_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal_of(100, monkeypatch)
    print_table(("A", "B"), [("x", "y")], spare=("B",))
    assert capsys.readouterr().out.splitlines()[1].split() == ["x", "y"]


def test_prose_is_broken_between_words_and_ids_stay_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal_of(40, monkeypatch)
    print_table(("NODE", "WHY"), [("mfrggzdfmz (attic)", "its memory bandwidth is unknown")], prose=frozenset({"WHY"}))
    first, second = (line.split() for line in capsys.readouterr().out.splitlines()[1:])
    assert first == ["mfrggzdfmz", "(attic)", "its", "memory", "bandwidth"]
    assert second == ["is", "unknown"]


def test_terminal_too_narrow_for_anything_still_shows_every_character(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal_of(10, monkeypatch)
    print_table(("NODE", "NAME"), [("mfrggzdfmz", "attic")])
    text = capsys.readouterr().out.partition("\n")[2]
    assert sorted("".join(text.split()).replace("NODE", "").replace("NAME", "")) == sorted("mfrggzdfmzattic")


def test_event_line_shortens_ids_inside_texts() -> None:
    node = "mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dzpiydcmrtgq2q"
    event = {"timestamp": "2026-01-01T00:00:00.000Z", "level": "info", "event": "split.planned",
             "stages": [f"{node}/cpu:[0,18)"]}  # fmt: skip
    assert click.unstyle(line_of(event)).endswith("stages=[mfrggzdfmz/cpu:[0,18)]")


def test_what_a_peer_said_of_a_failure_does_not_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Failure("refused: \x1b[2J\x9b31mcoral otter", "ask \x1b]0;it\x07again").show()
    shown = capsys.readouterr().err
    assert shown == "error: refused: ?[2J?31mcoral otter\n  ask ?]0;it?again\n"


@pytest.mark.parametrize(("value", "styled"), [("1", False), ("", True)])
def test_tables_are_plain_under_no_color_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str, styled: bool
) -> None:
    for name, text in (("NO_COLOR", value), ("FORCE_COLOR", "1"), ("TERM", "xterm")):
        monkeypatch.setenv(name, text)
    print_table(("NODE",), [("attic",)])
    assert ("\x1b[" in capsys.readouterr().out) is styled
