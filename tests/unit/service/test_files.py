"""The files for service managers: right for the manager's own checker, and for words that need quoting."""

from __future__ import annotations

import plistlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from meshnode.config.keys import SETTINGS
from meshnode.service.files import MARK, agent_text, command_of, unit_place, unit_text

ROOT = Path(__file__).parents[3]
SYSTEM_UNIT = ROOT / "configs" / "meshnode.service"
AWKWARD = ["/opt/my node/meshnode", "run", "--name", 'a "b" 100%', "--model", "/m/$x\\y", "--listen", "*:4411"]


def settings_of(text: str, section: str) -> dict[str, list[str]]:
    """Every setting of a section, as systemd.syntax(7) reads it (no line here is continued)."""
    found: dict[str, list[str]] = {}
    inside = False
    for line in text.splitlines():
        if line.startswith("["):
            inside = line == f"[{section}]"
        elif inside and line and line[0] not in "#;":
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def checked(unit: Path, *words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    return subprocess.run(["systemd-analyze", *words, str(unit)], capture_output=True, text=True, check=False)


def test_system_unit_notifies_reloads_and_is_watched() -> None:
    service = settings_of(SYSTEM_UNIT.read_text(), "Service")
    assert service["Type"] == ["notify"]
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert int(service["WatchdogSec"][0]) >= 10
    variables = [entry.partition("=")[0] for entry in service["Environment"]]
    known = {setting.variable for setting in SETTINGS.values()} | {"XDG_CONFIG_HOME"}
    assert set(variables) <= known


def test_system_unit_passes_systemd_s_own_checks(tmp_path: Path) -> None:
    program = tmp_path / "meshnode"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "meshnode.service"
    unit.write_text(SYSTEM_UNIT.read_text().replace("/usr/local/bin/meshnode", str(program)))
    done = checked(unit, "verify")
    assert (done.returncode, done.stderr) == (0, "")
    rated = checked(unit, "security", "--offline=true", "--no-pager")
    exposure = re.search(r"exposure level for meshnode.service: ([0-9.]+)", rated.stdout)
    assert exposure is not None, rated.stdout + rated.stderr
    assert float(exposure[1]) < 3.5


def test_user_unit_passes_systemd_s_own_check_with_words_that_need_quoting(tmp_path: Path) -> None:
    program = tmp_path / "my node"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "lab.service"
    unit.write_text(unit_text([str(program), *AWKWARD[1:]]))
    done = checked(unit, "verify")
    assert (done.returncode, done.stderr) == (0, "")


def test_words_reach_the_program_as_they_were() -> None:
    (line,) = settings_of(unit_text(AWKWARD), "Service")["ExecStart"]
    assert line == (
        '"/opt/my node/meshnode" run --name "a \\"b\\" 100%%" --model "/m/$$x\\\\y" --listen "*:4411"'
    )  # fmt: skip


def test_agent_is_a_property_list_with_its_mark() -> None:
    text = agent_text("meshnode-lab", AWKWARD)
    assert MARK in text
    content = plistlib.loads(text.encode())
    assert content["Label"] == "org.meshnode.meshnode-lab"
    assert content["ProgramArguments"] == AWKWARD
    assert content["RunAtLoad"] is True
    assert content["KeepAlive"] == {"SuccessfulExit": False}


def test_unit_lies_where_systemd_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert unit_place("m", {}) == tmp_path / ".config/systemd/user/m.service"
    assert unit_place("m", {"XDG_CONFIG_HOME": "/x"}) == Path("/x/systemd/user/m.service")
    assert unit_place("m", {"XDG_CONFIG_HOME": "relative"}) == tmp_path / ".config/systemd/user/m.service"


def test_command_says_every_place_since_the_manager_s_environment_is_another(tmp_path: Path) -> None:
    words = command_of(["/bin/meshnode"], tmp_path / "s", tmp_path / "node.toml", ["--client"])
    assert words == [
        "/bin/meshnode", "run", "--state-dir", str(tmp_path / "s"), "--config", str(tmp_path / "node.toml"),
        "--log-format", "json", "--client",
    ]  # fmt: skip
