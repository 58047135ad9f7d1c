"""Dissemination: how every node comes to hold what every other says of itself.

Theory of operation. Anti-entropy (scuttlebutt: van Renesse et al., LADIS 2008) guarantees convergence: every
`sync_interval_s` a node sends its view hash to a random linked peer. Equal hashes end the round. Otherwise the peer
answers with its digest (cut into buckets by short id, only those that differ), the opener sends what the peer lacks and
asks for what it lacks itself; deltas are cut by bytes, oldest first.

News travels faster than rounds. In a mesh of up to `max_links` nodes an owner pushes its own changes down all its
links, and others pass on only what a full mesh may not have seen yet: new nodes and new incarnations, to `fanout`
peers. In a larger mesh changes are collected for `announce_interval_s` and announced as digest lines to `fanout` peers;
who lacks a body asks for it, so that each body crosses the wire about once per node. Claims are always pushed at once.

What lives here: `Gossip`: what to send to whom. What does not: whether a part is accepted (`machine`), liveness
(`judge`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from operator import itemgetter

from meshnode.events import ViewConverged
from meshnode.membership.board import Board
from meshnode.membership.records import FINE_BUCKETS, NOTHING, RANK, NodeEntry
from meshnode.membership.view import Status
from proto.ids import NodeId
from proto.messages import Claim, Delta, Digest, DigestEntry, ViewHash
from proto.parts import SignedPart

MAX_DIGEST_ENTRIES = 2048
MAX_DELTA_ITEMS = 512
MAX_DELTAS_PER_DIGEST = 8
"""Bounds the answer to one digest at 8 x `delta_bytes`; the next round brings the rest."""
ENVELOPE_BYTES = 100
"""Signature, kind and framing of one signed part."""
FIRST_ROUNDS = 2
"""In a large mesh a joiner opens rounds on its first links only: every further peer would send it the same again."""
ACCUSATION_REPEAT_S = 0.5
DIGEST_REPEAT_S = 0.1
"""A peer's view hashes are answered with a digest at most this often."""


class News(Enum):
    """How urgently others need an accepted part."""

    ROUTINE = "routine"
    """A newer version of what everybody knows: pushed by its owner, repaired by rounds."""
    FRESH = "fresh"
    """A node or an incarnation not known before."""
    URGENT = "urgent"
    """A goodbye, a refutation or a return: somebody may be about to act on the opposite."""


_UNKNOWN = DigestEntry(b"\0" * 8, NOTHING, NOTHING, NOTHING, 0, 0)

_age = itemgetter(0)


