"""Five failed redemptions a minute from one source, then silence for it.

What lives here: `FailureLimit`, and what counts as one source. Called by `meshnode.admission.redeeming`. It bounds how
fast invite tokens can be guessed and how much work a stranger can cause; it holds no clock.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from typing import Final

FAILURES_ALLOWED: Final = 5
WINDOW_S: Final = 60.0
MAX_SOURCES: Final = 4096
_V6_PREFIX: Final = 64


def source_of(address: str) -> str:
    """The source behind `1.2.3.4:4411` or `[fe80::1%eth0]:4411`: an IPv4 address, or an IPv6 /64, since one household
    or host commands all of its /64 (RFC 6177). A text that is no address is a source of its own."""
    host = address.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, _V6_PREFIX), strict=False))
    return str(parsed)


class FailureLimit:
    """Remembers when each source last failed. Attempts during the silence are not counted, so that it ends a minute
    after the first of the five."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def is_silenced(self, address: str, now_s: float) -> bool:
        """True where the source of `address` failed five times within the last minute (`now_s` is monotonic)."""
        recent = self._failures.get(source_of(address))
        return recent is not None and len(recent) == FAILURES_ALLOWED and now_s - recent[0] < WINDOW_S

    def failed(self, address: str, now_s: float) -> None:
        """Count one failure. The source that failed longest ago makes room where 4,096 are known."""
        source = source_of(address)
        self._failures.setdefault(source, deque(maxlen=FAILURES_ALLOWED)).append(now_s)
        self._failures.move_to_end(source)
        if len(self._failures) > MAX_SOURCES:
            self._failures.popitem(last=False)
