"""What the transport and the membership machine are told."""

from __future__ import annotations

import msgspec
import pytest
from making_members import NOW_UNIX_S, Key, a_chain
from mesh_of_members import ADDRESS, MeshOfMembers

from meshnode.admission import Admission, JoiningGate, MemberGate, MemberTrust
from meshnode.events import Event, InviteRedeemed, InviteRefused
from meshnode.membership.trust import UNSIGNED, Rejection
from meshnode.transport.boundary import AdmissionGate
from proto.ids import BootId, NodeId
from proto.messages import Claim, ClaimKind, Refusal, RefusalCode, Relay
from proto.parts import IdentityPart, NetworkPart, PartKind, Role, SignedPart
from proto.signing import sign_part

JOINER = Key("joiner").node


def a_gate(mesh: MeshOfMembers, admission: Admission, events: list[Event] | None = None) -> MemberGate:
    taken: list[Event] = [] if events is None else events
    return MemberGate(admission, lambda: float(mesh.now_unix_s), lambda: mesh.now_s, taken.append)


def a_trust(mesh: MeshOfMembers, admission: Admission) -> MemberTrust:
    return MemberTrust(admission, lambda: float(mesh.now_unix_s))


def identity_of(admission: Admission, chain: tuple[bytes, ...] | None = None) -> IdentityPart:
    shown = admission.chain if chain is None else chain
    return IdentityPart(admission.identity.node, 1, 1, BootId(bytes(16)), shown, (), (), 1, "meshnode 0")


def row_of(admission: Admission) -> NetworkPart:
    return NetworkPart(admission.identity.node, 1, 1, (), None)


def code_of(answer: object) -> RefusalCode:
    assert isinstance(answer, Refusal), answer
    return answer.code


def reason_of(answer: object) -> str:
    assert isinstance(answer, Rejection), answer
    return answer.reason


def removed(mesh: MeshOfMembers, node: NodeId) -> None:
    mesh.founder.remove(mesh.founder.plan_removal(node, NOW_UNIX_S), (), NOW_UNIX_S)


def test_both_gates_are_what_the_transport_asks_for(mesh: MeshOfMembers) -> None:
    gates: list[AdmissionGate] = [a_gate(mesh, mesh.founder), JoiningGate(mesh.founder.mesh, lambda: 0.0)]
    assert [gate.own_chain() for gate in gates] == [mesh.founder.chain, ()]


def test_a_member_s_chain_opens_the_gate(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder)
    assert a_gate(mesh, mesh.founder).check_chain(member.identity.node, member.chain) is None


def test_a_removed_member_is_refused_as_removed(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder)
    removed(mesh, member.identity.node)
    gate = a_gate(mesh, mesh.founder)
    assert code_of(gate.check_chain(member.identity.node, member.chain)) is RefusalCode.REMOVED
    assert gate.is_revoked(member.identity.node)


def test_a_member_of_another_mesh_is_refused_as_such(mesh: MeshOfMembers, another_mesh: MeshOfMembers) -> None:
    stranger = another_mesh.founder
    answer = a_gate(mesh, mesh.founder).check_chain(stranger.identity.node, stranger.chain)
    assert code_of(answer) is RefusalCode.WRONG_MESH


@pytest.mark.parametrize("chain", [(), (b"rubbish",), a_chain(Key("joiner"))], ids=["none", "rubbish", "foreign root"])
def test_what_proves_nothing_is_refused(mesh: MeshOfMembers, chain: tuple[bytes, ...]) -> None:
    assert isinstance(a_gate(mesh, mesh.founder).check_chain(JOINER, chain), Refusal)


def test_an_expired_membership_is_refused_with_the_clock(mesh: MeshOfMembers) -> None:
    guest = mesh.joins("guest", mesh.founder, member_for_s=60)
    mesh.now_unix_s += 3600
    answer = a_gate(mesh, mesh.founder).check_chain(guest.identity.node, guest.chain)
    assert code_of(answer) is RefusalCode.BAD_CREDENTIAL
    assert isinstance(answer, Refusal)
    assert "this clock reads 2027-01-15 09:00:00 UTC" in answer.found


def test_a_redeemed_token_is_reported_without_the_token(mesh: MeshOfMembers) -> None:
    events: list[Event] = []
    made = mesh.invite(mesh.founder)
    chain = a_gate(mesh, mesh.founder, events).redeem(made.text, JOINER, ADDRESS)
    assert isinstance(chain, tuple)
    assert events == [InviteRedeemed(made.invite.token_id.hex(), JOINER, "worker", "0", False)]


