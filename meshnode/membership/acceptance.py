"""What becomes of a record's part that somebody sends: whether it is news, whether it is true, and what follows.

A part is looked at three times, the cheapest look first: is it newer than what is held (from its head alone), did its
owner sign it (once for each node, part and version), and what does it change: a node joins, returns, refutes, moves,
says goodbye.

What lives here: `Acceptance`. What does not: the store and the order of parts (`records`), signatures and chains
(`trust`), verdicts (`judge`), passing on (`gossip`). Called by the machine for each part of a delta.
"""

from __future__ import annotations

from meshnode.events import PeerIdentityConflict, PeerJoined, PeerReturned, PeerUpdated, RecordRejected
from meshnode.membership.board import Board
from meshnode.membership.gossip import Gossip, News
from meshnode.membership.judge import Judge
from meshnode.membership.publisher import Publisher
from meshnode.membership.records import LEAST_MAX_PART_BYTES, MAX_PART_BYTES, NodeEntry, PartHead, head_of
from meshnode.membership.relaying import Relaying
from meshnode.membership.topology import Topology
from meshnode.membership.trust import Rejection
from meshnode.membership.view import Status
from proto.ids import NodeId
from proto.parts import IdentityPart, Part, PartKind, Role, SignedPart

BOOT_CHANGES_TO_REPORT = 3
BOOT_WINDOW_S = 60.0
"""So many changes of boot id within the window are taken for two processes, not for restarts."""


