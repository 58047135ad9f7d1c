"""The cryptographic side of membership: may this node speak, and did it really say so.

What lives here: `MemberTrust`, the real `meshnode.membership.trust.Trust`. What does not: the signatures themselves
(`proto.signing`) and who is a member (`meshnode.admission.roll`). Called by the membership machine, once for each new
part, claim or relay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from meshnode.admission.roll import MemberRoll
from meshnode.membership.trust import Rejection
from proto.credential import BadCredential, BadCredentialReason
from proto.errors import WireError
from proto.ids import MeshId, NodeId
from proto.messages import Claim, Relay
from proto.parts import IdentityPart, Part, Role, SignedPart
from proto.signing import (
    BadSignature,
    Signer,
    claim_is_signed,
    open_part,
    relay_is_signed,
    sign_claim,
    sign_part,
    sign_relay,
)

WallClock = Callable[[], float]


class KeyAndRoll(Protocol):
    """What trust needs of the local node: `Admission` in a daemon."""

    @property
    def identity(self) -> Signer:
        """The node's key."""

    @property
    def mesh(self) -> MeshId:
        """The mesh that signatures are for."""

    @property
    def roll(self) -> MemberRoll:
        """Whose chains were seen."""


class MemberTrust:
    """Signs with the node's key and judges others by the roll; `wall_clock` is read for credentials that expire.

    `open_signed` and `is_signed` verify what others signed: a simulator of many nodes in one process hands in the same
    functions with a memory.
    """

    def __init__(
        self,
        admission: KeyAndRoll,
        wall_clock: WallClock,
        open_signed: Callable[[SignedPart, MeshId], Part] = open_part,
        is_signed: Callable[[MeshId, Claim], bool] = claim_is_signed,
    ) -> None:
        self._admission = admission
        self._wall_clock = wall_clock
        self._open_signed = open_signed
        self._is_signed = is_signed

    def sign_part(self, part: Part) -> SignedPart:
        """The envelope of one of the local node's own parts."""
        return sign_part(self._admission.identity, self._admission.mesh, part)

    def open_part(self, signed: SignedPart) -> Part | Rejection:
        """The part inside, if its owner signed it and counts as a member now.

        Rejections: `malformed`, `bad_signature`, `removed`, `bad_credential`, and `unknown_owner` for a part whose
        owner's chain (in its identity part) was never seen.
        """
        try:
            part = self._open_signed(signed, self._admission.mesh)
        except WireError as error:
            return Rejection("malformed", str(error))
        except BadSignature as error:
            return Rejection("bad_signature", str(error))
        if isinstance(part, IdentityPart):
            return self._member_or_rejection(part)
        if self._admission.roll.is_cut(NodeId(part.node)):
            return Rejection("removed", "its node was removed from the mesh")
        if self.role_of(NodeId(part.node)) is None:
            return Rejection("unknown_owner", "no good credential of its node has been seen")
        return part

    def role_of(self, node: NodeId) -> Role | None:
        """The role in the node's credential; None where no chain of it counts."""
        standing = self._admission.roll.standing(node, int(self._wall_clock()))
        return None if standing is None else standing.role

    def sign_claim(self, claim: Claim) -> Claim:
        """`claim` with the local node's signature in place of what stood there."""
        return sign_claim(self._admission.identity, self._admission.mesh, claim)

    def claim_is_signed(self, claim: Claim) -> bool:
        """True where `claim.accuser` signed it."""
        return self._is_signed(self._admission.mesh, claim)

    def sign_relay(self, relay: Relay) -> Relay:
        """`relay` with the local node's signature in place of what stood there."""
        return sign_relay(self._admission.identity, self._admission.mesh, relay)

    def relay_is_signed(self, relay: Relay) -> bool:
        """True where `relay.source` signed it."""
        return relay_is_signed(self._admission.mesh, relay)

    def _member_or_rejection(self, part: IdentityPart) -> Part | Rejection:
        try:
            self._admission.roll.admit(NodeId(part.node), part.chain, int(self._wall_clock()))
        except BadCredential as error:
            reason = "removed" if error.reason is BadCredentialReason.REVOKED else "bad_credential"
            return Rejection(reason, str(error))
        return part
