"""From a running plan to the cheapest one that is as good as the best: what has to move, and what may stay.

Lives here: `replan` and `Replanned`. Not here: where weights lie and what a move carries (`planner.transfers`), the
search for plans that keep layers in place (`planner.staying`), carrying it out (`meshnode.split`).

A plan is as good as the best where value x (1 - margin) <= best value. Among those that are found, the one that moves
the fewest bytes is taken: the running plan itself where it is still possible and as good, which moves nothing. Where
the running plan is possible but not as good, what replaces it is better than it by more than the margin too.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from planner.building import build_plan
from planner.constraints import Constraints, Exclusion, Objective
from planner.dispatch import settle
from planner.effort import DEFAULT_EFFORT
from planner.engine import LLAMA_CPP_RPC, EngineProfile, engine_named
from planner.errors import InvalidPlanInput, figure
from planner.links import LinkMatrix
from planner.model import ModelSpec
from planner.nodes import NodeSpec
from planner.plan import SplitPlan
from planner.request import UNRESTRICTED, PlanRequest
from planner.staying import Candidate, Terms, least_moved
from planner.transfers import Held, Transfer, is_contiguous, places_of, transfers
from planner.workload import Workload

DEFAULT_MARGIN: Final = 0.10


class Move(enum.StrEnum):
    """What becomes of the running plan: it stays, gives way to a better one, or is no longer possible."""

    KEEP = "keep"
    IMPROVE = "improve"
    REPAIR = "repair"


@dataclass(frozen=True)
class Replanned:
    """`plan` is what should run now; `transfers` lead there from the running plan.

    `running_value`: what the running plan is worth on the nodes and links as they are now, None where it is no longer
    possible or can't be timed. `best_value`: of the best plan whatever it moves, in `plan.unit`. `margin`: by how much,
    as a fraction, a plan may be worse to stay in place. `least_moved_bytes`: no plan as good as that moves fewer (0
    where nothing is proved).
    """

    plan: SplitPlan
    move: Move
    transfers: tuple[Transfer, ...]
    kept_layers: int
    running_value: float | None
    best_value: float
    margin: float
    least_moved_bytes: int

    @property
    def moved_bytes(self) -> int:
        """Weight bytes that get to lie on another device."""
        return sum(each.bytes for each in self.transfers)

    @property
    def fetched_bytes(self) -> int:
        """Those of them that have to be sent to another node."""
        return sum(each.bytes for each in self.transfers if each.fetched)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; `plan` as everywhere."""
        return {
            "move": self.move.value,
            "plan": self.plan.to_dict(),
            "transfers": [each.to_dict() for each in self.transfers],
            "moved_bytes": self.moved_bytes,
            "fetched_bytes": self.fetched_bytes,
            "kept_layers": self.kept_layers,
            "running_value": self.running_value,
            "best_value": self.best_value,
            "margin": self.margin,
            "least_moved_bytes": self.least_moved_bytes,
        }


def replan(
    model: ModelSpec,
    nodes: Iterable[NodeSpec],
    links: LinkMatrix,
    workload: Workload,
    running: SplitPlan,
    *,
    margin: float = DEFAULT_MARGIN,
    objective: str | Objective = Objective.LATENCY,
    constraints: Constraints = UNRESTRICTED,
    excluded: Sequence[Exclusion] = (),
    engine: str | EngineProfile = LLAMA_CPP_RPC,
    smaller_files: Sequence[ModelSpec] = (),
    effort: int = DEFAULT_EFFORT,
    should_stop: Callable[[], bool] | None = None,
) -> Replanned:
    """What should run in place of `running`, on the nodes and links as they are now.

    Arguments are those of `planner.plan_split`; `margin` is a fraction from 0 up to 1 (not included). Raises
    `CapacityShortfall` where no plan is left, `InvalidPlanInput` also where `running` is not a plan of this model.
    """
    figure("margin", margin, maximum=0.999)
    if not is_contiguous(running.stages, model.layer_count):
        raise InvalidPlanInput("running", f"a plan of {running.model}", f"one of all {model.layer_count} layers")
    request = PlanRequest(
        model=model,
        nodes=tuple(nodes),
        links=links,
        workload=workload,
        objective=Objective(objective) if objective in tuple(Objective) else _wrong(objective),
        constraints=constraints,
        excluded=tuple(excluded),
        engine=engine_named(engine) if isinstance(engine, str) else engine,
        smaller_files=tuple(smaller_files),
    )
    settled = settle(request, effort=effort, should_stop=should_stop)
    request = settled.request
    held = Held(model, request.engine, running.stages, frozenset(node.id for node in request.nodes))
    terms = Terms(request, settled.placeable, settled.found, held, running.coordinator.node)
    chosen = _chosen(terms, running, margin, effort, should_stop)
    return replace(chosen, plan=settled.told(chosen.plan))


def _wrong(objective: object) -> Objective:
    raise InvalidPlanInput("objective", objective, "one of " + ", ".join(Objective))


def _chosen(
    terms: Terms, running: SplitPlan, margin: float, effort: int, should_stop: Callable[[], bool] | None
) -> Replanned:
    best = terms.best
    as_is = terms.candidate(running.coordinator.node, places_of(running))
    limit = int(best.value / (1.0 - margin))
    taken, least = as_is or best, 0
    if as_is is None or as_is.value > limit:
        # Moving must be worth it: what replaces a plan that could go on is better than it by more than the margin.
        limit = limit if as_is is None else min(limit, int(as_is.value * (1.0 - margin)))
        taken, least = least_moved(terms, max(limit, best.value), effort, should_stop)
    request, found = terms.request, terms.found_of(taken)
    plan = build_plan(request, found)
    scale = 1e9 if found.unit == "s" else 1
    moved = transfers(terms.held, places_of(plan), {node.id: node.has_package for node in request.nodes})
    return Replanned(
        plan=replace(plan, warnings=(*plan.warnings, *_told(taken, best))),
        move=_move(taken, as_is),
        transfers=tuple(moved),
        kept_layers=request.model.layer_count - sum(each.layer_end - each.layer_start for each in moved),
        running_value=None if as_is is None else as_is.value / scale,
        best_value=best.value / scale,
        margin=margin,
        least_moved_bytes=min(least, taken.moved),
    )


def _move(taken: Candidate, as_is: Candidate | None) -> Move:
    if as_is is None:
        return Move.REPAIR
    return Move.KEEP if taken == as_is else Move.IMPROVE


def _told(taken: Candidate, best: Candidate) -> tuple[str, ...]:
    if taken.value <= best.value:
        return ()
    worse = taken.value / best.value - 1.0
    return (f"chosen to keep layers in place: {worse:.1%} above the best plan found",)
