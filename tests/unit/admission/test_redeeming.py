"""Every way a token can be good or not, and what its bearer is told."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from making_members import NOW_UNIX_S, Key, a_chain
from mesh_of_members import ADDRESS, MeshOfMembers

from meshnode.admission import (
    ADVICE,
    Admission,
    Admitted,
    AlreadyMember,
    Refused,
    UnusableInvite,
    explain,
    invite_to_join,
)
from meshnode.admission.errors import InvalidInvite, MayNotInvite, UnknownInvite
from meshnode.admission.inviting import InviteRequest
from proto.credential import verify_chain
from proto.messages import RefusalCode
from proto.parts import Role
from proto.revocation import RevocationSet
from proto.times import CLOCK_TOLERANCE_S
from proto.token import make_token, parse_token

JOINER = Key("joiner").node
SECOND = Key("second joiner").node


def code_of(answer: Admitted | Refused) -> RefusalCode:
    assert isinstance(answer, Refused), answer
    return answer.code


def admitted(answer: Admitted | Refused) -> Admitted:
    assert isinstance(answer, Admitted), answer
    return answer


def test_a_redeemed_token_gives_a_chain_that_proves_membership(mesh: MeshOfMembers) -> None:
    answer = admitted(mesh.redeem(mesh.founder, mesh.invite(mesh.founder).text, JOINER))
    standing = verify_chain(answer.chain, mesh.founder.mesh, JOINER, NOW_UNIX_S, RevocationSet())
    assert (standing.role, standing.may_invite) == (Role.WORKER, False)


def test_a_token_s_role_and_right_to_invite_go_into_the_credential(mesh: MeshOfMembers) -> None:
    text = mesh.invite(mesh.founder, role=Role.CLIENT, may_invite=True).text
    answer = admitted(mesh.redeem(mesh.founder, text, JOINER))
    standing = verify_chain(answer.chain, mesh.founder.mesh, JOINER, NOW_UNIX_S, RevocationSet())
    assert (standing.role, standing.may_invite) == (Role.CLIENT, True)


def test_a_default_invite_is_for_one_worker_within_the_hour(mesh: MeshOfMembers) -> None:
    token = parse_token(mesh.invite(mesh.founder).text)
    assert (token.uses, token.role, token.may_invite) == (1, Role.WORKER, False)
    assert token.expires_at_unix_s == NOW_UNIX_S + 3600


def test_a_used_up_token_lets_nobody_else_in(mesh: MeshOfMembers) -> None:
    text = mesh.invite(mesh.founder).text
    admitted(mesh.redeem(mesh.founder, text, JOINER))
    answer = mesh.redeem(mesh.founder, text, SECOND)
    assert code_of(answer) is RefusalCode.USED_UP
    assert isinstance(answer, Refused)
    assert answer.found == "used 1 of 1"


def test_a_joiner_whose_answer_was_lost_asks_again_at_no_cost(mesh: MeshOfMembers) -> None:
    text = mesh.invite(mesh.founder, uses=2).text
    first = admitted(mesh.redeem(mesh.founder, text, JOINER))
    again = admitted(mesh.redeem(mesh.founder, text, JOINER))
    assert (first.again, first.uses_left) == (False, 1)
    assert (again.again, again.uses_left) == (True, 1)


def test_a_use_counted_before_a_crash_stays_counted_and_its_joiner_gets_in(mesh: MeshOfMembers) -> None:
    """The issuer dies after counting and before answering; the one that starts next knows both."""
    text = mesh.invite(mesh.founder).text
    mesh.redeem(mesh.founder, text, JOINER)
    restarted = mesh.member("founder")
    assert code_of(mesh.redeem(restarted, text, SECOND)) is RefusalCode.USED_UP
    assert admitted(mesh.redeem(restarted, text, JOINER)).again


def test_an_issuer_that_cannot_store_the_use_lets_nobody_in(
    mesh: MeshOfMembers, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = mesh.invite(mesh.founder).text

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert code_of(mesh.redeem(mesh.founder, text, JOINER)) is RefusalCode.BUSY
    assert admitted(mesh.redeem(mesh.founder, text, SECOND)).uses_left == 0


def test_an_expiry_is_judged_by_the_member_s_clock_with_tolerance(mesh: MeshOfMembers) -> None:
    text = mesh.invite(mesh.founder, uses=2).text
    mesh.now_unix_s += 3600 + CLOCK_TOLERANCE_S
    admitted(mesh.redeem(mesh.founder, text, JOINER))
    mesh.now_unix_s += 1
    assert code_of(mesh.redeem(mesh.founder, text, SECOND)) is RefusalCode.EXPIRED


def test_an_expired_token_tells_both_clocks(mesh: MeshOfMembers) -> None:
    text = mesh.invite(mesh.founder).text
    mesh.now_unix_s += 2 * 3600
    answer = mesh.redeem(mesh.founder, text, JOINER)
    assert isinstance(answer, Refused)
    line = explain(answer.message(), NOW_UNIX_S)
    assert "the member's clock reads 2027-01-15 10:00:00 UTC" in line
    assert "this machine's clock reads 2027-01-15 08:00:00 UTC" in line
    assert "until 2027-01-15 09:00:00 UTC" in line


def test_a_revoked_invite_lets_nobody_in(mesh: MeshOfMembers) -> None:
    made = mesh.invite(mesh.founder)
    mesh.founder.revoke_invite(made.invite.token_id.hex()[:6], NOW_UNIX_S)
    assert code_of(mesh.redeem(mesh.founder, made.text, JOINER)) is RefusalCode.REVOKED


def test_revoking_an_invite_keeps_those_who_came_by_it(mesh: MeshOfMembers) -> None:
    made = mesh.invite(mesh.founder, uses=2)
    answer = admitted(mesh.redeem(mesh.founder, made.text, JOINER))
    mesh.founder.revoke_invite(made.invite.token_id.hex(), NOW_UNIX_S)
    assert mesh.founder.roll.admit(JOINER, answer.chain, NOW_UNIX_S).node == JOINER


def test_an_invite_the_issuer_lost_its_record_of_is_void(mesh: MeshOfMembers) -> None:
    text = mesh.invite(mesh.founder).text
    (mesh.state("founder").path / "invites.json").unlink()
    answer = mesh.redeem(mesh.member("founder"), text, JOINER)
    assert code_of(answer) is RefusalCode.REVOKED
    assert isinstance(answer, Refused)
    assert "no record" in answer.text


def test_a_token_of_another_mesh_names_both(mesh: MeshOfMembers, another_mesh: MeshOfMembers) -> None:
    answer = mesh.redeem(mesh.founder, another_mesh.invite(another_mesh.founder).text, JOINER)
    assert code_of(answer) is RefusalCode.WRONG_MESH
    assert isinstance(answer, Refused)
    assert (answer.found, answer.required) == (
        f"mesh {another_mesh.founder.mesh[:10]}",
        f"mesh {mesh.founder.mesh[:10]}",
    )


@pytest.mark.parametrize("text", ["", "hello", "mesh1_AAAA", "mesh1_" + "A" * 2000])
def test_a_mangled_token_is_malformed(mesh: MeshOfMembers, text: str) -> None:
    assert code_of(mesh.redeem(mesh.founder, text, JOINER)) is RefusalCode.MALFORMED


def a_forged_token(mesh: MeshOfMembers, forger: Key) -> str:
    return make_token(
        forger,
        mesh.founder.mesh,
        members=[(mesh.founder.identity.node, ("10.0.0.1:4411",))],
        token_id=bytes(16),
        nonce=bytes(16),
        role=Role.WORKER,
        may_invite=True,
        expires_at_unix_s=NOW_UNIX_S + 60,
        uses=1,
    )


def test_a_forged_token_is_told_from_a_mangled_one(mesh: MeshOfMembers) -> None:
    forged = mesh.redeem(mesh.founder, a_forged_token(mesh, Key("forger")), JOINER)
    mangled = mesh.redeem(mesh.founder, mesh.invite(mesh.founder).text[:-2], JOINER)
    assert isinstance(forged, Refused)
    assert isinstance(mangled, Refused)
    assert "forged" in forged.text
    assert "damaged or incomplete" in mangled.text


def test_a_counted_token_is_redeemed_at_its_issuer_only(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder, may_invite=True)
    answer = mesh.redeem(member, mesh.invite(mesh.founder).text, JOINER)
    assert code_of(answer) is RefusalCode.NOT_THE_ISSUER
    assert isinstance(answer, Refused)
    assert answer.required == mesh.founder.identity.node[:10]


def test_a_stranger_s_token_with_its_own_key_pinned_lets_nobody_in(mesh: MeshOfMembers) -> None:
    forger = Key("forger")
    text = make_token(
        forger,
        mesh.founder.mesh,
        members=[(forger.node, ("10.0.0.1:4411",)), (mesh.founder.identity.node, ("10.0.0.1:4411",))],
        token_id=bytes(16),
        nonce=bytes(16),
        role=Role.WORKER,
        may_invite=True,
        expires_at_unix_s=NOW_UNIX_S + 60,
        uses=None,
        chain=a_chain(forger),
    )
    assert code_of(mesh.redeem(mesh.founder, text, JOINER)) is RefusalCode.REVOKED


def test_an_unlimited_token_is_redeemed_at_any_pinned_member_that_may_invite(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder, may_invite=True)
    text = mesh.invite(mesh.founder, (member,), uses=None).text
    answers = [admitted(mesh.redeem(member, text, node)) for node in (JOINER, SECOND, JOINER)]
    standing = verify_chain(answers[0].chain, member.mesh, JOINER, NOW_UNIX_S, RevocationSet())
    assert standing.nodes == (member.identity.node, JOINER)


def test_an_unlimited_token_is_not_redeemed_at_a_member_it_does_not_pin(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder, may_invite=True)
    text = mesh.invite(mesh.founder, uses=None).text
    assert code_of(mesh.redeem(member, text, JOINER)) is RefusalCode.NOT_THE_ISSUER


def test_a_member_that_may_not_invite_is_not_pinned(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder, may_invite=False)
    token = parse_token(mesh.invite(mesh.founder, (member,), uses=None).text)
    assert [pinned.node for pinned in token.members] == [mesh.founder.identity.node]


def an_unlimited_token_of(issuer: Admission, redeemer: Admission, role: Role) -> str:
    """What a modified meshnode could sign: its owner's rights are not asked."""
    return make_token(
        issuer.identity,
        issuer.mesh,
        members=[(one.identity.node, ("10.0.0.1:4411",)) for one in (issuer, redeemer)],
        token_id=bytes(16),
        nonce=bytes(16),
        role=role,
        may_invite=False,
        expires_at_unix_s=NOW_UNIX_S + 60,
        uses=None,
        chain=issuer.chain,
    )


