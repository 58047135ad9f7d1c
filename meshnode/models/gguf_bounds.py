"""A walk over a GGUF header that proves every length in it before the `gguf` library maps the file.

Why: the library checks no bounds. A count of 2^60 makes it loop and allocate until the machine dies, a file cut in half
gives a numpy reshape error, and a vocabulary of 262,144 tokens becomes a million small arrays (18 s and 700 MB here).
The walk names the key or tensor that doesn't fit, and tells the reader which arrays it may skip.

Format: ggml `docs/gguf.md`, versions 2 and 3. Header: magic, version, tensor count, key count; then keys (name, type,
value), tensor infos (name, dimensions, type, offset), padding to the alignment, tensor data.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from meshnode.models.errors import ModelFileError, shown

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 65_536
MAX_TENSORS = 131_072
MAX_NAME_BYTES = 65_535
MAX_ARRAY_ITEMS = 1 << 24
"""Far above any vocabulary (the largest known have 262,144 tokens)."""
MAX_DIMENSIONS = 4
"""As llama.cpp has it (GGML_MAX_DIMS)."""
_MAX_ELEMENTS = 1 << 56
_LONG_ARRAY_ITEMS = 8_192
"""Arrays longer than this belong to tokenizers; per-layer arrays are at most 4,096 long."""

_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_ALIGNMENT_KEY, _DEFAULT_ALIGNMENT = "general.alignment", 32


@dataclass(frozen=True, slots=True)
class LongArray:
    """An array that need not be read: `bytes` long with its own header, `items` of type `item_type`."""

    bytes: int
    items: int
    item_type: int


@dataclass(frozen=True, slots=True)
class GgufBounds:
    """A header whose every length fits the file. `long_arrays` are by the offset of their value; `data_offset` is where
    tensor data begins; `array_items` is how many items each array key has."""

    size_bytes: int
    data_offset: int
    long_arrays: Mapping[int, LongArray]
    array_items: Mapping[str, int]


@dataclass(slots=True)
class _Cursor:
    """A position in the file. Every step forward is checked against the end and blames `what` if it does not fit."""

    path: str
    view: mmap.mmap
    order: str = "<"
    position: int = 0

    def skip(self, count: int, what: str) -> int:
        """Step over `count` bytes; returns where they began."""
        start = self.position
        if count > len(self.view) - start:
            found = f"the file ends at byte {len(self.view)}"
            raise ModelFileError(self.path, what, found, f"{count} bytes from byte {start}")
        self.position = start + count
        return start

    def u32(self, what: str) -> int:
        return int(struct.unpack_from(self.order + "I", self.view, self.skip(4, what))[0])

    def u64(self, what: str, maximum: int) -> int:
        value = int(struct.unpack_from(self.order + "Q", self.view, self.skip(8, what))[0])
        if value > maximum:
            raise ModelFileError(self.path, what, str(value), f"at most {maximum}")
        return value

    def name(self, what: str) -> str:
        length = self.u64(f"length of {what}", MAX_NAME_BYTES)
        start = self.skip(length, what)
        raw = self.view[start : self.position]
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelFileError(self.path, what, shown(raw), "UTF-8 text") from error


@dataclass(slots=True)
class _Walk:
    cursor: _Cursor
    alignment: int = _DEFAULT_ALIGNMENT
    keys: set[str] = field(default_factory=set)
    long_arrays: dict[int, LongArray] = field(default_factory=dict)
    array_items: dict[str, int] = field(default_factory=dict)
    total_items: int = 0


def check_gguf_bounds(path: Path) -> GgufBounds:
    """Walk the header of the GGUF file at `path`.

    Raises `ModelFileError` naming the first field that is impossible, or, for a file cut short, the first tensor (in
    file order) whose bytes exceed it. Needs the `gguf` package for the block sizes of tensor types.
    """
    try:
        with path.open("rb") as file:
            if path.stat().st_size < len(MAGIC) + 20:
                raise ModelFileError(str(path), "header", f"{path.stat().st_size} bytes", "a GGUF file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                return _walk(_Cursor(str(path), view))
    except OSError as error:
        raise ModelFileError(str(path), "file", str(error.strerror or error), "a readable GGUF file") from error


def _walk(cursor: _Cursor) -> GgufBounds:
    tensor_count, key_count = _preamble(cursor)
    walk = _Walk(cursor)
    for number in range(key_count):
        _walk_key(walk, number)
    tensors = [_walk_tensor(walk, number) for number in range(tensor_count)]
    data_offset = -(-cursor.position // walk.alignment) * walk.alignment
    _check_data(cursor, tensors, data_offset, walk.alignment)
    return GgufBounds(len(cursor.view), data_offset, walk.long_arrays, walk.array_items)


def _preamble(cursor: _Cursor) -> tuple[int, int]:
    magic = cursor.view[cursor.skip(4, "magic") : 4]
    if magic != MAGIC:
        raise ModelFileError(cursor.path, "magic", shown(magic), f"{MAGIC!r}, the beginning of every GGUF file")
    version = cursor.u32("version")
    if version & 0xFFFF == 0:  # written on a machine of the other byte order
        cursor.order = ">"
        version = int.from_bytes(version.to_bytes(4, "little"), "big")
    if version not in VERSIONS:
        raise ModelFileError(cursor.path, "version", str(version), " or ".join(map(str, VERSIONS)))
    return cursor.u64("tensor count", MAX_TENSORS), cursor.u64("key count", MAX_KEYS)


def _walk_key(walk: _Walk, number: int) -> None:
    cursor = walk.cursor
    key = cursor.name(f"name of key {number}")
    if key in walk.keys:
        raise ModelFileError(cursor.path, f"key {shown(key)}", "it a second time", "each key once")
    walk.keys.add(key)
    what = f"key {shown(key)}"
    value_type = cursor.u32(f"type of {what}")
    if value_type == _ARRAY:
        _walk_array(walk, key, what)
    elif value_type == _STRING:
        cursor.skip(cursor.u64(f"length of {what}", len(cursor.view)), what)
    elif value_type in _SCALAR_BYTES:
        start = cursor.skip(_SCALAR_BYTES[value_type], what)
        if key == _ALIGNMENT_KEY:
            walk.alignment = _alignment(cursor, value_type, start)
    else:
        raise ModelFileError(cursor.path, f"type of {what}", str(value_type), "a GGUF value type from 0 to 12")


def _alignment(cursor: _Cursor, value_type: int, start: int) -> int:
    value = int(struct.unpack_from(cursor.order + "I", cursor.view, start)[0]) if value_type == _UINT32 else 0
    if value == 0 or value & (value - 1) or value > 1 << 20:
        raise ModelFileError(cursor.path, _ALIGNMENT_KEY, str(value), "a power of two up to 1048576, as uint32")
    return value


def _walk_array(walk: _Walk, key: str, what: str) -> None:
    cursor, start = walk.cursor, walk.cursor.position
    item_type = cursor.u32(f"item type of {what}")
    items = cursor.u64(f"length of {what}", MAX_ARRAY_ITEMS)
    walk.total_items += items
    if walk.total_items > MAX_ARRAY_ITEMS:
        raise ModelFileError(cursor.path, what, f"{walk.total_items} array items so far", f"at most {MAX_ARRAY_ITEMS}")
    if item_type == _STRING:
        _skip_strings(cursor, items, what)
    elif item_type in _SCALAR_BYTES:
        cursor.skip(items * _SCALAR_BYTES[item_type], what)
    else:
        raise ModelFileError(cursor.path, f"item type of {what}", str(item_type), "a number or text type")
    walk.array_items[key] = items
    if items > _LONG_ARRAY_ITEMS:
        walk.long_arrays[start] = LongArray(cursor.position - start, items, item_type)


def _skip_strings(cursor: _Cursor, items: int, what: str) -> None:
    """The hot loop of the walk: a vocabulary's texts, one by one."""
    length_at = struct.Struct(cursor.order + "Q").unpack_from
    view, position, end = cursor.view, cursor.position, len(cursor.view)
    for _ in range(items):
        if position + 8 > end:
            break
        position += 8 + length_at(view, position)[0]
    else:
        cursor.skip(position - cursor.position, what)
        return
    raise ModelFileError(cursor.path, what, f"the file ends at byte {end}", f"{items} texts")


