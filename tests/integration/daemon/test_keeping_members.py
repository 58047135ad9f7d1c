"""A removal with real processes: who descends from the removed node is out with it, unless it is kept."""

from __future__ import annotations

import json

from making_nodes import Nodes, RunningNode


def a_family(nodes: Nodes) -> tuple[RunningNode, RunningNode, RunningNode]:
    """`attic` founded the mesh and let `study` in, which let `loft` in; all know each other."""
    attic = nodes.start("attic")
    study = nodes.start("study", token=attic.invite("--may-invite"))
    loft = nodes.start("loft", token=study.invite())
    attic.wait_event("peer.joined", lambda event: event["peer"] == loft.node)
    loft.wait_event("peer.joined", lambda event: event["peer"] == attic.node)
    return attic, study, loft


def test_a_node_let_in_by_a_removed_one_is_out_too(nodes: Nodes) -> None:
    attic, study, loft = a_family(nodes)
    answer = json.loads(attic.verb("remove", "study", "--yes", "--json"))
    assert sorted(answer["removed"]) == sorted([study.node, loft.node])
    assert study.process.wait(60) == 1
    assert loft.process.wait(60) == 1


def test_a_kept_node_stays_a_member_and_comes_back_after_a_restart(nodes: Nodes) -> None:
    attic, study, loft = a_family(nodes)
    answer = json.loads(attic.verb("remove", "study", "--keep", "loft", "--yes", "--json"))
    assert (answer["removed"], answer["kept"]) == ([study.node], [loft.node])
    assert study.process.wait(60) == 1
    loft.wait_event("node.removed", lambda event: event["node"] == study.node)
    loft.stop()
    attic.wait_event("peer.left", lambda event: event["peer"] == loft.node)
    back = nodes.start("loft")
    back.wait_event("peer.joined", lambda event: event["peer"] == attic.node)
    shown = attic.wait_event("peer.returned", lambda event: event["peer"] == loft.node)
    assert shown["was"] == "left"