def test_a_token_of_a_member_that_may_not_invite_lets_nobody_in(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder, may_invite=False)
    answer = mesh.redeem(mesh.founder, an_unlimited_token_of(member, mesh.founder, Role.WORKER), JOINER)
    assert code_of(answer) is RefusalCode.ROLE_NOT_ALLOWED
    assert isinstance(answer, Refused)
    assert answer.found == "may not invite"


def test_a_client_s_unlimited_token_makes_no_worker_at_a_worker_either(mesh: MeshOfMembers) -> None:
    client = mesh.joins("client", mesh.founder, role=Role.CLIENT, may_invite=True)
    answer = mesh.redeem(mesh.founder, an_unlimited_token_of(client, mesh.founder, Role.WORKER), JOINER)
    assert code_of(answer) is RefusalCode.ROLE_NOT_ALLOWED
    assert isinstance(answer, Refused)
    assert answer.found == "role worker under a client"


def test_a_client_that_keeps_the_root_gives_workers_counted_invites_only(tmp_path: Path) -> None:
    """Others judge an unlimited one by its maker's own credential."""
    with ExitStack() as stack:
        mesh = MeshOfMembers(tmp_path, stack, role=Role.CLIENT)
        admitted(mesh.redeem(mesh.founder, mesh.invite(mesh.founder).text, JOINER))
        with pytest.raises(MayNotInvite, match="role worker under a client"):
            mesh.invite(mesh.founder, uses=None)


