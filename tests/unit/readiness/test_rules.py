"""Each reason code, reached by the situation it stands for and by nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from making_views import (
    GB,
    MANIFEST,
    MODEL,
    a_confirm,
    a_link,
    a_model,
    a_node,
    a_view,
    an_identity,
    an_offer,
    an_rtt,
    node_id,
)
from msgspec import structs

from meshnode.membership.view import MeshView, NodeView, PathKind, RttSource, Status
from meshnode.readiness import (
    REASONS,
    TABLE,
    Eligibility,
    Excluded,
    Makes,
    Participant,
    Pending,
    Purpose,
    ReasonCode,
    SplitRequest,
    Verdict,
    reasons_page,
    snapshot_now,
)
from meshnode.readiness.candidate import Answer, AnswerBasis
from meshnode.readiness.judge import ALL_PATIENCE_OVER, judge_mesh
from meshnode.readiness.request import HOST_MEMORY
from meshnode.readiness.rules import RULES
from proto.messages import Confirm
from proto.parts import DeviceOffer, Role, Willingness
from proto.versions import STAGE_PROTOCOL_GENERATION

B = node_id("b")
RUN = SplitRequest(MODEL, manifest=MANIFEST)


def judged(
    node: NodeView,
    *others: NodeView,
    request: SplitRequest = RUN,
    patient: bool = True,
    answer: Confirm | str | None = "not asked",
) -> Verdict:
    """The verdict on `node` beside a local worker that holds the model."""
    view = a_view(a_node("a"), node, *others)
    return verdict_in(view, node, request=request, patient=patient, answer=answer)


def verdict_in(
    view: MeshView,
    node: NodeView,
    *,
    request: SplitRequest = RUN,
    patient: bool = True,
    answer: Confirm | str | None = "not asked",
) -> Verdict:
    over = {} if patient else dict.fromkeys(view.nodes, ALL_PATIENCE_OVER)
    answers = {} if isinstance(answer, str) else {node.node: Answer(answer, AnswerBasis.of(node), 0.0)}
    return judge_mesh(view, request, answers=answers, patience_over=over)[node.node]


def excluded(verdict: Verdict) -> Excluded:
    assert isinstance(verdict, Excluded), verdict
    return verdict


def pending(verdict: Verdict) -> Pending:
    assert isinstance(verdict, Pending), verdict
    return verdict


# --- the table ------------------------------------------------------------------------------------


def test_table_and_rules_name_every_code_once_in_the_same_order() -> None:
    codes = list(ReasonCode)
    assert [row.code for row in TABLE] == codes
    assert list(RULES) == codes


def test_page_documents_every_code_with_its_advice() -> None:
    page = reasons_page()
    for row in TABLE:
        assert f"\n## {row.code}\n" in page
        assert row.advice.format(node="NODE", model="MODEL") in page


def test_a_healthy_worker_takes_part() -> None:
    verdict = judged(a_node("b", capacity_gb=24, rtt_ms=3.5))
    assert isinstance(verdict, Participant)
    assert (verdict.usable_bytes, verdict.rtt_ms, verdict.has_package) == (24 * GB, 3.5, True)


def test_the_local_node_is_judged_by_the_same_rules() -> None:
    view = a_view(a_node("a", role=Role.CLIENT), a_node("b"))
    assert excluded(judge_mesh(view, RUN)[node_id("a")]).reason is ReasonCode.CLIENT


def test_the_local_node_needs_neither_link_nor_rtt() -> None:
    verdict = judge_mesh(a_view(a_node("a")), RUN)[node_id("a")]
    assert isinstance(verdict, Participant)
    assert verdict.rtt_ms == 0.0


# --- every code, by a real situation --------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.SUSPECT, Status.DEAD, Status.LEFT])
def test_node_that_does_not_live_is_not_alive(status: Status) -> None:
    verdict = excluded(judged(a_node("b", status=status)))
    assert (verdict.reason, verdict.found) == (ReasonCode.NOT_ALIVE, f"status {status}")


def test_client_is_excluded_as_client_and_told_how_to_become_a_worker() -> None:
    verdict = excluded(judged(a_node("b", role=Role.CLIENT)))
    assert verdict.reason is ReasonCode.CLIENT
    assert "--role worker" in verdict.advice


@pytest.mark.parametrize("text", [B, B[:10]])
def test_node_in_the_exclude_list_is_operator_excluded(text: str) -> None:
    request = replace(RUN, eligibility=Eligibility(excluded_nodes=(text,)))
    assert excluded(judged(a_node("b"), request=request)).reason is ReasonCode.OPERATOR_EXCLUDED


@pytest.mark.parametrize("lacking", ["identity", "offer"])
def test_node_whose_record_has_not_arrived_is_pending_then_excluded_as_record_stale(lacking: str) -> None:
    node = replace(a_node("b"), identity=None) if lacking == "identity" else replace(a_node("b"), offer=None)
    assert pending(judged(node)).reason is ReasonCode.RECORD_STALE
    assert excluded(judged(node, patient=False)).found == f"no {lacking} received"


def test_record_of_an_earlier_incarnation_is_stale() -> None:
    node = replace(a_node("b", incarnation=7), identity=an_identity(B, incarnation=6))
    verdict = pending(judged(node))
    assert (verdict.reason, verdict.required) == (ReasonCode.RECORD_STALE, "incarnation 7")


def test_refuted_node_whose_offer_is_older_than_its_identity_is_not_stale() -> None:
    node = replace(a_node("b", incarnation=7), offer=an_offer(B, incarnation=5))
    assert isinstance(judged(node), Participant)


def test_other_stage_protocol_generation_is_excluded_with_both_numbers() -> None:
    other = STAGE_PROTOCOL_GENERATION + 1
    verdict = excluded(judged(replace(a_node("b"), identity=an_identity(B, generation=other))))
    assert verdict.reason is ReasonCode.STAGE_PROTOCOL_GENERATION
    assert (verdict.found, verdict.required) == (f"generation {other}", f"generation {STAGE_PROTOCOL_GENERATION}")


def test_draining_node_is_excluded() -> None:
    assert excluded(judged(a_node("b", offer=an_offer(B, draining=True)))).reason is ReasonCode.DRAINING


def test_node_that_answers_that_it_drains_is_excluded_although_gossip_says_otherwise() -> None:
    node = a_node("b")
    answer = structs.replace(a_confirm(node), draining=True)
    assert excluded(judged(node, answer=answer)).reason is ReasonCode.DRAINING


def test_worker_with_a_list_without_the_model_is_not_interested() -> None:
    verdict = excluded(judged(a_node("b", offer=an_offer(B, interested_in=("other",)))))
    assert (verdict.reason, verdict.found) == (ReasonCode.MISSING_MODEL_INTEREST, "interested_in = other")


def test_worker_with_a_list_that_names_the_model_takes_part() -> None:
    assert isinstance(judged(a_node("b", offer=an_offer(B, interested_in=("other", MODEL)))), Participant)


def test_node_that_is_never_willing_has_no_interest() -> None:
    verdict = excluded(judged(a_node("b", offer=an_offer(B, willingness=Willingness.NEVER))))
    assert (verdict.reason, verdict.found) == (ReasonCode.MISSING_MODEL_INTEREST, "willing = never")


def test_node_that_is_willing_when_needed_takes_part_and_says_so() -> None:
    verdict = judged(a_node("b", offer=an_offer(B, willingness=Willingness.WHEN_NEEDED)))
    assert isinstance(verdict, Participant)
    assert verdict.willingness is Willingness.WHEN_NEEDED


@pytest.mark.parametrize("devices", [(), (DeviceOffer("gpu0", "cuda", "", 0, 0),)])
def test_node_without_any_memory_to_offer_is_missing_vram(devices: tuple[DeviceOffer, ...]) -> None:
    assert excluded(judged(a_node("b", offer=an_offer(B, devices=devices)))).reason is ReasonCode.MISSING_VRAM


def test_node_that_offers_plain_ram_has_capacity() -> None:
    ram = (DeviceOffer("cpu", "cpu", "RAM", 16 * GB, 14 * GB),)
    assert isinstance(judged(a_node("b", offer=an_offer(B, devices=ram))), Participant)


def test_node_below_min_capacity_is_excluded_with_both_figures() -> None:
    request = replace(RUN, eligibility=Eligibility(min_capacity_bytes=32 * GB))
    verdict = excluded(judged(a_node("b", capacity_gb=24), request=request))
    assert verdict.reason is ReasonCode.BELOW_MIN_CAPACITY
    assert (verdict.found, verdict.required) == ("24.0GB free", "at least 32.0GB")


def test_node_whose_memory_is_all_reserved_is_below_min_capacity() -> None:
    verdict = excluded(judged(a_node("b", offer=an_offer(B, usable_bytes=24 * GB, reserved_bytes=24 * GB))))
    assert (verdict.reason, verdict.found) == (ReasonCode.BELOW_MIN_CAPACITY, "0.0GB free (24.0GB reserved)")


def test_what_the_split_itself_reserved_counts_as_free_for_its_replan() -> None:
    request = replace(RUN, own_reserved={B: {"gpu0": 20 * GB}})
    verdict = judged(a_node("b", offer=an_offer(B, usable_bytes=24 * GB, reserved_bytes=21 * GB)), request=request)
    assert isinstance(verdict, Participant)
    assert verdict.usable_bytes == 23 * GB


def test_host_memory_the_split_itself_reserved_counts_as_free_for_its_replan() -> None:
    request = replace(RUN, own_reserved={B: {HOST_MEMORY: 5 * GB}})
    verdict = judged(a_node("b", offer=an_offer(B, host_usable_bytes=3 * GB)), request=request)
    assert isinstance(verdict, Participant)
    assert verdict.host_usable_bytes == 8 * GB


def test_node_without_a_link_is_pending_while_it_connects_then_misses_a_path() -> None:
    node = replace(a_node("b"), link=None, connecting=True)
    assert pending(judged(node)).reason is ReasonCode.MISSING_STAGE_PATH
    assert excluded(judged(node, patient=False)).reason is ReasonCode.MISSING_STAGE_PATH


def test_node_that_is_not_even_connecting_misses_a_path_at_once() -> None:
    node = replace(a_node("b"), link=None, connecting=False)
    assert excluded(judged(node)).reason is ReasonCode.MISSING_STAGE_PATH


def test_node_behind_a_relay_is_excluded_with_its_carrier_unless_allowed() -> None:
    node = a_node("b", link=a_link(path=PathKind.RELAYED, carrier=node_id("c")))
    verdict = excluded(judged(node))
    assert verdict.reason is ReasonCode.STAGE_PATH_RELAY_ONLY
    assert node_id("c")[:10] in verdict.found
    allowed = replace(RUN, eligibility=Eligibility(allow_relayed=True))
    assert isinstance(judged(node, request=allowed), Participant)


def test_silent_node_is_unreachable_for_stage_control() -> None:
    assert excluded(judged(a_node("b"), answer=None)).reason is ReasonCode.STAGE_CONTROL_UNREACHABLE


def test_node_that_says_it_cannot_serve_stages_is_unreachable_for_stage_control() -> None:
    node = a_node("b")
    verdict = excluded(judged(node, answer=a_confirm(node, stage_control=False)))
    assert verdict.reason is ReasonCode.STAGE_CONTROL_UNREACHABLE


def test_silence_is_forgiven_when_the_node_is_linked_anew() -> None:
    node = a_node("b")
    silent = {B: Answer(None, AnswerBasis.of(node), 0.0)}
    again = replace(node, link=a_link(up_since_s=5.0))
    assert isinstance(judge_mesh(a_view(a_node("a"), again), RUN, answers=silent)[B], Participant)


def test_silence_is_not_forgiven_by_a_newer_offer_that_came_by_gossip() -> None:
    node = a_node("b")
    silent = {B: Answer(None, AnswerBasis.of(node), 0.0)}
    again = replace(node, offer=an_offer(B, version=2))
    verdict = judge_mesh(a_view(a_node("a"), again), RUN, answers=silent)[B]
    assert excluded(verdict).reason is ReasonCode.STAGE_CONTROL_UNREACHABLE


def test_direct_answer_replaces_the_gossiped_figure_until_a_newer_offer_comes() -> None:
    node = a_node("b", capacity_gb=24)
    answers = {B: Answer(a_confirm(node, usable_bytes=10 * GB), AnswerBasis.of(node), 0.0)}
    before = judge_mesh(a_view(a_node("a"), node), RUN, answers=answers)[B]
    newer = replace(node, offer=an_offer(B, usable_bytes=20 * GB, version=2))
    after = judge_mesh(a_view(a_node("a"), newer), RUN, answers=answers)[B]
    assert isinstance(before, Participant)
    assert isinstance(after, Participant)
    assert (before.usable_bytes, after.usable_bytes) == (10 * GB, 20 * GB)


def test_other_files_under_the_same_name_are_a_manifest_mismatch() -> None:
    verdict = excluded(judged(a_node("b", offer=an_offer(B, models=(a_model(manifest="0" * 64),)))))
    assert verdict.reason is ReasonCode.PACKAGE_MANIFEST_MISMATCH
    assert (verdict.found, verdict.required) == ("manifest 000000000000", "manifest ffffffffffff")


def test_unknown_manifest_is_no_mismatch() -> None:
    assert isinstance(judged(a_node("b", offer=an_offer(B, models=(a_model(manifest=None),)))), Participant)


def test_without_any_complete_package_the_source_is_missing_and_the_finding_says_who_has_what() -> None:
    part = a_model(complete=False, cached_bytes=100 * GB, missing_bytes=170 * GB)
    view = a_view(a_node("a", offer=an_offer(node_id("a"), models=())), a_node("b", offer=an_offer(B, models=(part,))))
    verdict = excluded(judge_mesh(view, RUN)[B])
    assert verdict.reason is ReasonCode.MISSING_MODEL_SOURCE
    assert f"{B[:10]} has 100.0GB" in verdict.found


def test_a_dead_holder_is_no_source() -> None:
    lacking = an_offer(node_id("a"), models=())
    view = a_view(a_node("a", offer=lacking), a_node("b", status=Status.DEAD))
    assert excluded(judge_mesh(view, RUN)[node_id("a")]).reason is ReasonCode.MISSING_MODEL_SOURCE


def test_a_client_that_holds_all_is_no_source_since_it_can_not_coordinate() -> None:
    lacking = an_offer(node_id("a"), models=())
    view = a_view(a_node("a", offer=lacking), a_node("b", role=Role.CLIENT))
    assert excluded(judge_mesh(view, RUN)[node_id("a")]).reason is ReasonCode.MISSING_MODEL_SOURCE


def test_missing_source_is_pending_while_an_inventory_is_unread() -> None:
    lacking = an_offer(node_id("a"), models=())
    view = a_view(a_node("a", offer=lacking), a_node("b", offer=an_offer(B, inventory_known=False)))
    assert pending(judge_mesh(view, RUN)[node_id("a")]).reason is ReasonCode.MISSING_MODEL_SOURCE


def test_worker_with_nothing_that_can_fetch_takes_part_with_nothing_cached() -> None:
    verdict = judged(a_node("b", offer=an_offer(B, models=())))
    assert isinstance(verdict, Participant)
    assert (verdict.cached_bytes, verdict.has_package) == (0, False)


def test_worker_with_nothing_that_cannot_fetch_has_an_empty_inventory() -> None:
    verdict = excluded(judged(a_node("b", offer=an_offer(B, models=(), artifact_transfer=False))))
    assert verdict.reason is ReasonCode.STAGE_INVENTORY_EMPTY


def test_unread_inventory_is_pending_then_excluded() -> None:
    node = a_node("b", offer=an_offer(B, inventory_known=False))
    assert pending(judged(node)).reason is ReasonCode.STAGE_INVENTORY_EMPTY
    assert excluded(judged(node, patient=False)).found == "inventory not read yet"


def test_direct_answer_reads_an_unread_inventory() -> None:
    unread = a_model(complete=False, cached_bytes=None, missing_bytes=None)
    node = a_node("b", offer=an_offer(B, models=(unread,)))
    answer = structs.replace(a_confirm(node), cached_bytes=200 * GB, missing_bytes=70 * GB)
    verdict = judged(node, answer=answer)
    assert isinstance(verdict, Participant)
    assert (verdict.cached_bytes, verdict.missing_bytes) == (200 * GB, 70 * GB)


def test_worker_with_a_part_that_cannot_fetch_the_rest_lacks_transfer() -> None:
    part = a_model(complete=False, cached_bytes=100 * GB, missing_bytes=170 * GB)
    verdict = excluded(judged(a_node("b", offer=an_offer(B, models=(part,), artifact_transfer=False))))
    assert verdict.reason is ReasonCode.ARTIFACT_TRANSFER_UNAVAILABLE
    assert verdict.found.startswith("170.0GB missing")


def without_rtt() -> NodeView:
    return replace(a_node("b"), rtt=None)


@pytest.mark.parametrize("node", [without_rtt(), a_node("b", rtt=an_rtt(corroborated=False, samples=1))])
def test_node_without_a_corroborated_rtt_is_pending_then_takes_part_with_it_unknown(node: NodeView) -> None:
    assert pending(judged(node)).reason is ReasonCode.RTT_UNMEASURED
    verdict = judged(node, patient=False)
    assert isinstance(verdict, Participant)
    assert verdict.rtt_ms is None


def test_unmeasured_rtt_excludes_only_where_a_limit_is_set() -> None:
    request = replace(RUN, eligibility=Eligibility(max_stage_rtt_ms=80))
    verdict = excluded(judged(without_rtt(), request=request, patient=False))
    assert (verdict.reason, verdict.required) == (ReasonCode.RTT_UNMEASURED, "an RTT of at most 80ms")


def test_slow_path_is_excluded_only_where_a_limit_is_set() -> None:
    node = a_node("b", rtt_ms=120.0)
    assert isinstance(judged(node), Participant)
    limited = replace(RUN, eligibility=Eligibility(max_stage_rtt_ms=80))
    verdict = excluded(judged(node, request=limited))
    assert (verdict.reason, verdict.found) == (ReasonCode.STAGE_PATH_TOO_SLOW, "RTT 120.0ms")


# --- order, plan, profile -------------------------------------------------------------------------


def test_node_with_several_faults_is_named_after_the_first_in_the_table() -> None:
    node = a_node("b", role=Role.CLIENT, status=Status.DEAD, offer=an_offer(B, devices=(), draining=True))
    assert excluded(judged(node)).reason is ReasonCode.NOT_ALIVE


def test_exclusion_beats_an_earlier_pending_cause() -> None:
    node = replace(a_node("b", offer=an_offer(B, models=(a_model(manifest="0" * 64),))), link=None, connecting=True)
    assert excluded(judged(node)).reason is ReasonCode.PACKAGE_MANIFEST_MISMATCH


@pytest.mark.parametrize(
    "request_",
    [replace(RUN, purpose=Purpose.PLAN), replace(RUN, is_profile=True, manifest=None)],
    ids=["plan", "profile"],
)
def test_plans_and_profiles_skip_inventory_and_artifact_rules(request_: SplitRequest) -> None:
    bare = an_offer(B, models=(), inventory_known=False, artifact_transfer=False)
    verdict = judged(a_node("b", offer=bare), request=request_)
    assert isinstance(verdict, Participant)
    assert (verdict.has_package, verdict.cached_bytes, verdict.missing_bytes) == (None, None, None)


def test_plan_takes_an_estimated_rtt_and_marks_it_where_a_run_waits_for_a_measurement() -> None:
    node = a_node("b", rtt=an_rtt(30.0, corroborated=False, source=RttSource.ESTIMATED))
    asked = judged(node, request=replace(RUN, purpose=Purpose.PLAN))
    assert isinstance(asked, Participant)
    assert (asked.rtt_ms, asked.rtt_estimated) == (30.0, True)
    assert pending(judged(node)).reason is ReasonCode.RTT_UNMEASURED


def test_rtt_of_another_coordinator_comes_from_the_gossiped_rows() -> None:
    c = node_id("c")
    request = replace(RUN, coordinator=c)
    figure = an_rtt(9.0, source=RttSource.REPORTED)
    view = a_view(a_node("a"), replace(without_rtt(), link=None), a_node("c"), rtt={(c, B): figure})
    verdict = judge_mesh(view, request)[B]
    assert isinstance(verdict, Participant)
    assert verdict.rtt_ms == 9.0


def test_immediate_snapshot_puts_every_node_in_exactly_one_list() -> None:
    view = a_view(a_node("a"), without_rtt(), a_node("c", role=Role.CLIENT), replace(a_node("d"), offer=None))
    snapshot = snapshot_now(view, RUN)
    listed = [each.node for each in snapshot.participants] + [each.node for each in snapshot.exclusions]
    assert sorted(listed) == sorted(view.nodes)
    assert [each.node for each in snapshot.participants] == [node_id("a"), B]


def test_every_exclusion_names_found_required_and_advice() -> None:
    situations: list[Callable[[], NodeView]] = [
        lambda: a_node("b", status=Status.DEAD),
        lambda: a_node("b", role=Role.CLIENT),
        lambda: a_node("b", offer=an_offer(B, draining=True)),
    ]
    for situation in situations:
        verdict = excluded(judged(situation()))
        assert verdict.found
        assert verdict.required
        assert verdict.advice == REASONS[verdict.reason].advice.format(node=B[:10], model=MODEL)


def test_only_codes_that_can_resolve_by_themselves_make_pending() -> None:
    waits = {row.code for row in TABLE if row.makes is not Makes.EXCLUDED}
    assert waits == {
        ReasonCode.RECORD_STALE,
        ReasonCode.MISSING_STAGE_PATH,
        ReasonCode.MISSING_MODEL_SOURCE,
        ReasonCode.STAGE_INVENTORY_EMPTY,
        ReasonCode.RTT_UNMEASURED,
    }


def test_excluded_node_keeps_its_figures_apart_from_the_sum() -> None:
    view = a_view(a_node("a", capacity_gb=24), a_node("b", capacity_gb=80, role=Role.CLIENT))
    snapshot = snapshot_now(view, RUN)
    assert snapshot.usable_bytes == 24 * GB
    (exclusion,) = snapshot.exclusions
    assert exclusion.if_admitted is not None
    assert exclusion.if_admitted.usable_bytes == 80 * GB
