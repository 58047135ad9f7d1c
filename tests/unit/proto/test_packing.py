"""Shapes that are arrays on the wire are told by their fields' names too."""

from __future__ import annotations

import msgpack
import msgspec
import pytest

from proto.errors import WireError
from proto.packing import pack, unpack


class Pair(msgspec.Struct, frozen=True, array_like=True):
    left: int
    right: tuple[int, ...]
    note: str = ""


def error_of(value: object) -> WireError:
    with pytest.raises(WireError) as caught:
        unpack(msgpack.packb(value), Pair, "pair", 1000)
    return caught.value


def test_an_array_comes_back_as_it_went() -> None:
    assert unpack(pack(Pair(1, (2, 3), "x")), Pair, "pair", 1000) == Pair(1, (2, 3), "x")


def test_a_wrong_element_is_named_by_its_field() -> None:
    assert error_of(["one", [2]]).field == "left"


def test_a_wrong_element_inside_an_element_keeps_its_place() -> None:
    assert error_of([1, [2, 3, "four"]]).field == "right[2]"


def test_elements_a_later_version_appends_are_skipped() -> None:
    assert unpack(msgpack.packb([1, [2], "x", "later"]), Pair, "pair", 1000) == Pair(1, (2,), "x")


def test_a_short_array_is_told_by_its_length() -> None:
    error = error_of([1])
    assert (error.field, error.found, error.expected) == ("", "length 1", "array of at least length 2")


def test_a_map_in_an_array_s_place_is_told() -> None:
    error = error_of({"left": 1, "right": []})
    assert (error.found, error.expected) == ("a map of 2", "a msgpack array")


def test_cut_bytes_are_told_by_what_they_should_be() -> None:
    with pytest.raises(WireError) as caught:
        unpack(pack(Pair(1, (2,)))[:-1], Pair, "pair", 1000)
    assert caught.value.expected == "one complete msgpack array"


def test_bytes_at_the_limit_pass_and_one_more_does_not() -> None:
    data = pack(Pair(1, (2,)))
    assert unpack(data, Pair, "pair", len(data)) == Pair(1, (2,))
    with pytest.raises(WireError, match=f"at most {len(data) - 1} bytes"):
        unpack(data, Pair, "pair", len(data) - 1)
