"""Bytes on the wire change only on purpose."""

from __future__ import annotations

import json
from typing import Any

import pytest
from making_members import MESH, NOW_UNIX_S
from making_vectors import CLIENT, FILE, FOUNDER, MEMBER, TOKEN_ID, all_vectors

from proto.codec import FrameDecoder, decode_datagram, decode_part
from proto.credential import verify_chain
from proto.messages import Delta, Ping, Proof
from proto.parts import PartKind
from proto.revocation import RevocationSet, check_revocation
from proto.signing import claim_is_signed, open_part, verify
from proto.token import parse_token

STORED: dict[str, dict[str, Any]] = {vector["name"]: vector for vector in json.loads(FILE.read_text(encoding="utf-8"))}


def data_of(name: str) -> bytes:
    return bytes.fromhex(STORED[name]["hex"])


@pytest.mark.parametrize("made", all_vectors(), ids=lambda vector: vector["name"])
def test_what_is_made_now_has_the_stored_bytes(made: dict[str, Any]) -> None:
    assert made == STORED[made["name"]]


def test_no_stored_vector_is_out_of_use() -> None:
    assert set(STORED) == {vector["name"] for vector in all_vectors()}


def test_the_stored_chain_proves_its_member() -> None:
    chain = (data_of("credential of the founder"), data_of("credential of the member"))
    standing = verify_chain(chain, MESH, MEMBER.node, NOW_UNIX_S, RevocationSet())
    assert (standing.nodes, standing.token_ids) == ((FOUNDER.node, MEMBER.node), (TOKEN_ID,))


def test_the_stored_token_is_whole_and_signed() -> None:
    assert parse_token(STORED["invite token"]["text"]).issuer == FOUNDER.node


def test_the_stored_revocation_removes_the_founder_and_keeps_the_client() -> None:
    checked = check_revocation(data_of("revocation"), MESH)
    assert (checked.node, [lineage.node for lineage in checked.kept]) == (FOUNDER.node, [CLIENT.node])


def test_the_stored_proof_proves_the_member_s_key() -> None:
    (proof,) = FrameDecoder().feed(data_of("frame proof"))
    assert isinstance(proof, Proof)
    assert verify(MEMBER.public_key, proof.signature, data_of("proof input"))


def test_the_stored_delta_opens() -> None:
    (delta,) = FrameDecoder().feed(data_of("frame delta"))
    assert isinstance(delta, Delta)
    assert open_part(delta.parts[0], MESH) == decode_part(PartKind.NETWORK, data_of("part network"))
    assert claim_is_signed(MESH, delta.claims[0])


def test_the_stored_ping_decodes() -> None:
    assert decode_datagram(data_of("datagram ping")) == Ping(7, 3, rtt=True)
