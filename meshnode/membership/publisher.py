"""The local node's own record: what it says of itself, when, and at which incarnation.

Nothing is republished on a timer: liveness comes from probes. The identity goes out when addresses or software change;
the offer when a figure moved by more than 5 % or anything else changed, at most once a second; the network part when an
RTT moved by more than 20 % and 1 ms, a link became corroborated, or the coordinate moved or became much surer. Above
`max_links` nodes the row stays empty, only the coordinate goes, and the interval grows with the mesh, so that the
stream of coordinates stays the same whatever its size.

The incarnation is raised only here: to refute an accusation, to go above what peers remember, and when a part with our
key but another boot id turns up. It is persisted before it is announced.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from meshnode.events import HealthChanged, PeerIdentityConflict, RecordRejected, SuspicionRefutedSelf
from meshnode.membership.awareness import HAD_TO_REFUTE, Awareness
from meshnode.membership.board import Board
from meshnode.membership.coordinates import UNSURE, LocalCoordinate
from meshnode.membership.credit import Credit
from meshnode.membership.effects import PersistIncarnation
from meshnode.membership.links import Link
from meshnode.membership.local import LocalNode, OfferDraft
from meshnode.membership.pings import changed
from meshnode.membership.records import MAX_INCARNATION_JUMP, NodeEntry
from meshnode.membership.timers import Timer
from meshnode.membership.view import PathKind, Status
from proto.ids import NodeId, short_id_of
from proto.messages import Claim, ClaimKind
from proto.parts import (
    MAX_ROW,
    Coordinate,
    DeviceOffer,
    IdentityPart,
    NetworkPart,
    OfferPart,
    Part,
    RttEntry,
    SignedPart,
)

if TYPE_CHECKING:
    from meshnode.membership.gossip import Gossip

CONFLICTS_TO_REPORT = 3
CONFLICT_WINDOW_S = 60.0
"""So many foreign parts of our own key within the window mean a second process, not a restart's leftover."""
MAX_RTT_US = 600_000_000