def test_a_counted_invite_may_last_longer_than_a_week(mesh: MeshOfMembers) -> None:
    admitted(mesh.redeem(mesh.founder, mesh.invite(mesh.founder, lifetime_s=30 * 86_400).text, JOINER))


def test_an_unlimited_token_of_a_removed_issuer_is_void_everywhere(mesh: MeshOfMembers) -> None:
    issuer = mesh.joins("issuer", mesh.founder, may_invite=True)
    text = mesh.invite(issuer, (mesh.founder,), uses=None).text
    mesh.founder.remove(mesh.founder.plan_removal(issuer.identity.node, NOW_UNIX_S), (), NOW_UNIX_S)
    assert code_of(mesh.redeem(mesh.founder, text, JOINER)) is RefusalCode.REVOKED


def test_a_revoked_unlimited_token_is_void_at_the_other_pinned_members_too(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder, may_invite=True)
    made = mesh.invite(mesh.founder, (member,), uses=None)
    revoked = mesh.founder.revoke_invite(made.invite.token_id.hex(), NOW_UNIX_S)
    member.learn(revoked.entries, NOW_UNIX_S)
    assert code_of(mesh.redeem(member, made.text, JOINER)) is RefusalCode.REVOKED


def test_a_token_that_points_at_its_bearer_is_refused(mesh: MeshOfMembers) -> None:
    text = mesh.invite(mesh.founder).text
    answer = mesh.redeem(mesh.founder, text, mesh.founder.identity.node)
    assert code_of(answer) is RefusalCode.NAMES_SELF


