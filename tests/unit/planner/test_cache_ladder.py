"""KV cache types decided with the plan: what is taken, when, and what the plan says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner import (
    CHAIN,
    CacheType,
    CapacityShortfall,
    InvalidPlanInput,
    LayerSpec,
    LinkMatrix,
    ModelSpec,
    NodeSpec,
    SplitPlan,
    TargetPolicy,
    Workload,
    plan_split,
    replan,
)
from planner.changes import apply_remedy
from planner.constraints import Constraints
from planner.dispatch import can_plan
from planner.request import PlanRequest
from planner.shortfall import RemedyAction

F16, Q8, Q4 = CacheType.F16, CacheType.Q8_0, CacheType.Q4_0
NATIVE = 8192
MODEL = ModelSpec(
    "m",
    (LayerSpec(count=4, weight_bytes=1_000_000, k_width=64, v_width=64),),
    native_context=NATIVE,
    vocabulary=0,
    hidden_size=8,
)
WEIGHTS = 4_000_000


def kv_bytes(kind: CacheType, context: int, v_type: CacheType | None = None) -> int:
    return 4 * context * (kind.row_bytes(64) + (v_type or kind).row_bytes(64))


def room_for(kind: CacheType, context: int, v_type: CacheType | None = None) -> int:
    """Usable bytes of a node that holds exactly so much."""
    return WEIGHTS + kv_bytes(kind, context, v_type)


def planned(usable: int, model: ModelSpec = MODEL, **workload: Any) -> SplitPlan:
    asked = Workload(**{"k_auto": True, "v_auto": True, **workload})
    return plan_split(model, [NodeSpec.single("a", usable_bytes=usable)], LinkMatrix(), asked, engine="chain")


def types_of(plan: SplitPlan) -> tuple[CacheType, CacheType]:
    return plan.workload.k_type, plan.workload.v_type


@pytest.mark.parametrize("kind", [F16, Q8, Q4])
def test_first_type_that_fits_at_the_context_asked_is_taken(kind: CacheType) -> None:
    plan = planned(room_for(kind, 4096), context=4096)
    assert types_of(plan) == (kind, kind)
    assert not plan.workload.k_auto
    assert not plan.workload.v_auto


@pytest.mark.parametrize("kind", [F16, Q8, Q4])
def test_without_a_context_the_first_type_that_reaches_the_models_own_is_taken(kind: CacheType) -> None:
    plan = planned(room_for(kind, NATIVE))
    assert types_of(plan) == (kind, kind)
    assert plan.context == NATIVE


def test_without_a_context_and_where_none_reaches_the_models_own_the_longest_wins() -> None:
    plan = planned(room_for(Q4, 6144))
    assert types_of(plan) == (Q4, Q4)
    assert plan.context == 6144
    assert plan.cache is not None
    assert plan.cache.why == "of the model's own 8192 tokens so many fit: f16 under 4096, q8_0 under 4096, q4_0 6144"


def test_cache_that_a_smaller_type_would_not_lengthen_stays_f16() -> None:
    recurrent = ModelSpec(
        "r",
        (LayerSpec(count=4, weight_bytes=1_000_000, state_bytes=10),),
        native_context=NATIVE,
        hidden_size=8,
    )
    assert types_of(planned(5_000_000, recurrent)) == (F16, F16)


def test_v_stays_f16_without_flash_attention() -> None:
    plan = planned(room_for(Q4, 4096, F16), context=4096, flash_attention=False)
    assert types_of(plan) == (Q4, F16)


def test_type_that_is_given_stays_and_the_other_is_decided() -> None:
    plan = planned(room_for(Q8, 4096, Q4), context=4096, k_auto=False, k_type=Q8)
    assert types_of(plan) == (Q8, Q4)


def test_plan_says_what_was_taken_and_why() -> None:
    plan = planned(room_for(Q8, 4096), context=4096)
    assert plan.warnings[-1] == "KV type auto took q8_0: f16 does not fit at 4096 tokens"
    assert plan.to_dict()["cache"] == {
        "policy": "auto",
        "k_type": "q8_0",
        "v_type": "q8_0",
        "why": "f16 does not fit at 4096 tokens",
        "tried": [
            {"k_type": "f16", "v_type": "f16", "context": None},
            {"k_type": "q8_0", "v_type": "q8_0", "context": 4096},
        ],
    }


def test_plan_without_a_context_says_how_much_each_type_holds() -> None:
    plan = planned(room_for(Q8, NATIVE))
    assert plan.cache is not None
    assert [trial.context for trial in plan.cache.tried] == [4352, NATIVE]
    assert plan.cache.why == "of the model's own 8192 tokens so many fit: f16 4352, q8_0 8192"


def test_f16_is_no_warning() -> None:
    plan = planned(room_for(F16, 4096), context=4096)
    assert plan.cache is not None
    assert plan.cache.why == "f16 fits at 4096 tokens"
    assert not any("KV type" in warning for warning in plan.warnings)


def test_types_that_are_asked_for_are_nobodys_choice() -> None:
    plan = planned(room_for(F16, 4096), context=4096, k_auto=False, v_auto=False)
    assert plan.cache is None
    assert "cache" not in plan.to_dict()


def test_shortfall_is_for_the_smallest_type_and_its_remedies_hold_under_auto() -> None:
    nodes = (NodeSpec.single("a", usable_bytes=room_for(Q4, 2048)),)
    asked = Workload(context=4096, k_auto=True, v_auto=True)
    with pytest.raises(CapacityShortfall) as caught:
        plan_split(MODEL, nodes, LinkMatrix(), asked, engine="chain")
    report = caught.value.report
    assert report.required_bytes == room_for(Q4, 4096)
    assert "KV type auto: f16, q8_0 and q4_0 do not fit at 4096 tokens; q4_0 is the smallest" in report.message
    assert report.to_dict()["cache"]["k_type"] == "q4_0"
    actions = [remedy.action for remedy in report.remedies if remedy.sufficient]
    assert RemedyAction.SHORTEN_CONTEXT in actions
    assert RemedyAction.ADD_NODE in actions
    assert RemedyAction.CACHE_TYPE not in [remedy.action for remedy in report.remedies]
    request = PlanRequest(MODEL, nodes, LinkMatrix(), asked)
    for remedy in report.remedies:
        after = apply_remedy(request, remedy)
        fits = any(can_plan_with(after, kind) for kind in (F16, Q8, Q4))
        assert fits == remedy.sufficient


def can_plan_with(request: PlanRequest, kind: CacheType) -> bool:
    workload = Workload(context=request.workload.context, k_type=kind, v_type=kind)
    return can_plan(replace(request, workload=workload, engine=CHAIN))


def test_speed_that_must_be_met_decides_too() -> None:
    fast = NodeSpec.single("a", usable_bytes=room_for(F16, NATIVE), memory_bandwidth_bytes_per_s=10**9)
    explicit = [
        plan_split(MODEL, [fast], LinkMatrix(), Workload(context=NATIVE, k_type=kind, v_type=kind), engine="chain")
        for kind in (F16, Q8)
    ]
    slow, quick = (plan.prediction.tokens_per_s for plan in explicit if plan.prediction is not None)
    limits = Constraints(min_tokens_per_s=(slow + quick) / 2, target_policy=TargetPolicy.MUST_MEET)
    asked = Workload(context=NATIVE, k_auto=True, v_auto=True)
    plan = plan_split(MODEL, [fast], LinkMatrix(), asked, engine="chain", constraints=limits)
    assert types_of(plan) == (Q8, Q8)
    assert plan.cache is not None
    assert plan.cache.why == "f16 does not fit and meet the target at 8192 tokens"


def test_replanning_decides_anew() -> None:
    running = planned(room_for(Q8, 4096), context=4096)
    roomy = [NodeSpec.single("a", usable_bytes=room_for(F16, 4096))]
    asked = Workload(context=4096, k_auto=True, v_auto=True)
    again = replan(MODEL, roomy, LinkMatrix(), asked, running, engine="chain").plan
    assert types_of(again) == (F16, F16)
    assert again.cache is not None


def test_type_to_be_decided_begins_at_f16() -> None:
    with pytest.raises(InvalidPlanInput, match="k_type"):
        Workload(k_type=Q8, k_auto=True)
