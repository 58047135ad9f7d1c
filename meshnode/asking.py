"""A wish for a plan, as the command line and the control interface say it, turned into the planner's types.

What lives here: `Wish`, `parse_wish`, `asked_of`. What does not: the mesh (a snapshot, or a nodes file) and planning.
Called by the daemon for `/v1/plan` and `/v1/splits` and by `meshnode plan --nodes`, so that a wish means the same
everywhere. A wrong field is named, with what was found and what would be right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from meshnode.models import ModelPackage, smaller_variants
from meshnode.split.planning import PlanAsked
from planner import Constraints, InvalidPlanInput, Objective, TargetPolicy, Workload
from planner.engine import ENGINES, engine_named
from planner.workload import CacheType, KvMode

WordT = TypeVar("WordT", bound=StrEnum)
AUTO: Final = "auto"
"""The KV cache's types are decided with the plan (`planner.cache_ladder`)."""

_POLICIES: Final = {True: TargetPolicy.BEST_EFFORT, False: TargetPolicy.MUST_MEET}

DEFAULTS: Final[dict[str, Any]] = {
    "model": None,
    "context": None,
    "lanes": 1,
    "kv_type": "f16",
    "k_type": None,
    "v_type": None,
    "kv_mode": "split",
    "micro_batch": 512,
    "flash_attention": True,
    "swa_full": False,
    "objective": "latency",
    "engine": "llama_cpp_rpc",
    "coordinator": None,
    "min_stages": 1,
    "max_stages": None,
    "max_stage_rtt_ms": None,
    "min_tokens_per_s": None,
    "best_effort": False,
    "forbidden_boundaries": (),
    "explain": False,
}
"""Every field of a wish. `model` has no default: it must be there. `k_type` and `v_type` go before `kv_type`."""


@dataclass(frozen=True)
class Wish:
    """A checked wish. `context` None is the largest that fits, at most the model's own. `explain`: also say why."""

    model: str
    workload: Workload
    objective: Objective
    engine: str
    constraints: Constraints
    explain: bool = False


def parse_wish(fields: Mapping[str, Any], *, also: frozenset[str] = frozenset()) -> Wish:
    """The wish in `fields`; `also` names fields that are somebody else's. Raises `InvalidPlanInput`."""
    for field in fields:
        if field not in DEFAULTS and field not in also:
            raise InvalidPlanInput(field, fields[field], "one of " + ", ".join(DEFAULTS))
    wish = {field: fields.get(field, default) for field, default in DEFAULTS.items()}
    model = wish["model"]
    if not isinstance(model, str) or not model or len(model) > 4096:
        raise InvalidPlanInput("model", model, "a model file, a directory or a profile's name")
    return Wish(
        model=model,
        workload=Workload(
            context=_whole_or_none("context", wish["context"]),
            lanes=wish["lanes"],
            kv_mode=_word("kv_mode", wish["kv_mode"], KvMode),
            **_cache_types(wish),
            micro_batch=wish["micro_batch"],
            flash_attention=_switch("flash_attention", wish["flash_attention"]),
            swa_full=_switch("swa_full", wish["swa_full"]),
        ),
        objective=_word("objective", wish["objective"], Objective),
        engine=_one_of("engine", wish["engine"], tuple(ENGINES)),
        constraints=_constraints(wish),
        explain=_switch("explain", wish["explain"]),
    )


def asked_of(wish: Wish, package: ModelPackage, others: Iterable[ModelPackage] = ()) -> PlanAsked:
    """What the planner is asked for `package`, apart from the mesh. `others` are at hand too: where they are the same
    model in fewer bytes, they are what a shortfall may advise."""
    return PlanAsked(
        model=package.spec,
        workload=wish.workload,
        objective=wish.objective,
        engine=engine_named(wish.engine),
        constraints=wish.constraints,
        smaller_files=smaller_variants(package, others),
        explain=wish.explain,
    )


def _cache_types(wish: Mapping[str, Any]) -> dict[str, Any]:
    """The workload's fields for the cache. One type for both, unless K or V has its own."""
    both = _one_of("kv_type", wish["kv_type"], (AUTO, *CacheType))
    found: dict[str, Any] = {}
    for side in ("k", "v"):
        own = wish[f"{side}_type"]
        word = both if own is None else _one_of(f"{side}_type", own, tuple(CacheType))
        found |= {f"{side}_auto": word == AUTO, f"{side}_type": CacheType.F16 if word == AUTO else CacheType(word)}
    return found


def _constraints(wish: Mapping[str, Any]) -> Constraints:
    boundaries = wish["forbidden_boundaries"]
    if not isinstance(boundaries, list | tuple):
        raise InvalidPlanInput("forbidden_boundaries", boundaries, "a list of layer numbers")
    return Constraints(
        coordinator=wish["coordinator"],
        forbidden_boundaries=frozenset(_whole("forbidden_boundaries", boundary) for boundary in boundaries),
        min_stages=wish["min_stages"],
        max_stages=wish["max_stages"],
        max_stage_rtt_ms=wish["max_stage_rtt_ms"],
        min_tokens_per_s=wish["min_tokens_per_s"],
        target_policy=_POLICIES[_switch("best_effort", wish["best_effort"])],
    )


def _word(field: str, value: object, words: type[WordT]) -> WordT:
    return words(_one_of(field, value, tuple(words)))


def _one_of(field: str, value: object, words: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in words:
        raise InvalidPlanInput(field, value, "one of " + ", ".join(words))
    return value


def _switch(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidPlanInput(field, value, "true or false")
    return value


def _whole(field: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidPlanInput(field, value, "a whole number")
    return value


def _whole_or_none(field: str, value: object) -> int | None:
    return None if value is None else _whole(field, value)
