"""The picture shows each stage's figures and can't be broken out of by a name."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise

from planner import Objective, Workload
from planner.picture import plan_picture
from planner.plan import CoordinatorPlan, HopPlan, SplitPlan, StageBytes, StagePlan

SVG = "{http://www.w3.org/2000/svg}"


def a_stage(number: int, node: str, layers: tuple[int, int]) -> StagePlan:
    held = StageBytes(weights=20 * 10**9, kv=2 * 10**9, state=0, endpoint=10**9, compute=5 * 10**8, usable=30 * 10**9)
    return StagePlan(number, node, "cuda:0", *layers, held, 0.02)


def a_plan(*nodes: str) -> SplitPlan:
    return SplitPlan(
        model="m <evil> & co",
        objective=Objective.FEWEST,
        engine="chain",
        workload=Workload(context=8192),
        context=8192,
        stages=tuple(a_stage(n, node, (10 * n, 10 * n + 10)) for n, node in enumerate(nodes)),
        hops=tuple(HopPlan(a, b, 0.001, 2.0) for a, b in pairwise(nodes)),
        coordinator=CoordinatorPlan(nodes[0], True, 0),
        value=len(nodes),
        lower_bound=len(nodes),
        unit="stages",
        method="exact",
        capacity_only=False,
        warnings=("one <note>",),
    )


def texts(svg: str) -> str:
    return "\n".join(element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text"))


def test_each_stage_is_shown_with_its_layers_and_memory() -> None:
    shown = texts(plan_picture(a_plan("attic", "cellar")))
    assert "layers 0 to 9" in shown
    assert "layers 10 to 19" in shown
    assert shown.count("23.5GB of 30.0GB, 6.5GB free") == 2
    assert "from attic, RTT 2.0ms" in shown


def test_names_from_outside_are_text_and_never_markup() -> None:
    svg = plan_picture(a_plan("<script>alert(1)</script>", 'b" onload="x'))
    assert "<script>" not in svg
    assert [element.tag for element in ET.fromstring(svg).iter() if "script" in element.tag] == []
    assert "m <evil> & co" in texts(svg)
