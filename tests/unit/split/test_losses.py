"""What a pursuit remembers of what it lost, and for how long."""

from __future__ import annotations

from meshnode.split.losses import FAULTS_S, MAX_FAULTS, Losses
from meshnode.split.standing import Lost
from proto.ids import NodeId

ATTIC, STUDY = NodeId("a" * 52), NodeId("b" * 52)


def test_first_loss_stays_the_cause_while_a_plan_is_made_anew() -> None:
    losses = Losses()
    losses.lost(Lost("attic is dead", ATTIC, ran=True))
    losses.lost(Lost("study refused", STUDY, ran=True))
    assert (losses.cause, losses.node) == ("attic is dead", ATTIC)
    assert losses.after("no valid plan is left") == "no valid plan is left after a loss: attic is dead"


def test_node_lost_while_nothing_ran_is_the_cause_of_nothing() -> None:
    losses = Losses()
    losses.lost(Lost("study refused", STUDY, ran=False))
    assert losses.cause is None
    assert losses.after("no new plan in time") == "no new plan in time"


def test_faults_far_apart_are_never_too_many() -> None:
    losses = Losses()
    assert not any(losses.fault(number * FAULTS_S) for number in range(MAX_FAULTS * 2))


def test_faults_still_count_once_another_plan_stands() -> None:
    losses = Losses()
    said = []
    for number in range(MAX_FAULTS):
        said.append(losses.fault(float(number)))
        losses.made_good()
    assert said == [False] * (MAX_FAULTS - 1) + [True]
