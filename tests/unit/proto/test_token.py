"""One copy-paste string: whole, mangled, forged or of another kind."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from making_members import MESH, NOW_UNIX_S, Key, a_chain

from proto.errors import WireError
from proto.parts import Role
from proto.token import MAX_TOKEN_LENGTH, PREFIX, ForgedToken, MangledToken, looks_like_token, make_token, parse_token

A, B, C, D = (Key(name) for name in "abcd")


def a_token(**changes: Any) -> str:
    wish: dict[str, Any] = {
        "members": [(A.node, ("192.168.1.10:4411",))],
        "token_id": b"i" * 16,
        "nonce": b"n" * 16,
        "role": Role.WORKER,
        "may_invite": False,
        "expires_at_unix_s": NOW_UNIX_S,
        "uses": 1,
    }
    return make_token(changes.pop("signer", A), MESH, **(wish | changes))


def with_payload_changed(text: str) -> str:
    """A forger's work: another payload under the old signature, with a right checksum."""
    raw = base64.urlsafe_b64decode(text.removeprefix(PREFIX) + "==")
    signed = bytearray(raw[:-4])
    signed[signed.index(b"i" * 16)] ^= 1
    checksum = hashlib.sha256(PREFIX.encode() + signed).digest()[:4]
    return PREFIX + base64.urlsafe_b64encode(bytes(signed) + checksum).decode().rstrip("=")


def test_a_token_of_one_member_and_address_stays_short() -> None:
    assert len(a_token()) < 300


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda text: f"  {text}\n",
        lambda text: f'"{text}"',
        lambda text: text[:80] + "\n" + text[80:160] + "\r\n  " + text[160:],
        lambda text: f"'{text}' ",
    ],
    ids=["spaces", "quotes", "wrapped lines", "shell quotes"],
)
def test_what_terminals_and_shells_add_does_no_harm(wrapped: Any) -> None:
    assert parse_token(wrapped(a_token())) == parse_token(a_token())


@pytest.mark.parametrize(
    "mangled",
    [
        lambda text: text[:-1],
        lambda text: text[: len(text) // 2],
        lambda text: text[:50] + ("A" if text[50] != "A" else "B") + text[51:],
        lambda text: text[:50] + text[51:],
        lambda text: text.swapcase().replace(PREFIX.swapcase(), PREFIX),
        lambda text: text + "A",
        lambda text: text + "=",
        lambda text: text[:50] + "é" + text[51:],
        lambda text: PREFIX,
    ],
    ids=["last gone", "half", "typo", "one gone", "case", "one more", "padding", "accent", "prefix only"],
)
def test_a_mangled_token_is_told_from_a_forged_one(mangled: Any) -> None:
    with pytest.raises(MangledToken):
        parse_token(mangled(a_token()))


def test_a_right_checksum_over_too_little_is_mangled_all_the_same() -> None:
    checksum = hashlib.sha256(PREFIX.encode()).digest()[:4]
    with pytest.raises(MangledToken):
        parse_token(PREFIX + base64.urlsafe_b64encode(checksum).decode().rstrip("="))


def test_a_forged_token_is_told_from_a_mangled_one() -> None:
    with pytest.raises(ForgedToken) as caught:
        parse_token(with_payload_changed(a_token()))
    assert A.node[:10] in caught.value.expected


def test_a_token_signed_by_another_than_it_names_is_forged() -> None:
    with pytest.raises(ForgedToken):
        parse_token(a_token(signer=B))


@pytest.mark.parametrize("text", ["", "hello", "mesh2_abc", "K10deadbeef::server:abc"])
def test_what_is_no_token_is_told_what_one_begins_with(text: str) -> None:
    with pytest.raises(MangledToken, match="beginning with mesh1_"):
        parse_token(text)


def test_a_megabyte_is_refused_by_its_length() -> None:
    with pytest.raises(MangledToken, match="1000006 characters"):
        parse_token(PREFIX + "A" * 1_000_000)


def test_the_deepest_unlimited_token_with_all_pinned_members_fits() -> None:
    members = [(key.node, ("192.168.100.100:54411", "[2001:db8:aaaa:bbbb::1]:54411")) for key in (D, B, C)]
    text = a_token(signer=D, members=members, uses=None, chain=a_chain(A, B, C, D))
    assert len(text) <= MAX_TOKEN_LENGTH
    assert parse_token(text).chain == a_chain(A, B, C, D)


def test_a_token_that_would_be_too_long_is_not_made() -> None:
    long = "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff%enp0s31f6]:54411"
    with pytest.raises(WireError, match="at most 2048"):
        a_token(members=[(key.node, (long,) * 4) for key in (A, B, C)], uses=None, chain=a_chain(B, C, D, A))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"uses": 0}, "uses"),
        ({"uses": 1001}, "uses"),
        ({"expires_at_unix_s": -1}, "expires_at_unix_s"),
        ({"members": []}, "members"),
        ({"members": [(A.node, ())]}, "members[0][1]"),
        ({"members": [(A.node, ("1.2.3.4:5",))] * 4}, "members"),
        ({"token_id": b"short"}, "token_id"),
    ],
)
def test_a_figure_out_of_bounds_is_named_when_a_token_is_made(change: dict[str, Any], field: str) -> None:
    with pytest.raises(WireError) as caught:
        a_token(**change)
    assert caught.value.field == field


def test_printing_a_token_s_object_does_not_print_the_secret() -> None:
    assert repr(parse_token(a_token())) == f"InviteToken({(b'i' * 16).hex()})"


def test_a_text_with_a_token_in_it_is_known_as_secret() -> None:
    assert looks_like_token(f"join with {a_token()}")
    assert not looks_like_token("node a joined")
