"""A newcomer is refused for its key being in use: believed with proof, and never without."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from making_links import ALab, ANode, an_identity, restarted

from meshnode.events import IdentityClaimRejected, LinkRefused, PeerIdentityConflict
from meshnode.identity import Identity
from meshnode.transport.handshake import Proved
from meshnode.transport.life import nonce_about, sign_of_life
from meshnode.transport.link import Link
from proto.ids import BootId
from proto.messages import (
    IdentityConflict,
    LifeProof,
    LifeRequest,
    LifeSign,
    Message,
    Refusal,
    RefusalCode,
    SignedChallenge,
    ViewHash,
)
from proto.signing import life_input, proof_input

A_FRAME = ViewHash(value=bytes(8), nodes=1)
MakeProof = Callable[[ANode, ANode], LifeProof | None]
"""What a liar hands to a newcomer: made of (liar, newcomer)."""


def proof_of(sign: LifeSign | None) -> LifeProof:
    assert sign is not None
    return sign.proof


def nothing(liar: ANode, newcomer: ANode) -> None:
    return None


def its_own_signature(liar: ANode, newcomer: ANode) -> LifeProof:
    return proof_of(sign_of_life(liar.identity, liar.endpoint._mesh, newcomer.identity.boot_id))


def one_made_for_an_earlier_start(liar: ANode, newcomer: ANode) -> LifeProof:
    earlier = restarted(newcomer.identity)
    return proof_of(sign_of_life(newcomer.identity, liar.endpoint._mesh, earlier.boot_id))


def one_that_names_the_newcomer_as_the_older_process(liar: ANode, newcomer: ANode) -> LifeProof:
    boot_id = newcomer.identity.boot_id
    return LifeProof(boot_id, newcomer.identity.sign(life_input(liar.endpoint._mesh, boot_id, boot_id)))


def one_of_another_mesh(liar: ANode, newcomer: ANode) -> LifeProof:
    other = restarted(newcomer.identity)
    return proof_of(sign_of_life(other, type(liar.endpoint._mesh)("a" * 52), newcomer.identity.boot_id))


@pytest.mark.parametrize(
    "make",
    [
        nothing,
        its_own_signature,
        one_made_for_an_earlier_start,
        one_that_names_the_newcomer_as_the_older_process,
        one_of_another_mesh,
    ],
)
async def test_member_that_lies_about_a_key_in_use_is_named_and_stops_nobody(lab: ALab, make: MakeProof) -> None:
    liar, honest, newcomer = await lab.node(), await lab.node(), await lab.node()

    def refuse(link: Link, proved: Proved) -> None:
        there, here = link.address_text(), "192.0.2.1:4411"
        text = "another living process has this node's key"
        link.refuse(Refusal(RefusalCode.IDENTITY_IN_USE, text, there, here, make(liar, newcomer)), 0.0)

    liar.endpoint._reception.proved = refuse  # type: ignore[method-assign]
    newcomer.endpoint.dial(liar.node, [liar.address])
    await newcomer.watch.until(lambda: newcomer.watch.failed_dials, "the refusal")
    assert newcomer.watch.failed_dials == [(liar.node, "identity_in_use")]
    claim = newcomer.watch.of(IdentityClaimRejected)[0]
    assert (claim.peer, claim.address) == (liar.node, liar.address)
    assert newcomer.watch.of(LinkRefused)[0].peer == liar.node
    assert not newcomer.watch.identity_conflicts, "it keeps running"
    assert not newcomer.watch.of(PeerIdentityConflict)
    await newcomer.link_to(honest)


async def test_refusal_carries_the_running_processs_own_signature(lab: ALab) -> None:
    member, identity = await lab.node(), an_identity()
    first = await lab.node(identity)
    await member.link_to(first)
    second = await lab.node(restarted(identity))
    refusals = refusals_of(second)
    second.endpoint.dial(member.node, [member.address])
    await second.watch.until(lambda: second.watch.identity_conflicts, "the refusal")
    assert refusals[0].life is not None
    assert refusals[0].life.boot_id == first.identity.boot_id
    assert not second.watch.of(IdentityClaimRejected)


async def test_running_process_believes_in_its_double_by_the_doubles_own_signature(lab: ALab) -> None:
    member, identity = await lab.node(), an_identity()
    first = await lab.node(identity)
    await first.link_to(member)
    second = await lab.node(restarted(identity))
    second.endpoint.dial(member.node, [member.address])
    await first.watch.until(lambda: first.watch.of(PeerIdentityConflict), "the member's word")
    conflict = first.watch.of(PeerIdentityConflict)[0]
    assert (conflict.peer, conflict.address, conflict.other_address) == (identity.node, first.address, second.address)
    assert not first.watch.of(IdentityClaimRejected)


def no_challenge(liar: ANode, running: ANode) -> None:
    return None


def one_that_it_signed_itself(liar: ANode, running: ANode) -> SignedChallenge:
    return signed_by(running.identity, liar, b"n" * 32)


def one_signed_by_its_earlier_process(liar: ANode, running: ANode) -> SignedChallenge:
    earlier = restarted(running.identity)
    return signed_by(earlier, liar, nonce_about(b"n" * 32, liar.endpoint._mesh, BootId(b"an older double.")))


def one_signed_by_the_liar(liar: ANode, running: ANode) -> SignedChallenge:
    nonce = nonce_about(b"n" * 32, liar.endpoint._mesh, running.identity.boot_id)
    return signed_by(liar.identity, liar, nonce)


def one_signed_for_another_member(liar: ANode, running: ANode) -> SignedChallenge:
    nonce = nonce_about(b"n" * 32, liar.endpoint._mesh, running.identity.boot_id)
    signed = proof_input(liar.endpoint._mesh, running.node, an_identity().node, nonce)
    return SignedChallenge(nonce, running.identity.sign(signed))


def signed_by(identity: Identity, acceptor: ANode, nonce: bytes) -> SignedChallenge:
    signed = proof_input(acceptor.endpoint._mesh, identity.node, acceptor.node, nonce)
    return SignedChallenge(nonce, identity.sign(signed))


@pytest.mark.parametrize(
    "make",
    [
        no_challenge,
        one_that_it_signed_itself,
        one_signed_by_its_earlier_process,
        one_signed_by_the_liar,
        one_signed_for_another_member,
    ],
)
async def test_member_that_lies_about_a_double_raises_no_alarm(
    lab: ALab, make: Callable[[ANode, ANode], SignedChallenge | None]
) -> None:
    liar, running = await lab.node(), await lab.node()
    await running.link_to(liar)
    liar.endpoint.send(running.node, IdentityConflict(running.address, "192.0.2.1:4411", make(liar, running)))
    await running.watch.until(lambda: running.watch.of(IdentityClaimRejected), "what it makes of it")
    assert running.watch.of(IdentityClaimRejected)[0].peer == liar.node
    assert not running.watch.of(PeerIdentityConflict)
    assert not running.watch.downs


async def test_running_process_that_knows_no_life_request_still_keeps_its_link(lab: ALab) -> None:
    """As one of an older version: its link is not taken from it, and the newcomer isn't stopped on a member's word."""
    member, identity = await lab.node(), an_identity()
    first = await lab.node(identity)
    await member.link_to(first)
    ignore_life_requests(first)
    second = await lab.node(restarted(identity))
    second.endpoint.dial(member.node, [member.address])
    await second.watch.until(lambda: second.watch.failed_dials, "the refusal")
    assert second.watch.failed_dials == [(member.node, "identity_in_use")]
    assert not second.watch.identity_conflicts
    assert [event.peer for event in second.watch.of(IdentityClaimRejected)] == [member.node]
    assert [event.peer for event in member.watch.of(PeerIdentityConflict)] == [identity.node]
    assert not member.watch.downs, "the first process is not disturbed"


async def test_nobody_gets_a_process_to_sign_against_itself(lab: ALab) -> None:
    asker, asked = await lab.node(), await lab.node()
    await asker.link_to(asked)
    signs = signs_seen_by(asker)
    other = BootId(b"some other start")
    asker.endpoint.send(asked.node, LifeRequest(asked.identity.boot_id))
    asker.endpoint.send(asked.node, A_FRAME)
    await asked.watch.until(lambda: asked.watch.messages, "what came after the request")
    asked.endpoint.send(asker.node, A_FRAME)
    await asker.watch.until(lambda: asker.watch.messages, "what would come after the sign")
    assert not signs
    asker.endpoint.send(asked.node, LifeRequest(other))
    await asker.watch.until(lambda: signs, "the sign that is given")
    assert signs[0].newcomer == other


async def test_sign_of_life_that_nobody_asked_for_changes_nothing(lab: ALab) -> None:
    one, two = await lab.node(), await lab.node()
    await one.link_to(two)
    sign = sign_of_life(two.identity, lab.mesh, BootId(b"some other start"))
    assert sign is not None
    two.endpoint.send(one.node, sign)
    two.endpoint.send(one.node, LifeSign(sign.newcomer, LifeProof(sign.proof.boot_id, b"\0" * 64)))
    await one.link_to(await lab.node())
    assert not one.watch.downs


def refusals_of(node: ANode) -> list[Refusal]:
    """Every refusal of its dials, as it comes."""
    refusals: list[Refusal] = []
    refused = node.endpoint._reception.refused

    def note(link: Link, refusal: Refusal, *, by_us: bool) -> None:
        refusals.append(refusal)
        refused(link, refusal, by_us=by_us)

    node.endpoint._reception.refused = note  # type: ignore[method-assign]
    return refusals


def ignore_life_requests(node: ANode) -> None:
    message = node.endpoint._reception.message

    def skip(link: Link, taken: Message, received_at_s: float) -> None:
        if not isinstance(taken, LifeRequest):
            message(link, taken, received_at_s)

    node.endpoint._reception.message = skip  # type: ignore[method-assign, assignment]


def signs_seen_by(node: ANode) -> list[LifeSign]:
    """Every sign of life that comes to `node`; its watch is told as of any message."""
    signs: list[LifeSign] = []
    message = node.endpoint._reception.message

    def note(link: Link, taken: Message, received_at_s: float) -> None:
        if isinstance(taken, LifeSign) and link.peer is not None:
            signs.append(taken)
            node.watch.message(link.peer, taken, received_at_s)
        message(link, taken, received_at_s)

    node.endpoint._reception.message = note  # type: ignore[method-assign, assignment]
    return signs
