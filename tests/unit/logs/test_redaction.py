"""What the last line of defence blots out, and what it leaves alone."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.redaction import redact, redact_fields

NODE = "mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dzpiydcmrtgq2q"


@pytest.mark.parametrize(
    "text",
    [
        "mesh1_abcDEF-_09", "error in 'mesh1_x' here", "-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\ncut off", "Authorization: Bearer abc.def-ghi",
    ],
)  # fmt: skip
def test_tokens_and_keys_are_blotted_out(text: str) -> None:
    shown = str(redact(text))
    assert "[redacted]" in shown
    assert not any(secret in shown for secret in ("abcDEF", "mesh1_", "MC4CAQ", "cut off", "abc.def"))


@given(st.binary(min_size=32, max_size=32))
def test_any_raw_key_in_base64_is_blotted_out(key: bytes) -> None:
    text = base64.b64encode(key).decode()
    assert text not in str(redact(f"key={text};" if not text.startswith("/") else f" {text} "))


@pytest.mark.parametrize("text", [NODE, f"{NODE[:10]} left", "a" * 64, "192.168.1.5:4411", "requires 302.1GB"])
def test_ids_hashes_addresses_and_figures_stay(text: str) -> None:
    assert redact(text) == text


def test_secret_names_hide_their_value_at_any_depth() -> None:
    assert redact_fields({"outer": {"Token": "abc"}, "token_id": "t1"}) == {
        "outer": {"Token": "[redacted]"},
        "token_id": "t1",
    }
