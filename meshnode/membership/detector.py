"""SWIM's probes, and the burst that examines an accusation.

Theory of operation (SWIM sections 3 and 4.3; Lifeguard section IV). Each period one linked peer is pinged, in a
shuffled round robin, so that every peer is probed within a bounded time; of the next `PROBE_CHOICE` the one silent for
longest goes first. A peer whose ping or ack came in the last `RECENT_PERIODS` is passed over, since a ping proves its
sender's life as well as an ack does: after a death more probes go to the silent. (Other messages don't count: what is
sent to everybody at once would keep everybody from looking at once.) No answer within the link's own time-out:
`indirect_probes` other peers are asked to ping it, and a ping goes down the reliable control stream. Still nothing in
the same time again: the `judge` is told. Any packet from the peer counts as its answer, whatever it says.

A burst is three spaced datagrams and one stream ping at a node that somebody accused, whose link was lost, or whose
address answered with an ICMP refusal; without a link it is a dial and indirect pings. Its outcome goes to the judge.

What lives here: `Detector`, `Probe`, `Burst`, and answering ping requests. What does not: verdicts (`judge`), RTT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.membership.awareness import ANSWERED, NO_NACK, Awareness
from meshnode.membership.board import Board
from meshnode.membership.silence import Silence
from meshnode.membership.timers import Timer
from proto.ids import NodeId
from proto.messages import IndirectAck, PingRequest

if TYPE_CHECKING:
    from meshnode.membership.judge import Judge
    from meshnode.membership.pings import Pings
    from meshnode.membership.relaying import Relaying
    from meshnode.membership.topology import Topology

NACK_SHARE = 0.8
"""A relay says "no answer" at this share of the time-out, so that it comes before the asker gives up (Lifeguard)."""
RECENT_PERIODS = 2
"""With more, a node that dies just after its start, when everybody has pinged it, would go unnoticed for that long."""
PROBE_CHOICE = 8
"""SWIM draws the target at random, with a long tail until somebody draws the dead. The most silent of a few shortens it
(16 nodes: p95 from 3.0 to 2.5 s); the order of a round stays random."""
RELAY_CHOICE = 2
"""Relays are drawn from this many times as many peers as are asked."""
MAX_ERRANDS = 256
"""Ping requests of others in hand at once; more are answered with a nack at once."""


class Probe:
    """One probe round of one target."""

    __slots__ = ("acked", "nacks", "relays", "started_at_s", "target", "timer")

    def __init__(self, target: NodeId, now: float) -> None:
        self.target = target
        self.started_at_s = now
        self.relays = 0
        self.nacks = 0
        self.acked = False
        self.timer: Timer | None = None

    @property
    def missing_nacks(self) -> int:
        """Relays that said nothing at all; with no relay to ask, the silence itself counts once (memberlist)."""
        return self.relays - self.nacks if self.relays else 1


class Burst:
    """One examination of one target."""

    __slots__ = ("linked", "started_at_s", "target", "timer", "to_send")

    def __init__(self, target: NodeId, to_send: int, linked: bool, now: float) -> None:
        self.target = target
        self.started_at_s = now
        self.to_send = to_send
        self.linked = linked
        self.timer: Timer | None = None


class Detector:
    """Probes and bursts of one node. `judge`, `pings`, `relaying` and `topology` are set by the composition."""

    judge: Judge
    pings: Pings
    relaying: Relaying
    topology: Topology

    def __init__(self, board: Board, awareness: Awareness) -> None:
        self._board = board
        self._awareness = awareness
        self._ring: list[NodeId] = []
        self._next = 0
        self._probes: dict[NodeId, Probe] = {}
        self.bursts: dict[NodeId, Burst] = {}
        self._requests: dict[int, Probe | Burst] = {}
        self.silence = Silence(board)
        self._errands: dict[int, tuple[NodeId, int, NodeId]] = {}
        """Pings sent for others: nonce -> (asker, its nonce, target)."""

    def start(self, now: float) -> None:
        """Begins the periods, at a random phase."""
        first_s = self._board.rng.random() * self._board.settings.probe_interval_s
        self._board.timers.at(now + first_s, self._period)

    # --- the round robin ---

    def linked(self, peer: NodeId) -> None:
        """A new peer takes a random place among those still to come (SWIM section 4.3)."""
        if peer not in self._ring:
            self._ring.insert(self._board.rng.randint(min(self._next, len(self._ring)), len(self._ring)), peer)

    def _period(self, _: None, now: float) -> None:
        interval_s = self._awareness.scale(self._board.settings.probe_interval_s)
        self._board.timers.at(now + self._board.jittered(interval_s, 0.1), self._period)
        target = self._next_target(now)
        if target is not None:
            self._probe(target, now)

    def _next_target(self, now: float) -> NodeId | None:
        """Of the next few linked peers of this round the one silent for longest; the others keep their turns. Those
        under examination and those probed just now are passed over, unless there are no others. Reshuffles at the end
        of each round."""
        recent_s = now - RECENT_PERIODS * self._board.settings.probe_interval_s
        for _ in range(2):
            if (place := self._silent_for_longest(recent_s)) is not None:
                ring, first = self._ring, self._next
                ring[first], ring[place] = ring[place], ring[first]
                self._next += 1
                return ring[first]
            self._ring = [peer for peer in self._ring if peer in self._board.links]
            self._board.rng.shuffle(self._ring)
            self._next = 0
        return self._heard_longest_ago()

    def _silent_for_longest(self, recent_s: float) -> int | None:
        """Its place in the ring, among the next `PROBE_CHOICE` that may be probed; None where the round has none."""
        links, cases, ring = self._board.links, self.judge.cases, self._ring
        found, found_s, left = None, recent_s, PROBE_CHOICE
        for place in range(self._next, len(ring)):
            peer = ring[place]
            link = links.get(peer)
            if link is None or link.probed_at_s >= recent_s or peer in cases or peer in self._probes:
                continue
            if link.probed_at_s < found_s:
                found, found_s = place, link.probed_at_s
            left -= 1
            if not left:
                break
        return found

    def _heard_longest_ago(self) -> NodeId | None:
        cases = self.judge.cases
        free = [link for peer, link in self._board.links.items() if peer not in cases and peer not in self._probes]
        return min(free, key=lambda link: link.probed_at_s).peer if free else None

    # --- one probe ---

    def _probe(self, target: NodeId, now: float) -> None:
        probe = Probe(target, now)
        self._probes[target] = probe
        self.pings.datagram(target, now)
        timeout_s = self._awareness.scale(self._board.links[target].rtt.timeout_s(self._board.settings))
        probe.timer = self._board.timers.at(now + timeout_s, self._direct_failed, probe)

    def _direct_failed(self, probe: Probe, now: float) -> None:
        link = self._board.links.get(probe.target)
        if link is None:
            self._probes.pop(probe.target, None)
            return
        settings = self._board.settings
        relays = self._relays(probe.target)
        for relay in relays:
            self._request(relay, probe.target, probe, now)
        probe.relays = len(relays)
        self.pings.reliable(probe.target, now)
        timeout_s = self._awareness.scale(link.rtt.timeout_s(settings))
        probe.timer = self._board.timers.at(now + timeout_s, self._probe_ended, probe)

    def _relays(self, target: NodeId) -> list[NodeId]:
        """Whom to ask: random ones of those heard last. Where many die at once, a relay that is dead too would say
        nothing, and its silence would be taken for trouble of this node's own."""
        count = self._board.settings.indirect_probes
        links = self._board.links
        candidates = self._board.some_links(len(links), {target})
        candidates.sort(key=lambda peer: links[peer].probed_at_s, reverse=True)
        del candidates[RELAY_CHOICE * count :]
        return candidates if len(candidates) <= count else self._board.rng.sample(candidates, count)

    def _request(self, relay: NodeId, target: NodeId, purpose: Probe | Burst, now: float) -> None:
        nonce = self._board.nonce()
        self._requests[nonce] = purpose
        self._board.send_datagram(relay, PingRequest(nonce, target))
        self._board.timers.at(now + 10 * self._board.settings.probe_timeout_max_s, self._forget, nonce)

    def _forget(self, nonce: int, _: float) -> None:
        self._requests.pop(nonce, None)

    def _probe_ended(self, probe: Probe, now: float) -> None:
        if self._probes.pop(probe.target, None) is not probe or probe.acked:
            return
        self._awareness.change(NO_NACK * max(0, probe.missing_nacks))
        if probe.target in self._board.links:
            self.judge.accuse(probe.target, now)
        self.silence.probe_unanswered(probe.started_at_s)
        for peer in self.silence.roll_call(now):
            if peer not in self.judge.cases:
                self.burst(peer, now)

    # --- bursts ---

    def burst(self, target: NodeId, now: float, dial: bool = True) -> None:
        """Examines `target` at once, unless a burst at it is under way. `dial=False` where a dial has just failed."""
        if target in self.bursts:
            return
        linked = target in self._board.links
        burst = Burst(target, self._board.settings.burst_datagrams, linked, now)
        self.bursts[target] = burst
        if linked:
            self.pings.reliable(target, now)
            self._burst_step(burst, now)
        else:
            self._burst_from_afar(burst, dial, now)

    def _burst_step(self, burst: Burst, now: float) -> None:
        settings = self._board.settings
        if burst.to_send == 0:
            self._burst_over(burst, now)
            return
        self.pings.datagram(burst.target, now)
        burst.to_send -= 1
        link = self._board.links.get(burst.target)
        wait_s = settings.burst_spacing_s
        if burst.to_send == 0:
            wait_s = settings.probe_timeout_max_s if link is None else link.rtt.timeout_s(settings)
            wait_s = self._awareness.scale(wait_s)
        burst.timer = self._board.timers.at(now + wait_s, self._burst_step, burst)

    def _burst_from_afar(self, burst: Burst, dial: bool, now: float) -> None:
        """No link: dial the target, and ask those that may reach it."""
        if dial:
            self.topology.dial_now(burst.target, now)
        for relay in self.relaying.likely_carriers(burst.target, self._board.settings.indirect_probes):
            self._request(relay, burst.target, burst, now)
        wait_s = self._awareness.scale(2 * self._board.settings.probe_timeout_max_s)
        burst.timer = self._board.timers.at(now + wait_s, self._burst_over, burst)

    def _burst_over(self, burst: Burst, now: float) -> None:
        if self.bursts.pop(burst.target, None) is burst:
            # Without a link the burst is a dial that may be slow: the suspect's time to prove itself begins after it.
            since_s = burst.started_at_s if burst.linked else now
            self.judge.burst_ended(burst.target, False, since_s, now)

    def end_burst(self, target: NodeId) -> None:
        """The case is closed; the rest of the burst is not needed."""
        burst = self.bursts.pop(target, None)
        if burst is not None and burst.timer is not None:
            burst.timer.cancel()

    def vigil(self, target: NodeId, now: float) -> None:
        """Keeps pinging a suspect until its case is closed: any answer saves it."""
        due_s = now + self._board.settings.vigil_interval_s
        self._board.timers.at(due_s, self._vigil_step, target)

    def _vigil_step(self, target: NodeId, now: float) -> None:
        if target not in self.judge.cases:
            return
        if target in self._board.links and target not in self.bursts:
            self.pings.datagram(target, now)
        self.vigil(target, now)

    # --- evidence ---

    def heard(self, peer: NodeId, received_at: float, now: float) -> None:
        """Any packet from `peer` answers its probe and its burst, if it came after these began: one that waited in a
        queue says nothing of the peer's life now."""
        probe = self._probes.get(peer)
        if probe is not None and received_at >= probe.started_at_s:
            del self._probes[peer]
            self._probe_answered(probe)
        burst = self.bursts.get(peer)
        if burst is not None and received_at >= burst.started_at_s:
            self.end_burst(peer)
            self.judge.burst_ended(peer, True, burst.started_at_s, now)
        if self.silence.broken_by(peer, received_at):
            self.judge.start_over(now)

    def _probe_answered(self, probe: Probe) -> None:
        probe.acked = True
        self.silence.end()
        if probe.timer is not None:
            probe.timer.cancel()
        self._awareness.change(ANSWERED)

    def unlinked(self, peer: NodeId) -> None:
        """The link is gone: its probe proves nothing any more."""
        probe = self._probes.pop(peer, None)
        if probe is not None and probe.timer is not None:
            probe.timer.cancel()

    def abandon(self) -> None:
        """After a stall: drops every probe and burst without a verdict."""
        for probe in self._probes.values():
            if probe.timer is not None:
                probe.timer.cancel()
        self._probes.clear()
        self.silence.end()
        for target in list(self.bursts):
            self.end_burst(target)

    # --- errands for others, and their answers to us ---

    def handle_request(self, asker: NodeId, request: PingRequest, now: float) -> None:
        """Pings `request.target` for `asker`; a nack where there is no link or no answer."""
        target = NodeId(request.target)
        link = self._board.links.get(target)
        if link is None or len(self._errands) >= MAX_ERRANDS:
            self._board.send_datagram(asker, IndirectAck(request.nonce, target, 0, answered=False))
            return
        nonce = self.pings.datagram(target, now)
        self._errands[nonce] = (asker, request.nonce, target)
        wait_s = NACK_SHARE * link.rtt.timeout_s(self._board.settings)
        self._board.timers.at(now + wait_s, self._errand_failed, nonce)

    def errand_answered(self, nonce: int, incarnation: int) -> None:
        """An ack came; if it was an errand's, its asker is told."""
        errand = self._errands.pop(nonce, None)
        if errand is not None:
            asker, their_nonce, target = errand
            self._board.send_datagram(asker, IndirectAck(their_nonce, target, incarnation, answered=True))

    def _errand_failed(self, nonce: int, _: float) -> None:
        errand = self._errands.pop(nonce, None)
        if errand is not None:
            asker, their_nonce, target = errand
            self._board.send_datagram(asker, IndirectAck(their_nonce, target, 0, answered=False))

    def handle_indirect(self, relay: NodeId, answer: IndirectAck, now: float) -> None:
        """A relay's ack or nack to our own request."""
        purpose = self._requests.pop(answer.nonce, None)
        if purpose is None or purpose.target != answer.target:
            return
        if answer.answered:
            self.relaying.carrier_found(purpose.target, relay, now)
        if isinstance(purpose, Burst):
            if answer.answered and self.bursts.get(purpose.target) is purpose:
                self.end_burst(purpose.target)
                self.judge.burst_ended(purpose.target, True, purpose.started_at_s, now)
        elif not answer.answered:
            purpose.nacks += 1
        elif self._probes.get(purpose.target) is purpose:
            del self._probes[purpose.target]
            self._probe_answered(purpose)
