"""What is encoded decodes to the same, for every message, part and statement, whatever their fields hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making_members import MESH, NOW_UNIX_S, ROOT, Key, a_chain
from wire_strategies import of_shape

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
from proto.credential import decode_credential, issue_credential, verify_chain
from proto.messages import Message
from proto.parts import PART_SHAPES, PartKind, Role
from proto.registry import CONTROL_MESSAGES, DATAGRAM_MESSAGES
from proto.revocation import RevocationSet, check_revocation, sign_revocation
from proto.token import MAX_USES, make_token, parse_token
from proto.weights import WEIGHTS_MESSAGES

A_FEW = settings(max_examples=40, deadline=None)
_times = st.integers(0, 253_402_300_799)
_token_ids = st.binary(min_size=16, max_size=16)


def _named(shape: type[Message]) -> str:
    return str(shape.__struct_config__.tag)


@pytest.mark.parametrize("shape", list(CONTROL_MESSAGES), ids=_named)
@A_FEW
@given(data=st.data())
def test_a_message_comes_back_as_it_went(shape: type[Message], data: st.DataObject) -> None:
    message = data.draw(of_shape(shape))
    assert decode_message(encode_message(message)) == message


@pytest.mark.parametrize("shape", list(WEIGHTS_MESSAGES), ids=_named)
@A_FEW
@given(data=st.data())
def test_a_message_of_a_tunnel_is_read_there_and_skipped_on_a_link(shape: type[Message], data: st.DataObject) -> None:
    message = data.draw(of_shape(shape))
    assert decode_message(encode_message(message), WEIGHTS_MESSAGES) == message
    assert decode_message(encode_message(message)) is None


@pytest.mark.parametrize("shape", [shape for shape in CONTROL_MESSAGES if shape in DATAGRAM_MESSAGES], ids=_named)
@A_FEW
@given(data=st.data())
def test_a_probe_comes_back_as_it_went(shape: type[Message], data: st.DataObject) -> None:
    message = data.draw(of_shape(shape))
    assert decode_datagram(encode_datagram(message)) == message


@pytest.mark.parametrize("kind", list(PartKind))
@A_FEW
@given(data=st.data())
def test_a_part_comes_back_as_it_went(kind: PartKind, data: st.DataObject) -> None:
    part = data.draw(of_shape(PART_SHAPES[kind]))
    assert decode_part(kind, encode_part(part)) == part


@A_FEW
@given(st.data())
def test_a_stream_decodes_the_same_however_it_is_cut(data: st.DataObject) -> None:
    shapes = data.draw(st.lists(st.sampled_from(list(CONTROL_MESSAGES)), min_size=1, max_size=4))
    messages = [data.draw(of_shape(shape)) for shape in shapes]
    stream = b"".join(map(encode_frame, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder = FrameDecoder()
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [message for piece in pieces for message in decoder.feed(piece)] == messages


@A_FEW
@given(st.sampled_from(Role), st.booleans(), _times, st.none() | _times, st.none() | _token_ids)
def test_a_credential_says_what_its_issuer_said(
    role: Role, may_invite: bool, issued_at: int, expires_at: int | None, token_id: bytes | None
) -> None:
    node = Key("node").node
    encoded = issue_credential(
        ROOT,
        MESH,
        node,
        role,
        may_invite=may_invite,
        issued_at_unix_s=issued_at,
        expires_at_unix_s=expires_at,
        token_id=token_id,
    )
    standing = verify_chain((encoded,), MESH, node, 0, RevocationSet())
    assert (standing.role, standing.may_invite, standing.expires_at_unix_s) == (role, may_invite, expires_at)
    assert decode_credential(encoded).issued_at_unix_s == issued_at
    assert standing.token_ids == ((token_id,) if token_id is not None else ())


@A_FEW
@given(
    st.sampled_from(Role),
    st.booleans(),
    _times,
    st.none() | st.integers(1, MAX_USES),
    st.lists(st.ip_addresses(v=4).map("{}:4411".format), min_size=1, max_size=4),
    _token_ids,
)
def test_a_token_says_what_its_issuer_said(
    role: Role, may_invite: bool, expires_at: int, uses: int | None, addresses: list[str], token_id: bytes
) -> None:
    issuer = Key("issuer")
    text = make_token(
        issuer,
        MESH,
        members=[(issuer.node, addresses)],
        token_id=token_id,
        nonce=bytes(16),
        role=role,
        may_invite=may_invite,
        expires_at_unix_s=expires_at,
        uses=uses,
    )
    token = parse_token(text)
    assert (token.mesh, token.issuer, token.members[0].addresses) == (MESH, issuer.node, tuple(addresses))
    assert (token.role, token.may_invite, token.uses) == (role, may_invite, uses)
    assert (token.expires_at_unix_s, token.token_id) == (expires_at, token_id)


@A_FEW
@given(_times, st.lists(_token_ids, max_size=64))
def test_a_revocation_says_what_its_signer_said(made_at: int, token_ids: list[bytes]) -> None:
    node = Key("node").node
    encoded = sign_revocation(ROOT, MESH, node, chain=(), made_at_unix_s=made_at, token_ids=token_ids)
    checked = check_revocation(encoded, MESH)
    assert (checked.node, checked.signer, checked.made_at_unix_s) == (node, None, made_at)
    assert checked.token_ids == tuple(token_ids)


def test_the_makers_of_these_tests_make_valid_chains() -> None:
    a, b = Key("a"), Key("b")
    assert verify_chain(a_chain(a, b), MESH, b.node, NOW_UNIX_S, RevocationSet()).depth == 2
