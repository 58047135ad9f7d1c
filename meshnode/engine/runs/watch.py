"""Watching a model's server: whether it answers yet and still, how far it has loaded, what it has counted.

What lives here: asking it over its socket, and `LoadProgress`. What does not: what its texts mean
(`meshnode.engine.runs.llama_server`), the run it belongs to (`meshnode.engine.runs.models`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import anyio
import psutil
from anyio.abc import ByteStream

from meshnode.engine.http1 import AnswerBroken, ask, whole_body
from meshnode.engine.process import EngineProcess
from meshnode.engine.runs.llama_server import tokens_in

Connect = Callable[[], Awaitable[ByteStream]]
"""A new connection to it. Raises `OSError` where there is nobody."""
HEALTH_S: Final = 0.2
ALIVE_S: Final = 15.0
SERVER_PATIENCE_S: Final = 300.0
"""As long as the part of llama-server that computes may be silent: longer than any one batch takes."""
METRICS_S: Final = 5.0
MAX_METRICS_BYTES: Final = 256 * 1024
UNTIL_SERVING: Final = 0.99
"""All is loaded, and it has not answered yet."""


async def wait_healthy(connect: Connect, process: EngineProcess, tell: Callable[[], None]) -> bool:
    """True once it answers, which it does with 503 while it loads and with 200 from then on (tools/server/README.md,
    GET /health); False where it ended before. `tell` is called again and again meanwhile."""
    while process.is_running:
        try:
            async with await connect() as stream:
                if (await ask(stream, "GET", "/health")).status == 200:
                    return True
        except (OSError, AnswerBroken):
            pass  # its socket is not there yet, or it is ending
        tell()
        await anyio.sleep(HEALTH_S)
    return False


async def answers(connect: Connect, path: str = "/health") -> bool:
    """Whether it answers at all, however busy it is; that it does not is known after `ALIVE_S`. At `/metrics` the part
    of llama-server that computes answers, in newer versions while it computes, in older ones between two batches."""
    with anyio.move_on_after(ALIVE_S):
        try:
            async with await connect() as stream:
                await ask(stream, "GET", path)
                return True
        except (OSError, AnswerBroken):
            await anyio.sleep_forever()
    return False


async def counted_tokens(connect: Connect, before: Mapping[str, float]) -> dict[str, float] | None:
    """See `tokens_in`. None where it does not say now."""
    try:
        with anyio.fail_after(METRICS_S):
            async with await connect() as stream:
                text = await whole_body(await ask(stream, "GET", "/metrics"), MAX_METRICS_BYTES)
    except (OSError, AnswerBroken, TimeoutError):
        return None
    return tokens_in(text.decode("utf-8", "replace"), before)


class LoadProgress:
    """How far a model is loaded, by what can be seen from outside, since llama-server tells nothing: it maps the file,
    which is read from the disk by that, and sends what goes to others over the node's tunnels. `file_bytes` and
    `sending_bytes` are all there is of each."""

    def __init__(self, file_bytes: int, sending_bytes: int) -> None:
        self._file_bytes = file_bytes
        self._sending_bytes = max(0, sending_bytes)
        self._share = 0.0

    def share(self, mapped_bytes: int, sent_bytes: int) -> float:
        """The part of it that is done, which never falls: what was sent is unmapped again."""
        done = min(mapped_bytes, self._file_bytes) + min(sent_bytes, self._sending_bytes)
        self._share = max(self._share, min(UNTIL_SERVING, done / max(1, self._file_bytes + self._sending_bytes)))
        return self._share


def mapped_bytes(process: EngineProcess) -> int:
    """Bytes of files that a process has in memory; 0 where that can't be told."""
    try:
        return int(getattr(psutil.Process(process.pid).memory_info(), "shared", 0))
    except psutil.Error:
        return 0
