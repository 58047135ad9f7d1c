"""Pings and acks: their nonces, the RTT samples they give, and the schedule of timed pings.

A ping carries the sender's incarnation and, as a buddy notice, the incarnation it holds the receiver suspect or dead at
(Lifeguard, section IV-C). What is timed is from when its packet was handed to the kernel until the kernel got the ack's
(`left`, `received_at`), so that neither end's own work is part of it. An ack tells how long it was held, which is
subtracted, and whether its sender's loop lagged, in which case the sample is dropped; so is one whose ack was held for
longer than `sample_lateness_s`, whatever its sender says of that. How long it held an ack is the peer's own word: this
is also the most by which a peer can make itself look nearer, and one that says more than the round trip took is told.
Timed pings go out at link-up, after 1 s and 5.5 s (so that a link is corroborated after 5.5 s), twice more where one of
these gave no sample, then every `rtt_interval_s`, skipping links that a probe has just sampled.

What lives here: `Pings`. What does not: what a missing ack means (`detector`), the estimator (`rtt`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.events import RttChanged, WireRejected
from meshnode.membership.board import Board
from meshnode.membership.coordinates import LocalCoordinate
from meshnode.membership.links import Link
from meshnode.membership.rtt import RttEstimator
from proto.ids import NodeId
from proto.messages import Ack, Ping, RowRequest

if TYPE_CHECKING:
    from meshnode.membership.detector import Detector
    from meshnode.membership.judge import Judge
    from meshnode.membership.publisher import Publisher

FIRST_SAMPLES_S = (1.0, 5.5, 6.5, 8.0)
"""Timed pings after the first one at link-up; the second makes two samples spread over more than 5 s, and those after
it are left out where it has."""
MEASURE_SPACING_S = 5.2
"""Between the two samples of a measurement on demand: spread enough to corroborate."""
JITTER = 0.2
PROBED_INTERVAL = 1.5
MAX_HOLD_US = 600_000_000
FORGET_PINGS_AFTER_S = 15.0
STAMP_ERROR_S = 0.0005
"""By as much a sample may come out below zero where the path takes next to nothing: the stamps' errors."""
SHORTEST_S = 0.00001
"""No path is shorter."""


