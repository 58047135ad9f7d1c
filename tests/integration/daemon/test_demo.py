"""The demo: what it shows, and that it leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from making_nodes import environment

DEADLINE_S = 60.0
COMMAND = [sys.executable, "-m", "meshnode", "demo"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary directory of a short path, which the demo takes for its own."""
    directory = Path(tempfile.mkdtemp(prefix="d"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def nodes_of(place: Path) -> list[psutil.Process]:
    """Every process that runs a node below `place`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "run" in words and any(str(place) in word for word in words):
            found.append(process)
    return found


def wait_until_none_runs(place: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while nodes_of(place):
        assert time.monotonic() < deadline, nodes_of(place)
        time.sleep(0.05)


def a_running_demo(place: Path) -> subprocess.Popen[str]:
    """The demo, at the moment when three of its nodes run."""
    # What a shell starts in the background inherits that interrupts are ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    demo = subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(TMPDIR=str(place)),
        start_new_session=True,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + DEADLINE_S
    while len(nodes_of(place)) < 3:
        assert time.monotonic() < deadline
        assert demo.poll() is None
        time.sleep(0.05)
    return demo


def test_demo_shows_a_shortfall_in_full_and_then_a_plan(place: Path) -> None:
    done = subprocess.run(
        COMMAND, capture_output=True, text=True, env=environment(TMPDIR=str(place)), timeout=DEADLINE_S, check=False
    )
    text = done.stdout
    assert done.returncode == 0, text + done.stderr
    assert "requires 302.1GB, mesh has 154.6GB across 2 participant(s), short by 147.5GB; participants [" in text
    assert re.search(r"excluded \[[a-z2-7]{10}:client\]", text)
    assert "80.0GB declared" in text
    assert "74.6GB declared" in text
    assert "(then it fits)" in text
    assert text.index("short by 147.5GB") < text.index("workshop runs") < text.index("3 stages, context 108288 tokens")
    assert "170.0GB declared" in text
    logs = [Path(line.strip()) for line in text.splitlines() if line.strip().endswith(".log")]
    assert [log.stem for log in logs] == ["attic", "study", "sofa", "workshop"]
    assert all('"event": "node.stopped"' in log.read_text(encoding="utf-8") for log in logs)
    assert nodes_of(place) == []
    assert {path.name for path in logs[0].parent.parent.iterdir()} == {"logs"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_leaves_no_process_behind(place: Path, number: int) -> None:
    demo = a_running_demo(place)
    demo.send_signal(number)
    assert demo.wait(DEADLINE_S) == 130
    assert nodes_of(place) == []
    assert demo.stdout is not None
    demo.stdout.close()


def test_killed_demo_leaves_no_process_behind(place: Path) -> None:
    demo = a_running_demo(place)
    os.kill(demo.pid, signal.SIGKILL)
    demo.wait(DEADLINE_S)
    wait_until_none_runs(place)
    assert demo.stdout is not None
    demo.stdout.close()
