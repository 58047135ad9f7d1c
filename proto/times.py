"""Wall-clock times as the wire and its errors use them: whole seconds since 1970, shown in UTC.

What lives here: how they are shown, and how far two clocks may differ. What does not: reading a clock (callers pass
`now_unix_s`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

CLOCK_TOLERANCE_S: Final = 300
"""An expiry is judged with 5 minutes of grace: the two clocks need not agree better than that."""


def utc_text(unix_s: int) -> str:
    """`2026-11-25 10:12:07 UTC`."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
