"""A directory of safetensors files with a `config.json`, read with the `safetensors` library.

What lives here: which files make up the model, and their tensors. What does not: what the config means (`hf_config`),
summing (`tensors`). The format: 8 bytes little-endian header length, a JSON header of tensors (dtype, shape,
data_offsets), then the data. The library proves header and offsets against each other and the file's size; its header
limit of 100 MB is narrowed here, since the header is parsed a second time for the sizes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from pathlib import Path

from meshnode.models.errors import ModelFileError, shown
from meshnode.models.hf_config import describe_config
from meshnode.models.json_file import json_object, read_json_object
from meshnode.models.package import ModelPackage, PackageFile, PackageKind
from meshnode.models.tensors import Dialect, Tensor, layer_of, model_spec, weigh

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
MAX_HEADER_BYTES = 32 * 2**20
MAX_CONFIG_BYTES = 4 * 2**20
MAX_INDEX_BYTES = 64 * 2**20
MAX_SHARDS = 4096
_PACKED_DTYPES = frozenset({"U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F4"})

DIALECT = Dialect(
    layer=re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d{1,6})\."),
    expert=re.compile(r"\.experts\."),
    embedding=re.compile(r"(?:^|\.)(embed_tokens|wte|wpe|word_embeddings|tok_embeddings|embed_in)\."),
    head=re.compile(r"(?:^|\.)(lm_head|output|embed_out)\.weight$"),
    left_out=re.compile(
        r"(?:^|\.)(visual|vision_tower|vision_model|audio_tower|audio_model|multi_modal_projector|mm_projector|mtp)\."
    ),
)


def read_safetensors(ref: str, directory: Path) -> ModelPackage:
    """Read the model in `directory`.

    Raises `ModelFileError`: no config, an index naming a missing shard or a tensor that its shard lacks, a file cut
    short, a hostile header, no layers. Needs the `safetensors` library: call it off the event loop.
    """
    config_path = directory / CONFIG_NAME
    description = describe_config(str(config_path), read_json_object(config_path, MAX_CONFIG_BYTES))
    weight_map, shards = find_shards(directory)
    tensors = [tensor for number, shard in enumerate(shards) for tensor in read_shard(shard, number)]
    _check_index(directory, weight_map, shards, tensors)
    files = [PackageFile(str(shard), shard.stat().st_size) for shard in shards]
    table = weigh(str(directory), tensors, files, len(description.layers), DIALECT, description.experts)
    spec = model_spec(
        str(config_path),
        table,
        description.layers,
        name=directory.resolve().name,
        native_context=description.native_context,
        vocabulary=description.vocabulary,
        hidden_size=description.hidden_size,
        head_count=description.head_count,
        feed_forward_width=description.feed_forward_width,
        attention_width=description.attention_width,
    )
    numbers = [number for tensor in tensors if (number := layer_of(tensor.name, DIALECT)) is not None]
    return ModelPackage(
        ref=ref,
        kind=PackageKind.SAFETENSORS,
        spec=spec,
        architecture=description.architecture,
        files=table.files,
        left_out_bytes=table.left_out_bytes,
        layers_in_files=max(numbers, default=-1) + 1,
    )


def find_shards(directory: Path) -> tuple[dict[str, str], tuple[Path, ...]]:
    """(tensor name -> file name as the index says it, the files in order). Without an index: one file, an empty map.

    Every file named is there. Raises `ModelFileError` naming the shard that is not, or an index that can't be right.
    """
    weight_map = read_index(directory)
    if weight_map is None:
        return {}, (_only_file(directory),)
    shards = tuple(directory / name for name in sorted(set(weight_map.values())))
    for shard in shards:
        if not shard.is_file():
            raise ModelFileError(
                str(directory / INDEX_NAME), "weight_map", f"{shard.name}, and no such file", "its shard"
            )
    return weight_map, shards


def read_index(directory: Path) -> dict[str, str] | None:
    """The index's `weight_map`, checked, or None where the directory has no index. Raises `ModelFileError`."""
    path = directory / INDEX_NAME
    if not path.exists():
        return None
    weight_map = read_json_object(path, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFileError(str(path), "weight_map", shown(weight_map), "an object of tensor names and file names")
    checked: dict[str, str] = {}
    for tensor, name in weight_map.items():
        # A name with a directory in it could lead out of the package.
        if not isinstance(name, str) or not name.endswith(".safetensors") or Path(name).name != name or "\0" in name:
            raise ModelFileError(str(path), f"weight_map of {shown(tensor)}", shown(name), "a .safetensors file name")
        checked[tensor] = name
    if len(set(checked.values())) > MAX_SHARDS:
        found = f"{len(set(checked.values()))} files"
        raise ModelFileError(str(path), "weight_map", found, f"at most {MAX_SHARDS}")
    return checked


def read_shard(path: Path, number: int) -> list[Tensor]:
    """The tensors of one file, with `number` as their file index. Raises `ModelFileError`."""
    header_bytes = _header(path)
    _let_library_check(path, header_bytes)
    header = json_object(header_bytes, str(path), "header")
    return [_tensor(name, entry, number) for name, entry in header.items() if name != "__metadata__"]


def _only_file(directory: Path) -> Path:
    if (directory / SINGLE_NAME).is_file():
        return directory / SINGLE_NAME
    files = sorted(directory.glob("*.safetensors"))
    if len(files) != 1:
        found = f"{len(files)} .safetensors files and no {INDEX_NAME}"
        raise ModelFileError(str(directory), "files", found, f"an index, {SINGLE_NAME}, or a single file")
    return files[0]


def _header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            size = path.stat().st_size
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > size - 8:
                found = f"the file ends at byte {size}"
                expected = f"a header of {length} bytes" if len(prefix) == 8 else "8 bytes of header length"
                raise ModelFileError(str(path), "header length", found, expected)
            if length > MAX_HEADER_BYTES:
                raise ModelFileError(str(path), "header length", str(length), f"at most {MAX_HEADER_BYTES}")
            return file.read(length)
    except OSError as error:
        raise ModelFileError(str(path), "file", str(error.strerror or error), "a readable file") from error


def _let_library_check(path: Path, header: bytes) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            return
    except SafetensorError as error:
        if "not fully covered" in str(error):  # the header is sound and the file's size does not fit it
            raise _size_error(path, header) from error
        raise ModelFileError(str(path), "header", str(error), "a header the safetensors library accepts") from error
    except (OSError, ValueError) as error:
        raise ModelFileError(str(path), "file", str(error), "a file the safetensors library opens") from error


def _size_error(path: Path, header: bytes) -> ModelFileError:
    size, start = path.stat().st_size, 8 + len(header)
    ends: list[tuple[int, str]] = []
    for name, entry in json_object(header, str(path), "header").items():
        if name != "__metadata__" and isinstance(entry, dict) and isinstance(entry.get("data_offsets"), list):
            ends.append((start + int(entry["data_offsets"][1]), name))
    found = f"the file ends at byte {size}"
    for end, name in sorted(ends):
        if end > size:
            return ModelFileError(str(path), f"tensor {shown(name)}", found, f"its bytes up to {end}")
    last = max(ends, default=(start, ""))[0]
    return ModelFileError(str(path), "file size", found, f"byte {last}, where the last tensor ends")


def _tensor(name: str, entry: object, number: int) -> Tensor:
    """One header entry; the library has accepted its shape. Packed integers hide how many weights there are."""
    if not isinstance(entry, dict):
        raise TypeError(f"the safetensors library accepted {entry!r} as a tensor")
    start, end = entry["data_offsets"]
    elements = None if entry["dtype"] in _PACKED_DTYPES else prod(entry["shape"])
    return Tensor(name, end - start, elements, number)


def _check_index(
    directory: Path, weight_map: Mapping[str, str], shards: tuple[Path, ...], tensors: list[Tensor]
) -> None:
    where = {tensor.name: shards[tensor.file].name for tensor in tensors}
    for name, shard in weight_map.items():
        if where.get(name) != shard:
            found = f"{shard}, which does not hold it"
            raise ModelFileError(str(directory / INDEX_NAME), f"weight_map of {shown(name)}", found, "its shard")
