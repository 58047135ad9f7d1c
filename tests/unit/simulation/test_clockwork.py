"""Virtual time: whatever the slots are, things happen in order of their moment, then of their scheduling."""

from __future__ import annotations

import random

from meshnode.simulation.clockwork import SLOTS_PER_S, Clockwork


def test_everything_happens_in_order_of_its_moment_then_of_its_scheduling() -> None:
    clock, rng = Clockwork(), random.Random(7)
    happened: list[tuple[float, int]] = []
    wanted: list[tuple[float, int]] = []

    def plan(due_s: float) -> None:
        number = len(wanted)
        wanted.append((due_s, number))
        clock.at(due_s, act, due_s, number)

    def act(due_s: float, number: int) -> None:
        happened.append((due_s, number))
        if len(wanted) < 3000:
            # Now, in this slot, at a slot's very edge, in the next ones, and far ahead.
            edge_s = (int(due_s * SLOTS_PER_S) + 1) / SLOTS_PER_S
            plan(rng.choice((due_s, due_s + 0.001, edge_s, due_s + rng.random(), due_s + 30.0)))

    for _ in range(200):
        plan(rng.uniform(0.0, 5.0))
    while len(happened) < len(wanted):
        clock.run_until(clock.now_s + rng.choice((0.0, 0.001, 0.3, 10.0)))
    assert happened == sorted(wanted)
    assert clock.happened == len(wanted)


def test_nothing_beyond_the_end_happens_and_the_clock_stands_at_it() -> None:
    clock = Clockwork()
    happened: list[float] = []
    for due_s in (0.5, 1.0, 1.0 + 1e-9, 1.001, 40.0):
        clock.at(due_s, happened.append, due_s)
    clock.run_until(1.0)
    assert happened == [0.5, 1.0]
    assert clock.now_s == 1.0


def test_what_is_overdue_happens_next_and_time_does_not_go_back() -> None:
    clock = Clockwork()
    moments: list[float] = []
    clock.at(5.0, lambda: clock.at(2.0, lambda: moments.append(clock.now_s)))
    clock.at(5.5, lambda: moments.append(clock.now_s))
    clock.run_until(6.0)
    assert moments == [5.0, 5.5]
