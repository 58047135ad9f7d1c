"""The desk at which nodes ask to be let in: who is listened to, what is decided, what can't be tried twice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from making_members import MESH, Key

from meshnode.admission.approving import MAX_COMMITS, MAX_REQUESTS, ApprovalDesk, Approved
from proto.approval import commit_text, commitment, reveal_text, words
from proto.messages import Refusal, RefusalCode
from proto.parts import Role

MEMBER, JOINER = Key("member"), Key("joiner")
NONCE = bytes(range(32))


class Desk:
    """An open desk whose nonces are 1, 2, 3, ..., and a clock."""

    def __init__(self, role: Role = Role.WORKER) -> None:
        numbers: Iterator[int] = count(1)
        self.desk = ApprovalDesk(MEMBER.node, MESH, lambda size: next(numbers).to_bytes(size, "big"))
        self.now_s = 100.0
        self.desk.open(self.now_s, 60.0, role)

    def says(self, text: str, key: Key = JOINER, wanted: Role | None = None) -> Approved | Refusal:
        return self.desk.answer(text, key.node, "192.0.2.1:5", wanted, self.now_s)

    def commits(self, nonce: bytes = NONCE, key: Key = JOINER, wanted: Role | None = None) -> bytes:
        """The member's nonce, for a commitment to `nonce`."""
        answer = self.says(commit_text(commitment(MESH, MEMBER.node, key.node, nonce)), key, wanted)
        assert isinstance(answer, Refusal)
        assert answer.code is RefusalCode.APPROVAL_PENDING
        return bytes.fromhex(answer.found)

    def asks(self, key: Key = JOINER, nonce: bytes = NONCE) -> tuple[str, ...]:
        """The words, after commitment and reveal."""
        own = self.commits(nonce, key)
        assert code_of(self.says(reveal_text(nonce), key)) is RefusalCode.APPROVAL_PENDING
        return words(MESH, MEMBER.node, key.node, nonce, own)


def code_of(answer: Approved | Refusal) -> RefusalCode | None:
    return answer.code if isinstance(answer, Refusal) else None


def test_accepted_words_let_their_node_in_and_again_where_the_answer_was_lost() -> None:
    desk = Desk()
    shown = desk.asks()
    (request,) = desk.desk.requests(desk.now_s)
    assert (request.node, request.words, request.accepted) == (JOINER.node, shown, None)
    assert desk.desk.decide(shown, True, desk.now_s) is not None
    for _ in range(2):
        assert desk.says(reveal_text(NONCE)) == Approved(Role.WORKER)


def test_nobody_is_shown_before_it_has_revealed_its_nonce() -> None:
    desk = Desk()
    desk.commits()
    assert desk.desk.requests(desk.now_s) == ()


def test_refused_words_stay_refused() -> None:
    desk = Desk()
    shown = desk.asks()
    desk.desk.decide(shown, False, desk.now_s)
    assert code_of(desk.says(reveal_text(NONCE))) is RefusalCode.APPROVAL_DENIED
    assert desk.desk.decide(shown, True, desk.now_s) is None


def test_other_words_decide_nothing() -> None:
    desk = Desk()
    shown = desk.asks()
    assert desk.desk.decide(shown[::-1], True, desk.now_s) is None
    assert desk.desk.decide(shown[:5], True, desk.now_s) is None
    assert code_of(desk.says(reveal_text(NONCE))) is RefusalCode.APPROVAL_PENDING


def test_a_nonce_that_was_not_committed_to_ends_the_request() -> None:
    desk = Desk()
    desk.commits()
    assert code_of(desk.says(reveal_text(bytes(32)))) is RefusalCode.BAD_PROOF
    assert code_of(desk.says(reveal_text(NONCE))) is RefusalCode.APPROVAL_CLOSED


def test_a_commitment_of_another_key_is_of_no_use() -> None:
    desk, thief = Desk(), Key("thief")
    stolen = commit_text(commitment(MESH, MEMBER.node, JOINER.node, NONCE))
    desk.says(stolen, thief)
    assert code_of(desk.says(reveal_text(NONCE), thief)) is RefusalCode.BAD_PROOF


