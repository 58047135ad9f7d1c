"""Uses are counted once, on disk, before anybody is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from making_members import NOW_UNIX_S, Key

from meshnode.admission.invite_book import KEPT_AFTER_EXPIRY_S, MAX_INVITES, BookFull, Invite, InviteBook, InvitesFile
from meshnode.durable import DamagedState, StateError, VersionedFile
from proto.parts import Role
from proto.times import CLOCK_TOLERANCE_S

A, B, C = (Key(name).node for name in "abc")
TOKEN = b"t" * 16


def a_file(directory: Path) -> VersionedFile[InvitesFile]:
    return VersionedFile(directory / "invites.json", InvitesFile, fix="delete it")


def a_book(directory: Path) -> InviteBook:
    """The book as a process that starts now finds it."""
    return InviteBook(a_file(directory))


def an_invite(token_id: bytes = TOKEN, uses: int | None = 2, expires_at_unix_s: int = NOW_UNIX_S + 3600) -> Invite:
    return Invite(token_id, Role.WORKER, False, uses, NOW_UNIX_S, expires_at_unix_s)


def test_an_invite_is_known_after_a_restart(tmp_path: Path) -> None:
    a_book(tmp_path).add(an_invite(), NOW_UNIX_S)
    assert a_book(tmp_path).find(TOKEN) == an_invite()


def test_a_use_is_on_disk_when_it_is_counted(tmp_path: Path) -> None:
    """A crash right after counting, before any answer: the process that comes after knows of the use."""
    book = a_book(tmp_path)
    book.add(an_invite(), NOW_UNIX_S)
    book.count(TOKEN, A)
    assert a_book(tmp_path).count(TOKEN, B).uses_left == 0


def test_the_same_node_after_a_lost_answer_costs_nothing(tmp_path: Path) -> None:
    book = a_book(tmp_path)
    book.add(an_invite(), NOW_UNIX_S)
    book.count(TOKEN, A)
    reopened = a_book(tmp_path)
    assert reopened.has_redeemed(TOKEN, A)
    assert reopened.count(TOKEN, A).uses_left == 1


def test_no_use_is_given_away_beyond_the_last(tmp_path: Path) -> None:
    book = a_book(tmp_path)
    book.add(an_invite(uses=1), NOW_UNIX_S)
    book.count(TOKEN, A)
    with pytest.raises(ValueError, match="no use left"):
        a_book(tmp_path).count(TOKEN, B)


def test_a_crash_before_the_count_is_stored_gives_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Crash(BaseException):
        """The process dies here."""

    def dies(*_: object) -> None:
        raise Crash

    book = a_book(tmp_path)
    book.add(an_invite(uses=1), NOW_UNIX_S)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", dies)
        with pytest.raises(Crash):
            book.count(TOKEN, A)
    assert a_book(tmp_path).count(TOKEN, B).uses_left == 0


def test_a_disk_that_refuses_leaves_the_book_in_memory_unchanged_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    book = a_book(tmp_path)
    book.add(an_invite(), NOW_UNIX_S)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StateError):
            book.count(TOKEN, A)
    assert not book.has_redeemed(TOKEN, A)
    assert book.invites()[0].uses_left == 2


def test_an_unlimited_invite_counts_without_end(tmp_path: Path) -> None:
    book = a_book(tmp_path)
    book.add(an_invite(uses=None), NOW_UNIX_S)
    for node in (A, B, C):
        book.count(TOKEN, node)
    assert (book.invites()[0].uses_left, book.invites()[0].redeemed_count) == (None, 3)


def test_a_revoked_invite_stays_revoked(tmp_path: Path) -> None:
    book = a_book(tmp_path)
    book.add(an_invite(), NOW_UNIX_S)
    book.revoke(TOKEN)
    found = a_book(tmp_path).find(TOKEN)
    assert found is not None
    assert found.revoked


def test_the_newest_invite_is_listed_first(tmp_path: Path) -> None:
    book = a_book(tmp_path)
    old = Invite(b"o" * 16, Role.WORKER, False, 1, NOW_UNIX_S - 5, NOW_UNIX_S)
    book.add(old, NOW_UNIX_S)
    book.add(an_invite(), NOW_UNIX_S)
    assert [invite.token_id for invite in book.invites()] == [TOKEN, b"o" * 16]


def test_an_invite_is_forgotten_thirty_days_after_its_end(tmp_path: Path) -> None:
    book = a_book(tmp_path)
    book.add(an_invite(b"o" * 16), NOW_UNIX_S)
    end = NOW_UNIX_S + 3600
    book.add(an_invite(b"p" * 16), end + KEPT_AFTER_EXPIRY_S)
    assert book.find(b"o" * 16) is not None
    book.add(an_invite(b"q" * 16), end + KEPT_AFTER_EXPIRY_S + 1)
    assert book.find(b"o" * 16) is None


def a_full_book(directory: Path) -> InviteBook:
    invites = tuple(an_invite(number.to_bytes(16, "big")) for number in range(MAX_INVITES))
    a_file(directory).save(InvitesFile(invites))
    return a_book(directory)


def test_a_book_of_a_thousand_open_invites_takes_no_more(tmp_path: Path) -> None:
    with pytest.raises(BookFull, match="revoke invites"):
        a_full_book(tmp_path).add(an_invite(), NOW_UNIX_S)


@pytest.mark.parametrize("end", ["revoked", "used up", "expired"])
def test_ended_invites_make_room_in_a_full_book(tmp_path: Path, end: str) -> None:
    ended = an_invite(b"e" * 16, uses=1, expires_at_unix_s=NOW_UNIX_S + (0 if end == "expired" else 3600))
    open_ones = (an_invite(number.to_bytes(16, "big")) for number in range(MAX_INVITES - 1))
    a_file(tmp_path).save(InvitesFile((*open_ones, ended)))
    book = a_book(tmp_path)
    if end == "revoked":
        book.revoke(ended.token_id)
    if end == "used up":
        book.count(ended.token_id, A)
    book.add(an_invite(), NOW_UNIX_S + CLOCK_TOLERANCE_S + 1)
    assert book.find(TOKEN) is not None
    assert book.find(ended.token_id) is None


def test_a_damaged_book_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "invites.json").write_text('{"format": 1, "invites": [{}]}')
    with pytest.raises(DamagedState, match="delete it"):
        a_book(tmp_path)
