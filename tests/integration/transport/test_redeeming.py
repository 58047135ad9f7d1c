"""Getting into a mesh over a real link: what works, what is refused and how, and what happens when nobody answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from making_links import ALab, ANode, an_invite

from meshnode.admission.inviting import InviteRequest
from meshnode.events import InviteRedeemed, InviteRefused, JoinAttempt, LinkRefused
from meshnode.transport import JoinRefused, TransportSettings
from meshnode.transport.addresses import format_address
from proto.messages import RefusalCode
from proto.parts import Role

QUICK = TransportSettings(answer_timeout_s=1.0, handshake_deadline_s=2.0)
ENDLESS = TransportSettings(handshake_deadline_s=600.0)


@pytest.fixture
def silent_address() -> Iterator[str]:
    """An address where packets are taken and nothing answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taker:
        taker.bind(("127.0.0.1", 0))
        yield format_address(taker.getsockname())


@pytest.fixture
async def founder(lab: ALab) -> ANode:
    """The member that keeps the root key and invites."""
    return await lab.node(keeps_root=True)


async def test_joiner_gets_a_chain_that_proves_it_a_member(lab: ALab, founder: ANode) -> None:
    joiner = await lab.joiner()
    redeemed = await joiner.endpoint.redeem(an_invite(founder, [founder.address]))
    assert founder.admission is not None
    assert (redeemed.mesh, redeemed.through) == (lab.mesh, founder.node)
    assert redeemed.observed_address == joiner.address
    standing = founder.admission.roll.admit(joiner.node, redeemed.chain, int(time.time()))
    assert standing.role is Role.WORKER
    assert [event.node for event in founder.watch.of(InviteRedeemed)] == [joiner.node]


async def test_redeeming_makes_no_link_of_the_mesh(lab: ALab, founder: ANode) -> None:
    joiner = await lab.joiner()
    await joiner.endpoint.redeem(an_invite(founder, [founder.address]))
    assert not founder.watch.ups
    assert not joiner.watch.ups
    assert not joiner.endpoint.peers()


async def test_redeeming_again_with_the_same_key_costs_no_use(lab: ALab, founder: ANode) -> None:
    joiner, token = await lab.joiner(), an_invite(founder, [founder.address])
    first = await joiner.endpoint.redeem(token)
    again = await joiner.endpoint.redeem(token)
    assert again.through == first.through
    assert [event.again for event in founder.watch.of(InviteRedeemed)] == [False, True]


async def test_role_asked_for_is_granted_within_the_tokens(lab: ALab, founder: ANode) -> None:
    joiner = await lab.joiner()
    redeemed = await joiner.endpoint.redeem(an_invite(founder, [founder.address]), Role.CLIENT)
    assert founder.admission is not None
    assert founder.admission.roll.admit(joiner.node, redeemed.chain, int(time.time())).role is Role.CLIENT


@pytest.mark.parametrize(
    ("code", "request_", "uses_before", "age_s"),
    [
        (RefusalCode.EXPIRED, InviteRequest(lifetime_s=60), 0, 3600),
        (RefusalCode.USED_UP, InviteRequest(uses=1), 1, 0),
        (RefusalCode.ROLE_NOT_ALLOWED, InviteRequest(role=Role.CLIENT), 0, 0),
    ],
)
async def test_refusal_reaches_the_joiner_with_its_code_and_both_facts(
    lab: ALab, founder: ANode, code: RefusalCode, request_: InviteRequest, uses_before: int, age_s: int
) -> None:
    token = an_invite(founder, [founder.address], request=request_, now_unix_s=int(time.time()) - age_s)
    for _ in range(uses_before):
        await (await lab.joiner()).endpoint.redeem(token)
    joiner = await lab.joiner()
    role = Role.WORKER if code is RefusalCode.ROLE_NOT_ALLOWED else None
    with pytest.raises(JoinRefused) as refused:
        await joiner.endpoint.redeem(token, role)
    assert refused.value.code is code
    assert [event.code for event in founder.watch.of(InviteRefused)] == [code]
    assert [(event.code, event.by_us) for event in joiner.watch.of(LinkRefused)] == [(code, False)]


async def test_refusal_of_the_token_itself_ends_the_try_and_no_other_address_is_asked(lab: ALab) -> None:
    issuer = await lab.node(keeps_root=True, listen=["0.0.0.0:0"])
    port = issuer.address.rpartition(":")[2]
    addresses = [f"127.0.0.1:{port}", f"127.0.0.2:{port}"]
    token = an_invite(issuer, addresses, now_unix_s=int(time.time()) - 7200)
    with pytest.raises(JoinRefused) as refused:
        await (await lab.joiner()).endpoint.redeem(token)
    assert refused.value.code is RefusalCode.EXPIRED
    assert len(issuer.watch.of(InviteRefused)) == 1


