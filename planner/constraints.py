"""What the operator restricts: objective, coordinator, cuts, stage counts, targets, and who was excluded before.

Lives here: `Objective`, `Constraints`, `TargetPolicy`, `Exclusion`. Not here: the rules by which readiness excludes a
node (`meshnode.readiness`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from planner.errors import InvalidPlanInput, figure, name, whole
from planner.model import MAX_LAYERS
from planner.nodes import NodeSpec


class Objective(enum.StrEnum):
    """What a plan minimises."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"
    FEWEST = "fewest"
    PROPORTIONAL = "proportional"


class TargetPolicy(enum.StrEnum):
    """What a missed `min_tokens_per_s` means: a shortfall, or a plan that says by how much it misses."""

    MUST_MEET = "must_meet"
    BEST_EFFORT = "best_effort"


@dataclass(frozen=True, slots=True)
class Constraints:
    """Restrictions on a plan; the default restricts nothing.

    `coordinator` pins the node that coordinates (None: every eligible one is tried). `forbidden_boundaries`: layer
    indices p, 0 < p < L, where no cut may lie. Stages are counted as device ranges. `max_stage_rtt_ms` bars a node
    whose RTT to the coordinator is above it or unknown.
    """

    coordinator: str | None = None
    forbidden_boundaries: frozenset[int] = frozenset()
    min_stages: int = 1
    max_stages: int | None = None
    max_stage_rtt_ms: float | None = None
    min_tokens_per_s: float | None = None
    target_policy: TargetPolicy = TargetPolicy.MUST_MEET

    def __post_init__(self) -> None:
        if self.coordinator is not None:
            name("constraints.coordinator", self.coordinator)
        for boundary in self.forbidden_boundaries:
            whole("constraints.forbidden_boundaries", boundary, minimum=1, maximum=MAX_LAYERS)
        whole("constraints.min_stages", self.min_stages, minimum=1, maximum=MAX_LAYERS)
        if self.max_stages is not None:
            whole("constraints.max_stages", self.max_stages, minimum=1)
            if self.max_stages < self.min_stages:
                raise InvalidPlanInput(
                    "constraints.max_stages", self.max_stages, f"at least min_stages ({self.min_stages})"
                )
        if self.max_stage_rtt_ms is not None:
            figure("constraints.max_stage_rtt_ms", self.max_stage_rtt_ms)
        if self.min_tokens_per_s is not None:
            figure("constraints.min_tokens_per_s", self.min_tokens_per_s, above=True)


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A peer left out before planning, and why: reason code, facts found and required, advice.

    `node` is what it would offer if its reason were fixed (None: nothing known), so that admitting it can be
    re-planned.
    """

    node_id: str
    reason: str
    found: str | None = None
    required: str | None = None
    advice: str | None = None
    node: NodeSpec | None = None

    def __post_init__(self) -> None:
        name("exclusion.node", self.node_id)
        name("exclusion.reason", self.reason)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON, as in a shortfall's `excluded` list."""
        return {
            "node": self.node_id,
            "reason": self.reason,
            "found": self.found,
            "required": self.required,
            "advice": self.advice,
        }
