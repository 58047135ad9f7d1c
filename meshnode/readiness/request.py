"""What a split asks for while it waits: the model, how patient it is, and what the operator allows.

What lives here: `SplitRequest`, `SettleSettings`, `Eligibility` and their checks. What does not: the model's figures
(`planner`) and the rules that read these (`meshnode.readiness.rules`). Built by the daemon from config and request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from proto.engines import RpcVersion
from proto.ids import NodeId

MAX_WAIT_S = 86_400.0


class InvalidRequest(ValueError):
    """A request that can't be waited for: names the field, what was found, and what would be right."""

    def __init__(self, field: str, found: object, expected: str) -> None:
        self.field = field
        self.found = found
        self.expected = expected
        super().__init__(f"{field}: found {found!r}, expected {expected}")


class Purpose(StrEnum):
    """`run` carries the split out and needs files; `plan` only asks what would be."""

    RUN = "run"
    PLAN = "plan"


@dataclass(frozen=True, slots=True)
class SettleSettings:
    """When the members count as settled; durations in seconds. Dwell and window: Mesh-LLM's 8 s.

    `quorum` participants at least; `dwell_s` without a change of members or capacities; `first_quorum_window_s` since
    the quorum was reached; at `deadline_s` it is decided with what is there. A node is pending for at most `pending_s`
    per cause. Each participant has `confirm_s` to confirm its figures, and one that did not answer is asked again
    after `ask_again_s`. A figure that moves by less than `drift` of itself is no change of capacity.
    """

    quorum: int = 2
    dwell_s: float = 8.0
    first_quorum_window_s: float = 8.0
    deadline_s: float = 60.0
    pending_s: float = 10.0
    confirm_s: float = 2.0
    ask_again_s: float = 5.0
    drift: float = 0.05

    def __post_init__(self) -> None:
        if isinstance(self.quorum, bool) or not isinstance(self.quorum, int) or self.quorum < 1:
            raise InvalidRequest("quorum", self.quorum, "a whole number of at least 1")
        for name in ("dwell_s", "first_quorum_window_s", "pending_s", "drift"):
            _seconds(name, getattr(self, name), above=False)
        for name in ("deadline_s", "confirm_s", "ask_again_s"):
            _seconds(name, getattr(self, name), above=True)


def _seconds(name: str, found: float, *, above: bool) -> None:
    good = math.isfinite(found) and 0 <= found <= MAX_WAIT_S and not (above and found == 0)
    if not good:
        raise InvalidRequest(name, found, f"a number {'above' if above else 'of at least'} 0, at most {MAX_WAIT_S:g}")


@dataclass(frozen=True, slots=True)
class Eligibility:
    """What the operator allows. `excluded_nodes` are node ids or beginnings of them; `max_stage_rtt_ms` None is no
    limit (RTT ranks and excludes nobody)."""

    max_stage_rtt_ms: float | None = None
    min_capacity_bytes: int = 0
    allow_relayed: bool = False
    excluded_nodes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        limit = self.max_stage_rtt_ms
        if limit is not None and not (math.isfinite(limit) and limit >= 0):
            raise InvalidRequest("max_stage_rtt_ms", limit, "a number of at least 0")
        if self.min_capacity_bytes < 0:
            raise InvalidRequest("min_capacity", self.min_capacity_bytes, "at least 0 bytes")
        if "" in self.excluded_nodes:
            raise InvalidRequest("exclude", "", "a node id or its beginning, not an empty text (it would match all)")


HOST_MEMORY: Final = "host_memory"
"""The name under which a coordinator's own host memory (token embedding, host compute) is reserved."""
NO_RESERVATIONS: Mapping[NodeId, Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True)
class SplitRequest:
    """One split to wait for.

    `model` is the ref as gossiped in offers; `manifest` the identity hash of the coordinator's package (None: not known
    or a profile). `coordinator` is the node from which paths and RTTs are judged, None is the local node.
    `own_reserved` are bytes by node and device (or `HOST_MEMORY`) that this very split holds already: they count as
    free for its replan. `rpc_version` is the coordinator's engine's where a plan is to be carried out: each node needs
    one that it can work with; None where nothing is run.
    """

    model: str
    purpose: Purpose = Purpose.RUN
    is_profile: bool = False
    manifest: str | None = None
    coordinator: NodeId | None = None
    settle: SettleSettings = SettleSettings()
    eligibility: Eligibility = Eligibility()
    own_reserved: Mapping[NodeId, Mapping[str, int]] = field(default_factory=lambda: NO_RESERVATIONS)
    rpc_version: RpcVersion | None = None

    def __post_init__(self) -> None:
        if not self.model:
            raise InvalidRequest("model", self.model, "a model ref")

    @property
    def checks_files(self) -> bool:
        """Whether inventories and artifacts matter: only where a split of real files is carried out."""
        return self.purpose is Purpose.RUN and not self.is_profile
