"""The handshake by plain calls: who gets in, every refusal, and what a thief or a man in the middle can't do."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from making_members import MESH, Key, a_chain

from meshnode.transport.handshake import (
    AcceptHandshake,
    DialHandshake,
    LocalSide,
    Proved,
    Refuse,
    Refused,
    Say,
    Welcomed,
)
from meshnode.transport.life import is_about, nonce_about
from proto.ids import BootId, MeshId, NodeId, short
from proto.messages import Challenge, Hello, Message, Ping, Proof, Refusal, RefusalCode, Welcome
from proto.parts import Role
from proto.versions import OURS, ProtocolVersion, VersionRange

DIALLER = Key("dialler")
ACCEPTOR = Key("acceptor")
OTHER = Key("other")
NONCE = b"n" * 32
ANOTHER_NONCE = b"m" * 32


def a_side(
    key: Key,
    *,
    mesh: MeshId = MESH,
    versions: VersionRange = OURS,
    chain: tuple[bytes, ...] | None = None,
    refuses: dict[NodeId, RefusalCode] | None = None,
) -> LocalSide:
    """What `key`'s node brings; it refuses the chains of the nodes in `refuses` and takes all others."""
    found = refuses or {}

    def check(node: NodeId, _: tuple[bytes, ...]) -> Refusal | None:
        return Refusal(found[node], "no good") if node in found else None

    return LocalSide(
        node=key.node,
        boot_id=BootId(key.public_key[:16]),
        mesh=mesh,
        software="test",
        versions=versions,
        sign=key.sign,
        own_chain=lambda: a_chain(key) if chain is None else chain,
        check_chain=check,
    )


def a_dialler(**changes: object) -> DialHandshake:
    return DialHandshake(a_side(DIALLER), ACCEPTOR.node, **changes)  # type: ignore[arg-type]


def an_acceptor(**changes: object) -> AcceptHandshake:
    return AcceptHandshake(a_side(ACCEPTOR, **changes), NONCE)  # type: ignore[arg-type]


def said(step: object) -> Message:
    assert isinstance(step, Say), step
    return step.message


def refusal_in(step: object) -> Refusal:
    assert isinstance(step, Refuse), step
    return step.refusal


def a_proof(**changes: object) -> tuple[AcceptHandshake, Proof]:
    """An acceptor that waits for a proof, and the right one, with `changes`."""
    dialler, acceptor = a_dialler(), an_acceptor()
    proof = said(dialler.receive(said(acceptor.receive(dialler.start()))))
    assert isinstance(proof, Proof)
    return acceptor, msgspec.structs.replace(proof, **changes)


def a_challenge_to(dialler: DialHandshake, running: BootId) -> Challenge:
    """Of an acceptor with a link to the process `running` of the dialler's key."""
    challenge = said(AcceptHandshake(a_side(ACCEPTOR), NONCE, lambda _: running).receive(dialler.start()))
    assert isinstance(challenge, Challenge)
    return challenge


def test_challenge_is_made_of_the_boot_id_of_another_process_with_the_diallers_key() -> None:
    other = BootId(b"another process.")
    assert is_about(a_challenge_to(a_dialler(), other).nonce, MESH, other)
    assert isinstance(a_dialler().receive(a_challenge_to(a_dialler(), other)), Say)


def test_same_process_that_dials_again_is_challenged_at_random() -> None:
    assert a_challenge_to(a_dialler(), BootId(DIALLER.public_key[:16])).nonce == NONCE


def test_dialler_signs_no_challenge_that_is_made_of_its_own_boot_id() -> None:
    nonce = nonce_about(NONCE, MESH, BootId(DIALLER.public_key[:16]))
    challenge = a_challenge_to(a_dialler(), BootId(b"another process."))
    refusal = refusal_in(a_dialler().receive(msgspec.structs.replace(challenge, nonce=nonce)))
    assert refusal.code is RefusalCode.PROTOCOL_ERROR
    assert "its own boot id" in refusal.found