def test_a_client_s_token_makes_no_worker(mesh: MeshOfMembers) -> None:
    text = mesh.invite(mesh.founder, role=Role.CLIENT).text
    assert code_of(mesh.redeem(mesh.founder, text, JOINER, wanted=Role.WORKER)) is RefusalCode.ROLE_NOT_ALLOWED


def test_a_worker_s_token_makes_a_client_of_who_wants_to_be_one(mesh: MeshOfMembers) -> None:
    answer = admitted(mesh.redeem(mesh.founder, mesh.invite(mesh.founder).text, JOINER, wanted=Role.CLIENT))
    assert answer.role is Role.CLIENT
    assert verify_chain(answer.chain, mesh.founder.mesh, JOINER, 0, RevocationSet()).role is Role.CLIENT


def test_a_refused_redemption_uses_nothing_up(mesh: MeshOfMembers) -> None:
    made = mesh.invite(mesh.founder, role=Role.CLIENT)
    mesh.redeem(mesh.founder, made.text, JOINER, wanted=Role.WORKER)
    assert mesh.founder.invites()[0].uses_left == 1


def test_five_failures_silence_their_source_and_nobody_else(mesh: MeshOfMembers) -> None:
    text = mesh.invite(mesh.founder).text
    for _ in range(5):
        mesh.redeem(mesh.founder, "mesh1_wrong", JOINER)
    silenced = mesh.redeem(mesh.founder, text, JOINER)
    assert code_of(silenced) is RefusalCode.TOO_MANY_FAILURES
    assert isinstance(silenced, Refused)
    assert silenced.is_silent
    admitted(mesh.redeem(mesh.founder, text, JOINER, address="10.0.0.10:4411"))


def test_a_silenced_source_is_heard_again_after_a_minute(mesh: MeshOfMembers) -> None:
    text = mesh.invite(mesh.founder).text
    for _ in range(5):
        mesh.redeem(mesh.founder, "mesh1_wrong", JOINER, address=ADDRESS)
    mesh.now_s += 60.0
    admitted(mesh.redeem(mesh.founder, text, JOINER, address=ADDRESS))


