"""The six words: what they depend on, and that whoever sits in between can't choose them."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making_members import MESH, Key

from proto.approval import NONCE_BYTES, WORD_LIST, WORDS, commit_text, commitment, read_text, reveal_text, words
from proto.ids import mesh_id_of

MEMBER, JOINER, MALLORY, MALLET = Key("member"), Key("joiner"), Key("mallory"), Key("mallet")
OTHER_MESH = mesh_id_of(Key("another root").public_key)
nonces = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)


def test_the_list_has_a_word_for_each_byte_and_none_that_begins_another() -> None:
    assert len(set(WORD_LIST)) == 256
    assert all(word.isascii() and word.isalpha() and word.islower() and 3 <= len(word) <= 8 for word in WORD_LIST)
    assert not [(one, other) for one, other in product(WORD_LIST, repeat=2) if one != other and one == other + "s"]


@given(nonces, nonces)
def test_both_sides_of_one_exchange_see_the_same_six_words(ours: bytes, theirs: bytes) -> None:
    shown = words(MESH, MEMBER.node, JOINER.node, ours, theirs)
    assert len(shown) == WORDS
    assert shown == words(MESH, MEMBER.node, JOINER.node, ours, theirs)


@given(nonces, nonces, st.integers(0, NONCE_BYTES - 1), st.integers(1, 255))
def test_every_input_changes_the_words_and_the_commitment(ours: bytes, theirs: bytes, at: int, by: int) -> None:
    def changed(nonce: bytes) -> bytes:
        return nonce[:at] + bytes([nonce[at] ^ by]) + nonce[at + 1 :]

    shown = words(MESH, MEMBER.node, JOINER.node, ours, theirs)
    others = [
        words(OTHER_MESH, MEMBER.node, JOINER.node, ours, theirs),
        words(MESH, MALLORY.node, JOINER.node, ours, theirs),
        words(MESH, MEMBER.node, MALLORY.node, ours, theirs),
        words(MESH, JOINER.node, MEMBER.node, ours, theirs),
        words(MESH, MEMBER.node, JOINER.node, changed(ours), theirs),
        words(MESH, MEMBER.node, JOINER.node, ours, changed(theirs)),
    ]
    assert shown not in others
    commit = commitment(MESH, MEMBER.node, JOINER.node, ours)
    assert commit != commitment(MESH, MEMBER.node, JOINER.node, changed(ours))
    assert commit != commitment(MESH, MALLORY.node, JOINER.node, ours)
    assert commit != commitment(MESH, MEMBER.node, MALLORY.node, ours)
    assert commit != commitment(OTHER_MESH, MEMBER.node, JOINER.node, ours)


@given(nonces, nonces)
def test_in_between_one_key_for_each_side_never_gives_the_same_words(joiners: bytes, members: bytes) -> None:
    """Mallory has seen every nonce and passes each on as it is: the best that can be done without choosing."""
    joiner_sees = words(MESH, MALLORY.node, JOINER.node, joiners, members)
    member_sees = words(MESH, MEMBER.node, MALLET.node, joiners, members)
    assert joiner_sees != member_sees


@given(st.binary(min_size=32, max_size=32))
def test_texts_come_back_as_they_went(value: bytes) -> None:
    assert read_text(commit_text(value)) == ("commit", value)
    assert read_text(reveal_text(value)) == ("reveal", value)


@pytest.mark.parametrize("text", ["", "mesh1_abc", "approve1.commit.00", "approve1.other." + "0" * 64, "x" * 2000])
def test_other_texts_are_none_of_these(text: str) -> None:
    assert read_text(text) is None


def test_a_text_with_something_behind_it_is_none_either() -> None:
    assert read_text(commit_text(bytes(32)) + "\n") is None
