"""What a decoder lets through, and what it says of the rest."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import msgpack
import pytest

from proto.codec import (
    FrameDecoder,
    decode_datagram,
    decode_message,
    decode_part,
    encode_datagram,
    encode_frame,
    encode_message,
    encode_part,
)
from proto.errors import WireError
from proto.ids import BootId, node_id_of
from proto.messages import Ack, Challenge, Delta, Ping, PingRequest, Refusal, RefusalCode, Welcome
from proto.parts import IdentityPart, PartKind
from proto.registry import HANDSHAKE_MESSAGES, MAX_FRAME_BYTES

NODE = node_id_of(bytes(range(32)))
A_PING = Ping(nonce=7, incarnation=3)


def a_ping(**fields: Any) -> bytes:
    """A ping's map with some fields replaced."""
    return packed({"type": "ping", "nonce": 7, "incarnation": 3, **fields})


def packed(value: Any) -> bytes:
    data: bytes = msgpack.packb(value)
    return data


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def an_identity_part(addresses: int = 1) -> IdentityPart:
    return IdentityPart(NODE, 1, 1, BootId(bytes(16)), (b"chain",), ("10.0.0.1:4411",) * addresses, (), 1, "meshnode 0")


def error_of(data: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        decode_message(data)
    return caught.value


def test_a_frame_arriving_byte_by_byte_decodes_like_a_whole_one() -> None:
    stream = encode_frame(A_PING) + encode_frame(Ack(nonce=7, incarnation=3, hold_us=40))
    whole = FrameDecoder().feed(stream)
    decoder = FrameDecoder()
    assert [message for byte in stream for message in decoder.feed(bytes([byte]))] == whole


def test_messages_of_an_unknown_type_are_skipped() -> None:
    stream = framed(packed({"type": "from_the_future", "x": [1, {"y": 2}]})) + encode_frame(A_PING)
    assert FrameDecoder().feed(stream) == [A_PING]


def test_unknown_fields_are_skipped() -> None:
    assert decode_message(a_ping(colour="blue")) == A_PING


def test_an_unknown_type_on_an_unauthenticated_link_is_refused() -> None:
    with pytest.raises(WireError, match="from_the_future"):
        FrameDecoder(HANDSHAKE_MESSAGES).feed(framed(packed({"type": "from_the_future"})))


def test_a_gossip_frame_on_an_unauthenticated_link_is_refused_by_its_name() -> None:
    with pytest.raises(WireError) as caught:
        FrameDecoder(HANDSHAKE_MESSAGES).feed(encode_frame(Delta((), ())))
    assert (caught.value.field, caught.value.found) == ("type", "'delta'")


def test_allowing_all_types_between_two_frames_of_one_packet_holds_for_the_second() -> None:
    welcome = Welcome((b"x",), "10.0.0.1:4411", 0)
    decoder = FrameDecoder({Welcome})
    decoder.push(encode_frame(welcome) + encode_frame(A_PING))
    first = decoder.take()
    decoder.allowed = None
    assert [first, decoder.take(), decoder.take()] == [welcome, A_PING, None]


def test_a_frame_longer_than_allowed_is_refused_at_its_length() -> None:
    with pytest.raises(WireError, match="length"):
        FrameDecoder().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(WireError, match="length"):
        FrameDecoder().feed(bytes(4))


def test_a_decoder_that_failed_keeps_failing() -> None:
    decoder = FrameDecoder()
    with pytest.raises(WireError):
        decoder.feed(framed(b"\xc1"))
    with pytest.raises(WireError):
        decoder.feed(encode_frame(A_PING))


def test_a_decoder_that_failed_keeps_no_bytes() -> None:
    decoder = FrameDecoder()
    with pytest.raises(WireError):
        decoder.feed(framed(b"\xc1") + bytes(100_000))
    assert decoder.waiting_bytes == 0


def test_a_message_above_its_types_own_limit_is_refused_though_the_frame_fits() -> None:
    error = error_of(a_ping(padding=b"x" * 2000))
    assert (error.message, error.expected) == ("ping", "at most 1024 bytes")


def test_a_map_that_does_not_begin_with_type_is_refused() -> None:
    assert error_of(packed({"nonce": 7, "type": "ping", "incarnation": 3})).field == "type"


def test_another_key_of_four_letters_in_front_is_not_taken_for_type() -> None:
    assert error_of(packed({"kind": "from_the_future"})).found == "no `type` as its first key"


def test_a_type_outside_a_map_is_refused_and_not_skipped() -> None:
    assert error_of(b"\xa4type\xa6future").found == "no `type` as its first key"


@pytest.mark.parametrize("length", [1, 31, 32, 64])
def test_unknown_types_of_every_length_are_skipped(length: int) -> None:
    assert decode_message(packed({"type": "x" * length})) is None


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"\x81\xa4type", "no short text"),
        (b"\x81\xa4type\x05", "no short text"),
        (b"\x81\xa4type\xd9", "no short text"),
        (b"\x81\xa4type\xa0", "0 bytes"),
        (b"\x81\xa4type\xa6futur", "5 bytes"),
        (b"\x81\xa4type\xd9\x28future", "6 bytes"),
        (b"\x81\xa4type\xd9\x41" + b"x" * 65, "65 bytes"),
        (b"\x81\xa4type\xa2\xc3\xa9", "2 bytes"),
        (b"\x81\xa4type\xda\x00\x06future", "no short text"),
    ],
    ids=["none", "number", "cut head", "empty", "cut", "cut long", "too long", "accent", "sixteen-bit length"],
)
def test_a_type_that_is_no_short_plain_text_is_refused(body: bytes, found: str) -> None:
    error = error_of(body)
    assert (error.field, error.found) == ("type", found)


