"""From a file's tensors to bytes per layer, the same way for GGUF and safetensors.

A dialect says how names are spelled (`blk.7.ffn_down_exps.weight`, `model.layers.7.mlp.experts.3.down_proj.weight`).
Rules: a layer's bytes are the sum of its tensors'; what one token reads of a mixture of experts is everything but the
expert tensors, plus their share used/count; every tensor outside of the layers is an endpoint.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from meshnode.models.errors import ModelFileError
from meshnode.models.metadata import MAX_LAYERS
from meshnode.models.package import EMBEDDING, OUTPUT, PackageFile, PartBytes
from planner import InvalidPlanInput, LayerSpec, ModelSpec


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: `file` is the index of the file that holds it; `elements` is None where packing hides the count."""

    name: str
    bytes: int
    elements: int | None
    file: int = 0


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a format names its tensors: patterns searched in the name; `layer` captures the layer's number."""

    layer: re.Pattern[str]
    expert: re.Pattern[str]
    embedding: re.Pattern[str]
    head: re.Pattern[str]
    left_out: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture's routing: `used` of `count` experts work on one token. 0 of 0 for a dense model."""

    count: int = 0
    used: int = 0

    def share(self, figure: int) -> int:
        """The part of all experts' `figure` that one token uses, rounded up."""
        return figure if self.count == 0 else -(-figure * self.used // self.count)


@dataclass(slots=True)
class _LayerSum:
    bytes: int = 0
    elements: int = 0
    expert_bytes: int = 0
    expert_elements: int = 0
    is_packed: bool = False


@dataclass(frozen=True, slots=True)
class LayerMemory:
    """What a layer needs besides its weights; shapes as in `planner.LayerSpec`."""

    k_width: int = 0
    v_width: int = 0
    window: int = 0
    state_bytes: int = 0


@dataclass(frozen=True, slots=True)
class WeightTable:
    """All tensors of a package, summed. `is_tied`: there is no tensor for the output head."""

    layers: tuple[LayerSpec, ...]
    embedding_bytes: int
    output_bytes: int
    left_out_bytes: int
    is_tied: bool
    files: tuple[PackageFile, ...]


@dataclass(slots=True)
class _Sums:
    layers: list[_LayerSum]
    embedding_bytes: int = 0
    output_bytes: int = 0
    left_out_bytes: int = 0
    has_head: bool = False


def layer_of(name: str, dialect: Dialect) -> int | None:
    """The layer a tensor belongs to by its name, or None."""
    match = dialect.layer.search(name)
    return int(match[1]) if match else None


def weigh(
    path: str, tensors: Sequence[Tensor], files: Sequence[PackageFile], layer_count: int, dialect: Dialect,
    experts: Experts,
) -> WeightTable:  # fmt: skip
    """Sum the tensors of a package with `layer_count` layers; layers beyond it are left out.

    Raises `ModelFileError` for a layer without any tensor and for a package without a token embedding.
    """
    sums = _Sums([_LayerSum() for _ in range(layer_count)])
    for tensor in tensors:
        _account(tensor, sums, dialect)
    for number, layer in enumerate(sums.layers):
        if layer.bytes == 0:
            expected = f"at least one, as for every of its {layer_count} layers"
            raise ModelFileError(path, f"tensors of layer {number}", "none", expected)
    if sums.embedding_bytes == 0:
        raise ModelFileError(path, "token embedding", "no such tensor", "a model that starts from tokens")
    return WeightTable(
        layers=tuple(_layer_spec(layer, experts) for layer in sums.layers),
        embedding_bytes=sums.embedding_bytes,
        output_bytes=sums.output_bytes,
        left_out_bytes=sums.left_out_bytes,
        is_tied=not sums.has_head,
        files=_files_with_parts(files, tensors, dialect),
    )


def part_of(name: str, dialect: Dialect, layer_count: int = MAX_LAYERS) -> int | None:
    """The part a tensor belongs to by its name: a layer below `layer_count`, `EMBEDDING`, `OUTPUT`, or None if it is
    left out."""
    number = layer_of(name, dialect)
    if dialect.left_out.search(name) or (number is not None and number >= layer_count):
        return None
    if number is not None:
        return number
    return EMBEDDING if dialect.embedding.search(name) else OUTPUT


def parts_in(tensors: Iterable[Tensor], dialect: Dialect) -> tuple[PartBytes, ...]:
    """Bytes by part of some tensors, whatever else the package has."""
    sums: dict[int, int] = {}
    for tensor in tensors:
        part = part_of(tensor.name, dialect)
        if part is not None:
            sums[part] = sums.get(part, 0) + tensor.bytes
    return tuple(PartBytes(part, count) for part, count in sorted(sums.items()))


def table_digest(tensors: Iterable[Tensor]) -> str:
    """A hash of which tensors these are, by name and size; the same whatever order the file has them in."""
    lines = sorted(f"{tensor.name}\t{tensor.bytes}\t{tensor.elements}" for tensor in tensors)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _account(tensor: Tensor, sums: _Sums, dialect: Dialect) -> None:
    """Add one tensor to the sums."""
    part = part_of(tensor.name, dialect, len(sums.layers))
    if part is None:
        sums.left_out_bytes += tensor.bytes
    elif part == EMBEDDING:
        sums.embedding_bytes += tensor.bytes
    elif part == OUTPUT:
        sums.has_head = sums.has_head or dialect.head.search(tensor.name) is not None
        sums.output_bytes += tensor.bytes
    else:
        layer = sums.layers[part]
        layer.bytes += tensor.bytes
        layer.elements += tensor.elements or 0
        layer.is_packed = layer.is_packed or tensor.elements is None
        if dialect.expert.search(tensor.name):
            layer.expert_bytes += tensor.bytes
            layer.expert_elements += tensor.elements or 0


def _layer_spec(layer: _LayerSum, experts: Experts) -> LayerSpec:
    parameters = layer.elements - layer.expert_elements + experts.share(layer.expert_elements)
    return LayerSpec(
        count=1,
        weight_bytes=layer.bytes,
        active_weight_bytes=layer.bytes - layer.expert_bytes + experts.share(layer.expert_bytes),
        active_parameters=None if layer.is_packed else parameters,
    )


def _files_with_parts(
    files: Sequence[PackageFile], tensors: Sequence[Tensor], dialect: Dialect
) -> tuple[PackageFile, ...]:
    held: list[list[Tensor]] = [[] for _ in files]
    for tensor in tensors:
        held[tensor.file].append(tensor)
    return tuple(
        replace(file, holds=parts_in(own, dialect), tensors_digest=table_digest(own))
        for file, own in zip(files, held, strict=True)
    )


def runs(weights: Sequence[LayerSpec], memory: Sequence[LayerMemory]) -> tuple[LayerSpec, ...]:
    """Weights and memory of each layer joined, equal neighbours merged into runs."""
    joined: list[LayerSpec] = []
    for weight, need in zip(weights, memory, strict=True):
        layer = replace(
            weight, k_width=need.k_width, v_width=need.v_width, window=need.window, state_bytes=need.state_bytes
        )
        if joined and replace(joined[-1], count=1) == layer:
            joined[-1] = replace(joined[-1], count=joined[-1].count + 1)
        else:
            joined.append(layer)
    return tuple(joined)


def model_spec(path: str, table: WeightTable, memory: Sequence[LayerMemory], **figures: int | str) -> ModelSpec:
    """The planner's model from a weight table, each layer's memory and the `ModelSpec` fields in `figures`.

    Raises `ModelFileError` where the planner refuses a figure.
    """
    try:
        return ModelSpec(
            layers=runs(table.layers, memory),
            embedding_bytes=table.embedding_bytes,
            output_bytes=table.output_bytes,
            tied_embedding=table.is_tied,
            **figures,  # type: ignore[arg-type]  # checked by ModelSpec itself
        )
    except InvalidPlanInput as error:
        raise ModelFileError(path, error.field, repr(error.found), error.expected) from error
