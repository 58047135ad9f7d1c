"""Which engines can share a split: a rule that speaks only where a plan is to be carried out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from making_views import MANIFEST, MODEL, a_node, a_view, an_identity, node_id
from msgspec import structs

from meshnode.readiness import Excluded, Participant, ReasonCode, SplitRequest, snapshot_now
from proto.engines import MAX_WORD, RpcVersion, engine_word, rpc_version_of

A, B = node_id("a"), node_id("b")
OURS = RpcVersion(7, 1, 0)


def verdict_on(word: str | None, rpc_version: RpcVersion | None = OURS) -> Excluded | Participant:
    """The verdict on a worker whose record says `word`, beside a coordinator with RPC version `rpc_version`."""
    nodes = [
        replace(a_node(name), identity=structs.replace(an_identity(node_id(name)), engine=engine))
        for name, engine in (("a", engine_word("llama.cpp", OURS)), ("b", word))
    ]
    request = SplitRequest(MODEL, manifest=MANIFEST, rpc_version=rpc_version)
    snapshot = snapshot_now(a_view(*nodes, local="a"), request)
    found: list[Excluded | Participant] = [*snapshot.participants, *snapshot.exclusions]
    return next(each for each in found if each.node == B)


@pytest.mark.parametrize("word", ["llama.cpp rpc 7.1.0", "llama-cpp-python 0.3.36 rpc 7.0.0", "x rpc 7.1.9"])
def test_engine_of_the_same_major_and_no_newer_minor_version_takes_part(word: str) -> None:
    assert isinstance(verdict_on(word), Participant)


@pytest.mark.parametrize(
    "word", ["llama.cpp rpc 7.2.0", "llama.cpp rpc 6.1.0", "llama.cpp rpc 8.0.0", "vllm 0.9", None]
)
def test_other_engine_or_none_is_excluded_with_what_would_be_right(word: str | None) -> None:
    verdict = verdict_on(word)
    assert isinstance(verdict, Excluded)
    assert verdict.reason is ReasonCode.ENGINE_MISSING
    assert (verdict.found, verdict.required) == (word or "no engine", "llama.cpp with RPC 7.0 to 7.1")


def test_planning_alone_needs_no_engine() -> None:
    assert isinstance(verdict_on(None, rpc_version=None), Participant)


@pytest.mark.parametrize(
    "word", ["", "rpc", "rpc 7", "rpc 7.0", "x rpc 7.0.x", "x rpc 7.0.0.0", "x rpc -7.0.0", "x 7.0.0"]
)
def test_word_that_names_no_version_is_none(word: str) -> None:
    assert rpc_version_of(word) is None


def test_word_fits_the_wire_and_keeps_its_version() -> None:
    word = engine_word("a very long name of an engine that somebody built by hand on a rainy afternoon", OURS)
    assert len(word) == MAX_WORD
    assert rpc_version_of(word) == OURS