def test_a_wrong_value_deep_inside_is_shown_with_its_place() -> None:
    part = {"kind": "weather", "body": b"", "signature": bytes(64)}
    error = error_of(packed({"type": "delta", "parts": [part], "claims": []}))
    assert (error.field, error.found) == ("parts[0].kind", "'weather'")


def test_a_long_text_is_described_by_its_length() -> None:
    part = {"kind": "x" * 100, "body": b"", "signature": bytes(64)}
    assert error_of(packed({"type": "delta", "parts": [part], "claims": []})).found == "a text of 100 characters"


def test_a_text_that_is_not_utf8_is_told() -> None:
    assert error_of(b"\x82\xa4type\xa4ping\xa5nonce\xa1\xff").found == "a text that is not UTF-8"


@pytest.mark.parametrize(
    ("fields", "field", "found", "expected"),
    [
        ({"nonce": 2**64 - 1}, "nonce", str(2**64 - 1), "int <= 9007199254740991"),
        ({"nonce": -1}, "nonce", "-1", "int >= 0"),
        ({"nonce": True}, "nonce", "bool", "int"),
        ({"nonce": 7.0}, "nonce", "float", "int"),
        ({"nonce": "7"}, "nonce", "str", "int"),
        ({"nonce": None}, "nonce", "null", "int"),
        ({"nonce": [7]}, "nonce", "array", "int"),
        ({"rtt": 1}, "rtt", "int", "bool"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_found_and_what_would_be_right(
    fields: dict[str, Any], field: str, found: str, expected: str
) -> None:
    error = error_of(a_ping(**fields))
    assert (error.message, error.field, error.found, error.expected) == ("ping", field, found, expected)


def test_a_missing_field_is_named() -> None:
    error = error_of(packed({"type": "ping", "nonce": 7}))
    assert (error.field, error.found) == ("incarnation", "nothing")


def test_a_key_that_stands_twice_is_refused() -> None:
    assert error_of(b"\x83\xa4type\xa4ping\xa5nonce\x01\xa5nonce\x02").field == "nonce"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e10])
def test_a_coordinate_that_is_no_bounded_number_is_refused(value: float) -> None:
    body = {"type": "ack", "nonce": 1, "incarnation": 1, "hold_us": 1, "coordinate": [0.0, value]}
    assert error_of(packed(body)).field == "coordinate[1]"


def test_an_id_in_a_second_spelling_is_refused() -> None:
    spelling = NODE[:-1] + chr(ord(NODE[-1]) + 1)
    assert error_of(packed({"type": "ping_request", "nonce": 1, "target": spelling})).field == "target"


def test_an_error_about_a_token_does_not_repeat_it() -> None:
    proof = {"type": "proof", "signature": bytes(64), "chain": None, "token": "mesh1_secret" * 200}
    error = error_of(packed(proof))
    assert error.field == "token"
    assert "secret" not in str(error).replace("a secret", "")


def test_an_oversize_token_is_refused_as_text_of_a_length() -> None:
    proof = {"type": "proof", "signature": bytes(64), "chain": None, "token": "mesh1_secret" * 200}
    assert error_of(packed(proof)).expected == "str of length <= 2048"


@pytest.mark.parametrize(
    "body",
    [
        b"\x82\xa4type\xa4ping\xa5nonce" + b"\x91" * 900 + b"\x01",
        b"\x82\xa4type\xa4ping\xa5nonce" + b"\x81\xa1a" * 300 + b"\x01",
        b"\x82\xa4type\xa4ping\xa5nonce\xdd\xff\xff\xff\xff",
        b"\x82\xa4type\xa4ping\xa5nonce\xdf\xff\xff\xff\xff",
        b"\x82\xa4type\xa4ping\xa5nonce\xdb\xff\xff\xff\xff",
        b"\x82\xa4type\xa4ping\xa5nonce\xc6\xff\xff\xff\xff",
        b"\x82\xa4type\xa4ping\xa5nonce\xd6\xff\x00\x00\x00\x00",
        b"\x82\xa4type\xa4ping\xa5nonce\xc7\x00\x05",
        b"\xdf\xff\xff\xff\xff\xa4type\xa4ping",
    ],
    ids=["array depth", "map depth", "array length", "map length", "text", "bytes", "timestamp", "extension", "head"],
)
def test_bombs_are_refused(body: bytes) -> None:
    error_of(body)


def test_the_largest_frame_of_the_costliest_values_stays_within_bounded_memory() -> None:
    """A quarter megabyte of one-byte empty maps is the most objects that bytes can ask for."""
    item = b"\xdc\x10\x00" + b"\x80" * 4096
    head = b"\x83\xa4type\xa5delta\xa5parts\x90\xa6claims"
    room = (MAX_FRAME_BYTES - len(head) - 3) // len(item)
    body = head + b"\xdc" + room.to_bytes(2, "big") + item * room
    tracemalloc.start()
    error = error_of(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.message == "delta"
    assert peak < 24 * 2**20


def test_a_datagram_carries_probes_only() -> None:
    with pytest.raises(WireError, match="refusal"):
        encode_datagram(Refusal(RefusalCode.BUSY, ""))


def test_a_control_message_in_a_datagram_is_refused() -> None:
    with pytest.raises(WireError, match="challenge"):
        decode_datagram(encode_message(Challenge((1, 0), bytes(32), bytes(16))))


def test_a_probe_of_the_future_in_a_datagram_is_skipped() -> None:
    assert decode_datagram(packed({"type": "super_ping"})) is None


def test_an_oversize_datagram_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(WireError, match="at most 1100 bytes"):
        decode_datagram(b"\xc1" * 1101)


def test_every_probe_fits_a_datagram() -> None:
    request = PingRequest(2**53 - 1, NODE)
    assert decode_datagram(encode_datagram(request)) == request


def test_a_parts_unknown_fields_survive_in_its_body_and_are_skipped_in_its_struct() -> None:
    part = an_identity_part()
    body = msgpack.unpackb(encode_part(part)) | {"favourite_colour": "blue"}
    assert decode_part(PartKind.IDENTITY, packed(body)) == part


def test_a_part_with_too_many_addresses_is_refused() -> None:
    with pytest.raises(WireError) as caught:
        decode_part(PartKind.IDENTITY, encode_part(an_identity_part(addresses=17)))
    assert caught.value.field == "addresses"


def test_a_message_too_large_to_send_is_refused_by_the_encoder() -> None:
    with pytest.raises(WireError, match="at most 4096 bytes"):
        encode_message(Refusal(RefusalCode.BUSY, "x" * 5000))