def test_two_members_authenticate_each_other() -> None:
    dialler, acceptor = a_dialler(peer_floor=7), an_acceptor()
    challenge = said(acceptor.receive(dialler.start()))
    proved = acceptor.receive(said(dialler.receive(challenge)))
    assert proved == Proved(
        peer=DIALLER.node,
        boot_id=BootId(DIALLER.public_key[:16]),
        version=OURS.highest,
        own_floor=7,
        token=None,
        role=None,
    )
    welcomed = dialler.receive(acceptor.welcome(observed_address="127.0.0.1:5", peer_floor=41))
    assert welcomed == Welcomed(
        peer=ACCEPTOR.node,
        boot_id=BootId(ACCEPTOR.public_key[:16]),
        version=OURS.highest,
        own_floor=41,
        observed_address="127.0.0.1:5",
        issued_chain=None,
    )


def test_redeeming_dialler_sends_its_token_only_with_its_proof_and_gets_a_chain() -> None:
    dialler = DialHandshake(a_side(DIALLER, chain=()), ACCEPTOR.node, token="mesh1_secret", role=Role.CLIENT)
    acceptor = an_acceptor()
    hello = dialler.start()
    assert hello.redeeming
    assert "mesh1_secret" not in repr(hello)
    proved = acceptor.receive(said(dialler.receive(said(acceptor.receive(hello)))))
    assert isinstance(proved, Proved)
    assert (proved.token, proved.role) == ("mesh1_secret", Role.CLIENT)
    issued = a_chain(DIALLER)
    welcomed = dialler.receive(acceptor.welcome(observed_address="127.0.0.1:5", peer_floor=0, issued_chain=issued))
    assert isinstance(welcomed, Welcomed)
    assert welcomed.issued_chain == issued


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"),
    [
        (((1, 0), (1, 5)), ((1, 0), (1, 2)), (1, 2)),
        (((1, 0), (1, 5)), ((1, 3), (2, 4)), (1, 5)),
        (((1, 0), (2, 1)), ((1, 0), (2, 0)), (2, 0)),
    ],
)
def test_highest_common_version_is_chosen(
    ours: tuple[tuple[int, int], tuple[int, int]],
    theirs: tuple[tuple[int, int], tuple[int, int]],
    chosen: tuple[int, int],
) -> None:
    acceptor = an_acceptor(versions=a_range(*ours))
    challenge = said(acceptor.receive(DialHandshake(a_side(DIALLER, versions=a_range(*theirs)), ACCEPTOR.node).start()))
    assert isinstance(challenge, Challenge)
    assert challenge.version == chosen


@pytest.mark.parametrize(
    ("ours", "theirs", "behind"),
    [(((2, 0), (2, 3)), ((1, 0), (1, 9)), DIALLER), (((1, 0), (1, 9)), ((2, 0), (2, 3)), ACCEPTOR)],
)
def test_no_common_version_is_refused_with_both_ranges_and_who_must_upgrade(
    ours: tuple[tuple[int, int], tuple[int, int]], theirs: tuple[tuple[int, int], tuple[int, int]], behind: Key
) -> None:
    dialler = DialHandshake(a_side(DIALLER, versions=a_range(*theirs)), ACCEPTOR.node)
    refusal = refusal_in(an_acceptor(versions=a_range(*ours)).receive(dialler.start()))
    assert refusal.code is RefusalCode.NO_COMMON_VERSION
    assert (refusal.found, refusal.required) == (str(a_range(*theirs)), str(a_range(*ours)))
    assert refusal.text.endswith(f"{short(behind.node)} must upgrade")


def test_version_that_was_not_offered_is_refused_by_the_dialler() -> None:
    dialler, acceptor = a_dialler(), an_acceptor()
    challenge = said(acceptor.receive(dialler.start()))
    assert isinstance(challenge, Challenge)
    refusal = refusal_in(dialler.receive(msgspec.structs.replace(challenge, version=(9, 0))))
    assert refusal.code is RefusalCode.PROTOCOL_ERROR


def test_dialler_of_another_mesh_is_refused_before_it_is_challenged() -> None:
    stranger = DialHandshake(replace(a_side(DIALLER), mesh=OTHER.mesh), ACCEPTOR.node)
    refusal = refusal_in(an_acceptor().receive(stranger.start()))
    assert refusal.code is RefusalCode.WRONG_MESH
    assert (refusal.found, refusal.required) == (short(OTHER.mesh), short(MESH))


def test_version_is_judged_before_the_mesh_so_that_an_old_peer_learns_what_to_do() -> None:
    old = DialHandshake(replace(a_side(DIALLER, versions=a_range((0, 1), (0, 2))), mesh=OTHER.mesh), ACCEPTOR.node)
    assert refusal_in(an_acceptor().receive(old.start())).code is RefusalCode.NO_COMMON_VERSION


