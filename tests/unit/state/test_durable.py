"""Files that survive a crash, and what is said of those that did not."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshnode.durable import (
    DamagedState,
    NewerState,
    StateError,
    VersionedFile,
    create_exclusively,
    read_bounded,
    remove_temporaries,
    write_atomically,
)


class Shape(msgspec.Struct, frozen=True):
    colour: str
    secret: bytes = b""


class Crash(BaseException):
    """The process dies here."""


def a_file(directory: Path, **wishes: Any) -> VersionedFile[Shape]:
    return VersionedFile(directory / "shape.json", Shape, fix="delete it", **wishes)


def test_two_threads_that_write_one_file_leave_it_whole(tmp_path: Path) -> None:
    contents = [bytes([number]) * 200_000 for number in (1, 2)]

    def write(content: bytes) -> None:
        for _ in range(20):
            write_atomically(tmp_path / "file", content)

    with ThreadPoolExecutor(2) as pool:
        for writing in [pool.submit(write, content) for content in contents]:
            writing.result()
    assert (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    a_file(tmp_path).save(Shape("blue", b"\x00\xff"))
    assert a_file(tmp_path).load() == Shape("blue", b"\x00\xff")


def test_nothing_saved_loads_as_nothing(tmp_path: Path) -> None:
    assert a_file(tmp_path).load() is None


def test_a_saved_file_is_private(tmp_path: Path) -> None:
    a_file(tmp_path).save(Shape("blue"))
    assert (tmp_path / "shape.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("dies_in", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_in: str
) -> None:
    a_file(tmp_path).save(Shape("blue"))

    def dies(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(os, dies_in, dies)
        with pytest.raises(Crash):
            a_file(tmp_path).save(Shape("red"))
    assert a_file(tmp_path).load() == Shape("blue")


def test_what_a_crash_left_behind_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".shape.json.4711.tmp").write_bytes(b"half")
    (tmp_path / "shape.json").write_bytes(b"whole")
    remove_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["shape.json"]


def test_a_full_disk_is_one_error_and_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_file(tmp_path).save(Shape("blue"))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StateError, match=r"shape\.json: can't be written: No space left on device; make room"):
            a_file(tmp_path).save(Shape("red"))
    assert a_file(tmp_path).load() == Shape("blue")
    assert [path.name for path in tmp_path.iterdir()] == ["shape.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"format": 1}',
        b'{"format": 1, "colour": 3}',
        b'{"format": "1", "colour": "blue"}',
        b'{"format": true, "colour": "blue"}',
        b'{"format": 0, "colour": "blue"}',
        b'{"format": 1, "colour": "blue", "secret": "%%%"}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"\x00" * 64,
    ],
)
def test_a_damaged_file_is_one_error_with_the_fix(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "shape.json").write_bytes(content)
    with pytest.raises(DamagedState, match=r"shape\.json: damaged .*; delete it$"):
        a_file(tmp_path).load()


def test_a_file_of_a_newer_meshnode_is_left_alone_with_advice(tmp_path: Path) -> None:
    newer = b'{"format": 3, "hue": 200}'
    (tmp_path / "shape.json").write_bytes(newer)
    with pytest.raises(NewerState, match=r"newer meshnode \(format 3, this one reads up to 1\); upgrade"):
        a_file(tmp_path).load()
    assert (tmp_path / "shape.json").read_bytes() == newer


def test_a_file_of_an_older_format_is_migrated_step_by_step(tmp_path: Path) -> None:
    (tmp_path / "shape.json").write_bytes(b'{"format": 1, "hue": 240}')
    steps = {
        1: lambda fields: {"color": "blue" if fields["hue"] == 240 else "other"},
        2: lambda fields: {"colour": fields["color"]},
    }
    file = a_file(tmp_path, current_format=3, migrations=steps)
    assert file.load() == Shape("blue")
    file.save(Shape("blue"))
    assert b'"format": 3' in (tmp_path / "shape.json").read_bytes()


def test_a_format_too_old_to_migrate_says_so(tmp_path: Path) -> None:
    (tmp_path / "shape.json").write_bytes(b'{"format": 1, "hue": 240}')
    with pytest.raises(StateError, match="format 1, which this meshnode reads no more"):
        a_file(tmp_path, current_format=3, migrations={2: lambda fields: fields}).load()


def test_a_file_larger_than_any_meshnode_writes_is_not_read_whole(tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(bytes(1001))
    with pytest.raises(DamagedState, match="larger than 1000 bytes"):
        read_bounded(tmp_path / "huge", max_bytes=1000)


def test_a_directory_in_a_file_s_place_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "shape.json").mkdir()
    with pytest.raises(StateError, match=r"shape\.json: is a directory, where a file .* must be; move"):
        a_file(tmp_path).load()


def test_an_existing_file_is_never_overwritten_by_an_exclusive_write(tmp_path: Path) -> None:
    (tmp_path / "root.key").write_bytes(b"precious")
    with pytest.raises(StateError, match="never overwritten"):
        create_exclusively(tmp_path / "root.key", b"new")
    assert (tmp_path / "root.key").read_bytes() == b"precious"


def test_a_missing_directory_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="can't be written: No such file or directory"):
        write_atomically(tmp_path / "missing" / "file", b"")


HUE = b'{"format": 1, "hue": 240}'
TO_COLOUR = {1: lambda fields: {"colour": "blue" if fields["hue"] == 240 else "other"}}


def test_the_old_file_is_kept_once_beside_the_first_of_a_new_format(tmp_path: Path) -> None:
    (tmp_path / "shape.json").write_bytes(HUE)
    file = a_file(tmp_path, current_format=2, migrations=TO_COLOUR)
    assert file.load() == Shape("blue")
    assert [path.name for path in tmp_path.iterdir()] == ["shape.json"], "reading changes nothing"
    for colour in ("blue", "red"):
        file.save(Shape(colour))
    backup = tmp_path / "shape.json.format1"
    assert backup.read_bytes() == HUE
    assert backup.stat().st_mode & 0o777 == 0o600
    assert file.load() == Shape("red")


def test_the_old_file_is_kept_also_where_nobody_read_it_first(tmp_path: Path) -> None:
    (tmp_path / "shape.json").write_bytes(HUE)
    a_file(tmp_path, current_format=2, migrations=TO_COLOUR).save(Shape("red"))
    assert (tmp_path / "shape.json.format1").read_bytes() == HUE


def test_a_full_disk_at_the_backup_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shape.json").write_bytes(HUE)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StateError, match="No space left"):
            a_file(tmp_path, current_format=2, migrations=TO_COLOUR).save(Shape("red"))
    assert (tmp_path / "shape.json").read_bytes() == HUE


def test_the_older_program_says_how_to_go_back_to_what_was_kept(tmp_path: Path) -> None:
    (tmp_path / "shape.json").write_bytes(HUE)
    a_file(tmp_path, current_format=2, migrations=TO_COLOUR).save(Shape("red"))
    with pytest.raises(NewerState, match=r"or go back .*: mv .*shape\.json\.format1 .*shape\.json$"):
        a_file(tmp_path).load()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "x"}', b'{"format": 1}'])
def test_a_look_at_the_format_says_nothing_of_other_faults(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "shape.json").write_bytes(content)
    a_file(tmp_path).check_format()
