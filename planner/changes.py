"""Changes to a request that an operator could make: the bricks of remedies.

Lives here: one small type per change, each able to be applied and to say what it asks. Not here: which changes help
(`planner.remedies`) and how large they must be (`planner.enough`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Protocol

from planner.constraints import Exclusion
from planner.links import Link, LinkMatrix
from planner.model import ModelSpec
from planner.nodes import NodeSpec, Willingness
from planner.request import PlanRequest
from planner.shortfall import Remedy, RemedyAction
from planner.sizes import format_gb
from planner.words import ceil_gb, short_id
from planner.workload import CacheType

NEW_NODE = "added"


class Change(Protocol):
    """One change. `applied` gives the request after it; `asks` says it in words; `details` are its figures as JSON."""

    @property
    def action(self) -> RemedyAction:
        """Its kind."""
        ...

    @property
    def asks(self) -> str:
        """What the operator has to do."""
        ...

    @property
    def details(self) -> Mapping[str, Any]:
        """Figures, JSON scalars only."""
        ...

    def applied(self, request: PlanRequest) -> PlanRequest:
        """The request after the change."""
        ...


def apply_remedy(request: PlanRequest, remedy: Remedy) -> PlanRequest:
    """The request after all of the remedy's changes."""
    return apply_changes(request, remedy.changes)


def apply_changes(request: PlanRequest, changes: tuple[Change, ...]) -> PlanRequest:
    """The request after `changes`, in order."""
    return reduce(lambda changed, change: change.applied(changed), changes, request)


@dataclass(frozen=True, slots=True)
class ShortenContext:
    """Ask for `context` tokens per lane instead of `before`."""

    context: int
    before: int
    action = RemedyAction.SHORTEN_CONTEXT

    @property
    def asks(self) -> str:
        return f"shorten the context to {self.context} tokens (from {self.before})"

    @property
    def details(self) -> Mapping[str, Any]:
        return {"context": self.context}

    def applied(self, request: PlanRequest) -> PlanRequest:
        return request.at_context(self.context)


@dataclass(frozen=True, slots=True)
class QuantiseCache:
    """Keep the KV cache in other types."""

    k_type: CacheType
    v_type: CacheType
    saves_bytes: int
    action = RemedyAction.CACHE_TYPE

    @property
    def asks(self) -> str:
        what = "KV cache" if self.k_type is self.v_type else "K cache"
        return f"quantise the {what} to {self.k_type.value} (saves {format_gb(self.saves_bytes)})"

    @property
    def details(self) -> Mapping[str, Any]:
        return {"k_type": self.k_type.value, "v_type": self.v_type.value}

    def applied(self, request: PlanRequest) -> PlanRequest:
        return replace(request, workload=replace(request.workload, k_type=self.k_type, v_type=self.v_type))


@dataclass(frozen=True, slots=True)
class FewerLanes:
    """Serve `lanes` sequences at once instead of `before`."""

    lanes: int
    before: int
    action = RemedyAction.FEWER_LANES

    @property
    def asks(self) -> str:
        return f"use {self.lanes} lane{'' if self.lanes == 1 else 's'} instead of {self.before}"

    @property
    def details(self) -> Mapping[str, Any]:
        return {"lanes": self.lanes}

    def applied(self, request: PlanRequest) -> PlanRequest:
        return replace(request, workload=replace(request.workload, lanes=self.lanes))


@dataclass(frozen=True, slots=True)
class AdmitPeer:
    """Fix the reason for which a peer is left out, so that it takes part with what it would bring."""

    exclusion: Exclusion
    action = RemedyAction.ADMIT_PEER

    @property
    def node(self) -> NodeSpec:
        """What it would bring."""
        assert self.exclusion.node is not None, "only peers whose offer is known are admitted"
        return replace(self.exclusion.node, willingness=Willingness.ALWAYS)

    @property
    def asks(self) -> str:
        advice = f": {self.exclusion.advice}" if self.exclusion.advice else ""
        brings = format_gb(self.node.usable_bytes)
        return f"admit {short_id(self.node.id)} ({brings}, excluded as {self.exclusion.reason}){advice}"

    @property
    def details(self) -> Mapping[str, Any]:
        return {"node": self.node.id, "reason": self.exclusion.reason, "usable_bytes": self.node.usable_bytes}

    def applied(self, request: PlanRequest) -> PlanRequest:
        others = tuple(node for node in request.nodes if node.id != self.node.id)
        excluded = tuple(each for each in request.excluded if each.node_id != self.node.id)
        return replace(request, nodes=(*others, self.node), excluded=excluded)


@dataclass(frozen=True, slots=True)
class RelaxConstraint:
    """Give one constraint another value; for `forbidden_boundaries` the one boundary to allow (None: all)."""

    field: str
    value: float | str | None
    words: str
    action = RemedyAction.RELAX_CONSTRAINT

    @property
    def asks(self) -> str:
        return self.words

    @property
    def details(self) -> Mapping[str, Any]:
        return {"constraint": self.field, "value": self.value}

    def applied(self, request: PlanRequest) -> PlanRequest:
        value: Any = self.value
        if self.field == "forbidden_boundaries":
            forbidden = request.constraints.forbidden_boundaries
            value = frozenset() if self.value is None else forbidden - {self.value}
        return replace(request, constraints=replace(request.constraints, **{self.field: value}))


