"""A call shows who is behind it to members, and nothing to anybody else."""

from __future__ import annotations

from making_members import MESH, Key

from meshnode.transport.call import CALL_BYTES, call_packet, caller_of, is_call
from proto.ids import MeshId

CALLER, OTHER = Key("caller"), Key("other")
OTHER_MESH = MeshId(Key("another root").node)


def test_member_that_calls_is_known_among_those_who_may_be() -> None:
    packet = call_packet(MESH, CALLER.node)
    assert is_call(packet)
    assert caller_of(packet, MESH, [OTHER.node, CALLER.node]) == CALLER.node


def test_call_of_another_node_or_mesh_is_nobodys() -> None:
    assert caller_of(call_packet(MESH, CALLER.node), MESH, [OTHER.node]) is None
    assert caller_of(call_packet(OTHER_MESH, CALLER.node), MESH, [CALLER.node]) is None


def test_changed_call_is_nobodys() -> None:
    packet = bytearray(call_packet(MESH, CALLER.node))
    packet[-1] ^= 1
    assert caller_of(bytes(packet), MESH, [CALLER.node]) is None


def test_two_calls_have_nothing_in_common_but_their_form() -> None:
    one, two = (call_packet(MESH, CALLER.node) for _ in range(2))
    form = len(one) - 32
    assert one[:form] == two[:form]
    assert not any(a == b for a, b in zip(windows(one[form:]), windows(two[form:]), strict=True))


def windows(data: bytes) -> list[bytes]:
    return [data[at : at + 4] for at in range(0, len(data), 4)]


def test_other_datagrams_are_no_calls() -> None:
    packet = call_packet(MESH, CALLER.node)
    assert len(packet) == CALL_BYTES
    assert not is_call(packet[:-1])
    assert not is_call(packet + b"x")
    assert not is_call(b"\xc0" + packet[1:])
