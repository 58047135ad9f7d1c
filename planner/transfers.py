"""What moving from one plan to another carries: which layers, from where to where, how many bytes.

Lives here: `Transfer`, `Held` (where the running plan's weights lie) and counting. Not here: which plan is moved to
(`planner.replanning`).

What is counted is weights: a layer's on its device, and the head's and embedding's with the stage that holds them. A
cache is not: it belongs to sequences, which a replan ends. A node that keeps the whole package needs nothing sent; its
bytes are moved (loaded) but not fetched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any

from planner.engine import EngineProfile
from planner.model import ModelSpec
from planner.plan import SplitPlan, StagePlan

Place = tuple[str, str]
"""(node id, device id)."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Layers [layer_start, layer_end) that lie on `target` in the new plan, and on `source` (None: nowhere) before.

    `bytes`: weights, endpoints that come with them included. `fetched`: they have to be sent to the target's node.
    """

    layer_start: int
    layer_end: int
    source: Place | None
    target: Place
    bytes: int
    fetched: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "layer_start": self.layer_start,
            "layer_end": self.layer_end,
            "from": None if self.source is None else list(self.source),
            "to": list(self.target),
            "bytes": self.bytes,
            "fetched": self.fetched,
        }


@dataclass(frozen=True, eq=False)
class Held:
    """Where the weights of a running plan lie. `present`: nodes that are still there; what others held is nowhere."""

    model: ModelSpec
    engine: EngineProfile
    stages: tuple[StagePlan, ...]
    present: frozenset[str]

    def is_in_place(self, place: Place, layer: int) -> bool:
        """Whether that layer's weights lie there."""
        return self.place_of.get(layer) == place

    @cached_property
    def place_of(self) -> dict[int, Place]:
        """Layer -> where it lies, of those that still lie anywhere."""
        return {
            layer: (stage.node, stage.device)
            for stage in self.stages
            for layer in range(stage.layer_start, stage.layer_end)
            if stage.node in self.present
        }

    @cached_property
    def layer_bytes(self) -> tuple[int, ...]:
        """Weight bytes of each layer."""
        return tuple(layer.weight_bytes for layer in self.model.each_layer)

    @property
    def first_bytes(self) -> int:
        """What comes with the first layer: the embedding, unless the engine keeps it in host memory."""
        return 0 if self.engine.embedding_on_host else self.model.embedding_bytes

    @property
    def last_bytes(self) -> int:
        """What comes with the last layer: the head, with a tied embedding's copy."""
        return self.model.head_bytes

    def moved_prefix(self, place: Place) -> tuple[int, ...]:
        """[L + 1]: bytes of layers [0, p) that would have to be moved to `place`, endpoints not included."""
        total, row = 0, [0]
        for layer, size in enumerate(self.layer_bytes):
            total += 0 if self.is_in_place(place, layer) else size
            row.append(total)
        return tuple(row)

    def moved_first(self, place: Place) -> int:
        """Bytes that the first stage brings to `place` beside its layers."""
        return 0 if self.is_in_place(place, 0) else self.first_bytes

    def moved_last(self, place: Place) -> int:
        """The same of the last stage."""
        return 0 if self.is_in_place(place, len(self.layer_bytes) - 1) else self.last_bytes


def transfers(held: Held, new: Sequence[tuple[Place, int, int]], packages: Mapping[str, bool | None]) -> list[Transfer]:
    """What has to be moved for `new`, (place, layer start, layer end) of each stage; `packages`: node -> holds all."""
    moved, last = [], len(held.layer_bytes) - 1
    nodes_before = {layer: place[0] for layer, place in held.place_of.items()}
    for place, start, end in new:
        away = [layer for layer in range(start, end) if not held.is_in_place(place, layer)]
        for _, run in groupby(_with_sources(held, away), key=lambda item: item[2]):
            layers = [(layer, source) for layer, source, _ in run]
            low, high, source = layers[0][0], layers[-1][0] + 1, layers[0][1]
            size = sum(held.layer_bytes[low:high])
            size += held.first_bytes if low == 0 else 0
            size += held.last_bytes if high == last + 1 else 0
            here = nodes_before.get(low) == place[0] or bool(packages.get(place[0]))
            moved.append(Transfer(low, high, source, place, size, not here))
    return moved


def _with_sources(held: Held, layers: Sequence[int]) -> list[tuple[int, Place | None, int]]:
    """(layer, source, number of its run): a run is of adjacent layers with one source."""
    result, number = [], 0
    sources = [held.place_of.get(layer) for layer in layers]
    for index, (layer, source) in enumerate(zip(layers, sources, strict=True)):
        if index and (layers[index - 1] + 1 != layer or sources[index - 1] != source):
            number += 1
        result.append((layer, source, number))
    return result


def places_of(plan: SplitPlan) -> list[tuple[Place, int, int]]:
    """(place, layer start, layer end) of each stage."""
    return [((stage.node, stage.device), stage.layer_start, stage.layer_end) for stage in plan.stages]


def moved_bytes(model: ModelSpec, engine: EngineProfile, old: SplitPlan, new: SplitPlan) -> int:
    """Weight bytes that lie on another device in `new` than in `old`."""
    present = frozenset((*old.nodes, *new.nodes))
    return sum(each.bytes for each in transfers(Held(model, engine, old.stages, present), places_of(new), {}))


def is_contiguous(stages: Sequence[StagePlan], layers: int) -> bool:
    """Whether the stages cover layers [0, layers) in order."""
    ends = all(before.layer_end == after.layer_start for before, after in pairwise(stages))
    return bool(stages) and stages[0].layer_start == 0 and stages[-1].layer_end == layers and ends
