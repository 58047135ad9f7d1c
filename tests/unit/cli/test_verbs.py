"""What holds for the command line as a whole: its version, its colours, where a token is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from meshnode import __version__
from meshnode.cli import verbs
from meshnode.cli.streams import ending_plainly

NOWHERE = "meshnode-no-such-state"


def meshnode(*words: str, tmp_path: Path, **environment: str) -> Result:
    """One verb, as on a terminal that shows colours."""
    given = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), **environment}
    return CliRunner().invoke(verbs, list(words), env=given, color=True, input="")


def test_version_is_a_flag_too(tmp_path: Path) -> None:
    found = meshnode("--version", tmp_path=tmp_path)
    assert (found.exit_code, found.stdout) == (0, f"meshnode {__version__}\n")


@pytest.mark.parametrize(("value", "coloured"), [("1", False), ("", True)])
def test_no_color_keeps_a_verb_plain_if_it_is_not_empty(tmp_path: Path, value: str, coloured: bool) -> None:
    found = meshnode("doctor", "--state-dir", str(tmp_path / NOWHERE), tmp_path=tmp_path, NO_COLOR=value)
    assert "state directory" in found.stdout
    assert ("\x1b[" in found.stdout) is coloured


def test_join_without_a_token_names_no_flag_that_it_lacks(tmp_path: Path) -> None:
    found = meshnode("join", "--state-dir", str(tmp_path / NOWHERE), tmp_path=tmp_path)
    assert found.exit_code == 2
    assert found.stderr == "error: invite token: found nothing on stdin\n  pipe the token in, or paste it\n"


def in_a_shell(line: str, tmp_path: Path, **streams: Any) -> subprocess.CompletedProcess[str]:
    """A line of bash; `$M` is meshnode, and streams are what the line makes of them, buffered as for people."""
    environment = {**os.environ, "HOME": str(tmp_path), "M": f"{sys.executable} -m meshnode", "PYTHONUNBUFFERED": ""}
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run(["bash", "-c", line], check=False, env=environment, text=True, timeout=60, **given)


@pytest.mark.parametrize(
    "verb", ["capacity", "simulate", "--help", "run --help", "plan qwen3-32b-q4_k_m --nodes nodes.toml"]
)
def test_full_disk_under_the_output_is_one_line(verb: str, tmp_path: Path) -> None:
    (tmp_path / "nodes.toml").write_text('[[node]]\nid = "attic"\nusable_bytes = "80GB"\n')
    found = in_a_shell(f"cd; $M {verb} > /dev/full", tmp_path)
    told = "error: the output can't be written: No space left on device\n  make room, or write elsewhere\n"
    assert (found.stderr, found.returncode) == (told, 1)


@pytest.mark.parametrize("verb", ["capacity", "--help", "run --help", "models"])
def test_reader_that_goes_away_is_no_failure_of_the_verb(verb: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stdout:
        found = in_a_shell(f"$M {verb}; exit $?", tmp_path, stdout=stdout)
    assert (found.stderr, found.returncode) == ("", 141)


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_open_on_nothing(closed: str, tmp_path: Path) -> None:
    found = in_a_shell(f"$M capacity {closed}; echo $?", tmp_path)
    assert (found.stdout, found.stderr) == ("0\n", "")
    opened = "import os; from meshnode.cli import streams; streams.open_closed_streams()"
    found = in_a_shell(
        f"{sys.executable} -c '{opened}; os.write(5, os.readlink(\"/dev/fd/1\").encode())' 5>&1 >&-", tmp_path
    )
    assert found.stdout == "/dev/null"


def test_ctrl_c_is_one_line_and_a_shells_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as ended, ending_plainly():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted\n"
