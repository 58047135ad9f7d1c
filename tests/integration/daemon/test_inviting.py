"""Invites as people use them: on a terminal, through pipes and files, as a QR code; the token in nobody's argv."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path

import pytest
import segno
from making_nodes import MESHNODE, Nodes, RunningNode, environment

HALVES = {"█": (0, 0), "▀": (0, 1), "▄": (1, 0), " ": (1, 1)}
"""What each character shows above and below; 1 is a dark module, which a dark terminal leaves empty."""


def on_terminal(node: RunningNode, columns: int, *words: str) -> str:
    """What a verb shows on a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    command = [*MESHNODE, *words, "--state-dir", str(node.state)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(TERM="xterm"))
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # Linux: the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(30) == 0
    return shown.decode().replace("\r\n", "\n")


def drawn_matrix(shown: str) -> list[list[int]]:
    """The modules of the QR code on a terminal's screen."""
    rows: list[list[int]] = []
    for line in shown.splitlines():
        if line.startswith("\x1b[40;97m"):
            halves = [HALVES[character] for character in line.removeprefix("\x1b[40;97m").removesuffix("\x1b[0m")]
            rows += [[upper for upper, _ in halves], [lower for _, lower in halves]]
    return rows


def joining(state: Path, *words: str, text: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    command = [*MESHNODE, "join", "--state-dir", str(state), *words]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, env=environment(**variables), check=False
    )


def test_invite_on_a_terminal_has_a_line_to_copy_and_a_qr_code(nodes: Nodes, tmp_path: Path) -> None:
    attic = nodes.start("attic")
    shown = on_terminal(attic, 80, "invite", "--qr")
    token = shown.splitlines()[0]
    assert f"\n MESHNODE_JOIN={token} meshnode run\n" in shown
    drawn, made = drawn_matrix(shown), segno.make(token, error="l", micro=False)
    width, height = map(int, made.symbol_size(border=2))
    assert [row[:width] for row in drawn[:height]] == [list(row) for row in made.matrix_iter(border=2)]
    assert "make it wider" in on_terminal(attic, 40, "invite", "--qr")
    line = next(line for line in shown.splitlines() if "MESHNODE_JOIN" in line)
    copied = line.replace(" meshnode run", f" {MESHNODE[0]} -m meshnode join --json --state-dir {tmp_path / 'study'}")
    done = subprocess.run(["sh", "-c", copied], capture_output=True, text=True, env=environment(), check=False)
    assert json.loads(done.stdout)["mesh"] == attic.json("status")["mesh"]["mesh"]


def test_invite_in_a_pipe_is_the_token_alone_and_joins_at_the_other_end(nodes: Nodes, tmp_path: Path) -> None:
    attic = nodes.start("attic")
    invited = attic.ask("invite")
    token = invited.stdout.strip()
    assert token.startswith("mesh1_")
    assert token not in invited.stderr
    study = tmp_path / "study"
    joined = joining(study, "--json", text=invited.stdout)
    first = json.loads(joined.stdout)
    assert (first["role"], first["already"]) == ("worker", False)
    assert "tried 127.0.0.1:" in joined.stderr
    assert token not in joined.stderr
    file = tmp_path / "token"
    file.write_text(attic.invite("--role", "client") + "\n")
    again = json.loads(joining(study, "--json", "--join-file", str(file)).stdout)
    assert (again["node"], again["already"], again["role"]) == (first["node"], True, "worker")
    running = nodes.start("study")
    assert running.node == first["node"]
    attic.wait_event("peer.joined", lambda event: event["peer"] == first["node"])
    for node in (attic, running):
        assert b"mesh1_" not in Path(f"/proc/{node.pid}/cmdline").read_bytes()
    in_use = joining(study, MESHNODE_JOIN=attic.invite())
    assert (in_use.returncode, f"in use by process {running.pid}" in in_use.stderr) == (1, True)


def test_what_is_no_token_joins_nothing(tmp_path: Path) -> None:
    for text, code, problem in (("", 2, "found nothing"), ("mesh1_AAAA", 1, "malformed")):
        done = joining(tmp_path / "study", text=text)
        assert (done.returncode, problem in done.stderr) == (code, True), done.stderr
        assert "AAAA" not in done.stderr
    assert not (tmp_path / "study" / "credential.json").exists()


@pytest.mark.parametrize(
    ("options", "variables", "code", "problem"),
    [
        ((), {"MESHNODE_JOIN": " "}, 1, "MESHNODE_JOIN is set and empty"),
        (("--join", ""), {}, 2, "--join: the token is empty"),
    ],
)
def test_token_that_was_not_filled_in_founds_no_mesh(
    tmp_path: Path, options: tuple[str, ...], variables: dict[str, str], code: int, problem: str
) -> None:
    command = [*MESHNODE, "run", "--state-dir", str(tmp_path / "study"), *options]
    variables = environment(**variables)
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False, timeout=60)
    assert (done.returncode, problem in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "study" / "credential.json").exists()
