"""What membership needs of cryptography, as a protocol: who may speak, and did they really say it.

What lives here: `Trust` and `Rejection`. What does not: keys, chains and revocations (the real `Trust` is made in
`meshnode.admission`; the simulator's oracle in `meshnode.simulation`). Membership calls it once for each new part,
claim or relay; what it already holds it compares by version first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from proto.ids import NodeId
from proto.messages import Claim, Relay
from proto.parts import Part, Role, SignedPart


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a part was refused: one word for counting and one sentence for people."""

    reason: str
    text: str = ""


class Trust(Protocol):
    """Signs for the local node and judges what others signed."""

    def sign_part(self, part: Part) -> SignedPart:
        """The envelope of one of the local node's own parts."""

    def open_part(self, signed: SignedPart) -> Part | Rejection:
        """The part inside, if its owner signed it and the owner's chain verifies to this mesh and is not revoked."""

    def role_of(self, node: NodeId) -> Role | None:
        """The role in the node's credential; None where no chain of it has been seen."""

    def sign_claim(self, claim: Claim) -> Claim:
        """`claim` with the local node's signature in place of what stood there."""

    def claim_is_signed(self, claim: Claim) -> bool:
        """True where `claim.accuser` signed it."""

    def sign_relay(self, relay: Relay) -> Relay:
        """`relay` with the local node's signature in place of what stood there."""

    def relay_is_signed(self, relay: Relay) -> bool:
        """True where `relay.source` signed it."""


UNSIGNED = bytes(64)
"""What stands in the signature's place before `Trust` fills it."""
