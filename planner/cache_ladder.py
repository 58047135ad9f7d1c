"""The KV cache's types where the plan decides them: f16, and the next smaller one only where a plan asks for it.

Lives here: the ladder of types, in which order they are tried, and `CacheChoice`, which says what was taken and why.
Not here: whether a plan exists with them, which is a function it is given (`planner.dispatch`); what a type costs
(`planner.memory`).

At a given context the first type with a plan is taken. Where none is given, the type that allows the longest context,
at most the model's own; of those that allow as much, the first. So f16 stays wherever less precision gains nothing. A
quantised V cache needs flash attention (llama.cpp refuses it otherwise): without it V stays f16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from planner.context import LEAST_CONTEXT, largest_context
from planner.memory import memory_need
from planner.request import PlanRequest
from planner.workload import CacheType

LADDER: Final = (CacheType.F16, CacheType.Q8_0, CacheType.Q4_0)
"""Half the bytes at each step, about; q8_0 is as good as lossless, below q4_0 answers suffer."""


@dataclass(frozen=True, slots=True)
class CacheTrial:
    """Types that were tried: the context at which they have a plan (no more than was asked for), None where none."""

    k_type: CacheType
    v_type: CacheType
    context: int | None

    @property
    def name(self) -> str:
        """The types in words."""
        alike = self.k_type is self.v_type
        return self.k_type.value if alike else f"K {self.k_type.value} with V {self.v_type.value}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"k_type": self.k_type.value, "v_type": self.v_type.value, "context": self.context}


@dataclass(frozen=True, slots=True)
class CacheChoice:
    """The types that `auto` came to, and why. In a shortfall: the smallest ones, which its figures are for."""

    taken: CacheTrial
    tried: tuple[CacheTrial, ...]
    why: str

    @property
    def warning(self) -> str | None:
        """What a reader of the plan must know: that precision was given up. None where it was not."""
        return None if self.taken == self.tried[0] else f"KV type auto took {self.taken.name}: {self.why}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "policy": "auto",
            "k_type": self.taken.k_type.value,
            "v_type": self.taken.v_type.value,
            "why": self.why,
            "tried": [trial.to_dict() for trial in self.tried],
        }


@dataclass(frozen=True, slots=True)
class Rung:
    """The request with types of the ladder and a context. `plans`: whether it has a plan, as far as that is known."""

    request: PlanRequest
    plans: bool | None

    def trial(self, plans: bool) -> CacheTrial:
        """What it came to."""
        workload = self.request.workload
        return CacheTrial(workload.k_type, workload.v_type, workload.context if plans else None)


def rungs_of(request: PlanRequest, can_plan: Callable[[PlanRequest], bool]) -> tuple[Rung, ...]:
    """Requests in which types and context are given, in the order of the ladder; just one where nothing is `auto`.

    Where no context is asked for each has its largest; the last is the first that reaches the model's own. Raises
    `InvalidPlanInput` if the model does not state its own context and none is asked for.
    """
    steps = _at_types(request)
    if request.workload.context is not None:
        return tuple(Rung(step, None) for step in steps)
    rungs: list[Rung] = []
    for step in steps:
        rungs.append(_at_largest(step, can_plan, must_know=len(steps) > 1))
        if rungs[-1].plans and rungs[-1].request.workload.context == request.model.native_context:
            break
    return tuple(rungs)


def in_order(rungs: Iterable[Rung]) -> list[Rung]:
    """The longest context first; among equals, the order of the ladder."""
    return sorted(rungs, key=lambda rung: -(rung.request.workload.context or 0))


def smallest(rungs: Sequence[Rung]) -> Rung:
    """The one whose cache takes the fewest bytes at the same context: where it has no plan, none has."""
    context = min(rung.request.workload.context or 0 for rung in rungs)
    return min(rungs, key=lambda rung: _kv_bytes(rung.request.at_context(context)))


def choice_of(
    asked: PlanRequest, rungs: Sequence[Rung], failed: Sequence[Rung], taken: Rung, *, target: bool
) -> CacheChoice | None:
    """How `taken` came about; None where the types were asked for. `target`: a speed had to be met besides."""
    if not (asked.workload.k_auto or asked.workload.v_auto):
        return None
    has_failed = {id(rung) for rung in failed}
    known = {id(rung): rung.plans for rung in rungs} | {id(taken): True} | dict.fromkeys(has_failed, False)
    trials = {id(rung): rung.trial(plans) for rung in rungs if (plans := known[id(rung)]) is not None}
    tried, chosen = tuple(trials.values()), trials[id(taken)]
    context = asked.workload.context
    words = _Words(tried, chosen, target)
    why = words.at_own(asked.model.native_context) if context is None else words.at(context)
    return CacheChoice(chosen, tried, why)


def _at_types(request: PlanRequest) -> tuple[PlanRequest, ...]:
    workload = request.workload
    v_varies = workload.v_auto and workload.flash_attention
    types = [
        (kind if workload.k_auto else workload.k_type, kind if v_varies else workload.v_type)
        for kind in (LADDER if workload.k_auto or workload.v_auto else LADDER[:1])
    ]
    return tuple(
        replace(request, workload=replace(workload, k_type=k_type, v_type=v_type, k_auto=False, v_auto=False))
        for k_type, v_type in dict.fromkeys(types)
    )


def _at_largest(request: PlanRequest, can_plan: Callable[[PlanRequest], bool], *, must_know: bool) -> Rung:
    seen: dict[int | None, bool] = {}

    def noted(asked: PlanRequest) -> bool:
        return seen.setdefault(asked.workload.context, can_plan(asked))

    at_largest = request.at_context(largest_context(request, noted))
    if must_know and at_largest.workload.context not in seen:
        noted(at_largest)
    return Rung(at_largest, seen.get(at_largest.workload.context))


def _kv_bytes(request: PlanRequest) -> int:
    return memory_need(request.model, request.workload, request.engine).kv_prefix[-1]


# --- words -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Words:
    """Why `taken` was taken. `target`: to fit was not enough."""

    tried: tuple[CacheTrial, ...]
    taken: CacheTrial
    target: bool

    def at(self, context: int) -> str:
        """Where `context` was asked for."""
        failed = [trial.name for trial in self.tried if trial.context is None]
        if not failed:
            return f"{self.taken.name} {self._fits} at {context} tokens"
        do = "does" if len(failed) == 1 else "do"
        least = f"; {self.taken.name} is the smallest" if self.taken.context is None else ""
        return f"{_listed(failed)} {do} not {self._fit} at {context} tokens{least}"

    def at_own(self, native: int) -> str:
        """Where the longest context was asked for, at most `native`."""
        if self.taken.context is None:
            failed = _listed([trial.name for trial in self.tried])
            do = "does" if len(self.tried) == 1 else "do"
            return f"{failed} {do} not {self._fit} at any useful context; {self.taken.name} is the smallest"
        if self.tried[0].context == native:
            return f"{self.taken.name} {self._fits} at the model's own {native} tokens"
        least = f"under {min(LEAST_CONTEXT, native)}"
        most = ", ".join(f"{trial.name} {trial.context or least}" for trial in self.tried)
        return f"of the model's own {native} tokens so many {self._fit}: {most}"

    @property
    def _fit(self) -> str:
        return "fit and meet the target" if self.target else "fit"

    @property
    def _fits(self) -> str:
        return "fits and meets the target" if self.target else "fits"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