class Gossip:
    """Outgoing gossip of one node."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._news: dict[NodeId, NodeId | None] = {}
        """Nodes whose records changed since the last announcement, and who told us."""
        self._announcing = False
        self._accused_at_s: dict[tuple[NodeId, NodeId], float] = {}
        self._converged_at_change = -1

    def start(self, now: float) -> None:
        """Begins the rounds, at a random phase."""
        self._board.timers.at(now + self._board.rng.random() * self._interval_s(now), self._round)

    # --- anti-entropy ---

    def _interval_s(self, now: float) -> float:
        """Short while the mesh is small or still growing."""
        settings = self._board.settings
        is_growing = now - self._board.store.grew_at_s < settings.large_sync_interval_s
        return settings.large_sync_interval_s if self._board.is_large and not is_growing else settings.sync_interval_s

    def _round(self, _: None, now: float) -> None:
        self._board.timers.lazily_at(now + self._board.jittered(self._interval_s(now)), self._round)
        for peer in self._board.some_links(1):
            self.open_round(peer)

    def open_round(self, peer: NodeId) -> None:
        """Sends the view hash, and in a large mesh each bucket's."""
        store = self._board.store
        buckets = store.bucket_count()
        hashes = store.bucket_hashes(buckets) if buckets > 1 else b""
        message = ViewHash(store.view_hash().to_bytes(8, "big"), store.live_count, hashes)
        self._board.send(peer, message, coalesce="view_hash")

    def handle_view_hash(self, peer: NodeId, message: ViewHash, now: float) -> None:
        """Equal: done. Else answers with this node's digest of the buckets that differ."""
        store, link = self._board.store, self._board.links.get(peer)
        if message.value == store.view_hash().to_bytes(8, "big"):
            self._agreed(peer)
            return
        if link is None or now < link.sync_until_s:
            return
        link.sync_until_s = now + DIGEST_REPEAT_S
        theirs = message.buckets
        pages = len(theirs) // 4
        if pages < 2 or pages > FINE_BUCKETS or FINE_BUCKETS % pages:
            self._send_pages(peer, range(1), 1)
            return
        ours = store.bucket_hashes(pages)
        differing = [page for page in range(pages) if ours[4 * page : 4 * page + 4] != theirs[4 * page : 4 * page + 4]]
        if len(differing) > pages // 2 and store.live_count <= MAX_DIGEST_ENTRIES:
            self._send_pages(peer, range(1), 1)
        else:
            self._send_pages(peer, differing, pages)

    def _send_pages(self, peer: NodeId, wanted: Iterable[int], pages: int) -> None:
        store = self._board.store
        for page in wanted:
            entries = tuple([entry.digest_line or entry.digest() for entry in store.bucket(page, pages)])
            if len(entries) <= MAX_DIGEST_ENTRIES:
                self._board.send(peer, Digest(entries, page, pages, True))
            else:
                self._send_pages(peer, range(page, FINE_BUCKETS, pages), FINE_BUCKETS)

    def _agreed(self, peer: NodeId) -> None:
        store = self._board.store
        if self._converged_at_change != store.changes:
            self._converged_at_change = store.changes
            self._board.emit(ViewConverged(peer, store.live_count))

    def handle_digest(self, peer: NodeId, digest: Digest, now: float) -> None:
        """Sends what the peer lacks; asks for what it has newer, where it wants an answer.

        `pages` 0 marks a list of single entries; otherwise the page is complete for its bucket, and what is not in it
        the peer does not hold."""
        store = self._board.store
        lacking: list[tuple[float, list[SignedPart]]] = []
        wanted: list[DigestEntry] = []
        find = store.by_short.get
        for line in digest.entries:
            entry = find(line.node)
            if entry is None:
                wanted.append(DigestEntry(line.node, NOTHING, NOTHING, NOTHING, 0, 0))
            elif entry.is_live:
                ours = entry.digest_line or entry.digest()
                if ours is line:
                    continue
                if ours == line:
                    # One line held by all who sent it on, instead of one each: a simulated mesh has a million.
                    entry.digest_line = line
                else:
                    _compare(entry, ours, line, lacking, wanted)
            elif line.identity[0] > entry.incarnation:
                wanted.append(DigestEntry(line.node, NOTHING, NOTHING, NOTHING, 0, 0))
            elif line.status < RANK[entry.status]:
                self.answer_with_accusation(peer, entry, now)
        if 0 < digest.pages <= FINE_BUCKETS and digest.page < digest.pages and FINE_BUCKETS % digest.pages == 0:
            listed = {line.node for line in digest.entries}
            for entry in store.bucket(digest.page, digest.pages):
                if entry.short not in listed:
                    lacking.append((entry.newest_part_at_s, _parts_above(entry, _UNKNOWN)))
        self._send_deltas(peer, lacking)
        if digest.answer_wanted:
            for start in range(0, len(wanted), MAX_DIGEST_ENTRIES):
                self._board.send(peer, Digest(tuple(wanted[start : start + MAX_DIGEST_ENTRIES]), 0, 0, False))

    def _send_deltas(self, peer: NodeId, lacking: list[tuple[float, list[SignedPart]]]) -> None:
        """Oldest first, each delta bounded by bytes and items, the whole answer by their number."""
        lacking.sort(key=_age)
        batch: list[SignedPart] = []
        size_bytes, sent = 0, 0
        most_bytes = self._board.settings.delta_bytes
        for part in [part for _, parts in lacking for part in parts]:
            part_bytes = len(part.body) + ENVELOPE_BYTES
            if batch and (size_bytes + part_bytes > most_bytes or len(batch) >= MAX_DELTA_ITEMS):
                self._board.send(peer, Delta(tuple(batch), ()))
                batch, size_bytes, sent = [], 0, sent + 1
                if sent >= MAX_DELTAS_PER_DIGEST:
                    return
            batch.append(part)
            size_bytes += part_bytes
        if batch:
            self._board.send(peer, Delta(tuple(batch), ()))

    # --- news ---

    def link_up(self, peer: NodeId, opens: bool, now: float) -> None:
        """A fresh link: our own parts at once (a large mesh has them already); the dialler also opens a round."""
        board = self._board
        entry = board.store.get(peer)
        if entry is not None and not entry.is_live:
            self.answer_with_accusation(peer, entry, now)
        own = board.store.get(board.node)
        if own is not None and not board.is_large:
            board.send(peer, Delta(tuple(_parts_above(own, _UNKNOWN)), (), urgent=True))
        if opens and (not board.is_large or len(board.links) <= FIRST_ROUNDS):
            self.open_round(peer)

    def push_own(self, parts: Sequence[SignedPart], urgent: bool, now: float) -> None:
        """A change of the local node's own record."""
        board = self._board
        if board.is_large and not urgent:
            self._announce(board.node, None, now)
            return
        message = Delta(tuple(parts), (), urgent=urgent)
        for peer in board.links:
            board.send(peer, message)

    def learned(self, entry: NodeEntry, signed: SignedPart, via: NodeId, news: News, now: float) -> None:
        """A peer's part was accepted. `news` tells how urgently others need it."""
        is_large = self._board.is_large
        if news is News.URGENT or (news is News.FRESH and not is_large):
            self.pass_on(signed, entry.node, via)
        elif is_large:
            self._announce(entry.node, via, now)

    def pass_on(self, signed: SignedPart, owner: NodeId, via: NodeId) -> None:
        """Urgent news of another node: at once to a few peers."""
        message = Delta((signed,), (), urgent=True)
        for peer in self._board.some_links(self._board.settings.fanout, {via, owner}):
            self._board.send(peer, message)

    def _announce(self, node: NodeId, via: NodeId | None, now: float) -> None:
        self._news[node] = via
        if not self._announcing:
            self._announcing = True
            due_s = now + self._board.rng.random() * 2 * self._board.settings.announce_interval_s
            self._board.timers.at(due_s, self._flush_news)

    def _flush_news(self, _: None, now: float) -> None:
        self._announcing = False
        news, self._news = self._news, {}
        entries = [(entry, via) for node, via in news.items() if (entry := self._board.live_entry(node)) is not None]
        for peer in self._board.some_links(self._board.settings.fanout):
            told = [entry for entry, via in entries if via != peer and entry.node != peer]
            lines = tuple([entry.digest_line or entry.digest() for entry in told])
            for start in range(0, len(lines), MAX_DIGEST_ENTRIES):
                self._board.send(peer, Digest(lines[start : start + MAX_DIGEST_ENTRIES], 0, 0, True))

    # --- claims ---

    def push_claims(self, claims: tuple[Claim, ...]) -> None:
        """The local node's own claims: at once down every link, the accused's included (it should refute)."""
        message = Delta((), claims, urgent=True)
        for peer in self._board.links:
            self._board.send(peer, message)

    def pass_on_claim(self, claim: Claim, via: NodeId) -> None:
        """Another node's claim. In a full mesh its accuser has told everybody itself."""
        if claim.accuser == via and not self._board.is_large:
            return
        message = Delta((), (claim,), urgent=True)
        for peer in self._board.some_links(self._board.settings.fanout, {via, NodeId(claim.accuser)}):
            self._board.send(peer, message)

    def send_claims(self, peer: NodeId, claims: tuple[Claim, ...]) -> None:
        self._board.send(peer, Delta((), claims, urgent=True))

    def tell_newer(self, peer: NodeId, entry: NodeEntry) -> None:
        """`peer` spoke of an older incarnation: it gets the owner's newer word."""
        if entry.identity_signed is not None:
            self._board.send(peer, Delta((entry.identity_signed,), (), urgent=True))

    def answer_with_accusation(self, peer: NodeId, entry: NodeEntry, now: float) -> None:
        """`peer` believes in a node that is dead or has left: it gets the grounds (al8n/memberlist 197), at most
        twice a second for each node."""
        last_s = self._accused_at_s.get((peer, entry.node))
        if last_s is not None and now - last_s < ACCUSATION_REPEAT_S:
            return
        if len(self._accused_at_s) > 4096:
            self._accused_at_s.clear()
        self._accused_at_s[(peer, entry.node)] = now
        if entry.status is Status.LEFT and entry.identity_signed is not None:
            self._board.send(peer, Delta((entry.identity_signed,), (), urgent=True))
        elif entry.claims:
            self._board.send(peer, Delta((), tuple(entry.claims.values()), urgent=True))


def _compare(
    entry: NodeEntry,
    ours: DigestEntry,
    line: DigestEntry,
    lacking: list[tuple[float, list[SignedPart]]],
    wanted: list[DigestEntry],
) -> None:
    """What the sender of `line` lacks of `entry`, and whether it has something newer than `ours`."""
    parts = _parts_above(entry, line)
    if parts:
        lacking.append((entry.newest_part_at_s, parts))
    if line.identity > ours.identity or line.offer > ours.offer or line.network > ours.network:
        wanted.append(ours)


def _parts_above(entry: NodeEntry, line: DigestEntry) -> list[SignedPart]:
    """The signed parts of `entry` that are newer than `line` says the peer holds, the identity first."""
    ours = entry.digest_line or entry.digest()
    parts: list[SignedPart] = []
    if entry.identity_signed is not None and ours.identity > line.identity:
        parts.append(entry.identity_signed)
    if entry.offer_signed is not None and ours.offer > line.offer:
        parts.append(entry.offer_signed)
    if entry.network_signed is not None and ours.network > line.network:
        parts.append(entry.network_signed)
    return parts
