"""Layers that a worker fetched before count as there for the coordinator that they came from, and for its package."""

from __future__ import annotations

import pytest
from making_views import MANIFEST, MODEL, a_model, a_node, a_view, an_offer, node_id

from meshnode.readiness import Purpose, SplitRequest, snapshot_now
from proto.parts import FetchedLayers

A, B, C = node_id("a"), node_id("b"), node_id("c")


@pytest.mark.parametrize("purpose", [Purpose.RUN, Purpose.PLAN])
@pytest.mark.parametrize(
    ("source", "manifest", "found"),
    [
        pytest.param(A, MANIFEST, ((0, 8),), id="this coordinator's"),
        pytest.param(C, MANIFEST, (), id="another's"),
        pytest.param(A, "e" * 64, (), id="of files it has no more"),
    ],
)
def test_kept_layers_are_the_coordinators_of_whom_they_were_fetched(
    purpose: Purpose, source: str, manifest: str, found: tuple[tuple[int, int], ...]
) -> None:
    kept = a_model(complete=False, manifest=None, cached_bytes=0, fetched=(FetchedLayers(source, manifest, 0, 8),))
    view = a_view(a_node("a"), a_node("b", offer=an_offer(B, models=(kept,))), local="a")
    request = SplitRequest(MODEL, purpose=purpose, manifest=MANIFEST if purpose is Purpose.RUN else None)
    participant = next(each for each in snapshot_now(view, request).participants if each.node == B)
    assert participant.layers_at_hand == found
    assert participant.has_package is (False if purpose is Purpose.RUN else None)
    assert participant.cached_bytes == 0
