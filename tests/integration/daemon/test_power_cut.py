"""All nodes of a mesh die at once, as in a power cut, and come back by themselves."""

from __future__ import annotations

import signal

from making_nodes import PATIENT, Nodes, RunningNode


def listens_at(node: RunningNode) -> str:
    return str(node.wait_event("node.started")["listen"])


def test_nodes_without_a_fixed_port_find_each_other_after_a_power_cut(nodes: Nodes) -> None:
    names = ("attic", "study", "loft", "cellar")
    before = nodes.mesh(*names, options=PATIENT)
    addresses = [listens_at(node) for node in before]
    for node in before:
        node.process.send_signal(signal.SIGKILL)
    for node in before:
        node.process.wait()
    again = [nodes.start(name, *PATIENT, wait=False) for name in names]
    nodes.all_know_all(again)
    assert [listens_at(node) for node in again] == addresses
