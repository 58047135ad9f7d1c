"""What a plan's nodes have to fetch before it runs: their own stages' layers, less what is there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner import CapacityShortfall, Constraints, LayerSpec, LinkMatrix, ModelSpec, NodeSpec, Workload, plan_split
from planner.at_hand import missing_bytes

GB = 10**9
MODEL = ModelSpec(
    "m", (LayerSpec(count=8, weight_bytes=GB),), hidden_size=1000, embedding_bytes=GB, output_bytes=2 * GB
)
"""The embedding lies in the coordinator's host memory; the head with the last layer."""
LACKING: dict[str, Any] = {"has_package": False, "cached_bytes": 0}


def a_node(usable_gb: int = 9, **has: Any) -> NodeSpec:
    kept = has.pop("layers_at_hand", ())
    node = NodeSpec.single("b", usable_bytes=usable_gb * GB, host_usable_bytes=0, **has)
    return replace(node, layers_at_hand=kept)


@pytest.mark.parametrize(
    ("has", "body", "last"),
    [
        pytest.param({"has_package": True, "cached_bytes": 11 * GB}, 0, 0, id="has the package"),
        pytest.param({}, None, None, id="nobody knows what it has"),
        pytest.param(LACKING, 3, 5, id="has nothing"),
        pytest.param({"has_package": False, "cached_bytes": 10 * GB}, 3, 5, id="an engine is given no parts"),
        pytest.param({"cached_bytes": 10 * GB}, 1, 1, id="a nodes file tells a sum: at most what lacks in all"),
        pytest.param(LACKING | {"layers_at_hand": ((2, 4),)}, 1, 5, id="kept layers of another stage too"),
        pytest.param(LACKING | {"layers_at_hand": ((2, 5), (5, 8))}, 0, 0, id="kept all, the head with the last layer"),
        pytest.param(LACKING | {"layers_at_hand": ((6, 8),)}, 3, 1, id="kept the head and two layers"),
    ],
)
def test_stage_lacks_its_own_layers_and_no_others(has: dict[str, Any], body: int | None, last: int | None) -> None:
    node = a_node(**has)
    found = [missing_bytes(node, MODEL, 2, 5, 0), missing_bytes(node, MODEL, 5, 8, 2 * GB)]
    assert found == [None if each is None else each * GB for each in (body, last)]


def two_nodes(**worker: Any) -> list[NodeSpec]:
    coordinator = NodeSpec.single("a", usable_bytes=6 * GB, host_usable_bytes=4 * GB, has_package=True, cached_bytes=0)
    return [coordinator, a_node(**worker)]


def test_plan_tells_it_of_each_stage_and_is_the_same_plan_once_it_is_fetched() -> None:
    asked = (LinkMatrix({}), Workload(context=256))
    coordinator = Constraints(coordinator="a")
    before = plan_split(MODEL, two_nodes(**LACKING), *asked, constraints=coordinator, objective="fewest")
    after = plan_split(
        MODEL, two_nodes(**LACKING, layers_at_hand=((0, 8),)), *asked, constraints=coordinator, objective="fewest"
    )
    told = {stage["node"]: stage["missing_bytes"] for stage in before.to_dict()["stages"]}
    assert told["a"] == 0
    assert told["b"] == next(stage.bytes.weights + stage.bytes.endpoint for stage in before.stages if stage.node == "b")
    assert [stage.missing_bytes for stage in after.stages] == [0, 0]
    assert before == after


def test_shortfall_counts_kept_layers_as_there() -> None:
    nodes = two_nodes(**LACKING, usable_gb=1, layers_at_hand=((6, 8),))
    with pytest.raises(CapacityShortfall) as raised:
        plan_split(MODEL, nodes, LinkMatrix({}), Workload(context=256), constraints=Constraints(coordinator="a"))
    (kept,) = (each for each in raised.value.report.participants if each.node == "b")
    assert (kept.cached_bytes, kept.missing_bytes) == (4 * GB, 7 * GB)
