"""An engine process as the node sees it: what it says, how it ended, and that it is gone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from meshnode.engine.process import SHOWN_LINES, Ending, memory_kills, running

SPEAKS = """
import os, sys
print('a line of a library')
sys.stderr.write('loading\\n')
print('{"ready": true}', flush=True)
print('{"broken', flush=True)
sys.stdin.read()
"""


async def test_words_are_told_from_whatever_else_is_printed() -> None:
    async with running([sys.executable, "-c", SPEAKS], dict(os.environ)) as process:
        assert await process.words.receive() == {"ready": True}
        ending = await process.wait()
    assert ending.exit_code == 0
    assert set(process.log) == {'{"broken', "a line of a library", "loading"}


async def test_process_is_gone_when_the_block_ends() -> None:
    command = [sys.executable, "-c", "import time; print('{\"up\": 1}', flush=True); time.sleep(600)"]
    async with running(command, dict(os.environ)) as process:
        await process.words.receive()
        pid = process.pid
    assert not psutil.pid_exists(pid)


async def test_cancelling_ends_it_too() -> None:
    pids: list[int] = []
    with anyio.CancelScope() as scope:
        async with running([sys.executable, "-c", "import time; time.sleep(600)"], dict(os.environ)) as process:
            pids.append(process.pid)
            scope.cancel()
            await anyio.sleep_forever()
    assert not psutil.pid_exists(pids[0])


@pytest.mark.parametrize(("code", "how"), [(0, "exit code 0"), (70, "exit code 70"), (-6, "signal SIGABRT")])
def test_end_is_named(code: int, how: str) -> None:
    assert Ending(code, ()).how == how


def test_kill_while_the_machine_was_out_of_memory_is_told_as_that(tmp_path: Path) -> None:
    (statistics := tmp_path / "vmstat").write_text("oom_kill_x 9\noom_kill 3\npgfault 12\n", encoding="ascii")
    assert memory_kills(statistics) == 3
    assert memory_kills(tmp_path / "elsewhere") == 0
    assert "out of memory" in Ending.of(-9, [], for_memory=True).how
    assert "memory" not in Ending.of(-9, []).how
    assert "memory" not in Ending.of(-6, [], for_memory=True).how


def test_lines_that_say_why_are_shown_before_those_that_only_came_last() -> None:
    log = ["loading", "error loading model: unknown type 99", *(f"graph node {number}" for number in range(20))]
    assert Ending.of(1, log).last_lines == ("error loading model: unknown type 99",)
    many = ["E error loading model: no tensor", *(f"E failed: {number}" for number in range(5))]
    assert Ending.of(1, many).last_lines == (many[0], many[-2], many[-1])
    plain = [f"line {number}" for number in range(20)]
    assert Ending.of(1, plain).last_lines == tuple(plain[-SHOWN_LINES:])
    assert str(Ending.of(1, [])) == "exit code 1; it wrote nothing of it"
    assert Ending.of(-6, ["line", "llama_perf_context_print: eval time", "CPU : SSE3 = 1"]).last_lines == ("line",)


async def test_line_without_an_end_is_kept_in_pieces() -> None:
    command = [sys.executable, "-c", "import sys; sys.stderr.write('x' * 100_000); sys.stderr.write('\\nend\\n')"]
    async with running(command, dict(os.environ)) as process:
        await process.wait()
    assert process.log[-1] == "end"
    assert all(len(line) <= 400 for line in process.log)
