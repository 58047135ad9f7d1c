"""Signatures without cryptography: an oracle that knows who signed what.

A thousand nodes would spend their ten minutes on Ed25519. The oracle keeps every part and claim that was signed, by its
number; anything else is a forgery, exactly as with real keys, which worlds of up to 64 nodes have (`keys`).
"""

from __future__ import annotations

import msgspec

from meshnode.membership.trust import Rejection, Trust
from meshnode.simulation.issued import Issued
from proto.codec import encode_part, kind_of
from proto.ids import NodeId
from proto.messages import Claim, Relay
from proto.parts import Part, Role, SignedPart

SIGNATURE_BYTES = 64
ORACLE_CHAIN = (b"simulated credential " * 9,)
"""What stands for a credential chain: as long as one that the root signed."""


class Oracle:
    """Everything that was ever signed in one simulated mesh."""

    def __init__(self) -> None:
        self.roles: dict[NodeId, Role] = {}
        self.removed: set[NodeId] = set()
        self._parts: dict[bytes, tuple[bytes, Part]] = {}
        self._claims: dict[bytes, Claim] = {}
        self._relays: dict[bytes, Relay] = {}
        self.issued = Issued()
        self._made = 0

    def trust_of(self, node: NodeId, role: Role) -> Trust:
        """The `Trust` of one member, who can sign for itself only."""
        self.roles[node] = role
        return OracleTrust(self, node)

    def signature(self) -> bytes:
        self._made += 1
        return self._made.to_bytes(SIGNATURE_BYTES, "big")

    def sign_part(self, part: Part) -> SignedPart:
        kind, body, signature = kind_of(part), encode_part(part), self.signature()
        self._parts[signature] = (body, part)
        signed = SignedPart(kind, body, signature)
        self.issued.note(part, signed)
        return signed

    def open_part(self, signed: SignedPart) -> Part | Rejection:
        held = self._parts.get(signed.signature)
        if held is None or held[0] != signed.body:
            return Rejection("bad_signature", "nobody signed this")
        if self.removed and held[1].node in self.removed:
            return Rejection("removed", "its node was removed from the mesh")
        return held[1]

    def sign_claim(self, claim: Claim) -> Claim:
        signed = msgspec.structs.replace(claim, signature=self.signature())
        self._claims[signed.signature] = signed
        return signed

    def claim_is_signed(self, claim: Claim) -> bool:
        return self._claims.get(claim.signature) == claim

    def sign_relay(self, relay: Relay) -> Relay:
        signed = msgspec.structs.replace(relay, signature=self.signature())
        self._relays[signed.signature] = signed
        return signed

    def relay_is_signed(self, relay: Relay) -> bool:
        return self._relays.get(relay.signature) == relay


class OracleTrust:
    """One member's `Trust` over the oracle."""

    def __init__(self, oracle: Oracle, node: NodeId) -> None:
        self._oracle = oracle
        self._node = node
        self.open_part = oracle.open_part
        self.claim_is_signed = oracle.claim_is_signed
        self.relay_is_signed = oracle.relay_is_signed

    def sign_part(self, part: Part) -> SignedPart:
        """Signs an own part. Raises `ValueError` for another's: no member can."""
        self._only_own(part.node)
        return self._oracle.sign_part(part)

    def sign_claim(self, claim: Claim) -> Claim:
        """Signs an own claim."""
        self._only_own(claim.accuser)
        return self._oracle.sign_claim(claim)

    def sign_relay(self, relay: Relay) -> Relay:
        """Signs an own relayed message."""
        self._only_own(relay.source)
        return self._oracle.sign_relay(relay)

    def role_of(self, node: NodeId) -> Role | None:
        return self._oracle.roles.get(node)

    def _only_own(self, node: str) -> None:
        if node != self._node:
            raise ValueError(f"{self._node} can't sign for {node}")
