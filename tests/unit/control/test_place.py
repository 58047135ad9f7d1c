"""Where the control socket is and who can reach it."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from meshnode.control.place import (
    MAX_PATH_BYTES,
    SocketPlaceError,
    bind,
    note_path,
    noted_path,
    socket_path,
    withdraw,
)
from meshnode.durable import StateError


@pytest.fixture
def short_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose path leaves room for a socket address."""
    return tmp_path_factory.mktemp("s")


def test_socket_lies_in_the_runtime_directory_under_a_name_of_the_state_directory(tmp_path: Path) -> None:
    one = socket_path(tmp_path / "a", None, {"XDG_RUNTIME_DIR": "/run/user/7"})
    other = socket_path(tmp_path / "b", None, {"XDG_RUNTIME_DIR": "/run/user/7"})
    assert one.parent.parent == Path("/run/user/7/meshnode")
    assert one.parent != other.parent


@pytest.mark.parametrize("runtime", ["", "relative", "/" + "long/" * 30])
def test_without_a_usable_runtime_directory_the_temporary_one_is_taken(tmp_path: Path, runtime: str) -> None:
    path = socket_path(tmp_path, None, {"XDG_RUNTIME_DIR": runtime} if runtime else {})
    assert path.parent.parent.name == f"meshnode-{os.getuid()}"
    assert len(os.fsencode(path)) <= MAX_PATH_BYTES


def test_configured_path_too_long_for_a_socket_is_refused_with_its_limit(tmp_path: Path) -> None:
    with pytest.raises(SocketPlaceError, match=f"longer than {MAX_PATH_BYTES} bytes"):
        socket_path(tmp_path, Path("/x" * 80))


def test_nobody_else_can_reach_the_socket(short_directory: Path) -> None:
    path = short_directory / "meshnode" / "hash" / "c.sock"
    with bind(path, configured=False):
        modes = [stat.S_IMODE(found.stat().st_mode) for found in (path.parent.parent, path.parent, path)]
    assert modes == [0o700, 0o700, 0o700]


def test_directory_open_to_others_is_closed(short_directory: Path) -> None:
    directory = short_directory / "meshnode" / "hash"
    directory.mkdir(parents=True)
    directory.chmod(0o777)
    with bind(directory / "c.sock", configured=False):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_link_in_place_of_the_directory_is_refused(short_directory: Path) -> None:
    (short_directory / "elsewhere").mkdir()
    (short_directory / "meshnode").mkdir()
    (short_directory / "meshnode" / "hash").symlink_to(short_directory / "elsewhere")
    with pytest.raises(SocketPlaceError, match="belongs to somebody else"):
        bind(short_directory / "meshnode" / "hash" / "c.sock", configured=False)


def test_socket_of_a_daemon_that_is_gone_is_replaced(short_directory: Path) -> None:
    path = short_directory / "c.sock"
    bind(path, configured=True).close()
    with bind(path, configured=True), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_socket_that_a_process_answers_at_is_left_to_it(short_directory: Path) -> None:
    path = short_directory / "c.sock"
    with bind(path, configured=True), pytest.raises(SocketPlaceError, match="give each node its own control_socket"):
        bind(path, configured=True)
    assert path.is_socket()


def test_nothing_stays_of_a_socket_that_is_withdrawn(short_directory: Path) -> None:
    path = short_directory / "meshnode" / "hash" / "c.sock"
    with bind(path, configured=False):
        withdraw(path, configured=False)
    withdraw(path, configured=False)
    assert list((short_directory / "meshnode").iterdir()) == []


def test_directory_that_others_use_or_that_was_configured_stays(short_directory: Path) -> None:
    path = short_directory / "meshnode" / "hash" / "c.sock"
    with bind(path, configured=False):
        (path.parent / "engine").mkdir()
        withdraw(path, configured=False)
    assert list(path.parent.iterdir()) == [path.parent / "engine"]
    (path.parent / "engine").rmdir()
    with bind(path, configured=True):
        withdraw(path, configured=True)
    assert path.parent.is_dir()
    assert not path.exists()


def test_file_that_is_no_socket_is_left_alone(short_directory: Path) -> None:
    path = short_directory / "c.sock"
    path.write_text("mine")
    with pytest.raises(SocketPlaceError, match="set control_socket"):
        bind(path, configured=True)
    assert path.read_text() == "mine"


def test_directory_of_a_configured_path_keeps_its_mode(short_directory: Path) -> None:
    short_directory.chmod(0o755)
    with bind(short_directory / "c.sock", configured=True):
        assert stat.S_IMODE(short_directory.stat().st_mode) == 0o755


def test_clients_find_the_path_that_the_daemon_noted(tmp_path: Path) -> None:
    assert noted_path(tmp_path) is None
    note_path(tmp_path, Path("/run/x.sock"))
    assert noted_path(tmp_path) == Path("/run/x.sock")


def test_note_that_can_t_be_written_is_one_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "control-socket").mkdir()
    with pytest.raises(StateError, match="control-socket: can't be written: Is a directory; make room, or move away"):
        note_path(tmp_path, Path("/run/x.sock"))