def test_node_without_a_credential_lets_nobody_in() -> None:
    refusal = refusal_in(an_acceptor(chain=()).receive(a_dialler().start()))
    assert refusal.code is RefusalCode.BUSY


def test_proof_signed_by_another_key_is_refused() -> None:
    acceptor, proof = a_proof()
    forged = msgspec.structs.replace(proof, signature=OTHER.sign(b"anything"))
    assert refusal_in(acceptor.receive(forged)).code is RefusalCode.BAD_PROOF


def test_proof_over_an_earlier_nonce_is_refused() -> None:
    _, proof = a_proof()
    later = AcceptHandshake(a_side(ACCEPTOR), ANOTHER_NONCE)
    later.receive(a_dialler().start())
    assert refusal_in(later.receive(proof)).code is RefusalCode.BAD_PROOF


def test_proof_relayed_by_a_man_in_the_middle_is_refused() -> None:
    """The dialler reached OTHER, whose key TLS showed; OTHER passes the acceptor's nonce on and the proof back."""
    acceptor, victim = an_acceptor(), DialHandshake(a_side(DIALLER), OTHER.node)
    challenge = said(acceptor.receive(victim.start()))
    relayed = said(victim.receive(challenge))
    assert refusal_in(acceptor.receive(relayed)).code is RefusalCode.BAD_PROOF


def test_proof_made_for_another_mesh_is_refused() -> None:
    acceptor = an_acceptor()
    acceptor.receive(a_dialler().start())
    elsewhere = DialHandshake(replace(a_side(DIALLER), mesh=OTHER.mesh), ACCEPTOR.node)
    proof = said(elsewhere.receive(Challenge(version=(1, 0), nonce=NONCE, boot_id=b"b" * 16)))
    assert refusal_in(acceptor.receive(proof)).code is RefusalCode.BAD_PROOF


def test_second_proof_is_out_of_turn_even_if_it_is_right() -> None:
    acceptor, proof = a_proof()
    assert isinstance(acceptor.receive(proof), Proved)
    assert refusal_in(acceptor.receive(proof)).code is RefusalCode.PROTOCOL_ERROR


@pytest.mark.parametrize("code", [RefusalCode.BAD_CREDENTIAL, RefusalCode.REMOVED, RefusalCode.WRONG_MESH])
def test_dialler_with_a_bad_chain_is_refused_with_its_reason(code: RefusalCode) -> None:
    acceptor = an_acceptor(refuses={DIALLER.node: code})
    dialler = a_dialler()
    proof = said(dialler.receive(said(acceptor.receive(dialler.start()))))
    assert refusal_in(acceptor.receive(proof)).code is code


def test_signature_is_judged_before_the_chain_so_that_nobody_can_ask_about_others() -> None:
    acceptor = an_acceptor(refuses={DIALLER.node: RefusalCode.REMOVED})
    acceptor.receive(a_dialler().start())
    forged = Proof(signature=b"s" * 64, chain=a_chain(DIALLER))
    assert refusal_in(acceptor.receive(forged)).code is RefusalCode.BAD_PROOF


@pytest.mark.parametrize("code", [RefusalCode.BAD_CREDENTIAL, RefusalCode.REMOVED])
def test_acceptor_with_a_bad_chain_is_refused_by_the_dialler(code: RefusalCode) -> None:
    dialler, acceptor = DialHandshake(a_side(DIALLER, refuses={ACCEPTOR.node: code}), ACCEPTOR.node), an_acceptor()
    acceptor.receive(said(dialler.receive(said(acceptor.receive(dialler.start())))))
    refusal = refusal_in(dialler.receive(acceptor.welcome(observed_address="127.0.0.1:5", peer_floor=0)))
    assert refusal.code is code


def test_welcome_to_a_token_without_a_chain_is_refused() -> None:
    dialler, acceptor = a_dialler(token="mesh1_x"), an_acceptor()
    acceptor.receive(said(dialler.receive(said(acceptor.receive(dialler.start())))))
    refusal = refusal_in(dialler.receive(acceptor.welcome(observed_address="127.0.0.1:5", peer_floor=0)))
    assert refusal.code is RefusalCode.PROTOCOL_ERROR


