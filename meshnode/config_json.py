"""The configuration in force as plain JSON, for `/v1/config` and the support bundle.

What lives here: `config_json`. What does not: the keys (`meshnode.config_keys`). No key holds a secret.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from meshnode.config import NodeConfig


def config_json(config: NodeConfig) -> dict[str, Any]:
    """Every key with its value: sizes in bytes, times in the key's unit, paths and addresses as text."""
    return {field.name: _plain(getattr(config, field.name)) for field in fields(NodeConfig)}


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else str(value)
