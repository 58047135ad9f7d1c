"""The folding rule on its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshnode.events import LogFolded, PeerLeft, WireRejected
from meshnode.folding import MAX_WINDOWS, PER_EVENT, PER_SUBJECT, WINDOW_S, Folder


def left(peer: str) -> PeerLeft:
    return PeerLeft(peer=peer, incarnation=1)


def rejected(address: str) -> WireRejected:
    return WireRejected(peer=None, address=address, message="ping", field="nonce", found="x", expected="a number")


def test_different_subjects_do_not_fold_each_other() -> None:
    folder = Folder()
    admitted = [folder.admit(left(f"peer{number}"), 0.0) for number in range(PER_SUBJECT * 3)]
    assert all(len(events) == 1 for events in admitted)


def test_a_stranger_with_many_addresses_is_folded_by_the_event() -> None:
    folder = Folder()
    written = sum(len(folder.admit(rejected(f"10.0.{n // 250}.{n % 250}:1"), 0.0)) for n in range(2000))
    assert written == PER_EVENT
    assert folder.close_due(WINDOW_S) == [LogFolded("wire.rejected", "", 2000 - PER_EVENT, WINDOW_S)]


def test_after_the_window_a_subject_may_speak_again() -> None:
    folder = Folder()
    for _ in range(PER_SUBJECT):
        folder.admit(left("a"), 0.0)
    assert folder.admit(left("a"), WINDOW_S - 0.1) == []
    assert folder.admit(left("a"), WINDOW_S) == [LogFolded("peer.left", "a", 1, WINDOW_S), left("a")]


def test_memory_is_bounded_and_counts_survive_eviction() -> None:
    folder = Folder()
    for _ in range(PER_SUBJECT + 3):
        folder.admit(left("a"), 0.0)
    written = [event for n in range(MAX_WINDOWS + 5) for event in folder.admit(left(f"peer{n}"), 1.0)]
    assert LogFolded("peer.left", "a", 3, 1.0) in written
    assert len(folder._windows) <= MAX_WINDOWS


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 30.0)), max_size=200))
def test_every_event_is_written_or_counted(arrivals: list[tuple[str, float]]) -> None:
    folder, now = Folder(), 0.0
    out = []
    for peer, pause in arrivals:
        now += pause
        out += folder.admit(left(peer), now)
    out += folder.close_all(now)
    written = sum(1 for event in out if isinstance(event, PeerLeft))
    counted = sum(event.count for event in out if isinstance(event, LogFolded))
    assert written + counted == len(arrivals)
