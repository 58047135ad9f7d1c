"""Token buckets: how much a peer, a source network or the world may ask of this node.

What lives here: `TokenBucket`, `SourceRates` (one bucket per source network) and `Budget` (a link's inbound budget,
with the moment since which it is exceeded). What does not: what happens to an offender (the link and the endpoint
decide). Pure: time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


class TokenBucket:
    """`burst` tokens at most, refilled at `rate_per_s`; starts full."""

    __slots__ = ("_at_s", "_burst", "_rate_per_s", "_tokens")

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._at_s = now_s

    def take(self, count: float, now_s: float) -> bool:
        """Take `count` tokens if there are as many; False leaves the bucket as it was."""
        self._refill(now_s)
        if self._tokens < count:
            return False
        self._tokens -= count
        return True

    def spend(self, count: float, now_s: float) -> None:
        """Take `count` tokens in any case: the bucket may go into debt, for costs known only afterwards."""
        self._refill(now_s)
        self._tokens -= count

    def ready_in_s(self, now_s: float) -> float:
        """Seconds until the bucket is out of debt; 0 where it is."""
        self._refill(now_s)
        return max(0.0, -self._tokens / self._rate_per_s)

    def _refill(self, now_s: float) -> None:
        if now_s > self._at_s:
            self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._rate_per_s)
            self._at_s = now_s


class SourceRates:
    """One bucket per source network, for at most `tracked` of them: the least recently seen is forgotten first, which
    an attacker with that many networks could use, and whom the endpoint's total limit then meets."""

    def __init__(self, rate_per_s: float, burst: float, tracked: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tracked = tracked
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, source: str, now_s: float) -> bool:
        """Charge one attempt to `source`; False where it has used up its rate."""
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = TokenBucket(self._rate_per_s, self._burst, now_s)
            if len(self._buckets) > self._tracked:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(source)
        return bucket.take(1.0, now_s)

    def __len__(self) -> int:
        return len(self._buckets)


@dataclass(frozen=True, slots=True)
class Overrun:
    """A peer went over its budget: how much it sent per second since its budget was last whole."""

    frames_per_s: float
    bytes_per_s: float


class Budget:
    """A link's inbound budget of frames and bytes.

    Frames are charged when they are taken; while there is debt, nothing more is taken, so the bytes wait, no flow
    control credit is granted, and the peer is slowed down without loss. `over_since_s` is when it last came to owe
    without a pause; a peer that owes for `flood_s` is cut off by the link.
    """

    def __init__(
        self, frames_per_s: float, frames_burst: float, bytes_per_s: float, bytes_burst: float, now_s: float
    ) -> None:
        self._frames = TokenBucket(frames_per_s, frames_burst, now_s)
        self._bytes = TokenBucket(bytes_per_s, bytes_burst, now_s)
        self.over_since_s: float | None = None
        self._counted_since_s = now_s
        self._counted_frames = 0
        self._counted_bytes = 0

    def charge(self, frame_bytes: int, now_s: float) -> None:
        """One frame of `frame_bytes` was taken."""
        self._frames.spend(1.0, now_s)
        self._bytes.spend(frame_bytes, now_s)
        self._counted_frames += 1
        self._counted_bytes += frame_bytes

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next frame may be taken; 0 where it may be now."""
        return max(self._frames.ready_in_s(now_s), self._bytes.ready_in_s(now_s))

    def hold_back(self, now_s: float) -> Overrun | None:
        """A frame had to wait. Returns the figures the first time of a spell, None while it lasts."""
        if self.over_since_s is not None:
            return None
        self.over_since_s = now_s
        over_s = max(now_s - self._counted_since_s, 1e-3)
        return Overrun(self._counted_frames / over_s, self._counted_bytes / over_s)

    def caught_up(self, now_s: float) -> None:
        """Nothing waits any more: the spell, if there was one, is over."""
        if self.over_since_s is not None or now_s - self._counted_since_s > 60.0:
            self.over_since_s = None
            self._counted_since_s = now_s
            self._counted_frames = self._counted_bytes = 0

    def floods(self, flood_s: float, now_s: float) -> bool:
        """True where the peer has been over its budget for `flood_s`."""
        return self.over_since_s is not None and now_s - self.over_since_s >= flood_s
