"""GGUF files read with the `gguf` library: metadata, tensors, and sets of several parts.

What lives here: reading files and putting a set together. What does not: proving lengths (`gguf_bounds`), what the
metadata means for memory (`gguf_architecture`), summing tensors (`tensors`). Runs in a child process (`worker`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshnode.models.errors import ModelFileError, shown
from meshnode.models.gguf_architecture import describe
from meshnode.models.gguf_bounds import GgufBounds, check_gguf_bounds
from meshnode.models.metadata import MAX_LAYERS, Metadata
from meshnode.models.package import ModelPackage, PackageFile, PackageKind
from meshnode.models.tensors import Dialect, Tensor, model_spec, weigh

if TYPE_CHECKING:
    import numpy.typing as npt
    from gguf import GGUFReader

PART_NAME = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
MAX_PARTS = 4096
_TOKENS_KEY = "tokenizer.ggml.tokens"

DIALECT = Dialect(
    layer=re.compile(r"^blk\.(\d{1,6})\."),
    expert=re.compile(r"^blk\.\d+\.ffn_(gate|up|down|gate_up)(_exps|\.\d+)\."),
    embedding=re.compile(r"^(token_embd|token_embd_norm|token_types|position_embd|per_layer_)"),
    head=re.compile(r"^output\.weight$"),
    left_out=re.compile(r"^(v|mm|a|mtp)\."),
)
"""Names of llama.cpp's converters (`gguf.constants.TENSOR_NAMES`). Router, biases and shared experts are read for every
token and so are no `expert` tensors."""


@dataclass(frozen=True, slots=True)
class GgufFile:
    """One file as read: metadata without long arrays, its tensors, and how many items each array key has."""

    path: Path
    size_bytes: int
    metadata: Metadata
    tensors: tuple[Tensor, ...]
    array_items: dict[str, int]


def part_paths(path: Path) -> tuple[Path, ...]:
    """All parts of the set that `path` belongs to, in order, whether they exist or not; just `path` for a single
    file."""
    match = PART_NAME.match(path.name)
    if match is None:
        return (path,)
    count = int(match["count"])
    if not 1 <= count <= MAX_PARTS or not 1 <= int(match["number"]) <= count:
        raise ModelFileError(str(path), "file name", path.name, f"part 1 to N of N, N at most {MAX_PARTS}")
    return tuple(path.with_name(f"{match['stem']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1))


def model_name(path: Path) -> str:
    """What a GGUF file or set is called: its file name without part number and suffix."""
    match = PART_NAME.match(path.name)
    return match["stem"] if match else path.name.removesuffix(".gguf")


def read_gguf(ref: str, paths: Sequence[Path]) -> ModelPackage:
    """Read a GGUF file, or all parts of a set in order.

    Raises `ModelFileError`: a missing part, a part of another set, a file cut short, no layers, impossible metadata.
    Takes seconds for large vocabularies and needs the `gguf` library: call it off the event loop.
    """
    for number, path in enumerate(paths, start=1):
        if not path.is_file():
            raise ModelFileError(str(path), f"part {number} of {len(paths)}", "no such file", "all parts of the set")
    parts = [read_gguf_file(path, number) for number, path in enumerate(paths)]
    _check_set(parts)
    return _package(ref, parts)


def read_gguf_file(path: Path, number: int = 0) -> GgufFile:
    """Read one file; `number` becomes its tensors' file index. Raises `ModelFileError`."""
    bounds = check_gguf_bounds(path)
    try:
        reader = _open(path, bounds)
        values = {name: field.contents() for name, field in reader.fields.items() if field.data}
        tensors = tuple(
            Tensor(tensor.name, int(tensor.n_bytes), int(tensor.n_elements), number) for tensor in reader.tensors
        )
    except (ValueError, LookupError, ArithmeticError, TypeError, OSError) as error:
        # The library names no exception of its own; these are what it and numpy raise over a file's content.
        raise ModelFileError(str(path), "GGUF file", f"{type(error).__name__}: {error}", "one the gguf library reads") \
            from error  # fmt: skip
    return GgufFile(path, bounds.size_bytes, Metadata(str(path), values), tensors, dict(bounds.array_items))


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor's bytes are in a file."""

    name: str
    path: Path
    offset: int
    size_bytes: int


