"""RTTs not to be believed: a member that lies makes its own paths look longer, not shorter, and those of nobody else;
a loop that lags, here or there, gives no sample."""

from __future__ import annotations

import pytest
from making_memberships import Lone, Other

from meshnode.events import WireRejected
from meshnode.membership.view import RttFigure, RttSource
from proto.messages import Ack, Ping


def answers(us: Lone, peer: Other, after_s: float, held_s: float) -> None:
    """`peer` answers the newest ping so much later, and says that it held it so long."""
    ping = us.sent(Ping, peer)[-1]
    at_s = us.now_s + after_s
    us.effects += us.machine.receive_datagram(peer.node, Ack(ping.nonce, 1, round(1e6 * held_s)), at_s, at_s)
    us.now_s = at_s


def measured(us: Lone, peer: Other) -> RttFigure | None:
    return us.machine.view(us.now_s).nodes[peer.node].rtt


def reported(us: Lone, source: Other, target: Other) -> RttFigure | None:
    return us.machine.view(us.now_s).rtt.get((source.node, target.node))


# --- its own path to us ----------------------------------------------------------------------------


def test_answer_held_for_longer_than_it_took_is_a_lie_that_is_told_and_no_sample() -> None:
    us = Lone()
    liar = us.meets()
    answers(us, liar, after_s=0.010, held_s=0.050)
    assert measured(us, liar) is None
    (told,) = us.events(WireRejected)
    assert (told.peer, told.message, told.field) == (liar.node, "ack", "hold_us")
    assert (told.found, told.expected) == ("50.0 ms", "at most the 10.0 ms until it was here")


def test_far_peer_that_says_it_held_its_answer_all_the_time_looks_no_nearer() -> None:
    us = Lone()
    liar = us.meets()
    answers(us, liar, after_s=0.100, held_s=0.0999)
    assert measured(us, liar) is None
    assert us.events(WireRejected) == []


def test_most_that_such_a_lie_gains_is_what_a_lagging_loop_is_allowed() -> None:
    us = Lone()
    liar = us.meets()
    answers(us, liar, after_s=0.100, held_s=0.0199)
    figure = measured(us, liar)
    assert figure is not None
    assert figure.min_ms == pytest.approx(80.1)


def test_peer_that_holds_its_answers_back_looks_further_away_and_so_does_nobody_else() -> None:
    us = Lone()
    liar, honest = us.meets(), us.meets()
    answers(us, honest, after_s=0.010, held_s=0.0)
    answers(us, liar, after_s=0.300, held_s=0.0)
    far, near = measured(us, liar), measured(us, honest)
    assert far is not None
    assert near is not None
    assert far.min_ms >= 300.0
    assert near.min_ms == pytest.approx(10.0)


def test_link_without_its_first_samples_is_timed_again_soon() -> None:
    us = Lone()
    lagging = us.meets()
    us.passes(5.4)
    answers(us, lagging, after_s=0.010, held_s=0.0)
    us.passes(6.0, lagging)
    figure = measured(us, lagging)
    assert figure is not None
    assert figure.corroborated


# --- what it says of others ------------------------------------------------------------------------


def test_path_that_both_ends_report_alike_is_corroborated_and_the_longer_report_counts() -> None:
    us = Lone()
    one, other = us.meets(), us.meets()
    us.hears(one, one.network(other=(other, 40.0)))
    us.hears(other, other.network(one=(one, 41.0)))
    for pair in ((one, other), (other, one)):
        figure = reported(us, *pair)
        assert figure is not None
        assert (figure.min_ms, figure.corroborated, figure.source) == (41.0, True, RttSource.REPORTED)
        assert figure.variation_ms is None, "no row says it"


def test_path_that_one_end_alone_calls_short_is_as_long_as_the_other_says_and_not_corroborated() -> None:
    us = Lone()
    liar, honest = us.meets(), us.meets()
    us.hears(liar, liar.network(honest=(honest, 0.01)))
    us.hears(honest, honest.network(liar=(liar, 40.0)))
    figure = reported(us, liar, honest)
    assert figure is not None
    assert (figure.min_ms, figure.corroborated) == (40.0, False)


def test_path_that_the_other_end_does_not_name_is_not_corroborated() -> None:
    us = Lone()
    liar, honest, third = us.meets(), us.meets(), us.meets()
    us.hears(honest, honest.network(third=(third, 5.0)))
    us.hears(liar, liar.network(honest=(honest, 0.01)))
    figure = reported(us, liar, honest)
    assert figure is not None
    assert not figure.corroborated


def test_what_a_peer_says_of_its_path_to_us_is_held_against_what_we_measured() -> None:
    us = Lone()
    liar, honest = us.meets(), us.meets()
    answers(us, liar, after_s=0.040, held_s=0.0)
    us.hears(liar, liar.network(us=(us.itself(), 0.01), honest=(honest, 3.0)))
    figure = us.machine.view(us.now_s).rtt[liar.node, us.node]
    assert figure.min_ms == pytest.approx(40.0)
    assert not figure.corroborated


# --- overload --------------------------------------------------------------------------------------


def test_sample_is_dropped_whose_sender_says_that_its_loop_lagged() -> None:
    us = Lone()
    busy = us.meets()
    ping = us.sent(Ping, busy)[-1]
    us.machine.receive_datagram(busy.node, Ack(ping.nonce, 1, 0, overloaded=True), us.now_s + 0.01, us.now_s + 0.01)
    assert measured(us, busy) is None


def test_sample_is_dropped_that_ends_while_the_own_loop_lags_and_taken_again_afterwards() -> None:
    us = Lone()
    peer = us.meets()
    us.now_s = us.machine.next_wakeup() + 0.03
    us.machine.poll(us.now_s)
    answers(us, peer, after_s=0.010, held_s=0.0)
    assert measured(us, peer) is None
    us.passes(1.5, peer)
    assert measured(us, peer) is not None


def test_own_node_says_that_it_lagged() -> None:
    us = Lone()
    peer = us.meets()
    us.now_s = us.machine.next_wakeup() + 0.03
    us.effects += us.machine.poll(us.now_s)
    us.effects += us.machine.receive_datagram(peer.node, Ping(7, 1), us.now_s - 0.02, us.now_s)
    (ack,) = us.sent(Ack, peer)
    assert ack.overloaded
    assert ack.hold_us == 20_000
