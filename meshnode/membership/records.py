"""The store of records: what this node holds of every node, by version, and what it remembers of those that are gone.

What lives here: `NodeEntry`, `RecordStore`, the order of parts, the view hash, floors, caps. What does not: verifying
(`trust`), liveness (`judge`), exchanging (`gossip`).

Rules:
- A part's order is (incarnation, version); only a larger pair replaces what is held.
- An entry's incarnation is the highest in any admitted evidence and only grows; its status belongs to that incarnation.
- Dead and left entries are tombstones: nothing at or below their incarnation is news. They stand outside the view
  hash and the digests, so that nodes may forget them at different moments without disagreeing.
- A forgotten tombstone leaves a floor: a third party's old record can't bring the node back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct as Packing

import msgspec

from meshnode.membership.settings import MembershipSettings
from meshnode.membership.view import Status
from proto.ids import NodeId, ShortId, short_id_of
from proto.messages import Claim, DigestEntry
from proto.parts import IdentityPart, NetworkPart, OfferPart, Part, PartKind, Role, SignedPart

MAX_PART_BYTES = {PartKind.IDENTITY: 6_144, PartKind.OFFER: 16_384, PartKind.NETWORK: 4_096}
"""Largest body of each part: an identity carries up to four credentials, an offer up to 64 models."""
LEAST_MAX_PART_BYTES = min(MAX_PART_BYTES.values())
MAX_INCARNATION_JUMP = 2**32
"""An accusation about an incarnation further ahead than this is no evidence but an attempt to exhaust the counter."""

FINE_BUCKETS = 256
BUCKET_HASH_BITS = 32
NODES_PER_BUCKET = 8
RANK = {Status.ALIVE: 0, Status.SUSPECT: 1, Status.DEAD: 2, Status.LEFT: 3}
NOTHING = (0, 0)

Order = tuple[int, int]
_PACKED = Packing(">8s6Q")


class PartHead(msgspec.Struct, frozen=True):
    """The fields every part begins with: enough to know whether the rest is worth verifying."""

    node: str
    incarnation: int
    version: int


_head_decoder = msgspec.msgpack.Decoder(PartHead)


def head_of(signed: SignedPart) -> PartHead | None:
    """Owner, incarnation and version of an unverified part; None where the body is no part at all."""
    try:
        head = _head_decoder.decode(signed.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return head if head.incarnation >= 0 and head.version >= 0 else None


class NodeEntry:
    """One node as held. Parts are None until received; each keeps the signed envelope it came in, for passing on."""

    __slots__ = (
        "claims",
        "digest_line",
        "hashed",
        "heard_at_s",
        "identity",
        "identity_signed",
        "incarnation",
        "is_live",
        "network",
        "network_at_s",
        "network_signed",
        "newest_part_at_s",
        "node",
        "offer",
        "offer_signed",
        "role",
        "short",
        "status",
        "status_since_s",
    )

    def __init__(self, node: NodeId, role: Role, incarnation: int, now: float) -> None:
        self.node = node
        self.short: ShortId = short_id_of(node)
        self.role = role
        self.incarnation = incarnation
        self.status = Status.ALIVE
        """Changed by `RecordStore.set_status` only."""
        self.is_live = True
        """Alive or suspect: counted, digested, linked."""
        self.status_since_s = now
        self.identity: IdentityPart | None = None
        self.identity_signed: SignedPart | None = None
        self.offer: OfferPart | None = None
        self.offer_signed: SignedPart | None = None
        self.network: NetworkPart | None = None
        self.network_signed: SignedPart | None = None
        self.newest_part_at_s = now
        self.network_at_s = now
        self.heard_at_s: float | None = None
        self.claims: dict[NodeId, Claim] | None = None
        self.hashed = 0
        self.digest_line: DigestEntry | None = None
        """What `digest` made last, None once something changed."""

    def order_of(self, kind: PartKind) -> Order:
        """(incarnation, version) of the part held; zeros where none is."""
        part: Part | None
        if kind is PartKind.IDENTITY:
            part = self.identity
        elif kind is PartKind.OFFER:
            part = self.offer
        else:
            part = self.network
        return NOTHING if part is None else (part.incarnation, part.version)

    def digest(self) -> DigestEntry:
        """This entry's line in a digest."""
        line = self.digest_line
        if line is None:
            identity, offer, network = self.identity, self.offer, self.network
            line = self.digest_line = DigestEntry(
                self.short,
                NOTHING if identity is None else (identity.incarnation, identity.version),
                NOTHING if offer is None else (offer.incarnation, offer.version),
                NOTHING if network is None else (network.incarnation, network.version),
                self.incarnation,
                RANK[self.status],
            )
        return line


