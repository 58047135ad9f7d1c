"""`meshnode service` with a stand-in for `systemctl` on PATH, which notes what it is asked: no manager runs here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="launchd is there instead")

STAND_IN = """#!/bin/sh
echo "$*" >> "$HOME/asked"
case "$*" in *"$FAILS"*) [ -n "$FAILS" ] && echo "$SAYS" >&2 && exit 1 ;; esac
case "$*" in *show*) printf 'ActiveState=%s\\nUnitFileState=enabled\\nMainPID=42\\nResult=success\\n' "${ACTIVE:-active}" ;; esac
exit 0
"""  # noqa: E501  one line of the shell


class Home:
    """A user's home with the stand-in first on PATH."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unit = path / ".config/systemd/user/meshnode.service"
        (path / "bin").mkdir()
        for name in ("systemctl", "loginctl"):
            (path / "bin" / name).write_text(STAND_IN)
            (path / "bin" / name).chmod(0o755)

    def service(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MESHNODE_", "XDG_"))}
        environment = clean | {"HOME": str(self.path), "PATH": f"{self.path / 'bin'}:{os.environ['PATH']}"} | more
        command = [sys.executable, "-m", "meshnode", "service", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    def asked(self) -> list[str]:
        file = self.path / "asked"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if line.startswith("--user")]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_install_writes_and_starts_status_shows_and_uninstall_removes(home: Home) -> None:
    done = home.service("install", "--", "--max-memory", "24GB")
    assert done.returncode == 0, done.stderr
    assert "--max-memory 24GB" in home.unit.read_text()
    assert home.asked()[:3] == [
        "--user daemon-reload", "--user enable meshnode.service", "--user restart meshnode.service",
    ]  # fmt: skip
    shown = json.loads(home.service("status", "--json").stdout)
    assert (shown["state"], shown["pid"], shown["at_login"], shown["node_answers"]) == ("active", 42, True, False)
    assert home.service("status", ACTIVE="failed").returncode == 3
    assert home.service("uninstall").returncode == 0
    assert not home.unit.exists()
    assert "--user disable --now meshnode.service" in home.asked()


def test_wrong_options_of_run_and_tokens_are_refused_before_anything_is_written(home: Home) -> None:
    assert home.service("install", "--", "--max-memroy", "1GB").returncode == 2
    refused = home.service("install", "--", "--join", "mesh1_abc")
    assert refused.returncode == 2
    assert "mesh1_abc" not in refused.stderr
    assert home.service("install", "--name", "../x").returncode == 2
    assert not home.unit.exists()


def test_file_of_somebody_else_is_neither_replaced_nor_removed(home: Home) -> None:
    home.unit.parent.mkdir(parents=True)
    home.unit.write_text("[Service]\n")
    for verb in ("install", "uninstall"):
        done = home.service(verb)
        assert (done.returncode, "was not written by this verb" in done.stderr) == (1, True)
    assert home.unit.read_text() == "[Service]\n"


def test_manager_that_does_not_run_is_said_and_no_obstacle_to_uninstalling(home: Home) -> None:
    dead = {"FAILS": "--user", "SAYS": "Failed to connect to bus: No medium found"}
    done = home.service("install", **dead)
    assert done.returncode == 1
    assert done.stdout == f"wrote {home.unit}\n"
    assert "log in as the user itself" in done.stderr
    assert home.service("status", **dead).returncode == 3
    assert home.service("uninstall", **dead).returncode == 0
    assert not home.unit.exists()


def test_refusal_of_the_manager_is_handed_on_with_where_to_look(home: Home) -> None:
    done = home.service("install", FAILS="restart", SAYS="Job for meshnode.service failed")
    assert done.returncode == 1
    assert "Job for meshnode.service failed" in done.stderr
    assert "journalctl --user -u meshnode" in done.stderr


def test_status_and_uninstall_without_a_service(home: Home) -> None:
    done = home.service("status")
    assert (done.returncode, "not installed" in done.stdout) == (3, True)
    assert home.service("uninstall").returncode == 1