class Publisher:
    """Owns the local entry. `gossip` is set by the composition."""

    gossip: Gossip

    def __init__(self, board: Board, awareness: Awareness, coordinate: LocalCoordinate, now: float) -> None:
        self._board = board
        self._awareness = awareness
        self._coordinate = coordinate
        self._local: LocalNode = board.local
        self._left = False
        self._versions = {"identity": 0, "offer": 0, "network": 0}
        self._offered: OfferDraft | None = None
        self._draft: OfferDraft | None = None
        self._offered_at_s = -math.inf
        self._offer_timer: Timer | None = None
        self._network_at_s = -math.inf
        self._network_timer: Timer | None = None
        self._published_coordinate: Coordinate | None = None
        self._foreign_at_s: list[float] = []
        self._credit = Credit()
        entry = board.store.add(board.node, board.local.role, board.incarnation, now)
        assert entry is not None, "an empty store takes its first entry"
        self.entry: NodeEntry = entry
        self._say_identity(now, urgent=True)

    # --- identity ---

    def set_addresses(self, addresses: tuple[str, ...], now: float) -> None:
        """The local node answers at these addresses now."""
        self.describe(replace(self._local, addresses=tuple(addresses)), now)

    def describe(self, local: LocalNode, now: float) -> None:
        """Publishes a changed description: addresses, features, software, engine or chain."""
        if local != self._local:
            self._local = local
            self._say_identity(now, urgent=False)

    def _say_identity(self, now: float, urgent: bool) -> None:
        local = self._local
        part = IdentityPart(
            node=local.node,
            incarnation=self._board.incarnation,
            version=self._next("identity"),
            boot_id=local.boot_id,
            chain=local.chain,
            addresses=local.addresses,
            features=local.features,
            stage_protocol_generation=local.stage_protocol_generation,
            software=local.software,
            name=local.name,
            engine=local.engine,
            left=self._left,
        )
        self._say(part, urgent, now)

    def leave(self, now: float) -> None:
        """Says goodbye: final for this incarnation."""
        if not self._left:
            self._left = True
            self._say_identity(now, urgent=True)
            self._board.store.set_status(self.entry, Status.LEFT, now)

    # --- incarnation ---

    def hear_claim(self, claim: Claim, via: NodeId, now: float) -> None:
        """A claim about this node came over the link to `via`: refuted, unless its accuser did not sign it, is nobody
        we know, or was wrong too often."""
        board, accuser = self._board, NodeId(claim.accuser)
        if claim.kind is ClaimKind.ALIVE or claim.incarnation < board.incarnation or accuser == board.node:
            return
        if board.store.get(accuser) is None or self._credit.is_spent(accuser, board.node, now):
            return
        if not board.trust.claim_is_signed(claim):
            reason = f"signature of accuser {accuser} does not verify"
            board.emit(RecordRejected(board.node, via, f"claim.{claim.kind}", reason))
            return
        self.refute(claim.incarnation, accuser, now)
        self._credit.refuted(accuser, board.node, now)

    def refute(self, accused_at: int, accuser: NodeId, now: float) -> None:
        """Somebody holds us suspect or dead at `accused_at`: we live, at a higher incarnation."""
        before_incarnation = self._board.incarnation
        if self._left or accused_at < before_incarnation:
            return
        if not self._raise(accused_at, now):
            return
        if accused_at > before_incarnation:
            self._say_all_anew(now)
        changed_health = self._awareness.change(HAD_TO_REFUTE)
        self._board.emit(SuspicionRefutedSelf(accuser, self._board.incarnation, self._awareness.score))
        if changed_health:
            self._board.emit(HealthChanged(self._awareness.score, f"{accuser} suspected us"))

    def rise_above(self, incarnation: int, now: float) -> None:
        """Goes above what peers hold of this node, which may be of an earlier life whose incarnation was lost."""
        if self._raise(incarnation, now):
            self._say_all_anew(now)

    def _say_all_anew(self, now: float) -> None:
        """Offer and network part at the new incarnation: an earlier life's, with a higher version, would else stay."""
        if self._offered is not None:
            self._say_offer(now)
        if self._network_at_s > -math.inf and self._network_timer is None:
            self._network_soon(now)

    def _raise(self, incarnation: int, now: float) -> bool:
        """Raises the incarnation above `incarnation`, persists it and announces it; False for an impossible jump."""
        board = self._board
        if self._left or incarnation < board.incarnation or incarnation > board.incarnation + MAX_INCARNATION_JUMP:
            return False
        board.incarnation = incarnation + 1
        board.effects.append(PersistIncarnation(board.incarnation))
        self.entry.incarnation = board.incarnation
        self._say_identity(now, urgent=True)
        return True

    def foreign_part(self, part: Part, via: NodeId, now: float) -> None:
        """A part with our own key that we did not write is at or above ours: go above it, and report if it repeats."""
        if isinstance(part, IdentityPart) and part.boot_id == self._local.boot_id:
            return
        self._foreign_at_s = [at for at in self._foreign_at_s if now - at < CONFLICT_WINDOW_S] + [now]
        if len(self._foreign_at_s) >= CONFLICTS_TO_REPORT:
            theirs = part.addresses if isinstance(part, IdentityPart) else ()
            self._board.emit(
                PeerIdentityConflict(
                    self._board.node,
                    ", ".join(self._local.addresses) or "unknown",
                    ", ".join(theirs) or "unknown",
                    "another process runs with this node's key: give one of them an own state directory",
                )
            )
            self._foreign_at_s.clear()
        self.rise_above(part.incarnation, now)

    # --- offer ---

    def publish_offer(self, draft: OfferDraft, now: float) -> None:
        """Takes what the node offers now; says it if it differs enough, at most once per `offer_interval_s`."""
        self._draft = draft
        if self._offered is not None and not self._differs(self._offered, draft):
            return
        due_s = self._offered_at_s + self._board.settings.offer_interval_s
        if now >= due_s:
            self._say_offer(now)
        elif self._offer_timer is None:
            self._offer_timer = self._board.timers.at(due_s, self._offer_due)

    def _offer_due(self, _: None, now: float) -> None:
        self._offer_timer = None
        if self._draft is not None:
            self.publish_offer(self._draft, now)

    def _say_offer(self, now: float) -> None:
        assert self._draft is not None
        self._offered, self._offered_at_s = self._draft, now
        self._say(self._draft.as_part(self._board.node, self._board.incarnation, self._next("offer")), False, now)

    def _differs(self, old: OfferDraft, new: OfferDraft) -> bool:
        if len(old.devices) != len(new.devices):
            return True
        share = self._board.settings.offer_change
        pairs = list(zip(old.devices, new.devices, strict=True))
        figures = [(old.host_usable_bytes, new.host_usable_bytes)]
        figures += [(a.usable_bytes, b.usable_bytes) for a, b in pairs]
        figures += [(a.usable_bytes - a.reserved_bytes, b.usable_bytes - b.reserved_bytes) for a, b in pairs]
        if any(moved(a, b, share) for a, b in figures):
            return True
        return _without_figures(old) != _without_figures(new)

    # --- network ---

    def measured(self, link: Link, now: float) -> None:
        """`link` has a new sample: publish if its figure is new, newly corroborated, or moved."""
        if self._network_timer is not None:
            return
        if self._coordinate_moved():
            self._network_soon(now)
            return
        if self._board.is_large:
            return
        said = link.published_rtt
        rtt = link.rtt
        corroborated = rtt.corroborated(now, self._board.settings)
        if (
            said is None
            or (corroborated and said.samples < 2)
            or changed(said.rtt_us / 1e6, rtt.min_s, self._board)
            or said.relayed != (link.facts.path is PathKind.RELAYED)
        ):
            self._network_soon(now)

    def link_ended(self, link: Link, now: float) -> None:
        """A link in the published row is gone."""
        if link.published_rtt is not None and self._network_timer is None and not self._left:
            self._network_soon(now)

    def _network_soon(self, now: float) -> None:
        settings = self._board.settings
        interval_s = settings.network_interval_s
        if self._board.is_large:
            interval_s = max(interval_s, settings.network_interval_per_node_s * self._board.store.live_count)
        if self._network_at_s == -math.inf:
            interval_s = min(interval_s, settings.network_interval_s) * self._board.rng.random() * 0.25
            due_s = now + interval_s
        else:
            due_s = max(now, self._network_at_s + self._board.jittered(interval_s))
        self._network_timer = self._board.timers.at(due_s, self._network_due)

    def _network_due(self, _: None, now: float) -> None:
        self._network_timer = None
        if self._left:
            return
        self._network_at_s = now
        coordinate = self._coordinate.coordinate()
        self._published_coordinate = coordinate
        row = () if self._board.is_large else self.row(now)
        self._say(
            NetworkPart(self._board.node, self._board.incarnation, self._next("network"), row, coordinate), False, now
        )

    def row(self, now: float) -> tuple[RttEntry, ...]:
        """The local node's RTT row as it would be published now, at most `MAX_ROW` links; remembers it as said."""
        entries: list[RttEntry] = []
        for link in self._board.links.values():
            rtt = link.rtt
            if rtt.samples == 0 or len(entries) >= MAX_ROW:
                continue
            # A count of 1 says "not corroborated": readers of a row can't see how the samples were spread.
            samples = rtt.samples if rtt.corroborated(now, self._board.settings) else 1
            link.published_rtt = RttEntry(
                short_id_of(link.peer),
                min(MAX_RTT_US, max(1, round(rtt.min_s * 1e6))),
                min(MAX_RTT_US, max(1, round(rtt.smoothed_s * 1e6))),
                samples,
                link.facts.path is PathKind.RELAYED,
            )
            entries.append(link.published_rtt)
        return tuple(entries)

    def _coordinate_moved(self) -> bool:
        """The own point moved by more than the RTT rule against what was said, or is half as uncertain as that."""
        said = self._published_coordinate
        if said is None or (said.error > UNSURE and self._coordinate.error < said.error / 2):
            return True
        x, y, z, w, height_us, _ = self._coordinate.wire()
        moved_us = math.dist(said.position_us, (x, y, z, w)) + abs(said.height_us - height_us)
        settings = self._board.settings
        size_us = math.hypot(x, y, z, w) + height_us
        return moved_us > max(settings.rtt_change_s * 1e6, settings.rtt_change * size_us)

    # --- saying ---

    def _next(self, part: str) -> int:
        self._versions[part] += 1
        return self._versions[part]

    def _say(self, part: IdentityPart | OfferPart | NetworkPart, urgent: bool, now: float) -> None:
        signed: SignedPart = self._board.trust.sign_part(part)
        self._board.store.put(self.entry, signed, part, now)
        if self._board.links:
            self.gossip.push_own((signed,), urgent, now)


def moved(old: int, new: int, share: float) -> bool:
    """True where a figure changed by more than `share` of the old one; from or to zero always counts."""
    if old == new:
        return False
    return abs(new - old) > share * old or old == 0 or new == 0


def _without_figures(draft: OfferDraft) -> tuple[object, ...]:
    """Everything in an offer but the figures in bytes that drift: any change in it is news."""

    def still(device: DeviceOffer) -> tuple[object, ...]:
        return (
            device.id,
            device.kind,
            device.name,
            device.memory_bandwidth_bytes_per_s,
            device.bandwidth_source,
            device.compute_flops,
            device.declared,
        )

    return (
        tuple(still(device) for device in draft.devices),
        draft.host_declared,
        draft.models,
        draft.willingness,
        draft.draining,
        draft.interested_in,
        draft.inventory_known,
        draft.artifact_transfer,
    )
