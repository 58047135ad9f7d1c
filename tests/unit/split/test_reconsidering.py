"""When a pursuit thinks over what it decided: what is news, and the times at which it looks again without any."""

from __future__ import annotations

import math

from meshnode.readiness.settling import Members
from meshnode.split.reconsidering import YIELD_S, Reconsidering
from proto.ids import BootId, NodeId

ATTIC, STUDY = NodeId("a" * 52), NodeId("b" * 52)


def offering(usable_bytes: int, *nodes: NodeId) -> Members:
    return {node: (BootId(bytes(16)), {"cpu": usable_bytes}) for node in nodes}


def test_figure_that_drifts_is_no_news() -> None:
    thought = Reconsidering(drift=0.05)
    thought.considered(offering(1000, ATTIC))
    assert not thought.is_news(offering(1040, ATTIC))
    assert thought.is_news(offering(1060, ATTIC))


def test_more_bytes_are_news_and_no_other_node() -> None:
    thought = Reconsidering(drift=0.05)
    thought.considered(offering(1000, ATTIC))
    assert not thought.are_others(offering(2000, ATTIC))
    assert thought.are_others(offering(1000, ATTIC, STUDY))


def test_time_to_look_again_comes_once() -> None:
    thought = Reconsidering(drift=0.05)
    thought.look_again(10.0)
    assert not thought.take_due(9.0)
    assert thought.take_due(10.0)
    assert not thought.take_due(11.0)
    assert math.isinf(thought.next_wakeup())


def test_way_is_given_until_the_other_nodes_offer_had_time_to_come() -> None:
    thought = Reconsidering(drift=0.05)
    thought.give_way(100.0)
    assert thought.gives_way
    assert thought.next_wakeup() == 100.0 + YIELD_S
    assert thought.take_due(100.0 + YIELD_S)
    assert not thought.gives_way