def tensor_places(paths: Sequence[Path]) -> tuple[TensorPlace, ...]:
    """Every tensor of a set's parts, in the files' order. Raises `ModelFileError`. Call it off the event loop."""
    places: list[TensorPlace] = []
    for path in paths:
        reader = _open(path, check_gguf_bounds(path))
        places += [
            TensorPlace(tensor.name, path, int(tensor.data_offset), int(tensor.n_bytes)) for tensor in reader.tensors
        ]
    return tuple(places)


def _open(path: Path, bounds: GgufBounds) -> GGUFReader:
    """The library's reader, told to step over long arrays instead of making a million small ones of them.

    `_get_field_parts` is the library's own, not its interface: should a release rename it, reading is slow again and
    nothing else changes (a test tells).
    """
    from gguf import GGUFReader, GGUFValueType

    class HeaderReader(GGUFReader):
        def _get_field_parts(
            self, orig_offs: int, raw_type: int
        ) -> tuple[int, list[npt.NDArray[Any]], list[int], list[GGUFValueType]]:
            array = bounds.long_arrays.get(int(orig_offs))
            if array is None or raw_type != GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            return array.bytes, [], [], [GGUFValueType.ARRAY, GGUFValueType(array.item_type)]

    return HeaderReader(path)


def _check_set(parts: Sequence[GgufFile]) -> None:
    """Every part says the same count and its own number, and together they have all tensors (`split.*` keys)."""
    if len(parts) == 1 and not parts[0].metadata.has("split.count"):
        return
    for number, part in enumerate(parts):
        count = part.metadata.whole("split.count", minimum=1, maximum=MAX_PARTS)
        if count != len(parts):
            raise ModelFileError(str(part.path), "split.count", str(count), f"{len(parts)}, as the file's name says")
        found = part.metadata.whole("split.no", maximum=MAX_PARTS)
        if found != number:
            raise ModelFileError(str(part.path), "split.no", str(found), f"{number}: parts count from 0")
    expected = parts[0].metadata.whole("split.tensors.count", maximum=1 << 31)
    together = sum(len(part.tensors) for part in parts)
    if together != expected:
        raise ModelFileError(str(parts[0].path), "split.tensors.count", f"{together} in all parts", f"{expected}")


def _package(ref: str, parts: Sequence[GgufFile]) -> ModelPackage:
    first = parts[0]
    architecture = first.metadata.text("general.architecture")
    if first.metadata.text("general.type", "model") != "model":
        found = first.metadata.text("general.type", "model")
        raise ModelFileError(str(first.path), "general.type", shown(found), "'model' (an adapter or projector is none)")
    metadata = Metadata(first.metadata.path, first.metadata.values, prefix=architecture + ".")
    blocks = metadata.whole("block_count", minimum=1, maximum=MAX_LAYERS)
    ahead = metadata.whole("nextn_predict_layers", 0, maximum=MAX_LAYERS)
    if ahead >= blocks:
        expected = f"less than the {blocks} of block_count"
        raise ModelFileError(metadata.path, architecture + ".nextn_predict_layers", str(ahead), expected)
    tensors = [tensor for part in parts for tensor in part.tensors]
    if not tensors:
        raise ModelFileError(str(first.path), "tensor count", "0", "a model with tensors")
    description = describe(architecture, metadata, blocks - ahead, [tensor.name for tensor in tensors])
    files = [PackageFile(str(part.path), part.size_bytes) for part in parts]
    table = weigh(str(first.path), tensors, files, blocks - ahead, DIALECT, description.experts)
    spec = model_spec(
        str(first.path),
        table,
        description.layers,
        name=model_name(first.path),
        native_context=metadata.whole("context_length", 0, maximum=1 << 32),
        vocabulary=first.array_items.get(_TOKENS_KEY) or metadata.whole("vocab_size", 0, maximum=1 << 28),
        hidden_size=metadata.whole("embedding_length", minimum=1),
        head_count=metadata.largest("attention.head_count"),
        feed_forward_width=description.feed_forward_width,
        attention_width=description.attention_width,
    )
    return ModelPackage(
        ref=ref,
        kind=PackageKind.GGUF,
        spec=spec,
        architecture=architecture,
        files=table.files,
        left_out_bytes=table.left_out_bytes,
        layers_in_files=blocks,
        notes=description.notes,
    )
