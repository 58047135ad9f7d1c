"""One engine process: started, watched, its last words kept, ended for sure.

What lives here: `EngineProcess` and `Ending`. What does not: what is run (`meshnode.engine.commands`), and what follows
from its end (`meshnode.engine.stage.stages`, `meshnode.engine.runs.models`).

A process of ours speaks JSON lines on stdout (`meshnode.engine.words`); whatever else a process writes there or to
stderr is its log, of which the last lines are kept for whoever has to explain its end. Engine processes end with this
one: each asks the kernel for that itself (`meshnode.engine.confinement.rights`), and lives in a session of its own so
that Ctrl-C on the terminal reaches the node alone, which stops them in order.
"""

from __future__ import annotations

import os
import re
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import Final

import anyio
import anyio.abc
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

Word = dict[str, object]
"""What a process of ours says: one JSON object."""

KEPT_LINES: Final = 400
"""Lines of log kept; an engine's loading report is about 150 of them."""
SHOWN_LINES: Final = 3
TROUBLE_WITHIN: Final = 40
_USUAL: Final = re.compile(r"CPU : |Model metadata: |Available chat formats|Using |llama_perf_|~?llama_context: ")
"""What the package says in any case, and last: it explains nobody's end."""
_TROUBLE: Final = re.compile(r"error|fail|abort|assert|out of memory|unable|mismatch|crash|exception|meshnode:", re.I)
MAX_LINE_BYTES: Final = 16 * 1024
MAX_WORDS: Final = 4096
MAX_SHOWN: Final = 400
"""Characters of a log line that are kept."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended: `exit_code` below 0 is the negated number of the signal that ended it. `for_memory`: while
    it ran, the kernel ended processes for want of memory."""

    exit_code: int
    last_lines: tuple[str, ...]
    for_memory: bool = False

    @classmethod
    def of(cls, exit_code: int, log: Sequence[str], *, for_memory: bool = False) -> Ending:
        """With the lines of `log` that say why, as far as lines say that: the first of late and the last ones with a
        word of trouble in them, else just the last ones. An engine that fails to load says why first and a dozen other
        things after, some of trouble too."""
        late = [line for line in log[-TROUBLE_WITHIN:] if line.strip() and not _USUAL.match(line)]
        troubled = [line for line in late if _TROUBLE.search(line)]
        told = [troubled[0], *troubled[1:][1 - SHOWN_LINES :]] if troubled else late[-SHOWN_LINES:]
        return cls(exit_code, tuple(told), for_memory)

    @property
    def how(self) -> str:
        """`signal SIGABRT` or `exit code 1`."""
        if self.exit_code >= 0:
            return f"exit code {self.exit_code}"
        if self.for_memory and self.exit_code == -signal.SIGKILL:
            return "signal SIGKILL, which the kernel sent to processes meanwhile: this machine was out of memory"
        try:
            return f"signal {signal.Signals(-self.exit_code).name}"
        except ValueError:
            return f"signal {-self.exit_code}"

    def __str__(self) -> str:
        said = " | ".join(self.last_lines[-SHOWN_LINES:])
        return f"{self.how}; its last lines: {said}"[:480] if said else f"{self.how}; it wrote nothing of it"


class EngineProcess:
    """A running engine process. Made by `running`; `kill` may be called at any time."""

    def __init__(
        self, process: anyio.abc.Process, on_line: Callable[[str], None], keeps: Callable[[str], bool]
    ) -> None:
        self._process = process
        self._on_line = on_line
        self._keeps = keeps
        self._log: deque[str] = deque(maxlen=KEPT_LINES)
        self._say, self.words = _words()
        self._memory_kills = memory_kills()
        self._ended = anyio.Event()
        self._ending: Ending | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def log(self) -> tuple[str, ...]:
        """Its last log lines, oldest first."""
        return tuple(self._log)

    def forget_log(self) -> None:
        """What it said until now explains no end that comes later."""
        self._log.clear()

    @property
    def is_running(self) -> bool:
        """False from the moment its end is known."""
        return not self._ended.is_set()

    async def wait(self) -> Ending:
        """How it ended, once it has and all it wrote is read."""
        await self._ended.wait()
        assert self._ending is not None, "set before the event"
        return self._ending

    def kill(self) -> None:
        """End it now; the kernel frees its memory."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def _watch(self) -> None:
        assert self._process.stdout is not None, "made with a pipe"
        assert self._process.stderr is not None, "made with a pipe"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, self._process.stdout, True)
            tasks.start_soon(self._read, self._process.stderr, False)
        code = await self._process.wait()
        self._ending = Ending.of(code, tuple(self._log), for_memory=memory_kills() > self._memory_kills)
        self._ended.set()
        self._say.close()

    async def _read(self, stream: anyio.abc.ByteReceiveStream, speaks: bool) -> None:
        async for line in _lines(stream):
            word = _word(line) if speaks else None
            if word is None:
                text = line.decode("utf-8", "replace")[:MAX_SHOWN]
                if self._keeps(text):
                    self._log.append(text)
                    self._on_line(text)
            else:
                with suppress(anyio.WouldBlock, anyio.BrokenResourceError):
                    self._say.send_nowait(word)


def memory_kills(statistics: Path = Path("/proc/vmstat")) -> int:
    """How often the kernel of this machine has ended a process for want of memory, in a control group or in all
    (proc(5), `oom_kill`); 0 where it does not say."""
    try:
        lines = statistics.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _words() -> tuple[MemoryObjectSendStream[Word], MemoryObjectReceiveStream[Word]]:
    return anyio.create_memory_object_stream[Word](MAX_WORDS)


@asynccontextmanager
async def running(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    pass_fds: Sequence[int] = (),
    on_line: Callable[[str], None] = lambda _: None,
    keeps: Callable[[str], bool] = lambda _: True,
) -> AsyncIterator[EngineProcess]:
    """Runs `command`; it is gone, and waited for, when the block ends. `on_line` gets each line of its log; of one that
    `keeps` is against nothing stays. Raises `OSError` where it can't be started."""
    started = await anyio.open_process(
        [os.fspath(part) for part in command],
        stdin=DEVNULL,
        env=environment,
        pass_fds=pass_fds,
        start_new_session=True,
    )
    process = EngineProcess(started, on_line, keeps)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(process._watch)  # its own factory
            yield process
            process.kill()
    finally:
        process.kill()
        with anyio.CancelScope(shield=True):
            await started.wait()
            await started.aclose()


async def _lines(stream: anyio.abc.ByteReceiveStream) -> AsyncIterator[bytes]:
    """Its lines without their ends; one that is too long comes in pieces."""
    buffered = BufferedByteReceiveStream(stream)
    pending = b""
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        while True:
            pending += await buffered.receive(MAX_LINE_BYTES)
            *whole, pending = pending.split(b"\n")
            for line in whole:
                yield line.rstrip()
            if len(pending) >= MAX_LINE_BYTES:
                yield pending
                pending = b""
    if pending:
        yield pending


def _word(line: bytes) -> Word | None:
    """The object in a line of a process of ours; None for anything else that a library printed."""
    if not line.startswith(b'{"'):
        return None
    try:
        word = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return word if isinstance(word, dict) else None