def test_issued_chain_that_does_not_prove_the_joiner_is_refused() -> None:
    side = a_side(DIALLER, chain=(), refuses={DIALLER.node: RefusalCode.BAD_CREDENTIAL})
    dialler, acceptor = DialHandshake(side, ACCEPTOR.node, token="mesh1_x"), an_acceptor()
    acceptor.receive(said(dialler.receive(said(acceptor.receive(dialler.start())))))
    welcome = acceptor.welcome(observed_address="127.0.0.1:5", peer_floor=0, issued_chain=a_chain(OTHER))
    assert refusal_in(dialler.receive(welcome)).code is RefusalCode.BAD_CREDENTIAL


def test_chain_that_nobody_asked_for_is_ignored() -> None:
    dialler, acceptor = a_dialler(), an_acceptor()
    acceptor.receive(said(dialler.receive(said(acceptor.receive(dialler.start())))))
    welcome = acceptor.welcome(observed_address="127.0.0.1:5", peer_floor=0, issued_chain=a_chain(OTHER))
    welcomed = dialler.receive(welcome)
    assert isinstance(welcomed, Welcomed)
    assert welcomed.issued_chain is None


@pytest.mark.parametrize(
    "changes",
    [
        {"chain": None},
        {"token": "mesh1_x"},
        {"chain": None, "token": "mesh1_x"},
    ],
    ids=["neither", "both", "a token that the hello did not announce"],
)
def test_proof_carries_exactly_what_its_hello_announced(changes: dict[str, object]) -> None:
    acceptor, proof = a_proof(**changes)
    assert refusal_in(acceptor.receive(proof)).code is RefusalCode.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "message",
    [
        Ping(nonce=1, incarnation=1),
        Proof(signature=b"s" * 64, chain=None),
        Challenge(version=(1, 0), nonce=NONCE, boot_id=b"b" * 16),
        Welcome(chain=a_chain(DIALLER), observed_address="127.0.0.1:5", incarnation_floor=0),
    ],
    ids=lambda message: type(message).__name__,
)
def test_acceptor_takes_nothing_before_a_hello(message: Message) -> None:
    assert refusal_in(an_acceptor().receive(message)).code is RefusalCode.PROTOCOL_ERROR


def test_acceptor_takes_nothing_after_a_refusal() -> None:
    acceptor = an_acceptor()
    acceptor.receive(DialHandshake(replace(a_side(DIALLER), mesh=OTHER.mesh), ACCEPTOR.node).start())
    assert refusal_in(acceptor.receive(a_dialler().start())).code is RefusalCode.PROTOCOL_ERROR


def test_second_hello_is_out_of_turn() -> None:
    acceptor = an_acceptor()
    acceptor.receive(a_dialler().start())
    assert refusal_in(acceptor.receive(a_dialler().start())).code is RefusalCode.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "message",
    [
        Ping(nonce=1, incarnation=1),
        Welcome(chain=a_chain(ACCEPTOR), observed_address="127.0.0.1:5", incarnation_floor=0),
        a_dialler().start(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_dialler_takes_nothing_but_a_challenge_first(message: Message) -> None:
    dialler = a_dialler()
    dialler.start()
    assert refusal_in(dialler.receive(message)).code is RefusalCode.PROTOCOL_ERROR


def test_refusal_ends_either_side_at_any_step() -> None:
    refusal = Refusal(RefusalCode.BUSY, "later")
    assert a_dialler().receive(refusal) == Refused(refusal)
    assert an_acceptor().receive(refusal) == Refused(refusal)
    acceptor, _ = a_proof()
    assert acceptor.receive(refusal) == Refused(refusal)


def test_claimed_peer_is_known_from_the_hello_even_if_it_was_refused() -> None:
    acceptor = an_acceptor()
    assert acceptor.claimed_peer is None
    acceptor.receive(DialHandshake(replace(a_side(DIALLER), mesh=OTHER.mesh), ACCEPTOR.node).start())
    assert acceptor.claimed_peer == DIALLER.node


def test_hello_tells_who_dials_and_what_it_speaks() -> None:
    hello = a_dialler().start()
    assert hello == Hello(
        lowest=OURS.lowest,
        highest=OURS.highest,
        mesh=MESH,
        node=DIALLER.node,
        boot_id=DIALLER.public_key[:16],
        software="test",
        redeeming=False,
    )


def a_range(lowest: tuple[int, int], highest: tuple[int, int]) -> VersionRange:
    return VersionRange(ProtocolVersion(*lowest), ProtocolVersion(*highest))
