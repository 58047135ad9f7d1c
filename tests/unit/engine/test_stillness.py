"""When an engine that lives and does nothing counts as hung."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketStream

from meshnode.engine.runs import watch
from meshnode.engine.stillness import Stillness, processor_ticks

DEADLINE_S = 30.0


def looks(*seen: tuple[int, int]) -> list[bool]:
    """The verdicts on (unread bytes, ticks), a second apart, with ten seconds of patience."""
    still = Stillness(10.0)
    return [still.look(unread, ticks, 100.0 + number) for number, (unread, ticks) in enumerate(seen)]


def test_server_that_was_asked_and_does_nothing_hangs_after_the_whole_time() -> None:
    assert looks(*[(8, 5)] * 12) == [False] * 10 + [True, True]


def test_server_that_computes_or_has_nothing_to_do_never_hangs() -> None:
    assert not any(looks(*[(8, number) for number in range(30)]))
    assert not any(looks(*[(0, 5)] * 30))


def test_any_sign_of_work_begins_the_time_anew() -> None:
    assert looks(*[(8, 5)] * 9, *[(8, 6)] * 11) == [False] * 19 + [True]
    assert looks(*[(8, 5)] * 9, (0, 5), *[(8, 5)] * 9) == [False] * 19


def test_time_in_which_nobody_looked_is_no_part_of_it() -> None:
    still = Stillness(10.0)
    assert not still.look(8, 5, 100.0)
    assert not still.look(8, 5, 1000.0)


def test_processor_time_is_this_process_s_own() -> None:
    before = processor_ticks(os.getpid())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert processor_ticks(os.getpid()) > before
    assert processor_ticks(2**22 + 1) == 0


@pytest.mark.parametrize("speaks", [True, False])
async def test_model_process_is_asked_whether_it_answers_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speaks: bool
) -> None:
    """One that hangs still takes connections: the kernel does that."""
    monkeypatch.setattr(watch, "ALIVE_S", DEADLINE_S if speaks else 0.2)

    async def serve(stream: SocketStream) -> None:
        await stream.receive()
        if speaks:
            await stream.send(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
        with contextlib.suppress(anyio.EndOfStream):
            await stream.receive()

    path = tmp_path / "m.sock"
    async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        with anyio.fail_after(DEADLINE_S):
            assert await watch.answers(lambda: anyio.connect_unix(path)) is speaks
        tasks.cancel_scope.cancel()