@dataclass(frozen=True, slots=True)
class _TensorExtent:
    name: str
    offset: int
    bytes: int


def _walk_tensor(walk: _Walk, number: int) -> _TensorExtent:
    from gguf.constants import GGML_QUANT_SIZES

    cursor = walk.cursor
    name = cursor.name(f"name of tensor {number}")
    what = f"tensor {shown(name)}"
    dimension_count = cursor.u32(f"dimensions of {what}")
    if not 1 <= dimension_count <= MAX_DIMENSIONS:
        raise ModelFileError(cursor.path, f"dimensions of {what}", str(dimension_count), f"1 to {MAX_DIMENSIONS}")
    elements = row = 1
    for dimension in range(dimension_count):
        length = cursor.u64(f"dimension {dimension} of {what}", _MAX_ELEMENTS)
        row = length if dimension == 0 else row
        elements *= length
    if not 0 < elements <= _MAX_ELEMENTS:
        raise ModelFileError(cursor.path, f"size of {what}", f"{elements} elements", f"1 to {_MAX_ELEMENTS}")
    type_number = cursor.u32(f"type of {what}")
    sizes = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}.get(type_number)
    if sizes is None:
        raise ModelFileError(cursor.path, f"type of {what}", str(type_number), "a type that this gguf package knows")
    block_elements, block_bytes = sizes
    if row % block_elements:
        raise ModelFileError(cursor.path, f"row of {what}", str(row), f"a multiple of its block, {block_elements}")
    return _TensorExtent(name, cursor.u64(f"offset of {what}", 1 << 62), elements // block_elements * block_bytes)


def _check_data(cursor: _Cursor, tensors: list[_TensorExtent], data_offset: int, alignment: int) -> None:
    """Every tensor lies in the file; none shares bytes with another (offsets are then distinct and in step)."""
    end_of_last = 0
    for tensor in sorted(tensors, key=lambda extent: (extent.offset, extent.name)):
        what, start = f"tensor {shown(tensor.name)}", data_offset + tensor.offset
        if tensor.offset % alignment or tensor.offset < end_of_last:
            expected = f"a multiple of {alignment} from {end_of_last} on"
            raise ModelFileError(cursor.path, f"offset of {what}", str(tensor.offset), expected)
        end_of_last = tensor.offset + tensor.bytes
        if start + tensor.bytes > len(cursor.view):
            found = f"the file ends at byte {len(cursor.view)}"
            raise ModelFileError(cursor.path, what, found, f"its bytes from {start} to {start + tensor.bytes}")
