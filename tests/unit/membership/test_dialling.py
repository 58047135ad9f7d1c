"""Whom one node dials, and when it gives up."""

from __future__ import annotations

from making_memberships import QUIET, Lone, Other

from meshnode.membership.effects import Dial
from meshnode.membership.view import Status


def a_dead_member(us: Lone, *friends: Other) -> Other:
    dead = us.meets()
    while us.machine.status_of(dead.node) is not Status.DEAD:
        us.passes(1.0, *friends)
    us.effects += us.machine.link_down(dead.node, "unreachable", "held dead", us.now_s)
    us.forget_effects()
    return dead


def test_member_learned_of_is_dialled_once_and_again_with_growing_waits() -> None:
    us = Lone()
    friend = us.meets()
    far = us.meets(linked=False, via=friend)
    us.passes(1.0, friend)
    assert us.dialled() == [far.node]
    moments = []
    for _ in range(4):
        failed_at_s = us.now_s
        us.forget_effects()
        us.effects += us.machine.dial_failed(far.node, "unreachable", us.now_s)
        while far.node not in us.dialled():
            us.passes(0.1, friend)
        moments.append(us.now_s - failed_at_s)
    assert moments[-1] > moments[0]
    assert moments[-1] <= 1.5 * QUIET.dial_backoff_max_s


def test_dead_member_is_dialled_from_time_to_time() -> None:
    us = Lone()
    friend = us.meets()
    dead = a_dead_member(us, friend)
    for _ in range(3):
        us.forget_effects()
        us.passes(2 * QUIET.heal_interval_s, friend)
        assert set(us.dialled()) == {dead.node}
        us.effects += us.machine.dial_failed(dead.node, "unreachable", us.now_s)


def test_dead_member_is_given_up_when_not_even_its_floor_is_kept() -> None:
    us = Lone()
    friend = us.meets()
    a_dead_member(us, friend)
    us.now_s += QUIET.floor_s
    us.effects += us.machine.poll(us.now_s)
    us.forget_effects()
    us.passes(60.0, friend)
    assert us.dialled() == []


def test_member_that_left_or_was_removed_is_not_looked_for() -> None:
    us = Lone()
    friend, leaver, removed = us.meets(), us.meets(), us.meets()
    us.hears(leaver, leaver.identity(left=True))
    us.effects += us.machine.link_down(leaver.node, "leaving", "the node stops", us.now_s)
    us.effects += us.machine.revoked([removed.node], us.now_s)
    us.effects += us.machine.link_down(removed.node, "removed", "removed", us.now_s)
    us.forget_effects()
    us.passes(30.0, friend)
    assert us.dialled() == []
    assert us.machine.addresses_of(removed.node) == ()


def test_member_that_calls_is_dialled_where_it_called_from_once_the_other_dial_is_over() -> None:
    us = Lone()
    friend = us.meets()
    far = us.meets(linked=False, via=friend)
    us.passes(1.0, friend)
    assert us.dialled() == [far.node]
    us.forget_effects()
    us.effects += us.machine.called(far.node, "10.0.7.7:4411", us.now_s)
    assert us.dialled() == []
    us.effects += us.machine.dial_failed(far.node, "no_answer", us.now_s)
    assert dialled_at(us) == [("10.0.7.7:4411",)]
    us.forget_effects()
    us.effects += us.machine.dial_failed(far.node, "no_answer", us.now_s)
    us.passes(60.0, friend)
    assert dialled_at(us)[0] == (far.address,), "what nobody proved is not remembered"


def test_dead_member_that_calls_is_dialled_at_once_and_a_linked_one_is_not() -> None:
    us = Lone()
    alive = us.meets()
    dead = a_dead_member(us, alive)
    us.effects += us.machine.called(dead.node, "10.0.7.7:4411", us.now_s)
    us.effects += us.machine.called(alive.node, "10.0.7.8:4411", us.now_s)
    assert dialled_at(us) == [("10.0.7.7:4411",)]


def dialled_at(us: Lone) -> list[tuple[str, ...]]:
    return [one.addresses for one in us.effects if isinstance(one, Dial)]
