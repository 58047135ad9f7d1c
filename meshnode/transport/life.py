"""Signs of life: how a newcomer is shown that another process runs with its own key.

A refusal comes from any member, and one that lies could keep every newcomer from running. So the running process speaks
for itself: it signs (its boot id, the newcomer's boot id), and the member that refuses the newcomer hands the signature
on.

- The newcomer drew its boot id at this start: the signature can be no older.
- Only the key signs, and the newcomer signs nothing about its own boot id: another process did.
- A request may come from anybody and about any boot id: the signature tells no more than that this process runs.

What lives here: making and judging the proof. What does not: when a process is asked (`judge`), and what becomes of the
newcomer (`reports`, the daemon).
"""

from __future__ import annotations

from meshnode.transport.boundary import LocalIdentity
from proto import signing
from proto.ids import BootId, MeshId, NodeId, public_key_of
from proto.messages import LifeProof, LifeSign


def sign_of_life(identity: LocalIdentity, mesh: MeshId, newcomer: bytes) -> LifeSign | None:
    """This process lives, for the process of the same key that started as `newcomer`; None where that is this one."""
    if newcomer == identity.boot_id:
        return None
    signature = identity.sign(signing.life_input(mesh, identity.boot_id, newcomer))
    return LifeSign(newcomer, LifeProof(identity.boot_id, signature))


def proves_life(node: NodeId, mesh: MeshId, proof: LifeProof | None, newcomer: BootId) -> bool:
    """True where `proof` shows that a process other than `newcomer` has run with the key of `node` since `newcomer`
    started."""
    if proof is None or proof.boot_id == newcomer:
        return False
    signed = signing.life_input(mesh, proof.boot_id, newcomer)
    return signing.verify(public_key_of(node), proof.signature, signed)
