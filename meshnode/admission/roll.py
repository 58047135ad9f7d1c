"""The roll of members: the last good chain of every node seen, judged against the revocations known now.

What lives here: `MemberRoll`. What does not: the rules of a chain (`proto.credential`), storing revocations
(`meshnode.admission.revocation_store`). Called by `Trust`, the gate, and removal (which needs to know who descends from
whom).

Signatures of a chain are verified once; revocations and expiry are looked at each time, since they change.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from proto.credential import BadCredential, BadCredentialReason, Lineage, Standing, read_chain, standing_of
from proto.ids import MeshId, NodeId
from proto.revocation import RevocationSet

MAX_MEMBERS: Final = 10_000
_MAX_READ: Final = 4096


class MemberRoll:
    """Who belongs to `mesh`, as far as chains were shown."""

    def __init__(self, mesh: MeshId, revoked: RevocationSet) -> None:
        self.mesh = mesh
        self.revoked = revoked
        self._lineages: OrderedDict[NodeId, Lineage] = OrderedDict()
        self._read: OrderedDict[bytes, Lineage] = OrderedDict()

    def admit(self, node: NodeId, chain: Sequence[bytes], now_unix_s: int) -> Standing:
        """What `chain`, or a chain that a removal issued anew for `node`, proves of it now; remembered as its lineage.

        Raises `BadCredential` with what is wrong with the chain shown.
        """
        lineage = self._read_once(node, chain)
        try:
            standing = standing_of(lineage, now_unix_s, self.revoked)
        except BadCredential as error:
            if error.reason is not BadCredentialReason.REVOKED:
                raise
            kept = self.kept_lineage(node, now_unix_s)
            if kept is None:
                raise
            lineage, standing = kept, standing_of(kept, now_unix_s, self.revoked)
        self._remember(lineage)
        return standing

    def recall(self, node: NodeId, chain: Sequence[bytes]) -> None:
        """Remember a chain from the last run, whether or not it counts now. One that does not verify is left out: its
        node has to show another."""
        with contextlib.suppress(BadCredential):
            self._remember(self._read_once(node, chain))

    def standing(self, node: NodeId, now_unix_s: int) -> Standing | None:
        """What the last chain of `node` proves now; None where none was seen or it counts no more."""
        lineage = self._lineages.get(node)
        if lineage is None:
            return None
        try:
            return standing_of(lineage, now_unix_s, self.revoked)
        except BadCredential:
            kept = self.kept_lineage(node, now_unix_s)
            return None if kept is None else standing_of(kept, now_unix_s, self.revoked)

    def lineage(self, node: NodeId) -> Lineage | None:
        """The last good lineage seen of `node`, whatever became of it since."""
        return self._lineages.get(node)

    def kept_lineage(self, node: NodeId, now_unix_s: int) -> Lineage | None:
        """A lineage that a removal issued anew for `node` and that counts now; None where there is none."""
        for lineage in self.revoked.kept_chains(node):
            try:
                standing_of(lineage, now_unix_s, self.revoked)
            except BadCredential:
                continue
            return lineage
        return None

    def is_cut(self, node: NodeId) -> bool:
        """True where a revocation cuts the lineage of `node` (itself or a node above it) and no other was issued.

        A node whose chain was never seen is cut where the root removed it: there is no chain in which it would count.
        """
        lineage = self._lineages.get(node)
        nodes = (node,) if lineage is None else lineage.nodes
        if self.revoked.cut_in(nodes) is None:
            return False
        return not any(self.revoked.cut_in(kept.nodes) is None for kept in self.revoked.kept_chains(node))

    def descendants(self, node: NodeId) -> tuple[NodeId, ...]:
        """All members whose lineage passes through `node` and who would go with it, in node-id order; `node` itself is
        not among them, nor is who is cut already."""
        return tuple(other for other in self._below(node) if not self.is_cut(other))

    def taken_along(self, node: NodeId) -> tuple[NodeId, ...]:
        """All nodes whose lineage passes through `node` and who are cut, in node-id order: after its removal, those
        who lost membership with it."""
        return tuple(other for other in self._below(node) if self.is_cut(other))

    def _below(self, node: NodeId) -> list[NodeId]:
        return sorted(other for other, lineage in self._lineages.items() if node in lineage.nodes[:-1])

    def members(self) -> tuple[NodeId, ...]:
        """All nodes of which a good chain was seen and that are not cut now, in node-id order."""
        return tuple(sorted(node for node in self._lineages if not self.is_cut(node)))

    def _remember(self, lineage: Lineage) -> None:
        self._lineages[lineage.node] = lineage
        self._lineages.move_to_end(lineage.node)
        if len(self._lineages) > MAX_MEMBERS:
            self._lineages.popitem(last=False)

    def _read_once(self, node: NodeId, chain: Sequence[bytes]) -> Lineage:
        key = hashlib.sha256(b"".join(hashlib.sha256(entry).digest() for entry in chain)).digest()
        lineage = self._read.get(key)
        if lineage is None or lineage.node != node:
            lineage = read_chain(chain, self.mesh, node)
            self._read[key] = lineage
            if len(self._read) > _MAX_READ:
                self._read.popitem(last=False)
        return lineage
