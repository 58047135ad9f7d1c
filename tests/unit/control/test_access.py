"""Who may use the control interface over TCP."""

from __future__ import annotations

import stat
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from meshnode.control.access import TOKEN_FILE, TokenGate, ensure_token

TOKEN = "t" * 43


async def status_of(headers: dict[str, str]) -> tuple[int, list[tuple[str, str]]]:
    """The status a request with `headers` gets, and what was reported as refused."""
    refused: list[tuple[str, str]] = []
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    gate = TokenGate(PlainTextResponse("in"), TOKEN, lambda route, reason: refused.append((route, reason)))
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await gate({"type": "http", "path": "/v1/status", "headers": encoded}, receive, send)
    return sent[0]["status"], refused


async def test_right_token_from_a_loopback_name_is_let_in() -> None:
    assert await status_of({"host": "127.0.0.1:9338", "authorization": f"Bearer {TOKEN}"}) == (200, [])


@pytest.mark.parametrize("given", ["", "Bearer wrong", "Bearer " + TOKEN + "x", "Bearer \xff"])
async def test_wrong_token_is_refused_and_reported(given: str) -> None:
    answer = await status_of({"host": "localhost", "authorization": given})
    assert answer == (401, [("/v1/status", "wrong_token")])


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "192.168.1.5:9338"])
async def test_strangers_name_for_this_machine_is_refused(host: str) -> None:
    assert (await status_of({"host": host, "authorization": f"Bearer {TOKEN}"}))[0] == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example"])
async def test_page_of_another_site_is_refused_even_with_the_token(origin: str) -> None:
    headers = {"host": "localhost", "origin": origin, "authorization": f"Bearer {TOKEN}"}
    assert (await status_of(headers))[0] == 403


async def test_own_page_is_let_in() -> None:
    headers = {"host": "[::1]:9338", "origin": "http://[::1]:9338", "authorization": f"Bearer {TOKEN}"}
    assert (await status_of(headers))[0] == 200


def test_token_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    token = ensure_token(tmp_path)
    assert ensure_token(tmp_path) == token
    assert len(token) >= 43
    assert stat.S_IMODE((tmp_path / TOKEN_FILE).stat().st_mode) == 0o600


def test_damaged_token_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / TOKEN_FILE).write_text("short\n")
    assert len(ensure_token(tmp_path)) >= 43
