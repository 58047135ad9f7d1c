"""With what right this node lets others in.

What lives here: `Issuer`: whose key signs, which chain the new credential hangs from, and what it may grant at most.
Called by inviting, redeeming and removal.

A node that keeps the mesh's root key issues as the root: its own removal then cuts nobody it let in, and chains stay
short. Any other member issues under its own credential.
"""

from __future__ import annotations

from dataclasses import dataclass

from proto.credential import Credential, Lineage, exceeds, issue_credential
from proto.ids import MeshId, NodeId, short
from proto.parts import MAX_CHAIN, Role
from proto.signing import Signer


@dataclass(frozen=True)
class Issuer:
    """A key that may sign credentials of `mesh`; `lineage` is its own, None for the root."""

    signer: Signer
    mesh: MeshId
    lineage: Lineage | None

    @property
    def own(self) -> Credential | None:
        """The credential whose rights bound what is issued; None for the root, which is bound by nothing."""
        return None if self.lineage is None else self.lineage.last

    def obstacle(self, node: NodeId | None, role: Role) -> str | None:
        """Why no credential of this role can be issued (to `node`, where known), in words; None if it can."""
        if self.lineage is None:
            return None
        own = self.lineage.last
        if not own.may_invite:
            return f"member {short(self.lineage.node)} may not invite"
        if self.lineage.depth >= MAX_CHAIN:
            return (
                f"member {short(self.lineage.node)} is {MAX_CHAIN} steps from the root already, the most there may be"
            )
        if node in self.lineage.nodes:
            return f"member {short(self.lineage.node)} was itself let in through this node"
        return exceeds(own, role, own.expires_at_unix_s)

    def issue(
        self,
        node: NodeId,
        role: Role,
        *,
        may_invite: bool,
        now_unix_s: int,
        expires_at_unix_s: int | None,
        token_id: bytes | None,
    ) -> tuple[bytes, ...]:
        """A whole chain for `node`. Its expiry is brought down to the issuer's own where it would outlive it."""
        bounds = (expires_at_unix_s, None if self.own is None else self.own.expires_at_unix_s)
        credential = issue_credential(
            self.signer,
            self.mesh,
            node,
            role,
            may_invite=may_invite,
            issued_at_unix_s=now_unix_s,
            expires_at_unix_s=min((end for end in bounds if end is not None), default=None),
            token_id=token_id,
        )
        return (*(() if self.lineage is None else self.lineage.chain), credential)