def test_a_removed_node_does_not_come_back_by_a_new_invite(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder)
    mesh.founder.remove(mesh.founder.plan_removal(member.identity.node, NOW_UNIX_S), (), NOW_UNIX_S)
    answer = mesh.redeem(mesh.founder, mesh.invite(mesh.founder).text, member.identity.node)
    assert code_of(answer) is RefusalCode.REMOVED


def test_a_removed_node_does_not_come_back_by_the_token_it_used(mesh: MeshOfMembers) -> None:
    """With a fresh key, through an invite that had uses left."""
    made = mesh.invite(mesh.founder, uses=None)
    removed = mesh.identity("removed").node
    mesh.founder.roll.admit(removed, admitted(mesh.redeem(mesh.founder, made.text, removed)).chain, NOW_UNIX_S)
    mesh.founder.remove(mesh.founder.plan_removal(removed, NOW_UNIX_S), (), NOW_UNIX_S)
    assert code_of(mesh.redeem(mesh.founder, made.text, SECOND)) is RefusalCode.REVOKED


def test_a_member_whose_right_to_invite_ended_redeems_nothing(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder, may_invite=True)
    text = mesh.invite(member).text
    entries = mesh.founder.remove(mesh.founder.plan_removal(member.identity.node, NOW_UNIX_S), (), NOW_UNIX_S).entries
    member.learn(entries, NOW_UNIX_S)
    assert code_of(mesh.redeem(member, text, JOINER)) is RefusalCode.ROLE_NOT_ALLOWED


def test_the_fourth_member_of_a_chain_lets_nobody_in(without_root: MeshOfMembers) -> None:
    mesh = without_root
    second = mesh.joins("second", mesh.founder, may_invite=True)
    third = mesh.joins("third", second, may_invite=True)
    fourth = mesh.joins("fourth", third, may_invite=True)
    with pytest.raises(MayNotInvite, match="4 steps from the root"):
        mesh.invite(fourth)


def test_a_client_gives_no_worker_s_invite(mesh: MeshOfMembers) -> None:
    client = mesh.joins("client", mesh.founder, role=Role.CLIENT, may_invite=True)
    with pytest.raises(MayNotInvite, match="role worker under a client"):
        mesh.invite(client)
    mesh.joins("another client", client, role=Role.CLIENT)


def test_a_member_that_may_not_invite_gives_no_invite(mesh: MeshOfMembers) -> None:
    with pytest.raises(MayNotInvite, match="may not invite"):
        mesh.invite(mesh.joins("member", mesh.founder))


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"uses": 0}, "uses"),
        ({"uses": 1001}, "uses"),
        ({"lifetime_s": 0}, "expires"),
        ({"lifetime_s": 367 * 86_400}, "expires"),
        ({"uses": None, "lifetime_s": 7 * 86_400 + 1}, "expires"),
        ({"member_for_s": 0}, "membership"),
    ],
)
def test_a_wish_that_makes_no_invite_is_named(wish: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInvite) as caught:
        InviteRequest(**wish)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("uses", "longest"), [(None, "at most 7 days for an unlimited invite"), (1, "at most 366 days for an invite")]
)
def test_how_long_an_invite_may_last_is_said(uses: int | None, longest: str) -> None:
    with pytest.raises(InvalidInvite, match=longest):
        InviteRequest(uses=uses, lifetime_s=1000 * 86_400)


def test_an_unlimited_invite_may_last_a_week(mesh: MeshOfMembers) -> None:
    admitted(mesh.redeem(mesh.founder, mesh.invite(mesh.founder, uses=None, lifetime_s=7 * 86_400).text, JOINER))


def test_a_node_without_any_address_gives_no_invite(mesh: MeshOfMembers) -> None:
    with pytest.raises(InvalidInvite, match="--advertise"):
        mesh.founder.invite(InviteRequest(), [(mesh.founder.identity.node, ())], NOW_UNIX_S)


def test_an_unlimited_invite_needs_an_address_of_its_maker_too(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder, may_invite=True)
    pinned = [(mesh.founder.identity.node, ()), (member.identity.node, ("10.0.0.1:4411",))]
    with pytest.raises(InvalidInvite, match="--advertise"):
        mesh.founder.invite(InviteRequest(uses=None), pinned, NOW_UNIX_S)


