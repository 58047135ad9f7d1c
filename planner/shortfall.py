"""Why nothing fits, as data: the report behind `CapacityShortfall`.

Lives here: `ShortfallReport`, `ParticipantReport`, `Remedy` and their JSON. Not here: the message's words
(`planner.message`), how the kind is found (`planner.diagnosis`), how remedies are computed (`planner.remedies`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from planner.constraints import Exclusion

if TYPE_CHECKING:
    from planner.cache_ladder import CacheChoice
    from planner.changes import Change


class ShortfallKind(enum.StrEnum):
    """`aggregate`: the sum is too small. `placement`: the sum suffices, whole layers don't fit. `constraint`: a rule
    binds.
    """

    AGGREGATE = "aggregate"
    PLACEMENT = "placement"
    CONSTRAINT = "constraint"


@dataclass(frozen=True, slots=True)
class ParticipantReport:
    """One participant as it was counted. `placeable_layers`: its longest window of layers anywhere, by itself;
    `rtt_estimated`: its RTT comes from coordinates, not measured."""

    node: str
    capacity_bytes: int
    usable_bytes: int
    cached_bytes: int | None
    missing_bytes: int | None
    rtt_ms: float | None
    transfer: bool
    placeable_layers: int
    rtt_estimated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "node": self.node,
            "capacity_bytes": self.capacity_bytes,
            "usable_bytes": self.usable_bytes,
            "cached_bytes": self.cached_bytes,
            "missing_bytes": self.missing_bytes,
            "rtt_ms": self.rtt_ms,
            "rtt_estimated": self.rtt_estimated,
            "transfer": self.transfer,
            "placeable_layers": self.placeable_layers,
        }


class RemedyAction(enum.StrEnum):
    """The kinds of change, in the order of how little they ask of an operator."""

    RELAX_CONSTRAINT = "relax_constraint"
    SHORTEN_CONTEXT = "shorten_context"
    CACHE_TYPE = "cache_type"
    FEWER_LANES = "fewer_lanes"
    ADMIT_PEER = "admit_peer"
    SMALLER_FILE = "smaller_file"
    FREE_BYTES = "free_bytes"
    FETCH_PACKAGE = "fetch_package"
    ADD_NODE = "add_node"
    COMBINE = "combine"


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change that was re-planned. `sufficient`: a plan exists after it; else `closes_bytes` says how much it helps.

    `details` are the change's own figures (JSON scalars, or a list of parts for `combine`); `asks` is what the operator
    has to do, in words. `changes`: what was re-planned, ready to be applied again (`planner.changes.apply_remedy`).
    """

    action: RemedyAction
    asks: str
    closes_bytes: int
    sufficient: bool
    details: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    changes: tuple[Change, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "action": self.action.value,
            "details": dict(self.details),
            "closes_bytes": self.closes_bytes,
            "sufficient": self.sufficient,
            "asks": self.asks,
        }


@dataclass(frozen=True, slots=True)
class ShortfallReport:
    """All that is known about why no plan exists.

    `required_bytes`: what must lie on participants' devices (weights + KV + state, no compute). `available_bytes`: sum
    of usable. `short_by_bytes`: how much is missing (0 when the sum suffices). `placeable_layers`: the longest prefix
    any order of any subset holds (`placeable_exact` False: found by search, more may be possible). `binds`: the
    constraint that binds, for that kind. `leftovers`: bytes left over on each node after that prefix, by node id.
    `message` is the full text; `headline` only its fixed first parts. `cache`: for which KV cache types all of this is,
    where they were left open: the smallest.
    """

    kind: ShortfallKind
    model: str
    required_bytes: int
    available_bytes: int
    short_by_bytes: int
    layers: int
    placeable_layers: int
    short_layers: int
    short_layers_bytes: int
    participants: tuple[ParticipantReport, ...]
    excluded: tuple[Exclusion, ...]
    remedies: tuple[Remedy, ...]
    binds: str | None
    headline: str
    message: str
    requirement: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    leftovers: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    placeable_exact: bool = True
    binds_because: str | None = None
    cache: CacheChoice | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: what `meshnode plan --json` prints."""
        return {
            "result": "shortfall",
            "kind": self.kind.value,
            "model": self.model,
            "required_bytes": self.required_bytes,
            "available_bytes": self.available_bytes,
            "short_by_bytes": self.short_by_bytes,
            "layers": self.layers,
            "placeable_layers": self.placeable_layers,
            "placeable_exact": self.placeable_exact,
            "short_layers": self.short_layers,
            "short_layers_bytes": self.short_layers_bytes,
            "binds": self.binds,
            "binds_because": self.binds_because,
            "requirement": dict(self.requirement),
            "leftovers": dict(self.leftovers),
            **({} if self.cache is None else {"cache": self.cache.to_dict()}),
            "participants": [participant.to_dict() for participant in self.participants],
            "excluded": [exclusion.to_dict() for exclusion in self.excluded],
            "remedies": [remedy.to_dict() for remedy in self.remedies],
            "message": self.message,
        }
