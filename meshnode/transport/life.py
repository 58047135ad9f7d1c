"""Signs of life: how each of two processes with one key is shown that the other one runs.

Both hear of it from a third node, and one that lies could keep every newcomer from running, or raise alarms. So each of
the two processes speaks for itself, and the member between them hands its signature on.

To the newcomer the running process signs (its boot id, the newcomer's boot id).

- The newcomer drew its boot id at this start: the signature can be no older.
- Only the key signs, and the newcomer signs nothing about its own boot id: another process did.
- A request may come from anybody and about any boot id: the signature tells no more than that this process runs.

To the running process goes what the newcomer signed to get in: the member's challenge, whose nonce the member made of
the running process's boot id. The same three hold: no process signs a challenge that is made of its own boot id.

What lives here: making and judging the proofs. What does not: when a process is asked (`judge`), and what becomes of
the two (`reports`, the daemon).
"""

from __future__ import annotations

from meshnode.transport.boundary import LocalIdentity
from proto import signing
from proto.ids import BootId, MeshId, NodeId, public_key_of
from proto.messages import LifeProof, LifeSign, SignedChallenge


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


def nonce_about(random: bytes, mesh: MeshId, boot_id: BootId) -> bytes:
    """A challenge's nonce made of `boot_id` and the beginning of 32 random bytes."""
    return signing.bound_nonce(mesh, random[: signing.SALT_BYTES], boot_id)


def is_about(nonce: bytes, mesh: MeshId, boot_id: BootId) -> bool:
    """True where `nonce` was made of `boot_id`; one that was drawn is so once in 2^128."""
    return nonce == nonce_about(nonce, mesh, boot_id)


def proves_double(running: LocalIdentity, mesh: MeshId, teller: NodeId, signed: SignedChallenge | None) -> bool:
    """True where `signed` shows that a process other than `running` has shown its key to `teller` since `running`
    started."""
    if signed is None or not is_about(signed.nonce, mesh, running.boot_id):
        return False
    covered = signing.proof_input(mesh, running.node, teller, signed.nonce)
    return signing.verify(public_key_of(running.node), signed.signature, covered)
