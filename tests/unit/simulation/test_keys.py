"""Small simulated worlds have real keys: what a member did not sign itself, no other member takes."""

from __future__ import annotations

import msgspec
import pytest

from meshnode.membership.trust import UNSIGNED, Rejection
from meshnode.simulation.keys import REAL_UP_TO
from meshnode.simulation.oracle import ORACLE_CHAIN
from meshnode.simulation.world import Member, Plan, World
from proto.messages import Claim, ClaimKind
from proto.parts import IdentityPart


@pytest.fixture
def members() -> tuple[Member, Member, Member]:
    one, other, third = (node.member for node in World(Plan(3, seed=1)).nodes.values())
    return one, other, third


def identity_of(member: Member, chain: tuple[bytes, ...]) -> IdentityPart:
    return IdentityPart(member.node, 1, 1, bytes(16), chain, (), (), 1, "simulated")


def test_part_is_taken_as_its_owner_signed_it_and_in_no_other_form(members: tuple[Member, Member, Member]) -> None:
    one, other, _ = members
    part = identity_of(one, one.chain)
    signed = one.trust.sign_part(part)
    assert other.trust.open_part(signed) == part
    altered = msgspec.structs.replace(signed, body=signed.body.replace(b"simulated", b"forged!!!"))
    answer = other.trust.open_part(altered)
    assert isinstance(answer, Rejection)
    assert answer.reason == "bad_signature"


def test_member_with_another_members_credential_is_no_member(members: tuple[Member, Member, Member]) -> None:
    one, other, _ = members
    answer = other.trust.open_part(one.trust.sign_part(identity_of(one, other.chain)))
    assert isinstance(answer, Rejection)
    assert answer.reason == "bad_credential"


def test_claim_in_another_members_name_is_not_signed(members: tuple[Member, Member, Member]) -> None:
    one, other, third = members
    claim = one.trust.sign_claim(Claim(ClaimKind.SUSPECT, third.node, 1, one.node, 1, UNSIGNED))
    assert other.trust.claim_is_signed(claim)
    assert not other.trust.claim_is_signed(msgspec.structs.replace(claim, accuser=other.node))


def test_only_worlds_too_large_for_them_do_without_keys() -> None:
    largest, larger = World(Plan(REAL_UP_TO, seed=1)), World(Plan(REAL_UP_TO + 1, seed=1))
    assert REAL_UP_TO == 64
    assert all(node.member.chain != ORACLE_CHAIN for node in largest.nodes.values())
    assert all(node.member.chain == ORACLE_CHAIN for node in larger.nodes.values())
