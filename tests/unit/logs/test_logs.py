"""How events become log lines."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshnode.events import (
    CATALOGUE,
    Event,
    JoinFailed,
    LibraryMessage,
    PeerJoined,
    PeerUpdated,
    SplitReserved,
    SplitShortfall,
)
from meshnode.logs import EventLog, LibraryHandler, LogFile, Record

NODE = "mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dzpiydcmrtgq2q"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_log(directory: Path, clock: Clock | None = None, **options: str) -> tuple[EventLog, Path]:
    file = directory / "node.log"
    return EventLog(LogFile(file), clock=clock or Clock(), wall_clock=lambda: 1_700_000_000.5, **options), file


def joined(peer: str = NODE) -> PeerJoined:
    return PeerJoined(peer=peer, called="attic", role="worker", incarnation=3)


def lines_of(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_away_from_a_terminal_each_event_is_one_json_line(tmp_path: Path) -> None:
    log, file = a_log(tmp_path)
    log.emit(joined())
    assert lines_of(file) == [
        {
            "timestamp": "2023-11-14T22:13:20.500Z", "level": "info", "event": "peer.joined",
            "peer": NODE, "called": "attic", "role": "worker", "incarnation": 3,
        }
    ]  # fmt: skip
    assert list(lines_of(file)[0])[:3] == ["timestamp", "level", "event"]


def test_pretty_lines_shorten_ids_and_write_bytes_in_gb(tmp_path: Path) -> None:
    log, file = a_log(tmp_path, log_format="pretty")
    log.emit(joined())
    log.emit(SplitReserved("m", NODE, 1, 0, 18, 74_600_000_000))
    line = file.read_text(encoding="utf-8")
    assert "peer=mfrggzdfmz called=attic " in line
    assert "reserved_bytes=74.6GB" in line
    log.emit(SplitReserved("m", NODE, 1, 0, 18, 2_300_000))
    assert "reserved_bytes=2.3MB" in file.read_text(encoding="utf-8"), "0.0GB would read as none"
    assert "\x1b" not in line


def test_pretty_text_of_several_lines_stands_below_its_event(tmp_path: Path) -> None:
    log, file = a_log(tmp_path, log_format="pretty")
    log.emit(SplitShortfall("m", "aggregate", 3, 2, 1, 1, "requires 3\nremedies: none", ()))
    assert "    message:\n      requires 3\n      remedies: none\n" in file.read_text(encoding="utf-8")


def test_quieter_events_than_the_level_are_streamed_but_not_written(tmp_path: Path) -> None:
    log, file = a_log(tmp_path)
    streamed: list[Record] = []
    log.listen(streamed.append)
    log.emit(PeerUpdated(peer=NODE, part="offer", incarnation=1, version=2))
    assert [record["event"] for record in streamed] == ["peer.updated"]
    assert file.read_text(encoding="utf-8") == ""


def test_secrets_in_free_text_are_blotted_out_in_log_and_stream(tmp_path: Path) -> None:
    log, file = a_log(tmp_path)
    streamed: list[Record] = []
    log.listen(streamed.append)
    log.emit(JoinFailed(code="malformed", text="token mesh1_Zm9vYmFyYmF6_-x is no good", advice="paste it again"))
    assert lines_of(file)[0]["text"] == "token [redacted] is no good"
    assert streamed[0]["text"] == "token [redacted] is no good"


def test_repeats_are_folded_into_one_line_with_their_count(tmp_path: Path) -> None:
    clock = Clock()
    log, file = a_log(tmp_path, clock)
    for _ in range(1000):
        log.emit(joined())
        clock.now += 0.01
    clock.now += 60.0
    log.tick()
    names = [line["event"] for line in lines_of(file)]
    assert names == ["peer.joined"] * 6 + ["log.folded"]
    assert lines_of(file)[-1] | {"timestamp": ""} == {
        "timestamp": "", "level": "info", "event": "log.folded", "folded_event": "peer.joined", "subject": NODE,
        "count": 994, "over_s": 70.0,
    }  # fmt: skip


def test_folds_still_open_at_the_end_are_not_lost(tmp_path: Path) -> None:
    log, file = a_log(tmp_path)
    for _ in range(8):
        log.emit(joined())
    log.close()
    assert lines_of(file)[-1]["count"] == 2


def test_log_file_is_opened_anew_after_rotation(tmp_path: Path) -> None:
    log, file = a_log(tmp_path)
    log.emit(joined())
    file.rename(tmp_path / "node.log.1")
    log.emit(joined("a" * 52))
    log.output.reopen()
    log.emit(joined("b" * 52))
    assert [line["peer"] for line in lines_of(tmp_path / "node.log.1")] == [NODE, "a" * 52]
    assert [line["peer"] for line in lines_of(file)] == ["b" * 52]


def test_destination_that_fails_loses_lines_and_never_raises(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    log = EventLog(LogFile(Path("/dev/full")))
    log.emit(joined())
    assert log.output.lost_lines == 1


def test_warnings_of_libraries_become_events() -> None:
    events: list[Event] = []
    handler = LibraryHandler(events.append)
    handler.handle(logging.LogRecord("asyncio", logging.WARNING, "f", 1, "slow %s", ("callback",), None))
    assert events == [LibraryMessage(logger="asyncio", text="slow callback")]


def test_importing_the_log_does_not_import_rich() -> None:
    code = "import sys, meshnode.logs; print([m for m in sys.modules if m.split('.')[0] == 'rich'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.getcwd())
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("event", CATALOGUE.values(), ids=CATALOGUE.keys())
def test_no_event_has_a_field_for_a_secret(event: type[Event]) -> None:
    from meshnode.redaction import SECRET_NAMES

    assert SECRET_NAMES.isdisjoint(event.__dataclass_fields__)
