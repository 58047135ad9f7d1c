"""Hostile bytes: every decoder answers with a value or with its own typed error, never with anything else."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgpack
import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from making_members import MESH, NOW_UNIX_S, ROOT, Key, a_chain, a_credential
from wire_strategies import mutated, of_shape, plain_values

from proto.codec import FrameDecoder, decode_datagram, decode_message, decode_part, encode_frame, encode_part
from proto.credential import BadCredential, decode_credential, verify_chain
from proto.errors import WireError
from proto.messages import Message
from proto.parts import PART_SHAPES, PartKind, Role, SignedPart
from proto.registry import CONTROL_MESSAGES, MAX_FRAME_BYTES
from proto.revocation import BadRevocation, RevocationSet, check_revocation, sign_revocation
from proto.signing import BadSignature, open_part, sign_part, verify
from proto.token import PREFIX, make_token, parse_token
from proto.weights import WEIGHTS_MESSAGES

A_LOT = settings(max_examples=250, deadline=None)
_messages = [*CONTROL_MESSAGES, *WEIGHTS_MESSAGES]
_tags = sorted(str(shape.__struct_config__.tag) for shape in _messages)
_shapes = st.sampled_from(list(CONTROL_MESSAGES))
A, B = Key("a"), Key("b")


@A_LOT
@given(st.binary(max_size=300))
@example(b"\xff" * 300)
def test_random_bytes_give_a_wire_error_or_nothing(data: bytes) -> None:
    with suppress(WireError):
        FrameDecoder().feed(data)
    with suppress(WireError):
        decode_datagram(data)
    with suppress(WireError):
        decode_message(data)


@A_LOT
@given(st.data())
def test_a_mutated_frame_gives_a_message_or_a_wire_error(data: st.DataObject) -> None:
    message = data.draw(_shapes.flatmap(of_shape))
    stream = data.draw(mutated(encode_frame(message)))
    decoder = FrameDecoder()
    with suppress(WireError):
        for decoded in decoder.feed(stream):
            assert isinstance(decoded, Message)
    assert decoder.waiting_bytes <= MAX_FRAME_BYTES + 4


@A_LOT
@given(st.sampled_from(_tags), st.dictionaries(st.text(max_size=6), plain_values, max_size=3), st.data())
def test_a_known_type_with_wild_fields_gives_a_wire_error(tag: str, extra: dict[str, Any], data: st.DataObject) -> None:
    shape = next(one for one in _messages if one.__struct_config__.tag == tag)
    names = [name for name in shape.__struct_fields__ if data.draw(st.booleans())]
    fields = {name: data.draw(plain_values) for name in names}
    with suppress(WireError):
        data_of = {"type": tag, **{k: v for k, v in extra.items() if k != "type"}, **fields}
        decode_message(msgpack.packb(data_of), _messages)


@A_LOT
@given(st.sampled_from(list(PartKind)), st.data())
def test_a_part_of_wild_bytes_gives_a_part_or_a_typed_error(kind: PartKind, data: st.DataObject) -> None:
    part = data.draw(of_shape(PART_SHAPES[kind]))
    body = data.draw(mutated(encode_part(part)) | st.binary(max_size=200) | plain_values.map(msgpack.packb))
    with suppress(WireError):
        decode_part(kind, body)
    with suppress(WireError, BadSignature):
        open_part(SignedPart(kind, body, bytes(64)), MESH)


@A_LOT
@given(st.data())
def test_no_change_to_a_signed_part_passes(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(list(PartKind)))
    part = msgspec.structs.replace(data.draw(of_shape(PART_SHAPES[kind])), node=A.node)
    signed = sign_part(A, MESH, part)
    body = data.draw(mutated(signed.body))
    try:
        opened = open_part(SignedPart(kind, body, signed.signature), MESH)
    except (WireError, BadSignature):
        return
    assert body == signed.body
    assert opened.node == A.node


@A_LOT
@given(st.data())
def test_no_change_to_a_chain_passes(data: st.DataObject) -> None:
    chain = a_chain(A, B)
    at = data.draw(st.integers(0, 1))
    changed = data.draw(mutated(chain[at]) | st.binary(max_size=300) | plain_values.map(msgpack.packb))
    shown = (*chain[:at], changed, *chain[at + 1 :])
    with suppress(WireError):
        decode_credential(changed)
    try:
        verify_chain(shown, MESH, B.node, NOW_UNIX_S, RevocationSet())
    except BadCredential:
        return
    assert shown == chain


@A_LOT
@given(st.data())
def test_no_change_to_a_revocation_passes(data: st.DataObject) -> None:
    kept = a_credential(A, Key("kept"))
    encoded = sign_revocation(A, MESH, B.node, chain=a_chain(A, B), made_at_unix_s=NOW_UNIX_S, kept=(kept,))
    changed = data.draw(mutated(encoded) | st.binary(max_size=300) | plain_values.map(msgpack.packb))
    try:
        check_revocation(changed, MESH)
    except (WireError, BadRevocation):
        return
    assert changed == encoded


A_TOKEN = make_token(
    ROOT,
    MESH,
    members=[(ROOT.node, ("192.168.1.10:4411", "[fe80::1]:4411"))],
    token_id=bytes(16),
    nonce=bytes(16),
    role=Role.WORKER,
    may_invite=False,
    expires_at_unix_s=NOW_UNIX_S,
    uses=1,
)


@A_LOT
@given(st.data())
def test_no_change_to_a_token_passes(data: st.DataObject) -> None:
    changed = data.draw(mutated(A_TOKEN.encode())).decode("utf-8", "replace")
    try:
        parse_token(changed)
    except WireError:
        return
    assert "".join(changed.split()).strip("\"'`") == A_TOKEN


@A_LOT
@given(mutated(A_TOKEN.encode()))
def test_no_error_about_a_token_repeats_a_part_of_it(changed: bytes) -> None:
    text = changed.decode("utf-8", "replace")
    said = ""
    try:
        parse_token(text)
    except WireError as error:
        said = str(error)
    # An id's first ten characters may be named; ten of the token's own would be a leak.
    assert not any(A_TOKEN[at : at + 10] in said for at in range(len(PREFIX), len(A_TOKEN) - 10))


@A_LOT
@given(st.text(max_size=200) | st.text(max_size=200).map(PREFIX.__add__))
def test_no_text_makes_a_token(text: str) -> None:
    with suppress(WireError):
        parse_token(text)
        raise AssertionError("a made-up token was believed")


@A_LOT
@given(st.binary(max_size=40), st.binary(max_size=70), st.binary(max_size=40))
def test_no_made_up_signature_verifies(key: bytes, signature: bytes, data: bytes) -> None:
    assert not verify(key, signature, data)
