"""Which member a worker fetches from, and which workers a member gives to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from making_views import MANIFEST, MODEL, a_model, a_node, a_view, an_offer, node_id
from making_weights import write_model
from msgspec import structs

from meshnode.engine.weights.cache import LocalPackage
from meshnode.engine.weights.holders import nearest_holder, shared_weights
from meshnode.membership.view import NodeView
from meshnode.models import load_model_blocking
from meshnode.tunnel import Opening, Purpose
from proto.messages import Fence
from proto.parts import Role

A, B, C, D = (node_id(name) for name in "abcd")


def holder(name: str, rtt_ms: float, **model: object) -> NodeView:
    offered = structs.replace(a_model(), **model)
    return a_node(name, rtt_ms=rtt_ms, offer=an_offer(node_id(name), models=(offered,)))


@pytest.mark.parametrize(
    ("others", "found"),
    [
        pytest.param([holder("c", 5.0), holder("d", 2.0)], D, id="the nearest"),
        pytest.param([holder("c", 11.0)], None, id="farther than the coordinator"),
        pytest.param([holder("c", 9.5)], None, id="nearer by chance"),
        pytest.param([holder("c", 5.0, complete=False)], None, id="without all of it"),
        pytest.param([holder("c", 5.0, manifest="e" * 64)], None, id="with other files"),
        pytest.param([replace(holder("c", 5.0), link=None)], None, id="not linked"),
        pytest.param([replace(holder("c", 5.0), rtt=None)], None, id="not measured"),
        pytest.param([a_node("c", role=Role.CLIENT, rtt_ms=1.0)], None, id="a client"),
    ],
)
def test_bytes_come_from_the_nearest_that_has_the_same_package(others: list[NodeView], found: str | None) -> None:
    view = a_view(a_node("a"), holder("b", 10.0), *others, local="a")
    assert nearest_holder(view, MODEL, MANIFEST, B) == found


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalPackage:
    place: Path = tmp_path_factory.mktemp("holder")
    write_model(place / "one.gguf", 1, tied=False)
    return LocalPackage(load_model_blocking(str(place / "one.gguf"), cache_dir=place / "known"), MANIFEST)


def opening(generation: int = 3, coordinator: str = B) -> Opening:
    return Opening(Purpose.WEIGHTS, MODEL, Fence(generation, coordinator))


def test_worker_of_a_plan_that_is_told_of_gets_the_package(local: LocalPackage) -> None:
    view = a_view(a_node("a"), holder("b", 1.0, generation=3), a_node("c"), local="a")
    given = shared_weights(view, local, C, opening())
    assert not isinstance(given, str)
    assert (given.ranges, given.head, given.manifest) == (((0, 3),), True, MANIFEST)


@pytest.mark.parametrize(
    ("node", "asked", "reason"),
    [
        pytest.param(a_node("c"), opening(2), "fenced", id="of an older plan"),
        pytest.param(a_node("c"), opening(coordinator=D), "fenced", id="of nobody's plan"),
        pytest.param(a_node("c"), Opening(Purpose.WEIGHTS, MODEL), "for workers of a plan", id="of no plan"),
        pytest.param(a_node("c", role=Role.CLIENT), opening(), "for workers of a plan", id="a client"),
    ],
)
def test_nobody_else_gets_it(local: LocalPackage, node: NodeView, asked: Opening, reason: str) -> None:
    view = a_view(a_node("a"), holder("b", 1.0, generation=3), node, local="a")
    assert reason in str(shared_weights(view, local, C, asked))


def test_files_that_are_gone_or_of_another_package_are_not_given(local: LocalPackage) -> None:
    view = a_view(a_node("a"), holder("b", 1.0, generation=3), a_node("c"), local="a")
    assert "has no files" in str(shared_weights(view, None, C, opening()))
    other = replace(local, manifest="sampled1:00")
    assert shared_weights(view, other, C, opening()) == "the files here are of another package"
