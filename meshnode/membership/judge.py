"""Who is alive: how accusations are examined, refuted, and end in a verdict.

Theory of operation. A node whose probe failed *accuses*: it signs a suspect claim and pushes it. Whoever hears a claim
opens a case:

- A judge with a link to the accused believes its own eyes: it sends a burst (`detector`), and only if that burst fails
  does the accused become suspect to it, and dead once the suspicion time (`suspicion`) is over. Any authenticated
  packet from the accused that is newer than the accusation acquits, and the accusers are told so.
- A judge without a link holds the accused suspect at once and counts accusers: with `accusers_needed` of them the
  suspicion time decides; a single one is never enough before the longest time and an own failed indirect burst.
- The accused hears of it in the burst's pings (Lifeguard's buddy notice) or in gossip, and refutes by a higher
  incarnation, which ends every case everywhere.

Only the owner raises its incarnation. Claims at a lower one are stale and answered with the newer record; a record at
or below a tombstone's incarnation is stale and answered with the accusation (al8n/memberlist 197). A witness's `alive`
claim counts only from the witness itself, over its own link: relayed later it would prove nothing. An accuser who was
wrong over and over about one node is told so at once by those that hear the node (`credit`).

What lives here: cases and status changes of others. What does not: pings, the local node's refutation (`publisher`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.events import (
    HealthChanged,
    PeerDead,
    PeerLeft,
    PeerRefuted,
    PeerReturned,
    PeerSuspect,
    RecordRejected,
)
from meshnode.membership.awareness import ACCUSED_WRONGLY, Awareness
from meshnode.membership.board import Board
from meshnode.membership.credit import FRESH_S, Credit
from meshnode.membership.effects import CloseLink
from meshnode.membership.gossip import MAX_DELTA_ITEMS
from meshnode.membership.records import MAX_INCARNATION_JUMP, NodeEntry
from meshnode.membership.suspicion import Suspicion
from meshnode.membership.trust import UNSIGNED
from meshnode.membership.view import Status
from proto.ids import NodeId
from proto.messages import Claim, ClaimKind, RefusalCode
from proto.parts import IdentityPart

if TYPE_CHECKING:
    from meshnode.membership.detector import Detector
    from meshnode.membership.gossip import Gossip
    from meshnode.membership.topology import Topology

MAX_CLAIMS_KEPT = 4
"""Claims kept with a tombstone as its grounds, and dead claims forwarded."""
_RANK = {ClaimKind.ALIVE: 0, ClaimKind.SUSPECT: 1, ClaimKind.DEAD: 2}


class Judge:
    """The open cases of one node. `gossip`, `detector` and `topology` are set by the composition."""

    gossip: Gossip
    detector: Detector
    topology: Topology

    def __init__(self, board: Board, awareness: Awareness) -> None:
        self._board = board
        self._awareness = awareness
        self.cases: dict[NodeId, Suspicion] = {}
        self._credit = Credit()
        self._unsaid: list[Claim] = []
        """Own claims of this moment."""
        self._settled: dict[NodeId, tuple[int, set[tuple[NodeId, ClaimKind]]]] = {}
        """Claims already answered for an incarnation, so that late copies don't open the case again."""

    # --- inputs ---

    def accuse(self, peer: NodeId, now: float, burst_failed_since_s: float | None = None) -> None:
        """The local node's own probe (or burst, since that moment) of `peer` failed."""
        entry = self._board.live_entry(peer)
        if entry is None or now < self._board.quiet_until_s:
            return
        case = self.cases.get(peer)
        if case is None:
            case = self._open(entry, self._board.node, now)
        else:
            case.confirm(self._board.node)
        if burst_failed_since_s is not None:
            case.opened_at_s = min(case.opened_at_s, burst_failed_since_s)
            case.burst_failed = True
        self._hold_suspect(entry, case, now)
        self._publish(case, ClaimKind.SUSPECT, now)
        if burst_failed_since_s is None:
            self.detector.burst(peer, now)
        self._review(case, now)

    def hear_claim(self, claim: Claim, via: NodeId, now: float) -> None:
        """A claim about another node came over the link to `via`. Stale, repeated and unsigned ones change nothing."""
        entry = self._board.store.get(NodeId(claim.subject))
        if entry is None or claim.accuser == claim.subject or claim.accuser == self._board.node:
            return
        if claim.incarnation < entry.incarnation:
            self.gossip.tell_newer(via, entry)
            return
        if not entry.is_live or self._already_heard(claim):
            return
        if not self._is_admissible(claim, entry, via):
            return
        if claim.kind is ClaimKind.ALIVE:
            if claim.accuser == via:
                self._acquit(entry, via, now)
            return
        if self._needs_no_look(entry, NodeId(claim.accuser), now):
            self._testify(entry.node, claim.incarnation, (NodeId(claim.accuser),))
            return
        self._examine(entry, claim, via, now)

    def heard(self, entry: NodeEntry, received_at: float, now: float) -> None:
        """An authenticated packet came from the node itself while a case is open or it is held dead."""
        case = self.cases.get(entry.node)
        if case is not None:
            if received_at >= case.opened_at_s:
                self._acquit(entry, self._board.node, now)
        elif entry.status is Status.DEAD:
            self.gossip.answer_with_accusation(entry.node, entry, now)

    def burst_ended(self, peer: NodeId, answered: bool, started_at_s: float, now: float) -> None:
        """The local node's burst at `peer` is over."""
        entry = self._board.live_entry(peer)
        if entry is None:
            return
        case = self.cases.get(peer)
        if answered:
            if case is not None:
                self._acquit(entry, self._board.node, now)
            return
        if now < self._board.quiet_until_s:
            # A case keeps probes away from its subject: without another burst nobody would ever look again.
            if case is not None:
                self._board.timers.at(self._board.quiet_until_s, self._burst_again, case)
            return
        if case is None:
            self.accuse(peer, now, burst_failed_since_s=started_at_s)
            return
        case.burst_failed = True
        self._hold_suspect(entry, case, now)
        if case.confirm(self._board.node):
            self._publish(case, ClaimKind.SUSPECT, now)
        self._review(case, now)

    def owner_says(self, entry: NodeEntry, part: IdentityPart, now: float) -> None:
        """A new identity part of the owner was stored. Its incarnation decides; `left` is final for it."""
        newer = part.incarnation > entry.incarnation
        was, since_s = entry.status, entry.status_since_s
        if newer:
            entry.incarnation = part.incarnation
            self._settled.pop(entry.node, None)
        if part.left:
            self._say_goodbye(entry, now)
        elif newer:
            self._return(entry, was, since_s, now)

    def forget(self, peer: NodeId) -> None:
        """`peer` is revoked: nothing about it is examined any more."""
        self.cases.pop(peer, None)
        self._settled.pop(peer, None)

    def start_over(self, now: float) -> None:
        """After a stall, or once a node that was cut off hears somebody: the silence was its own, and every case begins
        anew."""
        for case in self.cases.values():
            case.opened_at_s = now
            case.burst_failed = None
            self.detector.burst(case.subject, now)

    def accused_incarnation(self, peer: NodeId) -> int:
        """The buddy notice for a ping to `peer`: the incarnation held suspect or dead, 0 where it is in good
        standing."""
        case = self.cases.get(peer)
        if case is not None:
            return case.incarnation
        entry = self._board.store.entries.get(peer)
        return entry.incarnation if entry is not None and entry.status is Status.DEAD else 0

    # --- examination ---

    def _already_heard(self, claim: Claim) -> bool:
        case = self.cases.get(NodeId(claim.subject))
        if case is not None:
            held = case.claims.get(NodeId(claim.accuser))
            return held is not None and _RANK[held.kind] >= _RANK[claim.kind] and claim.kind is not ClaimKind.ALIVE
        if claim.kind is ClaimKind.ALIVE:
            return True
        settled = self._settled.get(NodeId(claim.subject))
        return settled is not None and settled[0] >= claim.incarnation and (claim.accuser, claim.kind) in settled[1]

    def _is_admissible(self, claim: Claim, entry: NodeEntry, via: NodeId) -> bool:
        """The accuser is a living member, the incarnation is possible, the signature is good."""
        reason = None
        if self._board.live_entry(NodeId(claim.accuser)) is None:
            return False
        if claim.incarnation > entry.incarnation + MAX_INCARNATION_JUMP:
            reason = f"incarnation {claim.incarnation} is impossibly far above {entry.incarnation}"
        elif not self._board.trust.claim_is_signed(claim):
            reason = f"signature of accuser {claim.accuser} does not verify"
        if reason is not None:
            self._board.emit(RecordRejected(entry.node, via, f"claim.{claim.kind}", reason))
        return reason is None

    def _needs_no_look(self, entry: NodeEntry, accuser: NodeId, now: float) -> bool:
        """Its accuser was wrong over and over, and the accused was heard here just now."""
        if entry.node not in self._board.links or entry.node in self.cases or entry.heard_at_s is None:
            return False
        return now - entry.heard_at_s < FRESH_S and self._credit.is_spent(accuser, entry.node, now)

    def _examine(self, entry: NodeEntry, claim: Claim, via: NodeId, now: float) -> None:
        if claim.incarnation > entry.incarnation:
            entry.incarnation = claim.incarnation
            self._board.store.touch(entry)
            self.cases.pop(entry.node, None)
        accuser = NodeId(claim.accuser)
        case = self.cases.get(entry.node)
        news = case is None
        if case is None:
            case = self._open(entry, accuser, now)
        else:
            news = case.confirm(accuser)
        case.claims[accuser] = claim
        dead_claims = sum(held.kind is ClaimKind.DEAD for held in case.claims.values())
        if news or (claim.kind is ClaimKind.DEAD and dead_claims <= MAX_CLAIMS_KEPT):
            self.gossip.pass_on_claim(claim, via)
        if entry.node in self._board.links:
            if case.burst_failed is None:
                self.detector.burst(entry.node, now)
        else:
            self._hold_suspect(entry, case, now)
        self._review(case, now)

    def _open(self, entry: NodeEntry, accuser: NodeId, now: float) -> Suspicion:
        # Besides the subject and the first accuser, everybody may confirm, this node included.
        others = self._board.store.live_count - 2
        needed = max(0, min(self._board.settings.suspicion_confirmations, others))
        case = Suspicion(entry.node, entry.incarnation, accuser, needed, now)
        self.cases[entry.node] = case
        return case

    def _hold_suspect(self, entry: NodeEntry, case: Suspicion, now: float) -> None:
        if entry.status is not Status.ALIVE:
            return
        self._board.store.set_status(entry, Status.SUSPECT, now)
        settings = self._board.settings
        time_s = case.time_s(settings.suspicion_min_s, settings.suspicion_max_s)
        self._board.emit(PeerSuspect(entry.node, entry.incarnation, case.first_accuser, time_s))
        self.detector.vigil(entry.node, now)

    def _publish(self, case: Suspicion, kind: ClaimKind, now: float) -> None:
        """Signs the local node's own claim, and says it down every link."""
        claim = self._sign(case.subject, case.incarnation, kind)
        case.claims[self._board.node] = claim
        self._say(claim, now)

    def _say(self, claim: Claim, now: float) -> None:
        """With all that this moment brings: half a mesh may be found silent at once, and each would hear of each."""
        if not self._unsaid:
            self._board.timers.at(now, self._speak)
        self._unsaid.append(claim)

    def _speak(self, _: None, now: float) -> None:
        claims, self._unsaid = self._unsaid, []
        if self.detector.silence.is_cut_off:
            return
        for start in range(0, len(claims), MAX_DELTA_ITEMS):
            self.gossip.push_claims(tuple(claims[start : start + MAX_DELTA_ITEMS]))

    def _sign(self, subject: NodeId, incarnation: int, kind: ClaimKind) -> Claim:
        board = self._board
        return board.trust.sign_claim(Claim(kind, subject, incarnation, board.node, board.incarnation, UNSIGNED))

    # --- the end of a case ---

    def _review(self, case: Suspicion, now: float) -> None:
        """Passes the verdict if it is due, else looks again at the moment it may be."""
        settings = self._board.settings
        due_s = case.opened_at_s + case.time_s(settings.suspicion_min_s, settings.suspicion_max_s)
        due_s = max(due_s, self._board.quiet_until_s)
        if now < due_s:
            self._board.timers.at(due_s, self._look_again, case)
            return
        linked = case.subject in self._board.links
        if linked or case.burst_failed is not None:
            if case.burst_failed:
                self._bury(case, now)
            return
        if self._accusers_suffice(case):
            self._bury(case, now)
        elif now >= case.opened_at_s + settings.suspicion_max_s:
            self.detector.burst(case.subject, now)
        else:
            self._board.timers.at(case.opened_at_s + settings.suspicion_max_s, self._look_again, case)

    def _look_again(self, case: Suspicion, now: float) -> None:
        if self.cases.get(case.subject) is case:
            self._review(case, now)

    def _burst_again(self, case: Suspicion, now: float) -> None:
        if self.cases.get(case.subject) is case and not case.burst_failed:
            self.detector.burst(case.subject, now)

    def _accusers_suffice(self, case: Suspicion) -> bool:
        """Enough accusers for a judge without a link: `accusers_needed`, or all others there are."""
        possible = max(1, self._board.store.live_count - 2)
        return len(case.accusers) >= min(self._board.settings.accusers_needed, possible)

    def _bury(self, case: Suspicion, now: float) -> None:
        entry = self._board.live_entry(case.subject)
        self._close(case)
        if entry is None:
            return
        since_s = entry.heard_at_s if entry.heard_at_s is not None else entry.status_since_s
        judged_itself = case.burst_failed is True
        foreign_dead = sum(claim.kind is ClaimKind.DEAD for claim in case.claims.values())
        if judged_itself:
            case.claims[self._board.node] = self._sign(entry.node, case.incarnation, ClaimKind.DEAD)
        grounds = sorted(case.claims.items(), key=lambda item: -_RANK[item[1].kind])
        entry.claims = dict(grounds[:MAX_CLAIMS_KEPT])
        self._board.store.set_status(entry, Status.DEAD, now)
        self._board.emit(PeerDead(entry.node, entry.incarnation, tuple(sorted(case.accusers)), now - since_s))
        if judged_itself and (foreign_dead < self._board.settings.accusers_needed or self._board.is_large):
            self._say(case.claims[self._board.node], now)
        if entry.node in self._board.links:
            self._board.effects.append(CloseLink(entry.node, RefusalCode.UNREACHABLE, "no answer to probes: held dead"))
        self.topology.lost(entry.node, now)

    def _acquit(self, entry: NodeEntry, witness: NodeId, now: float) -> None:
        """The accused lives: `witness` heard it. Accusers with a link to us are told (the witness's alive claim)."""
        case = self.cases.get(entry.node)
        if case is None:
            return
        self._close(case)
        self._settled[entry.node] = (case.incarnation, {(who, claim.kind) for who, claim in case.claims.items()})
        if entry.status is Status.SUSPECT:
            self._board.store.set_status(entry, Status.ALIVE, now)
        self._board.emit(PeerRefuted(entry.node, entry.incarnation, case.first_accuser, witness))
        if witness == self._board.node:
            accusers = tuple(sorted(case.accusers - {self._board.node}))
            for accuser in accusers:
                self._credit.refuted(accuser, case.subject, now)
            self._testify(case.subject, case.incarnation, accusers)
        else:
            self._was_wrong(case)

    def _testify(self, subject: NodeId, incarnation: int, accusers: tuple[NodeId, ...]) -> None:
        tell = [accuser for accuser in accusers if accuser in self._board.links]
        if tell:
            claim = self._sign(subject, incarnation, ClaimKind.ALIVE)
            for accuser in tell:
                self.gossip.send_claims(accuser, (claim,))

    def _was_wrong(self, case: Suspicion) -> None:
        """Others refuted an accusation: if it was ours first, our own path or processor is in doubt."""
        if case.first_accuser == self._board.node and self._awareness.change(ACCUSED_WRONGLY):
            reason = f"our accusation of {case.subject} was refuted"
            self._board.emit(HealthChanged(self._awareness.score, reason))

    def _close(self, case: Suspicion) -> None:
        self.cases.pop(case.subject, None)
        self.detector.end_burst(case.subject)

    # --- the owner's word ---

    def _say_goodbye(self, entry: NodeEntry, now: float) -> None:
        if entry.status is Status.LEFT:
            return
        case = self.cases.get(entry.node)
        if case is not None:
            self._close(case)
        entry.claims = None
        self._board.store.set_status(entry, Status.LEFT, now)
        self._board.emit(PeerLeft(entry.node, entry.incarnation))
        self.topology.gone(entry.node)

    def _return(self, entry: NodeEntry, was: Status, since_s: float, now: float) -> None:
        entry.claims = None
        case = self.cases.get(entry.node)
        if case is not None:
            self._close(case)
            self._board.emit(PeerRefuted(entry.node, entry.incarnation, case.first_accuser, entry.node))
            self._was_wrong(case)
        if was is not Status.ALIVE:
            self._board.store.set_status(entry, Status.ALIVE, now)
        if was in (Status.DEAD, Status.LEFT):
            self._board.emit(PeerReturned(entry.node, entry.incarnation, was.value, now - since_s))
            self.topology.learned(entry.node, now)
