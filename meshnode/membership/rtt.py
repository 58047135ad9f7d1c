"""The RTT of one link, from timed application pings.

QUIC's own figure reads 2 ms where 0.2 ms is true (aioquic 1.7.2 on loopback: acks wait 1 ms), so that links are timed
by datagram pings: round trip minus the responder's hold time, stamped at the edge of the event loop. What is kept: the
minimum over a sliding window (what the path can do), Jacobson's smoothed mean and variation (RFC 6298: gains 1/8 and
1/4), count and age.

A link is *corroborated* once it has 2 samples spread over 5 s and the last is fresh. What lives here: the estimator.
What does not: when to ping (`pings`), coordinates.
"""

from __future__ import annotations

from collections import deque

from meshnode.membership.settings import MembershipSettings
from meshnode.membership.view import RttFigure, RttSource

MAX_SAMPLE_S = 600.0
"""Longer is a clock jump, no path."""
SHIFT_SAMPLES = 4
"""At least so many samples in a row, spread over `rtt_spread_s`, say that the path got worse: each is above the
window's minimum by `SHIFT`, and above nine tenths of the samples before them. The latter is what jitter does not do:
of n samples in no order the last four are the largest with a chance of 24 / n^4."""
SHIFT = 1.5
STRAYS = 0.1
KEPT_SAMPLES = 32


class RttEstimator:
    """Samples of one path. All values in seconds; `figure()` speaks milliseconds."""

    __slots__ = ("_newest", "_window", "first_at_s", "last_at_s", "samples", "smoothed_s", "variation_s")

    def __init__(self) -> None:
        self._window: deque[tuple[float, float]] = deque()
        self._newest: deque[tuple[float, float]] = deque(maxlen=KEPT_SAMPLES)
        self.reset()

    def reset(self) -> None:
        """Forgets everything: the path changed."""
        self._window.clear()
        self._newest.clear()
        self.samples = 0
        self.smoothed_s = 0.0
        self.variation_s = 0.0
        self.first_at_s = 0.0
        self.last_at_s = 0.0

    def add(self, sample_s: float, now: float, settings: MembershipSettings) -> bool:
        """Takes a sample; False where it is none (not positive, or longer than 10 minutes)."""
        if not 0.0 < sample_s <= MAX_SAMPLE_S:
            return False
        if self.samples == 0:
            self.first_at_s = now
            self.smoothed_s = sample_s
            self.variation_s = sample_s / 2
        else:
            self.variation_s += (abs(self.smoothed_s - sample_s) - self.variation_s) / 4
            self.smoothed_s += (sample_s - self.smoothed_s) / 8
        self.samples += 1
        self.last_at_s = now
        self._newest.append((now, sample_s))
        self._slide(sample_s, now, settings)
        return True

    def _slide(self, sample_s: float, now: float, settings: MembershipSettings) -> None:
        """Keeps the window as a rising queue: its head is the minimum of the last `rtt_window_s`."""
        window = self._window
        while window and window[-1][1] >= sample_s:
            window.pop()
        window.append((now, sample_s))
        while window[0][0] < now - settings.rtt_window_s:
            window.popleft()
        if sample_s > self._shifted_s(settings):
            self._look_for_shift(now, settings)

    def _shifted_s(self, settings: MembershipSettings) -> float:
        return SHIFT * self._window[0][1] + settings.rtt_change_s

    def _look_for_shift(self, now: float, settings: MembershipSettings) -> None:
        """The path got worse for good: the old minimum would hide it for the rest of the window."""
        newest = list(self._newest)
        late = next((n for n in range(SHIFT_SAMPLES, len(newest)) if now - newest[-n][0] >= settings.rtt_spread_s), 0)
        if not late:
            return
        earlier = sorted(sample for _, sample in newest[:-late])
        least_s = min(sample for _, sample in newest[-late:])
        if not earlier or least_s <= max(self._shifted_s(settings), earlier[int((1 - STRAYS) * (len(earlier) - 1))]):
            return
        self._start_over(newest[-late:])

    def _start_over(self, samples: list[tuple[float, float]]) -> None:
        self._window.clear()
        self._newest.clear()
        self._newest.extend(samples)
        for at, sample in samples:
            while self._window and self._window[-1][1] >= sample:
                self._window.pop()
            self._window.append((at, sample))
        self.smoothed_s = sum(sample for _, sample in samples) / len(samples)

    @property
    def min_s(self) -> float:
        """Smallest sample of the window; 0.0 only where there is no sample at all."""
        return self._window[0][1] if self._window else 0.0

    def corroborated(self, now: float, settings: MembershipSettings) -> bool:
        """At least 2 samples spread over `rtt_spread_s`, the last fresher than `rtt_fresh_s`."""
        return (
            self.samples >= 2
            and self.last_at_s - self.first_at_s >= settings.rtt_spread_s
            and now - self.last_at_s < settings.rtt_fresh_s
        )

    def timeout_s(self, settings: MembershipSettings) -> float:
        """How long to wait for an answer: 3 x smoothed + 4 x variation within the preset's bounds. RFC 6298's
        time-out, with three means for one: a slow answer is no loss."""
        if self.samples == 0:
            return settings.probe_timeout_max_s
        wanted_s = 3 * self.smoothed_s + 4 * self.variation_s
        return max(settings.probe_timeout_min_s, min(settings.probe_timeout_max_s, wanted_s))

    def figure(self, now: float, settings: MembershipSettings) -> RttFigure | None:
        """The measured figure, or None without a sample."""
        if self.samples == 0:
            return None
        return RttFigure(
            min_ms=self.min_s * 1e3,
            smoothed_ms=self.smoothed_s * 1e3,
            variation_ms=self.variation_s * 1e3,
            samples=self.samples,
            age_s=max(0.0, now - self.last_at_s),
            corroborated=self.corroborated(now, settings),
            source=RttSource.MEASURED,
        )
