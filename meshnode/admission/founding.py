"""A mesh begins: its root key is made, and the first member's credential is signed with it.

What lives here: `found_mesh` and `read_root_key`. Called by `meshnode init`, by the first `meshnode run`, and by
removal with an exported key. The root key is apart from any node's key, so that it can be taken offline at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from meshnode.admission.errors import AlreadyMember
from meshnode.admission.issuing import Issuer
from meshnode.durable import StateError
from meshnode.identity import Identity, SigningKey, export_key_file, read_key_file
from meshnode.state import StateDirectory
from proto.ids import MeshId, mesh_id_of, short
from proto.parts import Role


@dataclass(frozen=True)
class Founded:
    """A new mesh and its first member's chain; `root_kept` tells whether the root key lies in the state directory."""

    mesh: MeshId
    chain: tuple[bytes, ...]
    root_kept: bool


def found_mesh(
    state: StateDirectory,
    identity: Identity,
    now_unix_s: int,
    *,
    role: Role = Role.WORKER,
    export_root: Path | None = None,
) -> Founded:
    """Found a mesh with this node as its first member, which may invite.

    With `export_root` the root key goes into that new file and nowhere else. Raises `AlreadyMember` where this node
    belongs to a mesh, `StateError` where the key can't be stored or the file exists; either way nothing is changed.
    """
    member_of = state.credential()
    if member_of is not None:
        raise AlreadyMember(MeshId(member_of.mesh), None)
    # A root key without a credential is what a crash between the two leaves: that founding is carried on.
    root = state.root_key() or SigningKey.generate()
    if export_root is None:
        state.save_root_key(root)
    else:
        export_key_file(export_root, root)
        state.drop_root_key()
    mesh = mesh_id_of(root.public_key)
    chain = Issuer(root, mesh, None).issue(
        identity.node, role, may_invite=True, now_unix_s=now_unix_s, expires_at_unix_s=None, token_id=None
    )
    state.save_credential(mesh, chain)
    return Founded(mesh, chain, export_root is None)


def read_root_key(path: Path, mesh: MeshId) -> SigningKey:
    """The exported root key of `mesh`. Raises `StateError` where the file is missing, exposed, damaged or another's."""
    key = read_key_file(path, "use the file that init --export-root wrote")
    if key is None:
        raise StateError(path, "no such file", "name the file that init --export-root wrote")
    if mesh_id_of(key.public_key) != mesh:
        found = f"holds the root key of mesh {short(mesh_id_of(key.public_key))}, not of {short(mesh)}"
        raise StateError(path, found, "name the right mesh's file")
    return key
