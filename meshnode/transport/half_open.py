"""What an unknown host's first packet may cost this node.

What lives here: `HalfOpenGuard`, which decides on each Initial packet that would open a connection, and keeps count of
the unauthenticated ones. What does not: QUIC, sockets. Pure: time is an argument, and links are opaque numbers.

An unauthenticated connection costs about a millisecond and 70 KiB, so:

- above `half_open_retry_above` of them, a source must first prove that it can receive at its address (a Retry packet,
  RFC 9000 section 8.1.2), which costs us a tenth of a millisecond and no memory;
- one source network gets `new_links_per_source_per_s`, and all together `new_links_per_s`;
- there are never more than `half_open_cap`: a newer one takes the place of the oldest, those whose address was never
  validated first, since a flood from forged addresses is made of them.

A connection leaves the count when its peer is authenticated or it ends (the endpoint's handshake deadline sees to that).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from meshnode.transport.rate_limit import SourceRates, TokenBucket
from meshnode.transport.settings import TransportSettings


class Admit(StrEnum):
    """What to do with an Initial packet."""

    ACCEPT = "accept"
    VALIDATE = "validate"
    """Answer with a Retry packet and forget."""
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class HalfOpenVerdict:
    """`evict` is the half-open connection that must go for this one; `retry_turned` is set when address validation
    was switched on or off by this packet."""

    admit: Admit
    evict: int | None = None
    retry_turned: bool | None = None


@dataclass(slots=True)
class _HalfOpen:
    validated: bool


class HalfOpenGuard:
    """Counts half-open connections in the order they came."""

    def __init__(self, settings: TransportSettings, now_s: float) -> None:
        self._settings = settings
        self._open: dict[int, _HalfOpen] = {}
        self._sources = SourceRates(
            settings.new_links_per_source_per_s, settings.new_links_per_source_burst, settings.tracked_sources
        )
        self._all = TokenBucket(settings.new_links_per_s, settings.new_links_per_s, now_s)
        self._retries = TokenBucket(settings.retries_per_s, settings.retries_per_s, now_s)
        self.retry_on = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._open)

    def judge(self, source: str, *, validated: bool, now_s: float) -> HalfOpenVerdict:
        """Decide on an Initial packet from the `source` network; `validated` where it carries a good Retry token."""
        turned = self._turn_retry()
        if self.retry_on and not validated:
            admit = Admit.VALIDATE if self._retries.take(1.0, now_s) else Admit.DROP
            return HalfOpenVerdict(admit, retry_turned=turned)
        # A forged source must not be able to use up the rate of the network it pretends to be, so only what cannot be
        # forged is charged per source once there is pressure; before it, everything is.
        if not self._sources.take(source, now_s) or not self._all.take(1.0, now_s):
            self.dropped += 1
            return HalfOpenVerdict(Admit.DROP, retry_turned=turned)
        evict = self._evict() if len(self._open) >= self._settings.half_open_cap else None
        return HalfOpenVerdict(Admit.ACCEPT, evict, turned)

    def opened(self, link: int, *, validated: bool) -> None:
        """The connection was made."""
        self._open[link] = _HalfOpen(validated)

    def settled(self, link: int) -> None:
        """The connection's peer is authenticated, or it ended. Idempotent."""
        self._open.pop(link, None)

    def _turn_retry(self) -> bool | None:
        threshold = self._settings.half_open_retry_above
        if not self.retry_on and len(self._open) >= threshold:
            self.retry_on = True
            return True
        # Off again only well below the threshold, so that it does not flap at it.
        if self.retry_on and len(self._open) <= threshold // 2:
            self.retry_on = False
            return False
        return None

    def _evict(self) -> int:
        self.dropped += 1
        unvalidated = (link for link, entry in self._open.items() if not entry.validated)
        evicted = next(unvalidated, None)
        return next(iter(self._open)) if evicted is None else evicted
