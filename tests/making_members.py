"""Keys, chains and meshes for tests: made from names, so that each run sees the same bytes."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from proto.credential import issue_credential
from proto.ids import MeshId, NodeId, mesh_id_of, node_id_of
from proto.parts import Role

NOW_UNIX_S = 1_800_000_000


class Key:
    """A private key made from a name; a `proto.signing.Signer`."""

    def __init__(self, name: str) -> None:
        self.private_key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
        self.public_key = self.private_key.public_key().public_bytes_raw()
        self.node: NodeId = node_id_of(self.public_key)
        self.mesh: MeshId = mesh_id_of(self.public_key)

    def sign(self, data: bytes) -> bytes:
        return self.private_key.sign(data)


ROOT = Key("root")
MESH = ROOT.mesh


def a_credential(
    issuer: Key,
    node: Key,
    *,
    mesh: MeshId = MESH,
    role: Role = Role.WORKER,
    may_invite: bool = True,
    expires_at_unix_s: int | None = None,
    token_id: bytes | None = None,
) -> bytes:
    return issue_credential(
        issuer,
        mesh,
        node.node,
        role,
        may_invite=may_invite,
        issued_at_unix_s=NOW_UNIX_S,
        expires_at_unix_s=expires_at_unix_s,
        token_id=token_id,
    )


def a_chain(*nodes: Key, root: Key = ROOT, token_id: bytes | None = None) -> tuple[bytes, ...]:
    """A chain from `root` through `nodes`, all workers that may invite; `token_id` goes into the last credential."""
    issuers = (root, *nodes)
    last = len(nodes) - 1
    return tuple(
        a_credential(issuers[at], node, mesh=root.mesh, token_id=token_id if at == last else None)
        for at, node in enumerate(nodes)
    )
