"""The configuration in force as plain JSON, for `/v1/config` and the support bundle.

What lives here: `config_json`. What does not: the keys (`meshnode.config.keys`). Of a secret it only says
that it is set.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from meshnode.config.keys import NodeConfig
from meshnode.redaction import BLOT, SECRET_NAMES


def config_json(config: NodeConfig) -> dict[str, Any]:
    """Every key with its value: sizes in bytes, times in the key's unit, paths and addresses as text."""
    return {field.name: _told(field.name, getattr(config, field.name)) for field in fields(NodeConfig)}


def _told(name: str, value: object) -> object:
    return BLOT if name in SECRET_NAMES and value is not None else _plain(value)


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else str(value)
