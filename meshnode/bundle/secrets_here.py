"""Which secrets the state directory of a node holds: what a bundle is searched for before it is written.

What lives here: `secrets_of`. Nothing is changed or locked; what can't be read can't be in the bundle either.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization

from meshnode.control.access import TOKEN_FILE

_MAX_BYTES: Final = 4 * 1024 * 1024
_SECRET_FILES: Final = ("credential.json", "page.json")
"""JSON files whose long texts are secret, all of them."""
_MIN_TEXT: Final = 24
_ID_ALPHABET: Final = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_ID_LENGTH: Final = 52


def secrets_of(state_dir: Path, environment: Mapping[str, str] = os.environ) -> list[bytes]:
    """Raw values: private keys, control and page tokens, the credential chain, an invite token in the environment."""
    found: list[bytes] = []
    for path in sorted(state_dir.glob("*.key")):
        found += _key_in(path)
    if (token := _read(state_dir / TOKEN_FILE)) is not None:
        found.append(token.strip())
    for name in _SECRET_FILES:
        for text in _long_texts(_json(state_dir / name)):
            found += _as_text_and_bytes(text)
    if joining := environment.get("MESHNODE_JOIN", "").strip():
        found.append(joining.encode())
    return [secret for secret in found if secret]


def _key_in(path: Path) -> Iterator[bytes]:
    pem = _read(path)
    if pem is None:
        return
    for line in pem.decode("ascii", errors="replace").splitlines():
        if not line.startswith("-----"):
            yield line.strip().encode()
    try:
        key = serialization.load_pem_private_key(pem, password=None)
        yield key.private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
    except (ValueError, TypeError):
        return


def _long_texts(value: object) -> Iterator[str]:
    if isinstance(value, str) and len(value) >= _MIN_TEXT and not _is_id(value):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _long_texts(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _long_texts(entry)


def _as_text_and_bytes(text: str) -> Iterator[bytes]:
    yield text.encode()
    try:
        yield base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return


def _is_id(text: str) -> bool:
    """A node or mesh id: public, and needed to read the bundle."""
    return len(text) == _ID_LENGTH and set(text) <= _ID_ALPHABET


def _json(path: Path) -> object:
    try:
        found: object = json.loads(_read(path) or b"null")
    except (ValueError, RecursionError):
        return None
    return found


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError:
        return None
