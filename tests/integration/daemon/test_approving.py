"""Joining without a token, with real processes: found by multicast DNS on loopback, six words on two screens."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from queue import Queue

import pytest
from making_nodes import MESHNODE, Nodes, environment

pytest.importorskip("zeroconf", reason="the extra `lan` is not installed")

LOOPBACK = ("--interface", "127.0.0.1")
DEADLINE_S = 60.0


class Screen:
    """A verb whose output is read as it comes, and that is answered as a person would."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [*MESHNODE, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=environment(PYTHONUNBUFFERED="1"),
        )  # fmt: skip
        self._lines: Queue[str | None] = Queue()
        self.seen: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def until(self, text: str) -> str:
        """The next line that contains `text`."""
        while (line := self._lines.get(timeout=DEADLINE_S)) is not None:
            self.seen.append(line)
            if text in line:
                return line
        raise AssertionError(f"no {text!r} in {self.seen}")

    def words(self) -> list[str]:
        """The six words it shows next."""
        self.until("ix words:")
        self.until("")
        return self.until("    ").split()

    def type(self, answer: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(answer + "\n")
        self.process.stdin.flush()

    def ends(self) -> int:
        """Its exit code."""
        code = self.process.wait(DEADLINE_S)
        while (line := self._lines.get(timeout=DEADLINE_S)) is not None:
            self.seen.append(line)
        return code


def test_node_joins_by_six_words_that_both_screens_show(nodes: Nodes, tmp_path: Path) -> None:
    attic = nodes.start("attic")
    joining = ("join", "--lan", *LOOPBACK, "--state-dir", str(tmp_path / "study"))
    approve = Screen("approve", *LOOPBACK, "--state-dir", str(attic.state))
    approve.until("is announced")

    first = Screen(*joining)
    shown = first.words()
    assert len(shown) == 6
    assert approve.words() == shown
    first.type("n")
    assert first.ends() == 1
    assert any("not the same" in line for line in first.seen)
    assert not (tmp_path / "study" / "credential.json").exists()
    approve.type("n")

    second = Screen(*joining)
    again = second.words()
    assert again != shown
    assert approve.words() == again
    attic.verb("approve", *shown, code=1)
    approve.type("y")
    second.type("y")
    assert approve.ends() == 0
    assert second.ends() == 0
    study = nodes.start("study")
    attic.wait_event("peer.joined", lambda event: event["peer"] == study.node)
    decided = [(event["node"] == study.node, event["accepted"]) for event in attic.events("approval.decided")]
    assert decided == [(True, False), (True, True)]
    assert attic.peer(study.node) is not None


def test_member_that_may_not_invite_opens_no_desk_and_closed_ones_are_said(nodes: Nodes, tmp_path: Path) -> None:
    attic = nodes.start("attic")
    study = nodes.start("study", token=attic.invite())
    refused = study.ask("approve", *LOOPBACK)
    assert (refused.returncode, "may not invite" in refused.stderr) == (1, True)
    long = attic.ask("approve", "--for", "2h")
    assert long.returncode == 2
    assert attic.control().get("/v1/approvals") == {"open_for_s": 0.0, "requests": []}
    wrong = attic.ask("approve", "six", "words", "nobody", "has", "ever", "shown")
    assert (wrong.returncode, "words" in wrong.stderr) == (2, True)