def test_a_joiner_gets_the_lower_role_it_asks_for(mesh: MeshOfMembers) -> None:
    gate = a_gate(mesh, mesh.founder)
    gate.redeem(mesh.invite(mesh.founder).text, JOINER, ADDRESS, Role.CLIENT)
    assert a_trust(mesh, mesh.founder).role_of(JOINER) is Role.CLIENT


def test_a_refused_token_is_reported_without_the_token(mesh: MeshOfMembers) -> None:
    events: list[Event] = []
    text = mesh.invite(mesh.founder).text
    answer = a_gate(mesh, mesh.founder, events).redeem(text[:-1], JOINER, ADDRESS)
    assert code_of(answer) is RefusalCode.MALFORMED
    (event,) = events
    assert isinstance(event, InviteRefused)
    assert (event.code, event.address) == ("malformed", ADDRESS)
    assert text[10:30] not in str(event.fields())


def test_a_newcomer_is_a_member_at_once(mesh: MeshOfMembers) -> None:
    a_gate(mesh, mesh.founder).redeem(mesh.invite(mesh.founder).text, JOINER, ADDRESS)
    assert a_trust(mesh, mesh.founder).role_of(JOINER) is Role.WORKER


def test_a_joining_node_believes_members_of_its_invite_s_mesh_only(
    mesh: MeshOfMembers, another_mesh: MeshOfMembers
) -> None:
    gate = JoiningGate(mesh.founder.mesh, lambda: float(NOW_UNIX_S))
    stranger = another_mesh.founder
    assert gate.check_chain(mesh.founder.identity.node, mesh.founder.chain) is None
    assert code_of(gate.check_chain(stranger.identity.node, stranger.chain)) is RefusalCode.WRONG_MESH


def test_a_joining_node_lets_nobody_in(mesh: MeshOfMembers) -> None:
    gate = JoiningGate(mesh.founder.mesh, lambda: float(NOW_UNIX_S))
    assert code_of(gate.redeem(mesh.invite(mesh.founder).text, JOINER, ADDRESS)) is RefusalCode.BUSY


def test_an_own_part_opens_at_another_member(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder)
    signed = a_trust(mesh, member).sign_part(identity_of(member))
    assert a_trust(mesh, mesh.founder).open_part(signed) == identity_of(member)


def test_a_part_needs_its_owner_s_chain_to_have_been_seen(without_root: MeshOfMembers) -> None:
    mesh = without_root
    member = mesh.joins("member", mesh.founder, may_invite=True)
    unseen = mesh.joins("unseen", member)
    row, identity = (a_trust(mesh, unseen).sign_part(part) for part in (row_of(unseen), identity_of(unseen)))
    trust = a_trust(mesh, mesh.founder)
    assert reason_of(trust.open_part(row)) == "unknown_owner"
    assert isinstance(trust.open_part(identity), IdentityPart)
    assert trust.open_part(row) == row_of(unseen)


def test_a_removed_node_s_parts_are_refused(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder)
    removed(mesh, member.identity.node)
    trust, signed = a_trust(mesh, mesh.founder), a_trust(mesh, member)
    assert reason_of(trust.open_part(signed.sign_part(identity_of(member)))) == "removed"
    assert reason_of(trust.open_part(signed.sign_part(row_of(member)))) == "removed"
    assert trust.role_of(member.identity.node) is None


def test_a_part_with_somebody_else_s_chain_is_refused(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder)
    borrowed = identity_of(member, chain=mesh.founder.chain)
    answer = a_trust(mesh, mesh.founder).open_part(a_trust(mesh, member).sign_part(borrowed))
    assert reason_of(answer) == "bad_credential"


def test_a_part_about_another_node_is_refused(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder)
    lie = sign_part(member.identity, mesh.founder.mesh, identity_of(mesh.founder))
    assert reason_of(a_trust(mesh, mesh.founder).open_part(lie)) == "bad_signature"


def test_a_part_of_rubbish_is_refused(mesh: MeshOfMembers) -> None:
    rubbish = SignedPart(PartKind.OFFER, b"\xc1", UNSIGNED)
    assert reason_of(a_trust(mesh, mesh.founder).open_part(rubbish)) == "malformed"


def test_claims_and_relays_are_held_against_who_signed_them(mesh: MeshOfMembers) -> None:
    trust, own = a_trust(mesh, mesh.founder), mesh.founder.identity.node
    claim = trust.sign_claim(Claim(ClaimKind.SUSPECT, JOINER, 1, own, 1, UNSIGNED))
    relay = trust.sign_relay(Relay(own, JOINER, 1, b"payload", UNSIGNED))
    assert trust.claim_is_signed(claim)
    assert trust.relay_is_signed(relay)
    assert not trust.claim_is_signed(msgspec.structs.replace(claim, incarnation=2))
    assert not trust.relay_is_signed(msgspec.structs.replace(relay, sequence=2))
