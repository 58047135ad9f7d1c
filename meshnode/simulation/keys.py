"""Real signatures in a simulated mesh: every node has an Ed25519 key and a credential from the mesh's root, and judges
what it hears with the daemon's own `MemberTrust`.

Every signature is verified, but only once in the run: what one node found of a signature over these bytes by this key,
every other node would find too, and 63 of 64 verifications are of that kind.

What lives here: `Keyring`, which a world of up to `REAL_UP_TO` nodes uses in the oracle's place. What does not: the
signatures themselves (`proto.signing`), who is a member (`meshnode.admission`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshnode.admission import MemberRoll, MemberTrust
from meshnode.identity import SigningKey
from meshnode.membership.trust import Rejection, Trust
from meshnode.simulation.issued import Issued
from proto.credential import issue_credential
from proto.ids import MeshId, NodeId, mesh_id_of, node_id_of
from proto.messages import Claim, Relay
from proto.parts import Part, Role, SignedPart
from proto.revocation import RevocationSet
from proto.signing import claim_is_signed, open_part

REAL_UP_TO = 64
"""Nodes. A thousand would spend their ten minutes on Ed25519: they have the oracle."""
NOW_UNIX_S = 1_800_000_000
"""Wall-clock time, which stands still: no simulated credential expires."""
VERIFIED_KEPT = 65_536


@dataclass(frozen=True, slots=True)
class _Membership:
    """What `MemberTrust` asks of one process: its key, its mesh, and the chains it has seen."""

    identity: SigningKey
    mesh: MeshId
    roll: MemberRoll


class Keyring:
    """The keys of one simulated mesh, made from the run's own random bytes."""

    def __init__(self, root_secret: bytes) -> None:
        self._root = _key_of(root_secret)
        self.mesh: MeshId = mesh_id_of(self._root.public_key)
        self.issued = Issued()
        self._open_signed = lru_cache(VERIFIED_KEPT)(open_part)
        self._is_signed = lru_cache(VERIFIED_KEPT)(claim_is_signed)
        self._keys: dict[NodeId, SigningKey] = {}
        self._chains: dict[NodeId, tuple[bytes, ...]] = {}

    def enrol(self, secret: bytes, role: Role) -> NodeId:
        """A new member, with a credential that the root signed."""
        key = _key_of(secret)
        node = node_id_of(key.public_key)
        self._keys[node] = key
        self._chains[node] = (
            issue_credential(self._root, self.mesh, node, role, may_invite=True, issued_at_unix_s=NOW_UNIX_S),
        )
        return node

    def chain_of(self, node: NodeId) -> tuple[bytes, ...]:
        """The member's credential chain."""
        return self._chains[node]

    def trust_of(self, node: NodeId) -> Trust:
        """A new process's `Trust`: it can sign for `node` only, and has seen nobody's chain but its own."""
        roll = MemberRoll(self.mesh, RevocationSet())
        roll.admit(node, self._chains[node], NOW_UNIX_S)
        member = _Membership(self._keys[node], self.mesh, roll)
        return _NotingTrust(MemberTrust(member, _wall_clock, self._open_signed, self._is_signed), self.issued)


class _NotingTrust:
    """A member's real trust; what it signs is noted, for the rules."""

    def __init__(self, real: MemberTrust, issued: Issued) -> None:
        self._real = real
        self._issued = issued

    def sign_part(self, part: Part) -> SignedPart:
        """Signs an own part."""
        signed = self._real.sign_part(part)
        self._issued.note(part, signed)
        return signed

    def open_part(self, signed: SignedPart) -> Part | Rejection:
        """The part inside, or why not."""
        return self._real.open_part(signed)

    def role_of(self, node: NodeId) -> Role | None:
        """The role in the credential seen of `node`."""
        return self._real.role_of(node)

    def sign_claim(self, claim: Claim) -> Claim:
        """Signs an own claim."""
        return self._real.sign_claim(claim)

    def claim_is_signed(self, claim: Claim) -> bool:
        """True where the accuser signed it."""
        return self._real.claim_is_signed(claim)

    def sign_relay(self, relay: Relay) -> Relay:
        """Signs an own relayed message."""
        return self._real.sign_relay(relay)

    def relay_is_signed(self, relay: Relay) -> bool:
        """True where the source signed it."""
        return self._real.relay_is_signed(relay)


def _key_of(secret: bytes) -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(secret))


def _wall_clock() -> float:
    return float(NOW_UNIX_S)
