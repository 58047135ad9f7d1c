"""What an unknown host's first packet may cost this node.

What lives here: `HalfOpenGuard`, which decides on each Initial packet that would open a connection, and keeps count of
the unauthenticated ones. What does not: QUIC, sockets. Pure: time is an argument, and links are opaque numbers.

An unauthenticated connection costs about a millisecond and 70 KiB, so:

- above `half_open_retry_above` of them, a source must first prove that it can receive at its address (a Retry packet,
  RFC 9000 section 8.1.2), which costs us a tenth of a millisecond and no memory;
- one source network gets `new_links_per_source_per_s`, and all together `new_links_per_s`. Packets whose source may be
  forged have an account of their own, and one that is overdrawn leads to validation, not to silence: nobody can use
  up a network's rate by writing its addresses on packets;
- there are never more than `half_open_cap`: a newer one takes the place of the oldest, those whose address was never
  validated first, since a flood from forged addresses is made of them.

A connection leaves the count when its peer is authenticated or it ends; the endpoint's handshake deadline sees to that.
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
    """`evict` is the half-open connection that must go for this one."""

    admit: Admit
    evict: int | None = None


class HalfOpenGuard:
    """Counts half-open connections in the order they came."""

    def __init__(self, settings: TransportSettings, now_s: float) -> None:
        self._settings = settings
        self._validated_by_link: dict[int, bool] = {}
        self._claimed = _Accounts(settings, now_s)
        self._proved = _Accounts(settings, now_s)
        self._retries = TokenBucket(settings.retries_per_s, settings.retries_per_s, now_s)
        self.retry_on = False
        """Whether every source must prove its address first."""
        self.dropped = 0
        """Connections and attempts given up since the start."""

    def __len__(self) -> int:
        return len(self._validated_by_link)

    def judge(self, source: str, *, validated: bool, now_s: float) -> HalfOpenVerdict:
        """Decide on an Initial packet from the `source` network; `validated` where it carries a good Retry token."""
        self._turn_retry()
        if not validated and (self.retry_on or not self._claimed.take(source, now_s)):
            return HalfOpenVerdict(self._validate(now_s))
        if validated and not self._proved.take(source, now_s):
            self.dropped += 1
            return HalfOpenVerdict(Admit.DROP)
        evict = self._oldest() if len(self) >= self._settings.half_open_cap else None
        return HalfOpenVerdict(Admit.ACCEPT, evict)

    def opened(self, link: int, *, validated: bool) -> None:
        """The connection was made."""
        self._validated_by_link[link] = validated

    def settled(self, link: int) -> None:
        """The connection's peer is authenticated, or it ended. Idempotent."""
        self._validated_by_link.pop(link, None)

    def _turn_retry(self) -> None:
        threshold = self._settings.half_open_retry_above
        if len(self) >= threshold:
            self.retry_on = True
        elif len(self) <= threshold // 2:
            # Off again only well below the threshold, so that it does not flap at it.
            self.retry_on = False

    def _validate(self, now_s: float) -> Admit:
        if self._retries.take(1.0, now_s):
            return Admit.VALIDATE
        self.dropped += 1
        return Admit.DROP

    def _oldest(self) -> int:
        self.dropped += 1
        unvalidated = next((link for link, validated in self._validated_by_link.items() if not validated), None)
        return next(iter(self._validated_by_link)) if unvalidated is None else unvalidated


class _Accounts:
    """The rates of all sources of one kind (forgeable or proved)."""

    def __init__(self, settings: TransportSettings, now_s: float) -> None:
        self._sources = SourceRates(
            settings.new_links_per_source_per_s, settings.new_links_per_source_burst, settings.tracked_sources
        )
        self._all = TokenBucket(settings.new_links_per_s, settings.new_links_per_s, now_s)

    def take(self, source: str, now_s: float) -> bool:
        return self._sources.take(source, now_s) and self._all.take(1.0, now_s)
