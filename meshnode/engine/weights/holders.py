"""Members that have a model's files and may give of them to a plan's worker, though they do not coordinate it.

What lives here: `nearest_holder`, which the worker asks; `shared_weights`, by which the other one admits. What does
not: giving (`meshnode.engine.weights.source`) and fetching (`meshnode.engine.weights.fetch`).
"""

from __future__ import annotations

from typing import Final

from meshnode.engine.weights.cache import LocalPackage
from meshnode.engine.weights.source import StageWeights
from meshnode.membership.view import MeshView, NodeView, Status
from meshnode.tunnel import Opening
from proto.ids import NodeId
from proto.parts import ModelOffer, Role

NEARER_MS: Final = 1.0
"""Within one network RTTs differ by chance: so much is a difference, and worth another node's work."""


def nearest_holder(view: MeshView, model: str, manifest: str, coordinator: NodeId) -> NodeId | None:
    """The linked worker with the complete package `manifest` that is nearer than the coordinator; None where there is
    none: what is not measured is not nearer."""
    bound = _rtt_ms(view.nodes.get(coordinator))
    found = [
        (rtt_ms, node.node)
        for node in view.alive()
        if node.node not in (view.local, coordinator) and node.role is Role.WORKER and node.link is not None
        if (offered := _offered(node, model)) is not None and offered.complete and offered.manifest == manifest
        if (rtt_ms := _rtt_ms(node)) is not None and bound is not None and rtt_ms < bound - NEARER_MS
    ]
    return min(found)[1] if found else None


def shared_weights(
    view: MeshView, local: LocalPackage | None, worker: NodeId, opening: Opening
) -> StageWeights | str:  # fmt: skip
    """All of the package that is `local`, for a worker of a plan that its coordinator tells the mesh of, of the very
    same package; or why it gets nothing."""
    fence = opening.fence
    asker = view.nodes.get(worker)
    coordinator = None if fence is None else view.nodes.get(NodeId(fence.coordinator))
    if fence is None or asker is None or asker.role is not Role.WORKER:
        return "tensors are for workers of a plan"
    if local is None:
        return f"this node has no files of {opening.model[:100]}"
    offered = (
        None if coordinator is None or coordinator.status is not Status.ALIVE else _offered(coordinator, opening.model)
    )
    if offered is None or offered.generation != fence.generation:
        return f"fenced: its coordinator tells of no such plan of {opening.model[:100]}"
    if offered.manifest != local.manifest:
        return "the files here are of another package"
    return StageWeights(local.paths, local.manifest, ((0, local.package.layers_in_files),), head=True)


def _offered(node: NodeView, model: str) -> ModelOffer | None:
    offer = node.offer
    return None if offer is None else next((each for each in offer.models if each.ref == model), None)


def _rtt_ms(node: NodeView | None) -> float | None:
    return None if node is None or node.rtt is None else node.rtt.min_ms
