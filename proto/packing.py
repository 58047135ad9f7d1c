"""From bytes to a checked shape and back: the one place where msgpack is read.

What lives here: `pack` and `unpack`. What does not: which message may stand where (`proto.codec`). Called by the
codec, credentials, tokens, revocations, and by the daemon's state files.

Reading takes two steps. msgpack turns bytes into plain values under limits (text keys only, no extension types, bounded
arrays and maps, no key twice); msgspec then turns plain values into a frozen struct whose annotations bound every
field. Nothing half-valid ever becomes an object: each failure is a `WireError` that names the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NoReturn, TypeVar

import msgpack
import msgspec

from proto.errors import WireError

S = TypeVar("S", bound=msgspec.Struct)

MAX_ARRAY_LENGTH: Final = 4096
MAX_MAP_LENGTH: Final = 128
SECRET_FIELDS: Final = frozenset({"token", "secret", "private_key"})
"""Fields whose content no error may repeat, whatever is wrong with it."""

_LONGEST_SHOWN = 48
_PATH_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
_GOT = re.compile(r"^Expected `?(?P<expected>[^,`]+)`?(?P<more>[^,]*), got `?(?P<found>.+?)`?$")
_MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]+)`$")


def pack(value: msgspec.Struct) -> bytes:
    """`value` as a msgpack map, its tag (where it has one) as the first key; as an array where its shape is one."""
    plain = msgspec.to_builtins(value, builtin_types=(bytes,))
    packed: bytes = msgpack.packb(plain, use_bin_type=True)
    return packed


def unpack(data: bytes, shape: type[S], name: str, max_bytes: int) -> S:
    """`data` as a `shape`, or `WireError` about `name`: oversize, no msgpack, or not of this shape."""
    if len(data) > max_bytes:
        raise WireError(name, "", f"{len(data)} bytes", f"at most {max_bytes} bytes")
    plain = _plain(data, name, shape.__struct_config__.array_like)
    try:
        return msgspec.convert(plain, shape, strict=True)
    except msgspec.ValidationError as error:
        raise _named(str(error), plain, name, shape) from error


def _plain(data: bytes, name: str, as_array: bool) -> dict[str, object] | list[object]:
    try:
        plain = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_without_duplicates,
            ext_hook=_no_extensions,
            max_ext_len=0,
            max_array_len=MAX_ARRAY_LENGTH,
            max_map_len=MAX_MAP_LENGTH,
        )
    except _Forbidden as error:
        raise WireError(name, error.field, error.found, error.expected) from error
    except ValueError as error:
        # msgpack's own errors (format, depth, limits, extra bytes, broken UTF-8) are all ValueErrors.
        raise WireError(name, "", _readable(error), f"one complete msgpack {_container(as_array)}") from error
    if not isinstance(plain, list if as_array else dict):
        raise WireError(name, "", _described(plain), f"a msgpack {_container(as_array)}")
    checked: dict[str, object] | list[object] = plain
    return checked


def _container(as_array: bool) -> str:
    return "array" if as_array else "map"


class _Forbidden(ValueError):
    """Valid msgpack that this wire does not allow."""

    def __init__(self, field: str, found: str, expected: str) -> None:
        super().__init__(found)
        self.field = field
        self.found = found
        self.expected = expected


def _without_duplicates(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    pairs = list(pairs)
    unique = dict(pairs)
    if len(unique) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Forbidden(_shown_key(twice), "the key twice", "each key once")
    return unique


def _no_extensions(code: int, data: bytes) -> NoReturn:
    raise _Forbidden("", f"extension type {code}", "plain msgpack types only")


def _named(problem: str, plain: object, name: str, shape: type[msgspec.Struct]) -> WireError:
    """msgspec's sentence taken apart: the field's path, what stands there, what it should be."""
    if " - at key in `$" in problem:
        return WireError(name, "", "a key that is no text", "text keys only")
    text, _, path = problem.partition(" - at `$")
    steps = [match.group(1) or int(match.group(2)) for match in _PATH_STEP.finditer(path.rstrip("`"))]
    field = _field_path(path.rstrip("`"), steps, shape)
    if missing := _MISSING.match(text):
        return WireError(name, f"{field}.{missing['field']}".lstrip("."), "nothing", "this required field")
    secret = not SECRET_FIELDS.isdisjoint([*steps, field])
    if got := _GOT.match(text):
        found = f"length {got['found']}" if got["found"].isdigit() else got["found"]
        return WireError(name, field, found, f"{got['expected']}{got['more']}")
    expected = text.removeprefix("Expected ").replace("`", "")
    if text.startswith("Invalid enum value"):
        expected = "one of the values this version knows"
    return WireError(name, field, "a secret" if secret else _described(_at(plain, steps)), expected)


def _field_path(path: str, steps: Sequence[str | int], shape: type[msgspec.Struct]) -> str:
    """`nonce`, `parts[3].kind`; in a shape that is an array on the wire, the first index by its field's name."""
    first = steps[0] if steps else None
    if shape.__struct_config__.array_like and isinstance(first, int):
        return msgspec.structs.fields(shape)[first].name + path.removeprefix(f"[{first}]")
    return path.removeprefix(".")


def _at(plain: object, steps: Sequence[str | int]) -> object:
    for step in steps:
        if isinstance(plain, dict):
            plain = plain.get(step)
        elif isinstance(plain, list) and isinstance(step, int):
            plain = plain[step]
        else:
            return None
    return plain


def _described(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, str):
        return repr(value) if len(value) <= _LONGEST_SHOWN else f"a text of {len(value)} characters"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, dict):
        return f"a map of {len(value)}"
    return repr(value)


def _shown_key(key: object) -> str:
    return key[:_LONGEST_SHOWN] if isinstance(key, str) else _described(key)


def _readable(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "a text that is not UTF-8"
    kinds = {
        msgpack.exceptions.StackError: "values nested too deep",
        msgpack.exceptions.FormatError: "a byte that is no msgpack",
        msgpack.exceptions.ExtraData: "bytes after its end",
    }
    return kinds.get(type(error), str(error))
