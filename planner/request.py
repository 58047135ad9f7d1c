"""A whole planning request, checked once; inside, everything is valid.

Lives here: `PlanRequest`. Not here: resolving an unasked context (`planner.context`), planning it (`planner.dispatch`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from planner.constraints import Constraints, Exclusion, Objective
from planner.engine import LLAMA_CPP_RPC, EngineProfile
from planner.errors import InvalidPlanInput
from planner.links import LinkMatrix
from planner.model import ModelSpec
from planner.nodes import NodeSpec, Willingness
from planner.workload import Workload

UNRESTRICTED: Final = Constraints()


@dataclass(frozen=True)
class PlanRequest:
    """Everything a plan depends on. Nodes are kept sorted by id, so that ties fall to the lower id.

    `smaller_files`: other files of the same model, offered as remedies. Raises `InvalidPlanInput` for duplicate ids, a
    node that is both participant and excluded, a coordinator that is not among the nodes, or a boundary outside the
    model.
    """

    model: ModelSpec
    nodes: tuple[NodeSpec, ...]
    links: LinkMatrix
    workload: Workload
    objective: Objective = Objective.LATENCY
    constraints: Constraints = UNRESTRICTED
    excluded: tuple[Exclusion, ...] = ()
    engine: EngineProfile = LLAMA_CPP_RPC
    smaller_files: tuple[ModelSpec, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(sorted(self.nodes, key=lambda node: node.id)))
        ids = [node.id for node in self.nodes]
        for first, second in pairwise(ids):
            if first == second:
                raise InvalidPlanInput("nodes", first, "node ids that differ")
        known = set(ids)
        for exclusion in self.excluded:
            if exclusion.node_id in known:
                raise InvalidPlanInput("excluded", exclusion.node_id, "a node that is not among the participants")
        pinned = self.constraints.coordinator
        if pinned is not None and pinned not in known:
            raise InvalidPlanInput("constraints.coordinator", pinned, "one of the nodes: " + _some(ids))
        for boundary in self.constraints.forbidden_boundaries:
            if boundary >= self.model.layer_count:
                expected = f"a boundary inside the model: 1 to {self.model.layer_count - 1}"
                raise InvalidPlanInput("constraints.forbidden_boundaries", boundary, expected)

    @property
    def workers(self) -> tuple[NodeSpec, ...]:
        """Nodes that may hold a stage at all: some device, and not willing `never`."""
        return tuple(node for node in self.nodes if node.devices and node.willingness is not Willingness.NEVER)

    def at_context(self, context: int) -> PlanRequest:
        """The same request at another context."""
        return replace(self, workload=replace(self.workload, context=context))


def _some(ids: list[str]) -> str:
    shown = ", ".join(ids[:8])
    return shown + (f", ... ({len(ids)} in all)" if len(ids) > 8 else "") if ids else "(there are none)"
