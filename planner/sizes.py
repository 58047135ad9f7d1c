"""Bytes as people write and read them.

Lives here: reading `24GB` and writing `302.1GB`. Called by `planner.files` and by everything in `planner` that has a
message. `GB` is 10^9 and `GiB` 2^30 in every input; output is decimal with one digit.
"""

from __future__ import annotations

import re
from typing import Final

from planner.errors import InvalidPlanInput, whole

EXPECTED: Final = "a size such as 24GB (10^9 bytes), 24GiB (2^30 bytes) or a whole number of bytes"

_UNITS: Final = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "PIB": 2**50,
}  # fmt: skip
_SIZE: Final = re.compile(r"([0-9]{1,24})(?:\.([0-9]{1,12}))?\s*([a-zA-Z]{0,3})")


def parse_size_bytes(field: str, value: object) -> int:
    """Bytes of `"24GB"`, `"1.5 GiB"` or a whole number. Raises `InvalidPlanInput` naming `field`.

    Counted in whole numbers: "154.6GB" is 154,600,000,000 bytes, not a binary float near it.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InvalidPlanInput(field, value, EXPECTED)
    if isinstance(value, int):
        return whole(field, value)
    match = _SIZE.fullmatch(value.strip())
    if match is None or match[3].upper() not in _UNITS:
        raise InvalidPlanInput(field, value, EXPECTED)
    fraction = match[2] or ""
    return whole(field, int(match[1] + fraction) * _UNITS[match[3].upper()] // 10 ** len(fraction))


def format_gb(count_bytes: int) -> str:
    """`302.1GB`: decimal, one digit, rounded half up."""
    tenths = (abs(count_bytes) + 5 * 10**7) // 10**8
    sign = "-" if count_bytes < 0 and tenths else ""
    return f"{sign}{tenths // 10}.{tenths % 10}GB"
