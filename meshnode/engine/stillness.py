"""An engine that hangs: it lives, was asked something, and does nothing. Left alone it would hold its clients for ever.

What lives here: `Stillness`, pure, and reading a process's processor time. What does not: what was asked (the RPC
server's companion sees unread bytes on its sockets, `meshnode.engine.stage.process`), and what follows.

A server that computes uses the processor, if only to wait for its card; one that has nothing to do has read all that it
was sent. Only one that does neither for the whole time hangs. The time is Mesh-LLM's 75 s, which it came to after
withdrawing splits at the first missed check. A time in which nobody could look, because a container was frozen, is no
part of it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 75.0
LOOKS: Final = 10
"""At a process within that time."""


class Stillness:
    """Since when a process has hung."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._ticks = -1
        self._still_s = 0.0
        self._looked_s = -math.inf

    @property
    def pause_s(self) -> float:
        """From one look to the next."""
        return self._patience_s / LOOKS

    def look(self, unread_bytes: int, ticks: int, now_s: float) -> bool:
        """Whether it has hung for the whole time, of which this is the newest look. `ticks` is its processor time."""
        pause_s = now_s - self._looked_s
        works = unread_bytes == 0 or ticks != self._ticks
        self._still_s = 0.0 if works else self._still_s + min(pause_s, 2 * self.pause_s)
        self._ticks, self._looked_s = ticks, now_s
        return self._still_s >= self._patience_s


def processor_ticks(pid: int) -> int:
    """The processor time of `pid` in the kernel's clock ticks (proc(5), /proc/PID/stat); 0 where it is gone."""
    try:
        # The name, in brackets, may hold anything: what follows the last bracket is fixed.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    except (OSError, IndexError, ValueError):
        return 0
