"""Who coordinates a model's split: every node answers for itself from its own view, and all come to the same answer.

What lives here: `choose_coordinator`. What does not: what a coordinator does (`meshnode.split.pursuit`), and what makes
two coordinators harmless while views still differ (`meshnode.split.fence`).

The rule: among the alive workers that want the model and hold its complete package, the one with the largest host
budget (token embedding and host compute lie there), then the lowest id. One that coordinates already, as its offer
says, comes before: the one with the highest generation. A profile has no files, so whoever wants it can plan, and only
plan. A client never coordinates: it uses the mesh and gives no compute.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshnode.membership.view import MeshView, NodeView, Status
from meshnode.readiness.candidate import model_in
from proto.ids import NodeId
from proto.parts import ModelOffer, Role


@dataclass(frozen=True, slots=True)
class Chosen:
    """`node` coordinates; `planning_only` where the model is a profile. `runs_already`: its offer says so."""

    node: NodeId
    planning_only: bool
    runs_already: bool


@dataclass(frozen=True, slots=True)
class NoSource:
    """Somebody wants the model and nobody alive holds all of it. `holders`: (node, cached bytes or None: unknown) of
    those that hold a part; `speaker` is the one that reports it, by the same rule among those that want it."""

    speaker: NodeId
    holders: tuple[tuple[NodeId, int | None], ...]


@dataclass(frozen=True, slots=True)
class NotWanted:
    """No alive worker wants the model."""


Choice = Chosen | NoSource | NotWanted


def choose_coordinator(view: MeshView, model: str) -> Choice:
    """The choice for `model` in `view`."""
    wanting = [entry for entry in _offers_of(view, model) if entry[1].wanted and entry[0].role is Role.WORKER]
    if not wanting:
        return NotWanted()
    able = [entry for entry in wanting if entry[1].complete or entry[1].is_profile]
    if able:
        node, entry = min(able, key=_rank)
        return Chosen(node.node, entry.is_profile, entry.generation is not None)
    holders = tuple(
        (node.node, entry.cached_bytes) for node, entry in _offers_of(view, model) if entry.cached_bytes != 0
    )
    return NoSource(min(wanting, key=_rank)[0].node, holders)


def can_coordinate(view: MeshView, model: str, node: NodeId) -> bool:
    """Whether `node` is alive, wants `model` and holds all of it: then one gives way to it that it has fenced off."""
    shown = view.nodes.get(node)
    if shown is None or shown.status is not Status.ALIVE or shown.role is not Role.WORKER or shown.offer is None:
        return False
    entry = model_in(shown.offer, model)
    return entry is not None and entry.wanted and (entry.complete or entry.is_profile)


def advertised_generation(view: MeshView, model: str) -> int:
    """The highest generation that any alive node coordinates `model` by; 0 where none does."""
    return max((entry.generation or 0 for _, entry in _offers_of(view, model)), default=0)


def _offers_of(view: MeshView, model: str) -> list[tuple[NodeView, ModelOffer]]:
    found = []
    for node in view.alive():
        entry = None if node.offer is None else model_in(node.offer, model)
        if entry is not None:
            found.append((node, entry))
    return found


def _rank(entry: tuple[NodeView, ModelOffer]) -> tuple[bool, int, bool, int, NodeId]:
    """Least first: who runs it (newest generation), then who has files, then the largest host budget, then the id."""
    node, model = entry
    assert node.offer is not None, "only nodes with an offer are listed"
    generation = model.generation
    return (generation is None, -(generation or 0), model.is_profile, -node.offer.host_usable_bytes, node.node)
