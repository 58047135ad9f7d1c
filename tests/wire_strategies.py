"""Hypothesis strategies for every shape on the wire, read off the shapes' own annotations: a message that is added is
covered without a line here."""

from __future__ import annotations

import string
from typing import Any

import msgspec
import msgspec.inspect as shapes
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from proto.ids import ID_LENGTH, node_id_of

MAX_ITEMS = 3
"""Longer arrays find nothing more and cost time; the bounds have their own tests."""

_ids = st.binary(min_size=32, max_size=32).map(node_id_of)
_texts = st.text(st.characters(codec="utf-8"), max_size=24)
_addresses = st.builds("{}.{}.{}.{}:{}".format, *[st.integers(0, 255)] * 4, st.integers(1, 65535))


def of_shape(shape: type[msgspec.Struct]) -> SearchStrategy[Any]:
    """Valid values of a struct."""
    return _of_type(shapes.type_info(shape))


def _of_type(kind: shapes.Type) -> SearchStrategy[Any]:
    match kind:
        case shapes.StructType():
            fields = {field.name: _of_type(field.type) for field in kind.fields}
            return st.builds(kind.cls, **fields)
        case shapes.IntType():
            return st.integers(kind.ge if kind.ge is not None else -(2**63), kind.le if kind.le is not None else 2**63)
        case shapes.FloatType():
            return st.floats(kind.ge, kind.le, allow_nan=False)
        case shapes.StrType():
            return _text(kind)
        case shapes.BytesType():
            least = kind.min_length or 0
            return st.binary(min_size=least, max_size=min(kind.max_length or 64, max(least, 64)))
        case shapes.VarTupleType():
            least = kind.min_length or 0
            most = min(kind.max_length or MAX_ITEMS, max(least, MAX_ITEMS))
            return st.lists(_of_type(kind.item_type), min_size=least, max_size=most).map(tuple)
        case shapes.TupleType():
            return st.tuples(*(_of_type(item) for item in kind.item_types))
        case shapes.UnionType():
            return st.one_of(*(_of_type(one) for one in kind.types))
        case shapes.EnumType():
            return st.sampled_from(list(kind.cls))
        case shapes.BoolType():
            return st.booleans()
        case shapes.NoneType():
            return st.none()
    raise NotImplementedError(f"no strategy for {kind}")


def _text(kind: shapes.StrType) -> SearchStrategy[str]:
    if kind.pattern is not None:
        if kind.min_length == ID_LENGTH:
            return _ids
        return st.from_regex(kind.pattern, fullmatch=True).filter(lambda text: len(text) <= (kind.max_length or 24))
    least, most = kind.min_length or 0, kind.max_length or 24
    if least > 0:
        return _addresses
    return _texts.filter(lambda text: len(text) <= most)


plain_values: SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8)
    | st.binary(max_size=70),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(string.ascii_lowercase, max_size=8), inner),
    max_leaves=12,
)  # fmt: skip
"""Anything msgpack can say."""


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """`original` cut, lengthened, or with some bytes changed."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["cut", "flip", "insert", "drop"])):
            case "cut":
                del data[at:]
            case "flip" if at < len(data):
                data[at] ^= draw(st.integers(1, 255))
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=6))
            case "drop":
                del data[at : at + draw(st.integers(1, 8))]
    return bytes(data)
