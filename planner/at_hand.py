"""What of a stage lies on its node's disk already, and what has to be fetched there before it can load.

Lives here: `missing_bytes`, `known_bytes`. Not here: moving a running plan's weights (`planner.transfers`), fetching
(the daemon).

A node that has the package needs nothing. One that lacks it may still have whole layers, from an earlier load; a layer
of which it has a part counts as missing whole, since no engine is given parts. The head goes with the last layer.
"""

from __future__ import annotations

from planner.model import ModelSpec
from planner.nodes import NodeSpec


def missing_bytes(
    node: NodeSpec, model: ModelSpec, layer_start: int, layer_end: int, endpoint_bytes: int
) -> int | None:  # fmt: skip
    """Weights of layers [layer_start, layer_end), and `endpoint_bytes` that lie with them, that `node` lacks; None
    where it is unknown what it has. Where only a sum is told of what it has (a nodes file), at most what lacks in all.
    """
    if node.has_package:
        return 0
    if node.cached_bytes is None:
        return None
    sizes = [layer.weight_bytes for layer in model.each_layer]
    lacking = sum(sizes[layer] for layer in range(layer_start, layer_end) if not _has(node, layer))
    is_last = layer_end == len(sizes)
    lacking += 0 if is_last and _has(node, len(sizes) - 1) else endpoint_bytes
    return lacking if node.has_package is False else min(lacking, max(0, model.file_bytes - node.cached_bytes))


def known_bytes(node: NodeSpec, model: ModelSpec) -> int | None:
    """Bytes of the model that `node` has, layers from an earlier load included; None where that is unknown."""
    if node.cached_bytes is None or node.has_package:
        return node.cached_bytes
    sizes = [layer.weight_bytes for layer in model.each_layer]
    layers = sum(size for layer, size in enumerate(sizes) if _has(node, layer))
    head = model.output_bytes if _has(node, len(sizes) - 1) else 0
    return min(model.file_bytes, node.cached_bytes + layers + head)


def _has(node: NodeSpec, layer: int) -> bool:
    return any(start <= layer < end for start, end in node.layers_at_hand)
