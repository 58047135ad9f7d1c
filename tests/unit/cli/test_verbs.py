"""What holds for the command line as a whole: its version, its colours, where a token is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshnode import __version__
from meshnode.cli import verbs

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
