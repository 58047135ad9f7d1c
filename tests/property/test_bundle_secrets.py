"""No secret survives in a bundle, whatever it is, however it is written, wherever it stands."""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from making_members import MESH, NOW_UNIX_S, Key

from meshnode.bundle import BundleRedactor
from proto.parts import Role
from proto.token import make_token

KEPT_CHARACTERS = 10
"""A run of a secret that is longer must not survive; shorter ones are in every text by chance."""

surroundings = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)
raw_secrets = st.binary(min_size=16, max_size=64)
ENCODINGS: dict[str, Callable[[bytes], str]] = {
    "hex": lambda raw: raw.hex(),
    "base64": lambda raw: base64.b64encode(raw).decode(),
    "url-safe base64": lambda raw: base64.urlsafe_b64encode(raw).decode(),
    "unpadded base64": lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("="),
    "base32": lambda raw: base64.b32encode(raw).decode(),
    "id-like base32": lambda raw: base64.b32encode(raw).decode().lower().rstrip("="),
}


def survives(secret: str, text: str) -> bool:
    length = min(KEPT_CHARACTERS, len(secret))
    return any(secret[at : at + length] in text for at in range(len(secret) - length + 1))


def an_invite(nonce: bytes, seed: str) -> str:
    issuer = Key(seed)
    return make_token(
        issuer, MESH, members=[(issuer.node, ("192.0.2.1:4411",))], token_id=nonce, nonce=nonce, role=Role.WORKER,
        may_invite=False, expires_at_unix_s=NOW_UNIX_S, uses=1,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(raw=raw_secrets, before=surroundings, after=surroundings)
def test_known_secret_goes_in_every_encoding_and_place(encoding: str, raw: bytes, before: str, after: str) -> None:
    secret = ENCODINGS[encoding](raw)
    redactor = BundleRedactor([raw])
    for shown in (
        redactor.text(before + secret + after),
        redactor.json_text({"found": [before + secret + after], before + secret: 1}),
        redactor.text(json.dumps({"nested": json.dumps({"deep": before + secret})})),
    ):
        remains = shown.replace(before, "").replace(after, "") if before or after else shown
        assert not survives(secret, remains)


@given(raw=st.binary(min_size=32, max_size=64), cut=st.integers(1, 15), before=surroundings)
def test_known_secret_goes_though_an_end_of_it_was_cut_off(raw: bytes, cut: int, before: str) -> None:
    for encode in ENCODINGS.values():
        secret = encode(raw)
        for piece in (secret[:-cut], secret[cut:]):
            assert not survives(piece, BundleRedactor([raw]).text(f"{before} {piece} {before}").replace(before, ""))


@given(st.binary(min_size=16, max_size=16), st.sampled_from("abc"), surroundings, st.integers(20, 100))
@settings(max_examples=60)
def test_unknown_invite_goes_whole_cut_and_broken_over_lines(nonce: bytes, seed: str, around: str, width: int) -> None:
    token = an_invite(nonce, seed)
    # What follows a mangled token directly may be taken for a part of it, which harms nobody.
    for text in (token, token[:60], "\n".join(token[at : at + width] for at in range(0, len(token), width))):
        shown = BundleRedactor().text(f"{around} {text} {around}")
        body = text.removeprefix("mesh1_").replace("\n", "")
        assert not any(piece in shown for piece in (body[at : at + 16] for at in range(0, len(body) - 16, 4)))
        assert not survives(text.split("\n")[0][6:], BundleRedactor().json_text({"error": text}))


@given(st.binary(min_size=32, max_size=32), surroundings)
def test_unknown_private_key_goes_as_text_and_inside_json(seed: bytes, around: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    body = pem.splitlines()[1]
    for shown in (BundleRedactor().text(f"{around}{pem}{around}"), BundleRedactor().json_text([around + pem])):
        assert not survives(body, shown)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("dialling https://anna:hunter2secret@example.org/x", "hunter2secret"),
        ("GET /page?token=Zm9vYmFyYmF6cXV4", "Zm9vYmFyYmF6cXV4"),
        ("Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
        ("HF_TOKEN hf_abcdefghijklmnopqrstuv", "hf_abcdefghijklmnopqrstuv"),
        ("password=correct-horse&x=1", "correct-horse"),
    ],
)
def test_what_looks_like_a_secret_goes(text: str, secret: str) -> None:
    assert secret not in BundleRedactor().text(text)


@given(st.sampled_from(["token", "Cookie", "chain", "SEED", "private_key", "access_token"]), st.text(min_size=4))
def test_value_of_a_field_that_is_named_like_a_secret_goes(name: str, value: str) -> None:
    shown = BundleRedactor().plain({"deep": [{name: value}]})
    assert shown == {"deep": [{name: "[redacted]"}]}


addresses = st.one_of(
    st.ip_addresses(v=4), st.ip_addresses(v=6)
).filter(lambda address: not (address.is_loopback or address.is_unspecified))  # fmt: skip


@given(addresses, st.integers(1, 65_535), st.sampled_from(["", "at ", '"', "peer=", "("]))
def test_hidden_address_goes_in_every_notation_and_keeps_its_number(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, before: str
) -> None:
    redactor = BundleRedactor(hide_addresses=True)
    text = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    shown = redactor.text(f"{before}{text}, then {address} again")
    assert str(address) not in shown
    assert shown == f"{before}[address 1]:{port}, then [address 1] again"


def test_addresses_stay_unless_asked_and_words_that_only_look_like_some_always_do() -> None:
    text = "203.0.113.7:4411 at 12:30:45 version 1.2.3 hash aa:bb 127.0.0.1:4411 [::]:4411 2026-01-01T11:32:43.000Z"
    assert BundleRedactor().text(text) == text
    assert BundleRedactor(hide_addresses=True).text(text) == text.replace("203.0.113.7", "[address 1]")


def test_ids_figures_and_advice_stay_readable() -> None:
    text = f"node {Key('a').node} usable 24.0GB of mesh {MESH}; token_id 52bb8aad6ebc2ed3e83f322a6c3cd8e8"
    assert BundleRedactor([b"another secret of this node"], hide_addresses=True).text(text) == text
    assert BundleRedactor(home="/home/anna").text("/home/anna/models") == "~/models"