def test_the_same_commitment_gets_the_same_nonce_and_another_one_another() -> None:
    desk = Desk()
    first = desk.commits()
    assert desk.commits() == first
    assert desk.commits(bytes(32)) != first


def test_a_new_commitment_takes_an_acceptance_back() -> None:
    desk = Desk()
    desk.desk.decide(desk.asks(), True, desk.now_s)
    other = b"\1" * 32
    desk.commits(other)
    assert code_of(desk.says(reveal_text(other))) is RefusalCode.APPROVAL_PENDING
    assert code_of(desk.says(reveal_text(NONCE))) is RefusalCode.BAD_PROOF


def test_words_can_be_tried_so_often_and_by_so_many_only() -> None:
    desk = Desk()
    for number in range(MAX_COMMITS):
        desk.commits(number.to_bytes(32, "big"))
    again = commit_text(commitment(MESH, MEMBER.node, JOINER.node, b"\xff" * 32))
    assert code_of(desk.says(again)) is RefusalCode.BUSY
    crowded = Desk()
    for number in range(MAX_REQUESTS):
        crowded.commits(key=Key(f"joiner {number}"))
    late = Key("late")
    commit = commit_text(commitment(MESH, MEMBER.node, late.node, NONCE))
    assert code_of(crowded.says(commit, late)) is RefusalCode.BUSY


@pytest.mark.parametrize("closing", ["by itself", "by hand"])
def test_a_closed_desk_listens_to_nobody_and_forgets_what_was_decided(closing: str) -> None:
    desk = Desk()
    desk.desk.decide(desk.asks(), True, desk.now_s)
    if closing == "by hand":
        desk.desk.close()
    else:
        desk.now_s += 60.0
    assert code_of(desk.says(reveal_text(NONCE))) is RefusalCode.APPROVAL_CLOSED
    assert desk.desk.requests(desk.now_s) == ()
    desk.desk.open(desk.now_s, 60.0, Role.WORKER)
    assert code_of(desk.says(reveal_text(NONCE))) is RefusalCode.APPROVAL_CLOSED


@pytest.mark.parametrize(
    ("opened", "wanted", "granted"),
    [
        (Role.WORKER, None, Role.WORKER), (Role.WORKER, Role.CLIENT, Role.CLIENT), (Role.CLIENT, None, Role.CLIENT),
        (Role.CLIENT, Role.WORKER, Role.CLIENT),
    ],
)  # fmt: skip
def test_nobody_gets_more_than_the_desk_gives(opened: Role, wanted: Role | None, granted: Role) -> None:
    desk = Desk(opened)
    own = desk.commits(wanted=wanted)
    desk.says(reveal_text(NONCE))
    desk.desk.decide(words(MESH, MEMBER.node, JOINER.node, NONCE, own), True, desk.now_s)
    assert desk.says(reveal_text(NONCE)) == Approved(granted)


def test_in_between_with_own_keys_the_operators_see_different_words() -> None:
    """Mallory passes everything on, as a member to the joiner and as a joiner to the member."""
    mallory = Key("mallory")
    member = Desk()
    towards_joiner = ApprovalDesk(mallory.node, MESH, lambda size: b"\7" * size)
    towards_joiner.open(100.0, 60.0, Role.WORKER)
    joiner_commits = commit_text(commitment(MESH, mallory.node, JOINER.node, NONCE))
    answer = towards_joiner.answer(joiner_commits, JOINER.node, "192.0.2.1:5", None, 100.0)
    assert isinstance(answer, Refusal)
    joiner_sees = words(MESH, mallory.node, JOINER.node, NONCE, bytes.fromhex(answer.found))
    # Only now does Mallory know the joiner's nonce, and commits to it, or to anything else, towards the member.
    assert joiner_sees != member.asks(mallory, NONCE)
    assert code_of(member.says(joiner_commits, mallory)) is RefusalCode.APPROVAL_PENDING
    assert code_of(member.says(reveal_text(NONCE), mallory)) is RefusalCode.BAD_PROOF