class Acceptance:
    """Takes parts for one node, and tells the others of what follows."""

    def __init__(
        self,
        board: Board,
        publisher: Publisher,
        gossip: Gossip,
        judge: Judge,
        topology: Topology,
        relaying: Relaying,
    ) -> None:
        self._board = board
        self._publisher = publisher
        self._gossip = gossip
        self._judge = judge
        self._topology = topology
        self._relaying = relaying
        self._boots: dict[NodeId, list[tuple[float, bytes]]] = {}

    def forget(self, node: NodeId) -> None:
        """The node is no member any more."""
        self._boots.pop(node, None)

    def take(self, signed: SignedPart, via: NodeId, now: float) -> None:
        """One relayed part: skipped if it is no news, verified once, stored, and its consequences drawn."""
        head = head_of(signed)
        if head is None or (len(signed.body) > LEAST_MAX_PART_BYTES and len(signed.body) > MAX_PART_BYTES[signed.kind]):
            self._reject(head, signed, via, "malformed" if head is None else "too large")
            return
        entry = self._board.store.entries.get(NodeId(head.node))
        if not self._is_news(entry, head, signed, via, now):
            return
        opened = self._board.trust.open_part(signed)
        if isinstance(opened, Rejection):
            self._reject(head, signed, via, f"{opened.reason} {opened.text}".strip())
        elif head.node == self._board.node:
            self._publisher.foreign_part(opened, via, now)
        elif entry is None:
            self._welcome(opened, signed, via, now)
        else:
            self._update(entry, opened, signed, via, now)

    def _is_news(self, entry: NodeEntry | None, head: PartHead, signed: SignedPart, via: NodeId, now: float) -> bool:
        """Whether the part is worth verifying; a stale one about the dead is answered with the accusation."""
        order = (head.incarnation, head.version)
        if entry is not None and entry.is_live and entry is not self._publisher.entry:
            return order > entry.order_of(signed.kind)
        if head.node == self._board.node:
            if head.incarnation < self._board.incarnation:
                # Said in an earlier life; this one may not have said its part of that kind yet.
                return False
            held = self._publisher.entry.order_of(signed.kind)
            return order > held or (
                signed.kind is PartKind.IDENTITY and order == held and self._is_another_boot(signed)
            )
        if entry is None:
            return signed.kind is PartKind.IDENTITY and head.incarnation > self._board.store.floor_of(NodeId(head.node))
        if signed.kind is not PartKind.IDENTITY:
            return False
        if head.incarnation > entry.incarnation:
            return True
        is_goodbye = head.incarnation == entry.incarnation and order > entry.order_of(signed.kind)
        if entry.status is Status.DEAD and is_goodbye:
            return True
        self._gossip.answer_with_accusation(via, entry, now)
        return False

    def _is_another_boot(self, signed: SignedPart) -> bool:
        own = self._publisher.entry.identity_signed
        return own is not None and own.body != signed.body

    def _welcome(self, part: Part, signed: SignedPart, via: NodeId, now: float) -> None:
        """The first identity of a node: it joins, or returns after its tombstone was forgotten. A goodbye of somebody
        unknown is nobody's news."""
        if not isinstance(part, IdentityPart) or part.left:
            return
        node = NodeId(part.node)
        role = self._board.trust.role_of(node) or Role.CLIENT
        floor = self._board.store.floor_left_by(node)
        entry = self._board.store.add(node, role, part.incarnation, now)
        if entry is None:
            self._board.emit(RecordRejected(node, via, "identity", "the mesh holds all the nodes it may"))
            return
        self._board.store.put(entry, signed, part, now)
        self._note_boot(entry, part, now)
        if node in self._board.links:
            entry.heard_at_s = now
        if floor is None:
            self._board.emit(PeerJoined(node, part.name, str(role), part.incarnation))
        else:
            self._board.emit(PeerReturned(node, part.incarnation, floor.was.value, now - floor.since_s))
        self._gossip.learned(entry, signed, via, News.FRESH, now)
        self._topology.learned(node, now)

    def _update(self, entry: NodeEntry, part: Part, signed: SignedPart, via: NodeId, now: float) -> None:
        """A newer part of a known node."""
        identity = part if isinstance(part, IdentityPart) else None
        if not entry.is_live and (identity is None or not (identity.left or identity.incarnation > entry.incarnation)):
            self._gossip.answer_with_accusation(via, entry, now)
            return
        news = News.ROUTINE
        if identity is not None:
            news = self._news_of(entry, identity)
            entry.role = self._board.trust.role_of(entry.node) or entry.role
            self._note_boot(entry, identity, now)
        self._board.store.put(entry, signed, part, now)
        if identity is not None:
            self._judge.owner_says(entry, identity, now)
        self._board.emit(PeerUpdated(entry.node, signed.kind.value, part.incarnation, part.version))
        self._gossip.learned(entry, signed, via, news, now)

    def _news_of(self, entry: NodeEntry, part: IdentityPart) -> News:
        if part.left or entry.status is not Status.ALIVE or entry.node in self._judge.cases:
            return News.URGENT
        return News.FRESH if part.incarnation > entry.incarnation else News.ROUTINE

    def _note_boot(self, entry: NodeEntry, part: IdentityPart, now: float) -> None:
        """Two processes with one key show as boot ids that take turns."""
        held = entry.identity
        if held is None or held.boot_id == part.boot_id:
            return
        self._relaying.restarted(entry.node, now)
        changes = [(at, boot) for at, boot in self._boots.get(entry.node, []) if now - at < BOOT_WINDOW_S]
        changes.append((now, part.boot_id))
        self._boots[entry.node] = changes
        boots = [boot for _, boot in changes]
        if len(changes) >= BOOT_CHANGES_TO_REPORT and len(set(boots)) < len(boots):
            self._board.emit(
                PeerIdentityConflict(
                    entry.node,
                    ", ".join(part.addresses) or "unknown",
                    ", ".join(held.addresses) or "unknown",
                    "two processes run with this node's key: stop one, or give it an own state directory",
                )
            )
            self._boots[entry.node] = []

    def _reject(self, head: PartHead | None, signed: SignedPart, via: NodeId, reason: str) -> None:
        subject = head.node[:64] if head is not None else "unknown"
        self._board.emit(RecordRejected(subject, via, signed.kind.value, reason))
