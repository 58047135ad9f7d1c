"""The one clock of the transport.

What lives here: `boottime_s`. What does not: wall-clock time, which decides nothing on a link. The endpoint takes the
clock as an argument; this is the one the daemon hands in.
"""

from __future__ import annotations

import time

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def boottime_s() -> float:
    """Seconds of a clock that never goes back and, where the platform has one, goes on during suspend.

    CLOCK_MONOTONIC stops while a laptop sleeps: with it, a link that was silent for an hour would look as young as
    before, and no idle time-out would end it.
    """
    if _BOOTTIME is not None:
        return time.clock_gettime(_BOOTTIME)
    return time.monotonic()
