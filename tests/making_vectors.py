"""The wire's test vectors: named things, what they are made of, and their exact bytes.

`python tests/making_vectors.py` (with the project's root on PYTHONPATH) writes `tests/vectors/wire.json` anew. The
tests hold the file and the code together: bytes change only on purpose. Another implementation can be checked with the
file alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from making_members import MESH, NOW_UNIX_S, ROOT, Key, a_chain, a_credential

from meshnode.transport.trial import trial_packet
from proto.approval import commitment, words
from proto.codec import encode_datagram, encode_frame, encode_part
from proto.ids import BootId, short_id_of
from proto.messages import (
    Ack,
    Claim,
    ClaimKind,
    Delta,
    Fence,
    Hello,
    IdentityConflict,
    LifeProof,
    LifeRequest,
    LifeSign,
    Ping,
    Proof,
    Refusal,
    RefusalCode,
    SignedChallenge,
    Welcome,
)
from proto.parts import Coordinate, IdentityPart, NetworkPart, Role, RttEntry
from proto.reach import ReachReport, ReachRequest
from proto.revocation import sign_revocation
from proto.signing import bound_nonce, life_input, proof_input, sign_claim, sign_part, signing_input
from proto.token import make_token
from proto.tunnels import TunnelAnswer, TunnelBytes, TunnelCancel, TunnelCredit, TunnelRequest
from proto.weights import TensorSize, WeightsEnd, WeightsList, WeightsRequest, WeightsTensor

FILE = Path(__file__).parent / "vectors" / "wire.json"

FOUNDER, MEMBER, CLIENT = Key("founder"), Key("member"), Key("client")
TOKEN_ID, NONCE = b"token id 16 byte", b"a nonce 16 bytes"


def all_vectors() -> list[dict[str, Any]]:
    """Each with `name`, `what` and `hex` (or `text` for what is a text), in the order of a node's life."""
    return [*_keys(), *_membership(), *_approval(), *_handshake(), *_gossip(), *_probes(), *_tunnels(), *_reaching()]


def _vector(name: str, what: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "what": what, "hex": data.hex()}


def _keys() -> list[dict[str, Any]]:
    keys = (("root", ROOT), ("founder", FOUNDER), ("member", MEMBER), ("client", CLIENT))
    return [
        {
            "name": f"key {name}",
            "what": f"Ed25519 seed = SHA-256 of the text `{name}`",
            "public_key": key.public_key.hex(),
            "id": key.node,
        }
        for name, key in keys
    ]


def _membership() -> list[dict[str, Any]]:
    chain = (*a_chain(FOUNDER), a_credential(FOUNDER, MEMBER, role=Role.WORKER, token_id=TOKEN_ID))
    kept = a_credential(ROOT, CLIENT, role=Role.CLIENT, may_invite=False)
    token = make_token(
        FOUNDER,
        MESH,
        members=[(FOUNDER.node, ("192.0.2.1:4411", "[2001:db8::1]:4411"))],
        token_id=TOKEN_ID,
        nonce=NONCE,
        role=Role.WORKER,
        may_invite=False,
        expires_at_unix_s=NOW_UNIX_S + 3600,
        uses=1,
    )
    return [
        _vector(
            "signing input", "kind `claim`, this mesh, pieces `ab` and empty", signing_input("claim", MESH, b"ab", b"")
        ),
        _vector("credential of the founder", "root's, worker, may invite, no expiry, no token", chain[0]),
        _vector("credential of the member", "founder's, worker, may invite, token id as given", chain[1]),
        {"name": "invite token", "what": "founder's, worker, one use, an hour, two addresses", "text": token},
        _vector(
            "revocation",
            "the root removes the founder, voids the token, keeps the client",
            sign_revocation(
                ROOT, MESH, FOUNDER.node, chain=(), made_at_unix_s=NOW_UNIX_S, token_ids=(TOKEN_ID,), kept=(kept,)
            ),
        ),
    ]


def _approval() -> list[dict[str, Any]]:
    ours, theirs = bytes(range(32)), bytes(range(32, 64))
    shown = words(MESH, FOUNDER.node, CLIENT.node, ours, theirs)
    return [
        _vector(
            "approval commitment",
            "the client asks the founder, nonce 00..1f",
            commitment(MESH, FOUNDER.node, CLIENT.node, ours),
        ),
        {"name": "approval words", "what": "the founder's nonce is 20..3f", "text": " ".join(shown)},
    ]


def _reaching() -> list[dict[str, Any]]:
    nonce, address = bytes(range(32)), "192.0.2.1:4411"
    report = ReachReport(nonce, (0,), 1472, (address,), "192.0.2.7:51000", NOW_UNIX_S * 1000)
    return [
        _vector("frame reach request", "nonce 00..1f, one address", encode_frame(ReachRequest(nonce, (address,)))),
        _vector("frame reach report", "arrived at it, 1472 bytes at most", encode_frame(report)),
        _vector("trial packet", "for the address at place 2", trial_packet(nonce, 2)),
    ]


def _handshake() -> list[dict[str, Any]]:
    nonce, boot = bytes(range(32)), BootId(bytes(range(16)))
    covered = proof_input(MESH, MEMBER.node, FOUNDER.node, nonce)
    hello = Hello((1, 0), (1, 0), MESH, MEMBER.node, boot, "meshnode 0.1.0", False)
    proof = Proof(MEMBER.sign(covered), (*a_chain(FOUNDER, MEMBER),))
    refusal = Refusal(RefusalCode.EXPIRED, "the invite has expired", "the member's clock", "until then")
    return [
        _vector("frame hello", "member to founder, version 1.0", encode_frame(hello)),
        _vector("proof input", "member dials founder, nonce 00..1f", covered),
        _vector("frame proof", "signature over it and the member's chain", encode_frame(proof)),
        _vector("frame welcome", "founder's chain", encode_frame(Welcome(a_chain(FOUNDER), "192.0.2.7:51000", 0))),
        _vector("frame refusal", "expired", encode_frame(refusal)),
        *_signs_of_life(),
    ]