class Pings:
    """Outgoing pings by nonce. `detector`, `judge` and `publisher` are set by the composition."""

    detector: Detector
    judge: Judge
    publisher: Publisher

    def __init__(self, board: Board, coordinate: LocalCoordinate) -> None:
        self._board = board
        self._coordinate = coordinate
        self._sent: dict[int, tuple[NodeId, float, bool]] = {}
        """nonce -> (peer, sent at, timed)."""
        self._sweep_above = 256

    # --- sending ---

    def datagram(self, peer: NodeId, now: float, rtt: bool = False) -> int:
        """One timed ping in a datagram; returns its nonce."""
        nonce = self._remember(peer, now, True)
        accused_at = self.judge.accused_incarnation(peer)
        self._board.send_datagram(peer, Ping(nonce, self._board.incarnation, rtt, accused_at))
        return nonce

    def measure(self, peer: NodeId, now: float) -> None:
        """Samples the RTT to a linked peer at once and again later; in a large mesh it is asked for its row, too."""
        self.datagram(peer, now, rtt=True)
        self._board.timers.at(now + MEASURE_SPACING_S, self._measure_again, peer)
        if self._board.is_large:
            self._board.send(peer, RowRequest(self._board.nonce()), coalesce="row_request")

    def _measure_again(self, peer: NodeId, now: float) -> None:
        if peer in self._board.links:
            self.datagram(peer, now, rtt=True)

    def reliable(self, peer: NodeId, now: float) -> int:
        """One ping on the control stream: gets through where datagrams are lost or blocked; gives no RTT sample."""
        nonce = self._remember(peer, now, False)
        accused_at = self.judge.accused_incarnation(peer)
        self._board.send(peer, Ping(nonce, self._board.incarnation, False, accused_at), coalesce="ping")
        return nonce

    def _remember(self, peer: NodeId, now: float, timed: bool) -> int:
        if len(self._sent) >= self._sweep_above:
            self._sent = {n: ping for n, ping in self._sent.items() if now - ping[1] < FORGET_PINGS_AFTER_S}
            self._sweep_above = 256 + 2 * len(self._sent)
        nonce = self._board.nonce()
        self._sent[nonce] = (peer, now, timed)
        return nonce

    def left(self, nonce: int, at_s: float | None) -> None:
        """When the ping really left; None where it did not yet."""
        sent = self._sent.get(nonce)
        if sent is not None:
            self._sent[nonce] = (sent[0], sent[1], False) if at_s is None else (sent[0], at_s, sent[2])

    # --- the schedule of timed pings ---

    def linked(self, link: Link, now: float) -> None:
        """A link is up: its first sample, and the two that corroborate it."""
        self.datagram(link.peer, now, rtt=True)
        self._schedule(link, 0, now)

    def _schedule(self, link: Link, step: int, now: float) -> None:
        if step < len(FIRST_SAMPLES_S):
            link.rtt_timer = self._board.timers.at(link.up_at_s + FIRST_SAMPLES_S[step], self._due, (link, step))
        else:
            self._schedule_after(now, link, step)

    def _schedule_after(self, sample_at_s: float, link: Link, step: int) -> None:
        """The next timed ping one interval after a sample."""
        due_s = sample_at_s + self._board.jittered(self._interval_s(), JITTER)
        link.rtt_timer = self._board.timers.lazily_at(due_s, self._due, (link, step))

    def _due(self, what: tuple[Link, int], now: float) -> None:
        link, step = what
        if self._board.links.get(link.peer) is not link:
            return
        next_s = link.rtt.last_at_s + (1.0 - JITTER) * self._interval_s()
        is_first = step < len(FIRST_SAMPLES_S) and not link.rtt.corroborated(now, self._board.settings)
        if not is_first:
            step = len(FIRST_SAMPLES_S)
        if is_first or link.rtt.samples == 0 or now >= next_s:
            self.datagram(link.peer, now, rtt=True)
            self._schedule(link, step + 1, now)
        else:
            # A probe took the sample meanwhile: the next one counts from there.
            self._schedule_after(link.rtt.last_at_s, link, step)

    def _interval_s(self) -> float:
        """In a large mesh twice as long: a sample stays fresh for 30 s, and rows are not gossiped there. Where a round
        of probes takes less, half as long again: probes reach every link within two rounds and sample it in passing."""
        settings = self._board.settings
        if self._board.is_large:
            return 2 * settings.rtt_interval_s
        probes_suffice = len(self._board.links) * settings.probe_interval_s <= settings.rtt_interval_s
        return settings.rtt_interval_s * (PROBED_INTERVAL if probes_suffice else 1.0)

    # --- receiving ---

    def ack_for(self, ping: Ping, received_at: float, now: float) -> Ack:
        """The answer to a ping that arrived at `received_at`."""
        hold_us = hold_us_of(now - received_at)
        overloaded = now < self._board.overloaded_until_s
        return Ack(ping.nonce, self._board.incarnation, hold_us, overloaded, self._coordinate.wire())

    def handle_ping(self, peer: NodeId, ping: Ping, received_at: float, now: float, reliable: bool) -> None:
        """Answers the way the ping came; an accusation in it is refuted at once."""
        if ping.accused_at >= self._board.incarnation:
            self.publisher.refute(ping.accused_at, peer, now)
        ack = self.ack_for(ping, received_at, now)
        if reliable:
            self._board.send(peer, ack, coalesce="ack")
        else:
            self._board.send_datagram(peer, ack, received_at)

    def handle_ack(self, peer: NodeId, ack: Ack, received_at: float, now: float) -> None:
        """Matches an ack to its ping and takes the sample. Unknown, repeated or foreign nonces change nothing."""
        sent = self._sent.get(ack.nonce)
        if sent is None or sent[0] != peer:
            return
        del self._sent[ack.nonce]
        self.detector.errand_answered(ack.nonce, ack.incarnation)
        link = self._board.links.get(peer)
        if link is None or not sent[2]:
            return
        held_s, took_s = ack.hold_us / 1e6, received_at - sent[1]
        sample_s = took_s - held_s
        if sample_s <= -STAMP_ERROR_S:
            found, expected = f"{1e3 * held_s:.1f} ms", f"at most the {1e3 * took_s:.1f} ms until it was here"
            self._board.emit(WireRejected(peer, link.facts.address, "ack", "hold_us", found, expected))
            return
        if self.lagged(ack, received_at):
            return
        if sample_s < SHORTEST_S:
            sample_s = SHORTEST_S
        was_corroborated = link.rtt.corroborated(now, self._board.settings)
        if link.rtt.add(sample_s, now, self._board.settings):
            if ack.coordinate is not None:
                self._coordinate.update(peer, link.rtt.min_s, ack.coordinate)
            self._report(link)
            if not was_corroborated and link.rtt.corroborated(now, self._board.settings):
                self._board.store.changes += 1
            self.publisher.measured(link, now)

    def lagged(self, ack: Ack, received_at: float) -> bool:
        """Whether the loop lagged, at either end, when `ack` was sent or came: it gives no sample then."""
        held_too_long = ack.hold_us > 1e6 * self._board.settings.sample_lateness_s
        return ack.overloaded or held_too_long or received_at < self._board.overloaded_until_s

    def _report(self, link: Link) -> None:
        """Says so when the link's figure moved by more than 20 % and 1 ms."""
        new_ms = link.rtt.min_s * 1e3
        old_ms = link.reported_rtt_ms
        if old_ms is None or changed(old_ms / 1e3, new_ms / 1e3, self._board):
            link.reported_rtt_ms = new_ms
            self._board.store.changes += 1
            self._board.emit(RttChanged(link.peer, old_ms, new_ms, link.rtt.samples, link.facts.path.value))


def hold_us_of(held_s: float) -> int:
    """As an ack carries it."""
    return min(MAX_HOLD_US, max(0, round(held_s * 1e6)))


def changed(old_s: float, new_s: float, board: Board) -> bool:
    """Whether an RTT is news: it moved by more than `rtt_change` of the old and more than `rtt_change_s`."""
    settings = board.settings
    return abs(new_s - old_s) > max(settings.rtt_change * old_s, settings.rtt_change_s)


def measured_s(rtt: RttEstimator) -> float | None:
    """The figure of a link: its window minimum; None without a sample."""
    return rtt.min_s if rtt.samples else None