@dataclass(frozen=True, slots=True)
class Floor:
    """What is left of a forgotten tombstone: a returning node must exceed `incarnation`. Kept until `until_s`.

    `was` and `since_s` are the tombstone's own: how the node went, and when.
    """

    incarnation: int
    until_s: float
    was: Status
    since_s: float


class RecordStore:
    """All entries by node id, with the incremental view hash over the live ones."""

    def __init__(self, settings: MembershipSettings) -> None:
        self._settings = settings
        self.entries: dict[NodeId, NodeEntry] = {}
        self.ids: list[NodeId] = []
        """The keys of `entries` once more, for drawing at random."""
        self.by_short: dict[bytes, NodeEntry] = {}
        self._buckets: list[dict[NodeId, NodeEntry]] = [{} for _ in range(FINE_BUCKETS)]
        self._bucket_hashes = 0
        """The low 32 bits of every fine bucket's hash side by side, the first in the highest place."""
        self._stale: dict[NodeId, NodeEntry] = {}
        self.live_count = 0
        self.grew_at_s = 0.0
        """When a node was added last."""
        self._view_hash = 0
        self._floors: dict[NodeId, Floor] = {}
        self.changes = 0
        """Grows with every change of anything held."""
        self.refused_full = 0
        """Nodes refused because the mesh has `max_nodes` already."""

    # --- entries ---

    def get(self, node: NodeId) -> NodeEntry | None:
        return self.entries.get(node)

    def add(self, node: NodeId, role: Role, incarnation: int, now: float) -> NodeEntry | None:
        """A new live entry; None where the mesh is full or another node holds the same short id."""
        if len(self.entries) >= self._settings.max_nodes:
            self.refused_full += 1
            return None
        entry = NodeEntry(node, role, incarnation, now)
        if entry.short in self.by_short:
            return None
        self.entries[node] = entry
        self.ids.append(node)
        self.by_short[entry.short] = entry
        self._buckets[entry.short[0]][node] = entry
        self.live_count += 1
        self.grew_at_s = now
        self.touch(entry)
        return entry

    def remove(self, node: NodeId) -> None:
        """Drops the entry without a trace (a revoked node: its records are refused by `Trust`)."""
        entry = self.entries.pop(node, None)
        if entry is None:
            return
        self.ids.remove(node)
        self.live_count -= entry.is_live
        self._change_hash(entry, 0)
        self._stale.pop(node, None)
        del self.by_short[entry.short]
        del self._buckets[entry.short[0]][node]
        self.changes += 1

    def touch(self, entry: NodeEntry) -> None:
        """Something in `entry` changed: its digest line and the hash are made anew when next asked for."""
        entry.digest_line = None
        self._stale[entry.node] = entry
        self.changes += 1

    def set_status(self, entry: NodeEntry, status: Status, now: float) -> None:
        """Changes liveness; keeps the live count right."""
        before = entry.is_live
        entry.status = status
        entry.is_live = status is Status.ALIVE or status is Status.SUSPECT
        entry.status_since_s = now
        self.live_count += entry.is_live - before
        self.touch(entry)

    def put(self, entry: NodeEntry, signed: SignedPart, part: Part, now: float) -> None:
        """Stores a verified part that is newer than what is held."""
        if isinstance(part, IdentityPart):
            entry.identity, entry.identity_signed = part, signed
        elif isinstance(part, OfferPart):
            entry.offer, entry.offer_signed = part, signed
        else:
            entry.network, entry.network_signed = part, signed
            entry.network_at_s = now
        entry.newest_part_at_s = now
        self.touch(entry)

    def live(self) -> Iterator[NodeEntry]:
        """Alive and suspect entries, the local node's included."""
        return (entry for entry in self.entries.values() if entry.is_live)

    # --- floors ---

    def floor_of(self, node: NodeId) -> int:
        """The incarnation a returning node must exceed: its tombstone's, or what is remembered; 0 where nothing is."""
        entry = self.entries.get(node)
        if entry is not None:
            return entry.incarnation if not entry.is_live else max(0, entry.incarnation - 1)
        floor = self._floors.get(node)
        return floor.incarnation if floor else 0

    def floor_left_by(self, node: NodeId) -> Floor | None:
        """What is remembered of a node whose tombstone is gone."""
        return self._floors.get(node)

    def expire(self, now: float) -> None:
        """Turns old tombstones into floors, and forgets old floors."""
        old = [
            entry
            for entry in self.entries.values()
            if not entry.is_live and now - entry.status_since_s >= self._settings.tombstone_s
        ]
        for entry in old:
            self.remove(entry.node)
            until_s = now + self._settings.floor_s
            self._floors[entry.node] = Floor(entry.incarnation, until_s, entry.status, entry.status_since_s)
        for node in [node for node, floor in self._floors.items() if floor.until_s <= now]:
            del self._floors[node]
        while len(self._floors) > self._settings.max_floors:
            self._floors.pop(next(iter(self._floors)))

    # --- hash and digest ---

    def view_hash(self) -> int:
        """64-bit hash over the live entries' digests: equal views, equal hashes, whatever the order of events."""
        self._settle_hashes()
        return self._view_hash

    def bucket_count(self) -> int:
        """Into how many buckets a digest of this mesh is cut: a power of two, about 8 nodes in each; 1 when small."""
        if self.live_count <= self._settings.max_links:
            return 1
        buckets = 2
        while buckets * NODES_PER_BUCKET < self.live_count and buckets < FINE_BUCKETS:
            buckets *= 2
        return buckets

    def bucket_hashes(self, buckets: int) -> bytes:
        """Low 32 bits of each of `buckets` buckets' hashes, 4 bytes each, as a `ViewHash` carries them."""
        self._settle_hashes()
        folded, width = self._bucket_hashes, BUCKET_HASH_BITS * FINE_BUCKETS
        while width > BUCKET_HASH_BITS * buckets:
            width //= 2
            folded = (folded >> width) ^ (folded & ((1 << width) - 1))
        return folded.to_bytes(width // 8, "big")

    def bucket(self, index: int, buckets: int) -> list[NodeEntry]:
        """The live entries of one bucket of `buckets`."""
        fine_buckets = self._buckets[index::buckets]
        return [entry for fine in fine_buckets for entry in fine.values() if entry.is_live]

    def _settle_hashes(self) -> None:
        for entry in self._stale.values():
            self._change_hash(entry, _hash_of(entry) if entry.is_live else 0)
        self._stale.clear()

    def _change_hash(self, entry: NodeEntry, value: int) -> None:
        change = entry.hashed ^ value
        place = BUCKET_HASH_BITS * (FINE_BUCKETS - 1 - entry.short[0])
        self._bucket_hashes ^= (change & 0xFFFFFFFF) << place
        self._view_hash ^= change
        entry.hashed = value


def _hash_of(entry: NodeEntry) -> int:
    line = entry.digest()
    packed = _PACKED.pack(entry.short, *line.identity, *line.offer, *line.network)
    return int.from_bytes(blake2b(packed, digest_size=8).digest(), "big")