async def test_unlimited_invite_is_redeemed_at_another_pinned_member_while_its_issuer_is_away(lab: ALab) -> None:
    other = await lab.node()
    async with lab.running(keeps_root=True) as issuer:
        await issuer.link_to(other)
        unlimited = InviteRequest(uses=None, lifetime_s=3600)
        token = an_invite(issuer, [issuer.address], other, request=unlimited)
    redeemed = await (await lab.joiner(settings=QUICK)).endpoint.redeem(token)
    assert redeemed.through == other.node


async def test_counted_invite_is_redeemed_at_its_issuer_only(lab: ALab) -> None:
    other = await lab.node()
    async with lab.running(keeps_root=True) as issuer:
        await issuer.link_to(other)
        token = an_invite(issuer, [issuer.address], other)
    with pytest.raises(JoinRefused) as refused:
        await (await lab.joiner(settings=QUICK)).endpoint.redeem(token)
    assert refused.value.code is RefusalCode.INVITER_UNREACHABLE
    assert not other.watch.of(InviteRefused)


async def test_mangled_token_is_refused_before_anybody_is_dialled(lab: ALab, founder: ANode) -> None:
    joiner, token = await lab.joiner(), an_invite(founder, [founder.address])
    with pytest.raises(JoinRefused) as refused:
        await joiner.endpoint.redeem(token[:-5])
    assert refused.value.code is RefusalCode.MALFORMED
    assert not joiner.watch.of(JoinAttempt)


async def test_token_of_another_mesh_is_refused(lab: ALab, other_lab: ALab) -> None:
    stranger = await other_lab.node(keeps_root=True)
    joiner = await lab.joiner()
    with pytest.raises(JoinRefused) as refused:
        await joiner.endpoint.redeem(an_invite(stranger, [stranger.address]))
    assert refused.value.code is RefusalCode.WRONG_MESH


async def test_token_that_names_its_reader_is_refused(founder: ANode) -> None:
    with pytest.raises(JoinRefused) as refused:
        await founder.endpoint.redeem(an_invite(founder, [founder.address]))
    assert refused.value.code is RefusalCode.NAMES_SELF


async def test_token_reaches_only_the_member_it_pins(lab: ALab, founder: ANode) -> None:
    """A machine in the middle answers with its own key: it never sees the token."""
    middle, joiner = await lab.node(), await lab.joiner(settings=QUICK)
    with pytest.raises(JoinRefused) as refused:
        await joiner.endpoint.redeem(an_invite(founder, [middle.address]))
    assert refused.value.code is RefusalCode.INVITER_UNREACHABLE
    assert "answered_as_another_node" in refused.value.outcomes
    assert not middle.watch.events


async def test_first_address_that_never_answers_does_not_keep_the_joiner_out(
    lab: ALab, founder: ANode, silent_address: str
) -> None:
    joiner = await lab.joiner(settings=ENDLESS)
    await joiner.endpoint.redeem(an_invite(founder, [silent_address, founder.address]))


async def test_address_that_accepts_and_then_says_nothing_is_given_up_and_the_next_one_serves(
    lab: ALab, founder: ANode
) -> None:
    mute = await lab.node(founder.identity)
    silence_after_tls(mute)
    joiner = await lab.joiner(settings=QUICK)
    await joiner.endpoint.redeem(an_invite(founder, [mute.address, founder.address]))
    attempts = [(event.address, event.outcome) for event in joiner.watch.of(JoinAttempt)]
    assert attempts == [(mute.address, "no_answer"), (founder.address, "linked")]


async def test_nobody_answers_is_its_own_refusal_and_names_every_address(lab: ALab, silent_address: str) -> None:
    async with lab.running(keeps_root=True) as gone:
        token = an_invite(gone, [gone.address, silent_address])
        gone_address = gone.address
    joiner = await lab.joiner(settings=QUICK)
    with pytest.raises(JoinRefused) as refused:
        await joiner.endpoint.redeem(token)
    assert refused.value.code is RefusalCode.INVITER_UNREACHABLE
    assert gone_address in refused.value.outcomes
    assert f"{silent_address}: no_answer" in refused.value.outcomes


async def test_node_on_its_way_into_the_mesh_lets_nobody_in_yet(lab: ALab) -> None:
    joiner, member = await lab.joiner(), await lab.node()
    member.endpoint.dial(joiner.node, [joiner.address])
    await member.watch.until(lambda: member.watch.failed_dials, "the dial's end")
    assert member.watch.failed_dials == [(joiner.node, "busy")]


async def test_too_many_failures_from_one_source_meet_silence(lab: ALab, founder: ANode) -> None:
    old = int(time.time()) - 7200
    token = an_invite(founder, [founder.address], now_unix_s=old)
    joiner = await lab.joiner(settings=QUICK)
    codes = []
    for _ in range(6):
        with pytest.raises(JoinRefused) as refused:
            await joiner.endpoint.redeem(token)
        codes.append(refused.value.code)
    assert codes == [*[RefusalCode.EXPIRED] * 5, RefusalCode.INVITER_UNREACHABLE]


def silence_after_tls(node: ANode) -> None:
    """The node's process answers QUIC and never the application."""
    node.endpoint._reception.accepted = lambda link, *, validated: setattr(link.channel, "reading", False)  # type: ignore[method-assign]
