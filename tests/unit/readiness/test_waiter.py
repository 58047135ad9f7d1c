"""The waiter: settling, patience, confirming, the deadline, and what it reports, in virtual time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from driving_waiters import Answering, Drive, answers_at_once
from making_views import (
    GB,
    MANIFEST,
    MODEL,
    a_boot,
    a_confirm,
    a_link,
    a_node,
    a_view,
    an_offer,
    an_rtt,
    node_id,
)

from meshnode.events import SplitCandidates, SplitQuorumFailed, SplitReady, SplitWaiting
from meshnode.membership.view import MeshView, NodeView, Status
from meshnode.readiness import (
    Eligibility,
    Failed,
    Finished,
    InvalidRequest,
    Outcome,
    ReasonCode,
    SettleSettings,
    SplitParticipantSnapshot,
    SplitRequest,
    Waiter,
)
from proto.ids import NodeId
from proto.messages import Confirm
from proto.parts import Role

A, B, C = node_id("a"), node_id("b"), node_id("c")
RUN = SplitRequest(MODEL, manifest=MANIFEST)


def views(*moments: tuple[float, tuple[NodeView, ...]]) -> list[tuple[float, MeshView]]:
    return [(at, a_view(*nodes, generation=i, at_s=at)) for i, (at, nodes) in enumerate(moments, start=1)]


def ended(drive: Drive) -> SplitParticipantSnapshot:
    assert isinstance(drive.over, Finished), drive.over
    return drive.over.snapshot


def reasons(snapshot: SplitParticipantSnapshot) -> dict[NodeId, ReasonCode]:
    return {each.node: each.reason for each in snapshot.exclusions}


def silent(*nodes: NodeId, from_s: float = 0.0, until_s: float = math.inf) -> Answering:
    """These do not answer what they are asked in [from_s, until_s); the others answer at once."""

    def answering(node: NodeId, view: MeshView, now: float) -> tuple[float, Confirm | None]:
        gone = node in nodes and from_s <= now < until_s
        return (math.inf, None) if gone else answers_at_once(node, view, now)

    return answering


# --- settling ---------------------------------------------------------------------------------


def test_drift_below_five_percent_restarts_nothing() -> None:
    drifted = replace(a_node("b", capacity_gb=24), offer=an_offer(B, usable_bytes=23 * GB, version=2))
    drive = Drive(RUN, views((0, (a_node("a"), a_node("b"))), (5, (a_node("a"), drifted)))).run()
    assert (drive.at_s, ended(drive).participants[1].usable_bytes) == (8.0, 23 * GB)


def test_slow_drift_that_adds_up_restarts_the_dwell() -> None:
    steps = [24.0, 23.2, 22.4]
    moments = views(
        *(
            (
                2.0 * i,
                (a_node("a"), replace(a_node("b"), offer=an_offer(B, usable_bytes=round(gb * GB), version=i + 1))),
            )
            for i, gb in enumerate(steps)
        )
    )
    assert Drive(RUN, moments).run().at_s == 12.0


def test_clients_that_come_and_go_hold_nobody_up() -> None:
    pair = (a_node("a"), a_node("b"))
    client = a_node("c", role=Role.CLIENT)
    moments = views((0, pair), (3, (*pair, client)), (5, pair), (7, (*pair, client)))
    assert Drive(RUN, moments).run().at_s == 8.0


def test_restarted_participant_restarts_the_dwell() -> None:
    moments = views((0, (a_node("a"), a_node("b"))), (3, (a_node("a"), a_node("b", start=1, incarnation=2))))
    assert Drive(RUN, moments).run().at_s == 11.0


def test_lost_and_regained_quorum_begins_a_new_window() -> None:
    settle = SettleSettings(dwell_s=1, first_quorum_window_s=8)
    moments = views((0, (a_node("a"), a_node("b"))), (4, (a_node("a"),)), (20, (a_node("a"), a_node("b"))))
    assert Drive(replace(RUN, settle=settle), moments).run().at_s == 28.0


def test_quorum_of_one_needs_the_local_node_only() -> None:
    drive = Drive(replace(RUN, settle=SettleSettings(quorum=1)), views((0, (a_node("a"),)))).run()
    assert [each.node for each in ended(drive).participants] == [A]


def test_every_node_of_the_view_is_in_the_snapshot_once() -> None:
    nodes = (a_node("a"), a_node("b"), a_node("c", role=Role.CLIENT), a_node("d", status=Status.LEFT))
    snapshot = ended(Drive(RUN, views((0, nodes))).run())
    listed = [each.node for each in snapshot.participants] + [each.node for each in snapshot.exclusions]
    assert sorted(listed) == sorted(node.node for node in nodes)


# --- patience -----------------------------------------------------------------------------------


def unmeasured(name: str) -> NodeView:
    return a_node(name, rtt=an_rtt(corroborated=False, samples=1))


def test_unmeasured_node_holds_the_split_for_ten_seconds_and_then_takes_part_with_unknown_rtt() -> None:
    drive = Drive(RUN, views((0, (a_node("a"), a_node("b"), unmeasured("c"))))).run()
    snapshot = ended(drive)
    assert drive.at_s == 18.0  # pending until 10 s, then a new member dwells
    assert [each.rtt_ms for each in snapshot.participants] == [0.0, 1.0, None]


def test_unmeasured_node_is_excluded_after_ten_seconds_where_a_limit_is_set() -> None:
    request = replace(RUN, eligibility=Eligibility(max_stage_rtt_ms=50))
    drive = Drive(request, views((0, (a_node("a"), a_node("b"), unmeasured("c"))))).run()
    assert drive.at_s == 10.0  # the members have long settled
    assert reasons(ended(drive)) == {C: ReasonCode.RTT_UNMEASURED}


def test_time_spent_pending_adds_up_over_interruptions() -> None:
    connecting = replace(a_node("c"), link=None, connecting=True)
    pair = (a_node("a"), a_node("b"))
    moments = views((0, (*pair, connecting)), (6, (*pair, a_node("c"))), (8, (*pair, connecting)))
    drive = Drive(RUN, moments).run()
    assert reasons(ended(drive)) == {C: ReasonCode.MISSING_STAGE_PATH}
    assert [at for at, _ in drive.named("split.candidates")] == [0.0, 6.0, 8.0, 12.0]  # 6 s and 4 s make 10


def test_restarted_node_gets_new_patience() -> None:
    pair = (a_node("a"), a_node("b"))
    again = replace(unmeasured("c"), boot_id=a_boot(C, start=1))
    drive = Drive(RUN, views((0, (*pair, unmeasured("c"))), (9, (*pair, again)))).run()
    assert drive.at_s == 27.0  # pending anew from 9 to 19, then the dwell


def test_each_cause_has_its_own_patience() -> None:
    connecting = replace(a_node("c"), link=None, connecting=True)
    pair = (a_node("a"), a_node("b"))
    drive = Drive(RUN, views((0, (*pair, connecting)), (9, (*pair, unmeasured("c"))), (15, (*pair, a_node("c"))))).run()
    assert (drive.at_s, len(ended(drive).participants)) == (23.0, 3)


def test_waiter_asks_to_measure_what_is_unmeasured_until_it_can_be_corroborated() -> None:
    drive = Drive(RUN, views((0, (a_node("a"), a_node("b"), unmeasured("c"))))).run()
    assert drive.measured == [(0, C), (5.5, C)]


# --- confirming ----------------------------------------------------------------------------------


def test_everybody_is_asked_directly_before_returning_and_not_earlier() -> None:
    drive = Drive(RUN, views((0, (a_node("a"), a_node("b"))))).run()
    assert drive.asked == [(8.0, A), (8.0, B)]
    assert all(participant.confirmed for participant in ended(drive).participants)


def test_silent_participant_is_out_as_unreachable_and_the_rest_settles_anew() -> None:
    trio = (a_node("a"), a_node("b"), a_node("c"))
    drive = Drive(RUN, views((0, trio)), answering=silent(C)).run()
    snapshot = ended(drive)
    assert reasons(snapshot) == {C: ReasonCode.STAGE_CONTROL_UNREACHABLE}
    assert drive.at_s == 18.0  # asked at 8, silent until 10, members changed


def test_silent_participant_is_asked_again_and_comes_back() -> None:
    trio = (a_node("a"), a_node("b"), a_node("c"))
    drive = Drive(RUN, views((0, trio)), answering=silent(C, until_s=12.0)).run()
    snapshot = ended(drive)
    assert [at for at, node in drive.asked if node == C][:2] == [8.0, 15.0]
    assert len(snapshot.participants) == 3
    assert drive.at_s == 23.0


def test_another_figure_is_judged_again_and_restarts_the_dwell() -> None:
    def answering(node: NodeId, view: MeshView, now: float) -> tuple[float, Confirm | None]:
        return 0.1, a_confirm(view.nodes[node], usable_bytes=10 * GB if node == B else None)

    drive = Drive(RUN, views((0, (a_node("a"), a_node("b", capacity_gb=24)))), answering=answering).run()
    assert ended(drive).participants[1].usable_bytes == 10 * GB
    assert drive.at_s == pytest.approx(16.2)


def test_answer_that_takes_a_participant_below_the_minimum_excludes_it() -> None:
    def answering(node: NodeId, view: MeshView, now: float) -> tuple[float, Confirm | None]:
        return 0.0, a_confirm(view.nodes[node], usable_bytes=0 if node == C else None)

    trio = (a_node("a"), a_node("b"), a_node("c"))
    assert reasons(ended(Drive(RUN, views((0, trio)), answering=answering).run())) == {C: ReasonCode.BELOW_MIN_CAPACITY}


def test_participant_that_dies_while_it_is_asked_is_not_in_the_snapshot() -> None:
    def answering(node: NodeId, view: MeshView, now: float) -> tuple[float, Confirm | None]:
        return (math.inf if node == C else 1.5), a_confirm(view.nodes[node])

    trio = (a_node("a"), a_node("b"), a_node("c"))
    after = (a_node("a"), a_node("b"), a_node("c", status=Status.DEAD))
    snapshot = ended(Drive(RUN, views((0, trio), (9, after)), answering=answering).run())
    assert reasons(snapshot) == {C: ReasonCode.NOT_ALIVE}


def test_answer_after_the_time_out_shows_that_the_node_answers() -> None:
    def answering(node: NodeId, view: MeshView, now: float) -> tuple[float, Confirm | None]:
        return (3.0 if node == C else 0.0), a_confirm(view.nodes[node])

    trio = (a_node("a"), a_node("b"), a_node("c"))
    drive = Drive(RUN, views((0, trio)), answering=answering).run()
    assert drive.over is not None
    said = [event.participants for _, event in drive.named("split.candidates") if isinstance(event, SplitCandidates)]
    assert said[:3] == [(A, B, C), (A, B), (A, B, C)]


# --- the deadline ----------------------------------------------------------------------------------


def restless(count: int, every_s: float) -> list[tuple[float, MeshView]]:
    """The pair, and a third worker that comes and goes for ever."""
    pair = (a_node("a"), a_node("b"))
    return views(*((i * every_s, pair if i % 2 else (*pair, a_node("c"))) for i in range(count)))


def test_restless_mesh_is_decided_at_the_deadline_with_who_is_there_then() -> None:
    drive = Drive(RUN, restless(40, 3.0)).run()
    snapshot = ended(drive)
    assert (drive.at_s, snapshot.outcome) == (60.0, Outcome.DEADLINE)
    assert all(participant.confirmed for participant in snapshot.participants)


def test_participants_are_confirmed_in_the_last_stretch_before_the_deadline() -> None:
    drive = Drive(RUN, restless(40, 3.0), answering=silent(B, from_s=57.9)).run()
    assert isinstance(drive.over, Failed)
    assert reasons(drive.over.error.snapshot)[B] is ReasonCode.STAGE_CONTROL_UNREACHABLE


def test_below_quorum_at_the_deadline_the_error_carries_snapshot_and_quorum() -> None:
    drive = Drive(RUN, views((0, (a_node("a"), a_node("b", role=Role.CLIENT))))).run()
    assert isinstance(drive.over, Failed)
    error = drive.over.error
    assert (drive.at_s, error.quorum, reasons(error.snapshot)) == (60.0, 2, {B: ReasonCode.CLIENT})
    assert f"{B}:client" in str(error)


def test_node_that_is_still_pending_at_the_deadline_is_excluded_for_its_cause() -> None:
    request = replace(RUN, settle=SettleSettings(deadline_s=9))
    snapshot = ended(Drive(request, views((0, (a_node("a"), a_node("b"), unmeasured("c"))))).run())
    assert reasons(snapshot) == {C: ReasonCode.RTT_UNMEASURED}


def test_deadline_shorter_than_the_confirmation_still_asks() -> None:
    request = replace(RUN, settle=SettleSettings(deadline_s=1.0))
    drive = Drive(request, views((0, (a_node("a"), a_node("b"))))).run()
    assert (drive.at_s, len(ended(drive).participants)) == (1.0, 2)


def test_finished_waiter_wants_nothing_more() -> None:
    waiter = Waiter(replace(RUN, settle=SettleSettings(quorum=1, deadline_s=1.0)), 0.0)
    view = a_view(a_node("a"))
    waiter.observe(view, 0.0)
    waiter.poll(1.0)
    assert waiter.is_done
    assert waiter.next_wakeup() == math.inf
    assert waiter.observe(view, 2.0) == waiter.poll(3.0) == waiter.confirmed(B, None, 3.0) == []


# --- reporting ----------------------------------------------------------------------------------------


def test_candidates_are_reported_on_change_only() -> None:
    pair = (a_node("a"), a_node("b"))
    faster = (a_node("a"), a_node("b", rtt_ms=0.5))
    moments = views((0, pair), (1, faster), (2, pair), (3, (*pair, a_node("c", role=Role.CLIENT))))
    drive = Drive(RUN, moments).run()
    assert [at for at, _ in drive.named("split.candidates")] == [0.0, 3.0]


def test_waiting_is_reported_at_once_and_every_ten_seconds() -> None:
    drive = Drive(RUN, views((0, (a_node("a"),)))).run()
    waiting = [(at, event) for at, event in drive.named("split.waiting") if isinstance(event, SplitWaiting)]
    assert [at for at, _ in waiting] == [0, 10, 20, 30, 40, 50, 60]
    assert (waiting[3][1].waited_s, waiting[3][1].participants, waiting[3][1].quorum) == (30.0, 1, 2)


def test_ready_reports_who_takes_part_who_does_not_and_why() -> None:
    drive = Drive(RUN, views((0, (a_node("a"), a_node("b"), a_node("c", role=Role.CLIENT))))).run()
    ((_, event),) = drive.named("split.ready")
    assert event == SplitReady(MODEL, (A, B), (f"{C}:client",), "settled", 8.0, 1)


def test_failed_quorum_is_reported() -> None:
    drive = Drive(RUN, views((0, (a_node("a"),)))).run()
    assert [event for _, event in drive.named("split.quorum_failed")] == [SplitQuorumFailed(MODEL, 2, (A,), (), 60.0)]


def test_snapshot_turns_into_plain_json() -> None:
    plain = ended(Drive(RUN, views((0, (a_node("a"), a_node("b"), a_node("c", role=Role.CLIENT))))).run()).to_dict()
    assert (plain["outcome"], plain["waited_s"], plain["usable_bytes"]) == ("settled", 8.0, 48 * GB)
    assert [entry["node"] for entry in plain["participants"]] == [A, B]
    assert [(entry["node"], entry["reason"]) for entry in plain["excluded"]] == [(C, "client")]


# --- settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [("quorum", 0), ("dwell_s", -1.0), ("deadline_s", 0.0), ("deadline_s", math.nan), ("pending_s", math.inf)],
)
def test_bad_setting_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(InvalidRequest) as caught:
        replace(SettleSettings(), **{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_empty_exclude_entry_is_refused_since_it_would_match_all() -> None:
    with pytest.raises(InvalidRequest, match="exclude"):
        Eligibility(excluded_nodes=("",))


def test_relinked_node_is_asked_again_within_one_wait() -> None:
    trio = (a_node("a"), a_node("b"), a_node("c"))
    relinked = (*trio[:2], replace(trio[2], link=a_link(up_since_s=11.0)))
    drive = Drive(RUN, views((0, trio), (11, relinked)), answering=silent(C, until_s=10.5)).run()
    assert (drive.at_s, len(ended(drive).participants)) == (19.0, 3)
