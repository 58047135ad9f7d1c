"""Remedies are found by planning again: what is called sufficient plans, one step less does not."""

from __future__ import annotations

import pytest

from planner import (
    CapacityShortfall,
    Constraints,
    DeviceSpec,
    LayerSpec,
    LinkMatrix,
    ModelSpec,
    NodeSpec,
    Workload,
    plan_split,
)


def test_equal_devices_of_one_node_can_be_compared_where_what_to_free_is_searched() -> None:
    devices = tuple(DeviceSpec(f"d{n}", capacity_bytes=10**9, declared_usable_bytes=4 * 10**6) for n in range(2))
    nodes = [NodeSpec(f"n{number}", devices=devices) for number in range(8)]
    model = ModelSpec("m", tuple(LayerSpec(count=1, weight_bytes=size * 10**6) for size in (7, 3) * 12))
    with pytest.raises(CapacityShortfall):
        plan_split(
            model, nodes, LinkMatrix.all_free(), Workload(context=0), engine="chain",
            constraints=Constraints(coordinator="n0", max_stage_rtt_ms=5),
        )  # fmt: skip
