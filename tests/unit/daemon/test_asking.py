"""A wish for a plan, and a planner that fails."""

from __future__ import annotations

from typing import Any, cast

import pytest

from meshnode.asking import DEFAULTS, parse_wish
from meshnode.cli import wishes
from meshnode.config import keys
from meshnode.planning import plan_or_refusal
from meshnode.split import PlanRefused
from planner import InvalidPlanInput, Objective, TargetPolicy
from planner.workload import CacheType


def test_wish_with_only_a_model_has_every_default() -> None:
    wish = parse_wish({"model": "m"})
    assert (wish.objective, wish.engine, wish.workload.context) == (Objective.LATENCY, "llama_cpp_rpc", None)
    assert wish.constraints.target_policy is TargetPolicy.MUST_MEET


def test_every_field_reaches_the_planners_types() -> None:
    wish = parse_wish(
        {
            "model": "m", "context": 4096, "lanes": 2, "kv_type": "q8_0", "objective": "fewest", "engine": "chain",
            "coordinator": "a", "min_stages": 2, "max_stages": 3, "max_stage_rtt_ms": 5, "min_tokens_per_s": 1.5,
            "best_effort": True, "forbidden_boundaries": [7],
        }
    )  # fmt: skip
    assert (wish.workload.lanes, wish.workload.k_type, wish.workload.v_type) == (2, CacheType.Q8_0, CacheType.Q8_0)
    assert wish.constraints.forbidden_boundaries == frozenset({7})
    assert (wish.constraints.min_stages, wish.constraints.max_stages) == (2, 3)
    assert wish.constraints.target_policy is TargetPolicy.BEST_EFFORT


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", None), ("model", ""), ("context", "many"), ("context", -1), ("lanes", 0), ("lanes", True),
        ("kv_type", "q9"), ("k_type", "auto"), ("v_type", 4), ("kv_mode", 3), ("objective", "best"),
        ("engine", []), ("best_effort", 1),
        ("forbidden_boundaries", "7"), ("forbidden_boundaries", [0]), ("max_stages", 0), ("contxt", 1),
    ],
)  # fmt: skip
def test_wrong_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidPlanInput) as wrong:
        parse_wish({"model": "m"} | {field: value})
    assert field in str(wrong.value)


@pytest.mark.parametrize(
    ("given", "k", "v"),
    [
        ({}, (CacheType.F16, False), (CacheType.F16, False)),
        ({"kv_type": "auto"}, (CacheType.F16, True), (CacheType.F16, True)),
        ({"kv_type": "q8_0", "v_type": "q4_0"}, (CacheType.Q8_0, False), (CacheType.Q4_0, False)),
        ({"kv_type": "auto", "k_type": "q8_0"}, (CacheType.Q8_0, False), (CacheType.F16, True)),
    ],
)
def test_types_of_k_and_v_go_before_the_type_of_both(
    given: dict[str, str], k: tuple[CacheType, bool], v: tuple[CacheType, bool]
) -> None:
    workload = parse_wish({"model": "m"} | given).workload
    assert (workload.k_type, workload.k_auto) == k
    assert (workload.v_type, workload.v_auto) == v


def test_command_line_and_config_know_every_cache_type() -> None:
    assert keys.CACHE_TYPES == wishes.CACHE_TYPES == tuple(CacheType)


def test_fields_of_others_are_let_pass_only_where_named() -> None:
    assert parse_wish({"model": "m", "picture": True}, also=frozenset({"picture"})).model == "m"
    with pytest.raises(InvalidPlanInput, match="picture"):
        parse_wish({"model": "m", "picture": True})


def test_defaults_are_the_wish_of_nobody_asking_for_anything() -> None:
    assert parse_wish(DEFAULTS | {"model": "m"}) == parse_wish({"model": "m"})


async def test_planner_that_fails_in_its_process_is_a_refusal_with_the_reason() -> None:
    outcome = await plan_or_refusal(cast(Any, "no job at all"))
    assert isinstance(outcome, PlanRefused)
    assert outcome.field == "planner"
    assert "AttributeError" in str(outcome.found)
