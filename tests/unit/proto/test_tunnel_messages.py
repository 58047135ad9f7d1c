"""Tunnels' messages at their bounds."""

from __future__ import annotations

import msgpack
import pytest

from proto.codec import decode_message, encode_message
from proto.errors import WireError
from proto.ids import node_id_of
from proto.messages import Fence, Message, Relay
from proto.shapes import MAX_COUNTER
from proto.tunnels import TunnelAnswer, TunnelBytes, TunnelRequest

NODE = node_id_of(bytes(range(32)))
WIDE = "\U0001f600"
"""Four bytes in UTF-8."""
LARGEST = [
    TunnelRequest(2**53 - 1, WIDE * 64, WIDE * 512, Fence(MAX_COUNTER, NODE), MAX_COUNTER, WIDE * 64, bytes(range(32))),
    TunnelAnswer(2**53 - 1, WIDE * 64, WIDE * 512, WIDE * 64, bytes(32), 65_535, bytes(32)),
    TunnelBytes(2**53 - 1, True, MAX_COUNTER, bytes(8192 + 16), True),
]


@pytest.mark.parametrize("message", LARGEST, ids=lambda message: type(message).__name__)
def test_largest_message_fits_its_type_and_a_relay(message: Message) -> None:
    data = encode_message(message)
    assert decode_message(data) == message
    assert decode_message(encode_message(Relay(NODE, NODE, 1, data, bytes(64)))) is not None


def test_purpose_and_carrier_of_a_newer_node_are_read_as_words() -> None:
    asked = TunnelRequest(1, "from_the_future", "llama", None, 0, "carrier_pigeon", bytes(32))
    assert decode_message(encode_message(asked)) == asked


@pytest.mark.parametrize(
    ("field", "value"),
    [("ticket", bytes(31)), ("port", 65_536), ("key", bytes(33)), ("nonce", -1), ("text", "x" * 513)],
)
def test_field_out_of_its_bounds_is_refused_by_name(field: str, value: object) -> None:
    answer = {"type": "tunnel_answer", "nonce": 1, "refusal": "", field: value}
    with pytest.raises(WireError) as caught:
        decode_message(msgpack.packb(answer))
    assert caught.value.field == field


def test_sealed_piece_without_its_seal_is_refused() -> None:
    piece = {"type": "tunnel_bytes", "tunnel": 1, "to_opener": True, "sequence": 0, "sealed": bytes(15), "end": False}
    with pytest.raises(WireError):
        decode_message(msgpack.packb(piece))