@dataclass(frozen=True, slots=True)
class SmallerFile:
    """Use another file of the same model."""

    model: ModelSpec
    action = RemedyAction.SMALLER_FILE

    @property
    def asks(self) -> str:
        return f"use the smaller file {self.model.name} ({format_gb(self.model.file_bytes)})"

    @property
    def details(self) -> Mapping[str, Any]:
        return {"model": self.model.name, "file_bytes": self.model.file_bytes}

    def applied(self, request: PlanRequest) -> PlanRequest:
        rest = tuple(model for model in request.smaller_files if model is not self.model)
        return replace(request, model=self.model, smaller_files=rest)


@dataclass(frozen=True, slots=True)
class FreeBytes:
    """Make `usable_bytes` more usable on a device that a node already offers. `offers_all`: all that is known of the
    device is usable already, so that nothing can be freed and more would have to be offered."""

    node: str
    device: str
    usable_bytes: int
    offers_all: bool = False
    action = RemedyAction.FREE_BYTES

    @property
    def asks(self) -> str:
        count, node = ceil_gb(self.usable_bytes), short_id(self.node)
        return f"offer {count} more on {node}" if self.offers_all else f"free {count} on {node}"

    @property
    def details(self) -> Mapping[str, Any]:
        return {"node": self.node, "device": self.device, "bytes": self.usable_bytes}

    def applied(self, request: PlanRequest) -> PlanRequest:
        return replace(request, nodes=tuple(self._larger(node) for node in request.nodes))

    def _larger(self, node: NodeSpec) -> NodeSpec:
        if node.id != self.node:
            return node
        devices = (
            replace(device, declared_usable_bytes=device.usable_bytes + self.usable_bytes)
            if device.id == self.device
            else device
            for device in node.devices
        )
        return replace(node, devices=tuple(devices))


@dataclass(frozen=True, slots=True)
class FreeHostBytes:
    """Make `host_bytes` more host memory usable on a coordinator."""

    node: str
    host_bytes: int
    action = RemedyAction.FREE_BYTES

    @property
    def asks(self) -> str:
        return f"free {ceil_gb(self.host_bytes)} of host memory on {short_id(self.node)}, to coordinate"

    @property
    def details(self) -> Mapping[str, Any]:
        return {"node": self.node, "host_bytes": self.host_bytes}

    def applied(self, request: PlanRequest) -> PlanRequest:
        return replace(
            request,
            nodes=tuple(
                replace(node, host_usable_bytes=(node.host_usable_bytes or 0) + self.host_bytes)
                if node.id == self.node
                else node
                for node in request.nodes
            ),
        )


@dataclass(frozen=True, slots=True)
class FetchPackage:
    """Bring the complete package to a node that is to coordinate."""

    node: str
    missing_bytes: int
    action = RemedyAction.FETCH_PACKAGE

    @property
    def asks(self) -> str:
        return f"bring the complete package ({format_gb(self.missing_bytes)} missing) to {short_id(self.node)}"

    @property
    def details(self) -> Mapping[str, Any]:
        return {"node": self.node, "missing_bytes": self.missing_bytes}

    def applied(self, request: PlanRequest) -> PlanRequest:
        nodes = (replace(node, has_package=True) if node.id == self.node else node for node in request.nodes)
        return replace(request, nodes=tuple(nodes))


@dataclass(frozen=True, slots=True)
class AddNode:
    """One more node with one device of `usable_bytes`, linked well enough for the RTT cap if there is one."""

    usable_bytes: int
    action = RemedyAction.ADD_NODE

    @property
    def asks(self) -> str:
        return f"add a node with at least {ceil_gb(self.usable_bytes)} usable"

    @property
    def details(self) -> Mapping[str, Any]:
        return {"usable_bytes": self.usable_bytes}

    def applied(self, request: PlanRequest) -> PlanRequest:
        taken = {node.id for node in request.nodes} | {each.node_id for each in request.excluded}
        name = NEW_NODE
        while name in taken:
            name += "+"
        new = NodeSpec.single(name, usable_bytes=self.usable_bytes, has_package=False)
        links = _linked(request, name)
        return replace(request, nodes=(*request.nodes, new), links=links)


def _linked(request: PlanRequest, new: str) -> LinkMatrix:
    """A new node's links are unknown; under an RTT cap they are taken to be just within it."""
    cap = request.constraints.max_stage_rtt_ms
    if cap is None or request.links.free:
        return request.links
    links = dict(request.links.links)
    for node in request.nodes:
        links[node.id, new] = links[new, node.id] = Link(cap)
    return LinkMatrix(links)
