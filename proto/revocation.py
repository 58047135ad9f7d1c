"""Revocations: signed statements that a node is no member any more, or that an invite is void.

What lives here: `Revocation`, its encoding and checks, and `RevocationSet`, a pure grow-only set. What does not:
storing and spreading them (`meshnode.admission`).

A revocation of a node cuts every chain in which that node stands below its signer, or anywhere where the root signed.
It is judged against the chain at hand, so its effect depends on no order of arrival; and a member that may invite
cannot remove a stranger by signing a credential for the stranger's key first: the stranger's own chain does not pass
through it. The node's own chain comes along as evidence that the signer stands above it, which bounds who can fill the
set. It also voids the tokens in `token_ids`: the one the node redeemed, so that it cannot come back under a new key.

`kept` holds new credentials, by the same signer, for descendants that the operator keeps: they take the place of the
cut chains the moment the cut is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct

from proto.credential import BadCredential, Lineage, decode_credential, read_chain
from proto.errors import WireError
from proto.ids import MeshId, NodeId, mesh_id_of, node_id_of, public_key_of, short
from proto.packing import pack, unpack
from proto.parts import MAX_CHAIN
from proto.shapes import WireKey, WireSignature, WireTokenId, WireUnixTime
from proto.signing import Signer, signing_input, verify

REVOCATION_FORMAT: Final = 1
MAX_REVOCATION_BYTES: Final = 4096
MAX_KEPT: Final = 6
MAX_TOKENS: Final = 64
MAX_PER_SIGNER: Final = 256
_KIND = "revocation"

_Entry = Annotated[bytes, Meta(max_length=1024)]


class Revocation(Struct, frozen=True, array_like=True):
    """What the signer states. `node` is the removed node's key, or None where only tokens are voided. `signer` is the
    mesh's key where the root signs. `chain` is the removed node's (for tokens: their issuer's own); the root may leave
    it out. On the wire an array in this order; later versions append."""

    format: Annotated[int, Meta(ge=REVOCATION_FORMAT, le=REVOCATION_FORMAT)]
    mesh: WireKey
    node: WireKey | None
    signer: WireKey
    chain: Annotated[tuple[_Entry, ...], Meta(max_length=MAX_CHAIN)]
    token_ids: Annotated[tuple[WireTokenId, ...], Meta(max_length=MAX_TOKENS)]
    kept: Annotated[tuple[_Entry, ...], Meta(max_length=MAX_KEPT)]
    made_at_unix_s: WireUnixTime


class _Signed(Struct, frozen=True, array_like=True):
    body: Annotated[bytes, Meta(max_length=MAX_REVOCATION_BYTES)]
    signature: WireSignature


class BadRevocation(ValueError):
    """A revocation that binds nobody: `found` and `required` are the two facts that differ."""

    def __init__(self, found: str, required: str) -> None:
        self.found = found
        self.required = required
        super().__init__(f"revocation: found {found}, required {required}")


class CheckedRevocation(Struct, frozen=True):
    """A revocation whose signature, evidence and kept chains hold. `encoded` is what goes to peers."""

    encoded: bytes
    mesh: MeshId
    node: NodeId | None
    signer: NodeId | None
    """None where the root signed."""
    token_ids: tuple[bytes, ...]
    kept: tuple[Lineage, ...]
    made_at_unix_s: int

    @property
    def digest(self) -> bytes:
        """16 bytes that name it."""
        return hashlib.sha256(self.encoded).digest()[:16]


def sign_revocation(
    signer: Signer,
    mesh: MeshId,
    node: NodeId | None,
    *,
    chain: Sequence[bytes],
    made_at_unix_s: int,
    token_ids: Sequence[bytes] = (),
    kept: Sequence[bytes] = (),
) -> bytes:
    """The encoded revocation. Raises `WireError` for more `kept` or `token_ids`, or more than 4,096 bytes in all."""
    target = None if node is None else public_key_of(node)
    body = pack(
        Revocation(
            REVOCATION_FORMAT,
            public_key_of(mesh),
            target,
            signer.public_key,
            tuple(chain),
            tuple(token_ids),
            tuple(kept),
            made_at_unix_s,
        )
    )
    unpack(body, Revocation, "revocation", MAX_REVOCATION_BYTES)
    encoded = pack(_Signed(body, signer.sign(signing_input(_KIND, mesh, body))))
    if len(encoded) > MAX_REVOCATION_BYTES:
        raise WireError("revocation", "", f"{len(encoded)} bytes", f"at most {MAX_REVOCATION_BYTES} bytes")
    return encoded


def check_revocation(encoded: bytes, mesh: MeshId) -> CheckedRevocation:
    """The revocation in `encoded`, valid in `mesh`. Raises `WireError` for its shape and `BadRevocation` for its
    signature, its signer's right, or a kept chain that does not hold."""
    signed = unpack(encoded, _Signed, "revocation", MAX_REVOCATION_BYTES)
    stated = unpack(signed.body, Revocation, "revocation", MAX_REVOCATION_BYTES)
    if mesh_id_of(stated.mesh) != mesh:
        raise BadRevocation(f"mesh {short(mesh_id_of(stated.mesh))}", f"mesh {short(mesh)}")
    if not verify(stated.signer, signed.signature, signing_input(_KIND, mesh, signed.body)):
        raise BadRevocation("another signature", f"the signature of {short(node_id_of(stated.signer))}")
    by_root = stated.signer == public_key_of(mesh)
    above = () if by_root else _above(stated, mesh)
    return CheckedRevocation(
        encoded,
        mesh,
        None if stated.node is None else node_id_of(stated.node),
        None if by_root else node_id_of(stated.signer),
        stated.token_ids,
        tuple(_kept(entry, above, mesh, stated.signer) for entry in stated.kept),
        stated.made_at_unix_s,
    )


def _above(stated: Revocation, mesh: MeshId) -> tuple[bytes, ...]:
    """The signer's own chain: the evidence's entries up to it. A member may void its own invites and remove what
    stands below it, nothing else."""
    subject = stated.signer if stated.node is None else stated.node
    evidence = _evidence(stated.chain, mesh, node_id_of(subject))
    signer = node_id_of(stated.signer)
    if stated.node is not None and signer not in evidence.nodes[:-1]:
        raise BadRevocation(
            f"{short(signer)} is not above {short(evidence.node)}", "a signature of the root or above it"
        )
    if stated.node is not None and not set(stated.token_ids) <= {evidence.last.token_id}:
        raise BadRevocation("a token it did not redeem", "the removed node's own token")
    at = evidence.nodes.index(signer)
    if not evidence.credentials[at].may_invite:
        raise BadRevocation(f"{short(signer)} may not invite", "a signer that may")
    return evidence.chain[: at + 1]


def _evidence(chain: Sequence[bytes], mesh: MeshId, node: NodeId) -> Lineage:
    try:
        return read_chain(chain, mesh, node)
    except BadCredential as error:
        raise BadRevocation(str(error), "a chain of this mesh as evidence") from error


def _kept(entry: bytes, above: tuple[bytes, ...], mesh: MeshId, signer: bytes) -> Lineage:
    credential = decode_credential(entry)
    if credential.issuer != signer:
        raise BadRevocation("a kept node signed by another", "signed by the one who removes")
    return _evidence((*above, entry), mesh, node_id_of(credential.node))


class RevocationSet:
    """All revocations known, as a grow-only set. Pure: the caller stores what `add` accepted.

    Members' own revocations are bounded by `MAX_PER_SIGNER` each, so that one hostile inviter cannot fill every
    node's memory; the root's are not.
    """

    def __init__(self) -> None:
        self._all: dict[bytes, CheckedRevocation] = {}
        self._signers_against: dict[NodeId, set[NodeId | None]] = {}
        self._void_tokens: set[bytes] = set()
        self._voided_by_issuer: set[tuple[NodeId, bytes]] = set()
        self._per_signer: dict[NodeId, int] = {}
        self._kept: dict[NodeId, list[CheckedRevocation]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[CheckedRevocation]:
        return iter(self._all.values())

    def __contains__(self, encoded: bytes) -> bool:
        return hashlib.sha256(encoded).digest()[:16] in self._all

    def add(self, revocation: CheckedRevocation) -> bool:
        """Take it in. False where it is known, or its signer (not the root) has reached its bound."""
        if revocation.digest in self._all:
            return False
        signer = revocation.signer
        if signer is not None:
            if self._per_signer.get(signer, 0) >= MAX_PER_SIGNER:
                return False
            self._per_signer[signer] = self._per_signer.get(signer, 0) + 1
        self._all[revocation.digest] = revocation
        if revocation.node is not None:
            self._signers_against.setdefault(revocation.node, set()).add(signer)
        if revocation.node is None and signer is not None:
            self._voided_by_issuer.update((signer, token) for token in revocation.token_ids)
        else:
            self._void_tokens.update(revocation.token_ids)
        for lineage in revocation.kept:
            self._kept.setdefault(lineage.node, []).append(revocation)
        return True

    def cut_in(self, nodes: Sequence[NodeId]) -> NodeId | None:
        """The first of a chain's `nodes` that is revoked by the root or by one before it; None where none is."""
        for at, node in enumerate(nodes):
            signers = self._signers_against.get(node)
            if signers and (None in signers or not signers.isdisjoint(nodes[:at])):
                return node
        return None

    def names(self, node: NodeId) -> bool:
        """True where some revocation names `node`, whether or not it cuts the chain `node` shows now."""
        return node in self._signers_against

    def voids(self, token_id: bytes, issuer: NodeId) -> bool:
        """True where the invite was voided by its issuer, or redeemed by a node that was removed."""
        return token_id in self._void_tokens or (issuer, token_id) in self._voided_by_issuer

    def kept_chains(self, node: NodeId) -> tuple[Lineage, ...]:
        """The chains that removals issued anew for `node`, the newest removal's first (ties by digest)."""
        newest_first = sorted(self._kept.get(node, ()), key=lambda one: (-one.made_at_unix_s, one.digest))
        return tuple(lineage for one in newest_first for lineage in one.kept if lineage.node == node)