def test_a_membership_may_be_given_for_a_time(mesh: MeshOfMembers) -> None:
    text = mesh.invite(mesh.founder, member_for_s=86_400).text
    answer = admitted(mesh.redeem(mesh.founder, text, JOINER))
    standing = mesh.founder.roll.admit(JOINER, answer.chain, NOW_UNIX_S)
    assert standing.expires_at_unix_s == NOW_UNIX_S + 86_400


def test_a_guest_s_guests_leave_with_it(mesh: MeshOfMembers) -> None:
    guest = mesh.joins("guest", mesh.founder, member_for_s=86_400, may_invite=True)
    answer = admitted(mesh.redeem(guest, mesh.invite(guest).text, JOINER))
    standing = verify_chain(answer.chain, guest.mesh, JOINER, NOW_UNIX_S, RevocationSet())
    assert standing.expires_at_unix_s == NOW_UNIX_S + 86_400


def test_a_node_refuses_its_own_invite_before_it_dials(mesh: MeshOfMembers) -> None:
    text = mesh.invite(mesh.founder).text
    with pytest.raises(UnusableInvite) as caught:
        invite_to_join(text, mesh.founder.identity.node, None)
    assert caught.value.code is RefusalCode.NAMES_SELF
    assert caught.value.advice == ADVICE[RefusalCode.NAMES_SELF]


def test_a_member_refuses_another_mesh_s_invite_naming_both(mesh: MeshOfMembers, another_mesh: MeshOfMembers) -> None:
    text = another_mesh.invite(another_mesh.founder).text
    with pytest.raises(AlreadyMember, match="nothing was changed") as caught:
        invite_to_join(text, JOINER, mesh.founder.mesh)
    assert (caught.value.own, caught.value.other) == (mesh.founder.mesh, another_mesh.founder.mesh)


def test_a_node_of_no_mesh_may_use_any_invite(mesh: MeshOfMembers) -> None:
    assert invite_to_join(mesh.invite(mesh.founder).text, JOINER, None).issuer == mesh.founder.identity.node


def test_an_invite_of_the_own_mesh_does_no_harm(mesh: MeshOfMembers) -> None:
    assert invite_to_join(mesh.invite(mesh.founder).text, JOINER, mesh.founder.mesh).mesh == mesh.founder.mesh


def test_every_refusal_has_advice() -> None:
    assert set(ADVICE) == set(RefusalCode)


def test_no_refusal_repeats_the_token(mesh: MeshOfMembers) -> None:
    text = mesh.invite(mesh.founder).text
    mesh.redeem(mesh.founder, text, JOINER)
    for shown in (text, text[:-3], a_forged_token(mesh, Key("forger"))):
        answer = mesh.redeem(mesh.founder, shown, SECOND)
        assert isinstance(answer, Refused)
        line = explain(answer.message(), NOW_UNIX_S)
        assert not any(shown[at : at + 12] in line for at in range(6, len(shown) - 12))


def test_an_invite_s_secret_is_stored_nowhere(mesh: MeshOfMembers) -> None:
    made = mesh.invite(mesh.founder)
    stored = b"".join(path.read_bytes() for path in mesh.state("founder").path.iterdir())
    token = parse_token(made.text)
    assert made.text.encode() not in stored
    assert token.nonce not in stored
    assert made.text not in repr(made)


def test_an_unknown_or_ambiguous_invite_id_is_told(mesh: MeshOfMembers) -> None:
    mesh.invite(mesh.founder)
    with pytest.raises(UnknownInvite):
        mesh.founder.revoke_invite("", NOW_UNIX_S)
    mesh.invite(mesh.founder)
    with pytest.raises(UnknownInvite, match="no invite"):
        mesh.founder.revoke_invite("zz", NOW_UNIX_S)
    with pytest.raises(UnknownInvite, match="2 invites"):
        mesh.founder.revoke_invite("", NOW_UNIX_S)
