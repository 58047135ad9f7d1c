"""Fences only rise, survive restarts, and can't be exhausted."""

from __future__ import annotations

from pathlib import Path

import pytest
from making_views import MODEL, node_id

from meshnode.durable import VersionedFile
from meshnode.split import FenceFile, Fences
from meshnode.split.fence import MAX_FENCED_MODELS, MAX_GENERATION_JUMP, FenceRefused
from proto.messages import Fence
from proto.shapes import MAX_COUNTER

A, B = node_id("a"), node_id("b")


def test_lower_fence_is_refused_with_what_is_promised() -> None:
    fences = Fences()
    fences.promise(MODEL, Fence(5, A))
    with pytest.raises(FenceRefused) as caught:
        fences.promise(MODEL, Fence(4, B))
    assert caught.value.highest == Fence(5, A)


def test_equal_generations_are_ordered_by_coordinator() -> None:
    fences = Fences()
    assert fences.promise(MODEL, Fence(5, A))
    assert fences.promise(MODEL, Fence(5, B))
    with pytest.raises(FenceRefused):
        fences.promise(MODEL, Fence(5, A))


def test_same_fence_again_is_no_new_promise() -> None:
    fences = Fences()
    assert fences.promise(MODEL, Fence(5, A))
    assert not fences.promise(MODEL, Fence(5, A))


def test_models_are_fenced_apart() -> None:
    fences = Fences()
    fences.promise(MODEL, Fence(5, A))
    assert fences.promise("another", Fence(1, A))


def test_promise_survives_a_restart_through_the_state_directory(tmp_path: Path) -> None:
    file = VersionedFile(tmp_path / "fences.json", FenceFile, fix="delete it")
    fences = Fences(file.load())
    fences.promise(MODEL, Fence(5, A))
    file.save(fences.as_file())
    with pytest.raises(FenceRefused):
        Fences(file.load()).promise(MODEL, Fence(4, B))


def test_next_fence_is_above_promise_and_everything_seen() -> None:
    fences = Fences()
    fences.promise(MODEL, Fence(5, B))
    assert fences.above(MODEL, A) == Fence(6, A)
    assert fences.above(MODEL, A, seen=9) == Fence(10, A)
    assert Fences().above(MODEL, A) == Fence(1, A)


def test_jump_that_would_exhaust_the_counter_is_refused() -> None:
    fences = Fences()
    with pytest.raises(FenceRefused, match="too far"):
        fences.promise(MODEL, Fence(MAX_GENERATION_JUMP + 1, A))


def test_lie_about_a_seen_generation_counts_for_nothing() -> None:
    fences = Fences()
    assert fences.above(MODEL, A, seen=MAX_COUNTER) == Fence(1, A)


def test_promises_are_bounded_and_the_one_renewed_longest_ago_gives_way() -> None:
    fences = Fences()
    fences.promise("kept", Fence(1, A))
    for number in range(MAX_FENCED_MODELS - 1):
        fences.promise(f"model {number}", Fence(1, A))
    fences.promise("kept", Fence(2, A))
    fences.promise("one more", Fence(1, A))
    assert len(fences.promised()) == MAX_FENCED_MODELS
    assert fences.highest("kept") == Fence(2, A)
    assert fences.highest("model 0") is None
