"""The cases of `tests/cases/readiness.json`, in virtual time, judged by the real rules.

The abstract events become real views: `pending` is a node whose RTT is not corroborated, `excluded x client` one with a
client's role, and so on. Node `a` is the local one.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from driving_waiters import Drive
from making_views import MANIFEST, MODEL, a_model, a_node, a_view, an_offer, an_rtt, node_id

from meshnode.membership.view import MeshView, NodeView, Status
from meshnode.readiness import Failed, Finished, SettleSettings, SplitRequest
from proto.parts import Role

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "cases" / "readiness.json").read_text())


def after(node: NodeView | None, what: str, name: str, value: Any) -> NodeView:
    """The node as the event leaves it."""
    match what:
        case "eligible":
            return a_node(name, usable_bytes=value)
        case "pending":
            return a_node(name, usable_bytes=value, rtt=an_rtt(corroborated=False, samples=1))
        case "excluded" if value == "client":
            return a_node(name, role=Role.CLIENT)
        case "excluded" if value == "missing_vram":
            return a_node(name, offer=an_offer(node_id(name), devices=()))
    assert node is not None, f"{what} of a node that never came"
    assert node.offer is not None
    version = node.offer.version + 1
    match what:
        case "capacity":
            return replace(node, offer=an_offer(node.node, usable_bytes=value, version=version))
        case "cache":
            model = a_model(complete=False, cached_bytes=value, missing_bytes=5)
            usable = node.offer.devices[0].usable_bytes
            return replace(node, offer=an_offer(node.node, usable_bytes=usable, models=(model,), version=version))
        case "rtt":
            return replace(node, rtt=an_rtt(float(value)))
        case "dead":
            return replace(node, status=Status.DEAD, link=None, rtt=None)
    raise AssertionError(f"unknown event {what} {value}")


def views_of(events: list[list[Any]]) -> list[tuple[float, MeshView]]:
    """One view per moment; each change at the same moment is in it."""
    nodes: dict[str, NodeView] = {}
    views: dict[float, MeshView] = {}
    for generation, (at_s, what, name, *value) in enumerate(events, start=1):
        nodes[name] = after(nodes.get(name), what, name, value[0] if value else None)
        views[at_s] = a_view(*nodes.values(), generation=generation, at_s=at_s)
    return list(views.items())


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case(case: dict[str, Any]) -> None:
    request = SplitRequest(MODEL, manifest=MANIFEST, settle=SettleSettings(**case["settings"]))
    drive = Drive(request, views_of(case["events"])).run()
    expect = case["expect"]
    if "error" in expect:
        assert isinstance(drive.over, Failed), case["why"]
        assert type(drive.over.error).__name__ == expect["error"]
        snapshot = drive.over.error.snapshot
        assert drive.at_s == case["settings"]["deadline_s"]
    else:
        assert isinstance(drive.over, Finished), case["why"]
        snapshot = drive.over.snapshot
        assert drive.at_s == pytest.approx(expect["ready_at_s"]), case["why"]
        assert snapshot.outcome == expect["outcome"]
    names = {node_id(name): name for name in "abcdef"}
    assert [names[each.node] for each in snapshot.participants] == expect["participants"]
    assert {names[each.node]: each.reason.value for each in snapshot.exclusions} == expect.get("excluded", {})
