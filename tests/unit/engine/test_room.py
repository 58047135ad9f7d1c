"""Where an engine room keeps its sockets."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from meshnode.control.place import MAX_PATH_BYTES, SocketPlaceError, socket_path
from meshnode.engine.room import _socket_directory

LONG = Path("/" + "x" * MAX_PATH_BYTES)
"""A state directory whose path is too long for a socket's address."""


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of the test's own, with a path short enough for sockets."""
    directory = tmp_path_factory.mktemp("r")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    return directory


def test_sockets_lie_in_the_state_directory_for_this_user_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    state_dir = tmp_path_factory.mktemp("s")
    (state_dir / "engine").mkdir()
    (state_dir / "engine" / "old.sock").touch()
    folder = _socket_directory(state_dir)
    assert folder == state_dir / "engine"
    assert list(folder.iterdir()) == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_other_place_of_a_long_path_is_closed_to_others_too(runtime: Path) -> None:
    above = socket_path(LONG, None).parent
    assert above.parent.parent == runtime
    above.mkdir(parents=True)
    above.chmod(0o777)
    folder = _socket_directory(LONG)
    assert folder.parent == above
    for each in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(each.stat().st_mode) == 0o700


def test_folder_that_leads_elsewhere_is_refused(runtime: Path) -> None:
    (runtime / "elsewhere").mkdir()
    (runtime / "meshnode").symlink_to(runtime / "elsewhere")
    with pytest.raises(SocketPlaceError, match="belongs to somebody else"):
        _socket_directory(LONG)