def _signs_of_life() -> list[dict[str, Any]]:
    running, newcomer = bytes(range(16)), bytes(range(16, 32))
    covered = life_input(MESH, running, newcomer)
    proof = LifeProof(running, MEMBER.sign(covered))
    there, here = "192.0.2.9:4411", "192.0.2.7:4411"
    refusal = Refusal(RefusalCode.IDENTITY_IN_USE, "another living process has this node's key", there, here, proof)
    return [
        _vector("frame life request", "newcomer with boot id 10..1f", encode_frame(LifeRequest(newcomer))),
        _vector("life input", "boot id 00..0f signs for it", covered),
        _vector("frame life sign", "member's signature over it", encode_frame(LifeSign(newcomer, proof))),
        _vector("frame refusal in use", "the newcomer's refusal, with the proof", encode_frame(refusal)),
        *_double(running),
    ]


def _double(running: bytes) -> list[dict[str, Any]]:
    nonce = bound_nonce(MESH, bytes(range(32, 48)), running)
    signed = SignedChallenge(nonce, MEMBER.sign(proof_input(MESH, MEMBER.node, FOUNDER.node, nonce)))
    conflict = IdentityConflict("192.0.2.7:4411", "192.0.2.9:4411", signed)
    return [
        _vector("bound nonce", "salt 20..2f, boot id 00..0f", nonce),
        _vector("frame identity conflict", "to boot id 00..0f, what the newcomer signed", encode_frame(conflict)),
    ]


def _gossip() -> list[dict[str, Any]]:
    identity = IdentityPart(
        MEMBER.node,
        3,
        1,
        BootId(bytes(range(16))),
        a_chain(FOUNDER, MEMBER),
        ("192.0.2.7:4411",),
        (),
        1,
        "meshnode 0.1.0",
    )
    row = RttEntry(short_id_of(FOUNDER.node), 210, 260, 12, False)
    network = NetworkPart(MEMBER.node, 3, 2, (row,), Coordinate((1.5, 0.0, -2.0, 0.25), 90.0, 0.5))
    unsigned = Claim(ClaimKind.SUSPECT, MEMBER.node, 3, FOUNDER.node, 7, bytes(64))
    delta = Delta((sign_part(MEMBER, MESH, network),), (sign_claim(FOUNDER, MESH, unsigned),), urgent=True)
    return [
        _vector("part identity", "the member's, one address", encode_part(identity)),
        _vector("part network", "one RTT entry and a coordinate", encode_part(network)),
        _vector("frame delta", "that network part signed, the founder suspects the member", encode_frame(delta)),
    ]


def _probes() -> list[dict[str, Any]]:
    return [
        _vector("datagram ping", "nonce 7, incarnation 3, timed", encode_datagram(Ping(7, 3, rtt=True))),
        _vector("datagram ack", "nonce 7, incarnation 9, held 40 us", encode_datagram(Ack(7, 9, 40))),
    ]


def _tunnels() -> list[dict[str, Any]]:
    key, ticket = bytes(range(32)), bytes(range(32, 64))
    request = TunnelRequest(7, "engine", "llama", Fence(3, FOUNDER.node), 1, "tcp", key)
    return [
        _vector("frame tunnel_request", "founder's, generation 3, stage 1, key 00..1f", encode_frame(request)),
        _vector(
            "frame tunnel_answer granted",
            "TCP port 4411, ticket 20..3f, key 00..1f",
            encode_frame(TunnelAnswer(7, "", "", "tcp", ticket, 4411, key)),
        ),
        _vector(
            "frame tunnel_answer refused",
            "not_offered, no engine",
            encode_frame(TunnelAnswer(7, "not_offered", "no engine here")),
        ),
        _vector("frame tunnel_bytes", "last, 16 bytes", encode_frame(TunnelBytes(7, False, 2, bytes(16), True))),
        _vector("frame tunnel_credit", "4096 bytes taken, 2 pieces sent", encode_frame(TunnelCredit(7, True, 4096, 2))),
        _vector("frame tunnel_cancel", "by the opener", encode_frame(TunnelCancel(7, False))),
        *_weights(),
    ]


def _weights() -> list[dict[str, Any]]:
    """Frames inside a tunnel for the purpose `weights`."""
    name, size_bytes, digest = "blk.3.ffn_up.weight", 12_582_912, bytes(range(32))
    tensors = WeightsList("sampled1:00ff", (TensorSize(name, size_bytes),), False)
    return [
        _vector("frame weights_list", "one tensor of 12,582,912 bytes, the last list", encode_frame(tensors)),
        _vector(
            "frame weights_request",
            "from byte 4096 on, digest 00..1f",
            encode_frame(WeightsRequest(name, 4096, digest)),
        ),
        _vector(
            "frame weights_tensor",
            "its bytes from 4096 on follow",
            encode_frame(WeightsTensor(name, size_bytes, digest, 4096)),
        ),
        _vector("frame weights_end", "with a reason", encode_frame(WeightsEnd("the file changed"))),
    ]


if __name__ == "__main__":
    FILE.write_text(json.dumps(all_vectors(), indent=1) + "\n", encoding="utf-8")
