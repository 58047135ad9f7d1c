"""Membership credentials and their chains: how one member vouches for the next, down from the mesh's root key.

What lives here: `Credential`, its encoding, `issue_credential`, and the rules a chain must keep (`read_chain`,
`verify_chain`). What does not: invite tokens (`proto.token`), what a revocation means (`proto.revocation`), who asks
(`meshnode.admission`). Nothing here reads a clock.

A chain lists credentials, the root's own first. Its rules, in the order in which they are checked:

1. one to `MAX_CHAIN` entries, each of this mesh, the last one naming the node that shows it;
2. the first is signed by the root key, each other by the node named in the entry before it;
3. an entry that has a child may invite, and no child has more rights: role, may-invite, expiry;
4. no node stands twice in it;
5. no entry's node is revoked by the root or by a node before it, and none is past its expiry (5 minutes of tolerance,
   since the two clocks may differ).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Protocol

from msgspec import Meta, Struct

from proto.errors import WireError
from proto.ids import MeshId, NodeId, mesh_id_of, node_id_of, public_key_of, short
from proto.packing import pack, unpack
from proto.parts import MAX_CHAIN, Role
from proto.shapes import WireKey, WireSignature, WireTokenId, WireUnixTime
from proto.signing import Signer, is_weak_key, signing_input, verify
from proto.times import CLOCK_TOLERANCE_S, utc_text

MAX_CREDENTIAL_BYTES: Final = 1024
CREDENTIAL_FORMAT: Final = 1
_KIND = "credential"
_RANK: Final = {Role.CLIENT: 0, Role.WORKER: 1}


class Credential(Struct, frozen=True, array_like=True):
    """What the issuer states of a node. On the wire an array in this order; later versions append.

    `mesh`, `node` and `issuer` are raw public keys; the root issues under the mesh's own key. `token_id` names the
    invite that was redeemed for it (None for the founder and for credentials renewed by hand).
    """

    format: Annotated[int, Meta(ge=CREDENTIAL_FORMAT, le=CREDENTIAL_FORMAT)]
    mesh: WireKey
    node: WireKey
    issuer: WireKey
    role: Role
    may_invite: bool
    issued_at_unix_s: WireUnixTime
    expires_at_unix_s: WireUnixTime | None = None
    token_id: WireTokenId | None = None


class _Signed(Struct, frozen=True, array_like=True):
    body: Annotated[bytes, Meta(max_length=MAX_CREDENTIAL_BYTES)]
    signature: WireSignature


class BadCredentialReason(StrEnum):
    """Which rule a chain broke."""

    MALFORMED = "malformed"
    WRONG_MESH = "wrong_mesh"
    WRONG_NODE = "wrong_node"
    BAD_SIGNATURE = "bad_signature"
    NOT_LINKED = "not_linked"
    MAY_NOT_INVITE = "may_not_invite"
    EXCEEDS_PARENT = "exceeds_parent"
    REPEATED_NODE = "repeated_node"
    TOO_DEEP = "too_deep"
    REVOKED = "revoked"
    EXPIRED = "expired"


class BadCredential(ValueError):
    """A chain proves nothing. `reason` is the rule it broke, `found` and `required` the two facts that differ, `at`
    the entry (0 is the root's)."""

    def __init__(self, reason: BadCredentialReason, at: int, found: str, required: str) -> None:
        self.reason = reason
        self.at = at
        self.found = found
        self.required = required
        super().__init__(f"credential {at} of the chain: {reason.value}: found {found}, required {required}")


@dataclass(frozen=True, slots=True)
class Lineage:
    """A chain whose signatures and structure hold (rules 1 to 4); whether it counts now is `standing_of`'s to say."""

    mesh: MeshId
    chain: tuple[bytes, ...]
    credentials: tuple[Credential, ...]
    nodes: tuple[NodeId, ...]
    """All nodes it passes through, the root's first child first, its own last."""

    @property
    def node(self) -> NodeId:
        """The node it proves."""
        return self.nodes[-1]

    @property
    def last(self) -> Credential:
        """The node's own credential."""
        return self.credentials[-1]

    @property
    def depth(self) -> int:
        """How many credentials it holds."""
        return len(self.credentials)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a good chain proves of its node now."""

    node: NodeId
    role: Role
    may_invite: bool
    expires_at_unix_s: int | None
    nodes: tuple[NodeId, ...]
    token_ids: tuple[bytes, ...]

    @property
    def depth(self) -> int:
        """How many credentials prove it."""
        return len(self.nodes)


class RevokedBy(Protocol):
    """What the rules need of a set of revocations (`proto.revocation.RevocationSet`)."""

    def cut_in(self, nodes: Sequence[NodeId]) -> NodeId | None:
        """The first of a chain's `nodes` that is revoked by the root or by one before it; None where none is."""


def issue_credential(
    signer: Signer,
    mesh: MeshId,
    node: NodeId,
    role: Role,
    *,
    may_invite: bool,
    issued_at_unix_s: int,
    expires_at_unix_s: int | None = None,
    token_id: bytes | None = None,
) -> bytes:
    """One encoded credential for `node`, signed by `signer` (the root key, or a member that may invite).

    Raises `WireError` for a figure that peers would not read. It says nothing of whether the signer had that right:
    `exceeds` does, before, and `read_chain` after."""
    credential = Credential(
        CREDENTIAL_FORMAT,
        public_key_of(mesh),
        public_key_of(node),
        signer.public_key,
        role,
        may_invite,
        issued_at_unix_s,
        expires_at_unix_s,
        token_id,
    )
    body = pack(credential)
    unpack(body, Credential, "credential", MAX_CREDENTIAL_BYTES)
    return pack(_Signed(body, signer.sign(signing_input(_KIND, mesh, body))))


def decode_credential(data: bytes) -> Credential:
    """The statement in an encoded credential, its signature not looked at. Raises `WireError`."""
    return _opened(data)[0]


def read_chain(chain: Sequence[bytes], mesh: MeshId, node: NodeId) -> Lineage:
    """The chain with its signatures and structure verified (rules 1 to 4). Raises `BadCredential`."""
    if not 1 <= len(chain) <= MAX_CHAIN:
        reason = BadCredentialReason.TOO_DEEP if chain else BadCredentialReason.MALFORMED
        raise BadCredential(reason, len(chain), f"{len(chain)} credentials", f"1 to {MAX_CHAIN}")
    credentials: list[Credential] = []
    for at, entry in enumerate(chain):
        parent = credentials[-1] if credentials else None
        credentials.append(_read_entry(at, entry, mesh, parent))
    nodes = tuple(node_id_of(credential.node) for credential in credentials)
    lineage = Lineage(mesh, tuple(chain), tuple(credentials), nodes)
    if lineage.node != node:
        raise BadCredential(BadCredentialReason.WRONG_NODE, len(chain) - 1, short(lineage.node), short(node))
    _no_node_twice(lineage.nodes)
    return lineage


def standing_of(lineage: Lineage, now_unix_s: int, revoked: RevokedBy) -> Standing:
    """What the chain proves at the judge's wall-clock time (rule 5). Raises `BadCredential`."""
    cut = revoked.cut_in(lineage.nodes)
    if cut is not None:
        at = lineage.nodes.index(cut)
        raise BadCredential(
            BadCredentialReason.REVOKED, at, f"{short(cut)} is removed", "a chain without removed nodes"
        )
    for at, credential in enumerate(lineage.credentials):
        end = credential.expires_at_unix_s
        if end is not None and now_unix_s > end + CLOCK_TOLERANCE_S:
            clock = f"this clock reads {utc_text(now_unix_s)}"
            raise BadCredential(BadCredentialReason.EXPIRED, at, clock, f"at most {utc_text(end)}")
    own = lineage.last
    tokens = tuple(one.token_id for one in lineage.credentials if one.token_id is not None)
    return Standing(lineage.node, own.role, own.may_invite, own.expires_at_unix_s, lineage.nodes, tokens)


def verify_chain(chain: Sequence[bytes], mesh: MeshId, node: NodeId, now_unix_s: int, revoked: RevokedBy) -> Standing:
    """What `chain` proves of `node` in `mesh` now. Raises `BadCredential` with the first rule it breaks."""
    return standing_of(read_chain(chain, mesh, node), now_unix_s, revoked)


def exceeds(parent: Credential, role: Role, expires_at_unix_s: int | None) -> str | None:
    """Which right a child would have beyond `parent`'s, in words; None where it has none (rule 3). The right to invite
    needs no look: who does not have it has no children."""
    if _RANK[role] > _RANK[parent.role]:
        return f"role {role.value} under a {parent.role.value}"
    end = parent.expires_at_unix_s
    if end is not None and (expires_at_unix_s is None or expires_at_unix_s > end):
        later = "no expiry" if expires_at_unix_s is None else f"expiry {utc_text(expires_at_unix_s)}"
        return f"{later} under one that ends {utc_text(end)}"
    return None


def _read_entry(at: int, entry: bytes, mesh: MeshId, parent: Credential | None) -> Credential:
    try:
        credential, signed = _opened(entry)
    except WireError as error:
        raise BadCredential(BadCredentialReason.MALFORMED, at, error.found, error.expected) from error
    if mesh_id_of(credential.mesh) != mesh:
        found = f"mesh {short(mesh_id_of(credential.mesh))}"
        raise BadCredential(BadCredentialReason.WRONG_MESH, at, found, f"mesh {short(mesh)}")
    issuer = public_key_of(mesh) if parent is None else parent.node
    if credential.issuer != issuer:
        found = f"issued by {short(node_id_of(credential.issuer))}"
        raise BadCredential(BadCredentialReason.NOT_LINKED, at, found, f"issued by {short(node_id_of(issuer))}")
    if not verify(issuer, signed.signature, signing_input(_KIND, mesh, signed.body)):
        owner = short(node_id_of(issuer))
        raise BadCredential(BadCredentialReason.BAD_SIGNATURE, at, "another signature", f"the signature of {owner}")
    if is_weak_key(credential.node):
        raise BadCredential(BadCredentialReason.MALFORMED, at, "a key of small order", "a key made by Ed25519")
    if parent is not None:
        _within_parent(at, credential, parent)
    return credential


def _within_parent(at: int, credential: Credential, parent: Credential) -> None:
    if not parent.may_invite:
        found = f"{short(node_id_of(parent.node))} may not invite"
        raise BadCredential(BadCredentialReason.MAY_NOT_INVITE, at, found, "an issuer that may")
    more = exceeds(parent, credential.role, credential.expires_at_unix_s)
    if more is not None:
        raise BadCredential(BadCredentialReason.EXCEEDS_PARENT, at, more, "at most the issuer's rights")


def _no_node_twice(nodes: tuple[NodeId, ...]) -> None:
    for at, node in enumerate(nodes):
        if node in nodes[:at]:
            raise BadCredential(BadCredentialReason.REPEATED_NODE, at, f"{short(node)} twice", "each node once")


def _opened(data: bytes) -> tuple[Credential, _Signed]:
    signed = unpack(data, _Signed, "credential", MAX_CREDENTIAL_BYTES)
    return unpack(signed.body, Credential, "credential", MAX_CREDENTIAL_BYTES), signed
