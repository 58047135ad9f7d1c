"""JSON files of a model directory, read under a size limit and with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path

from meshnode.models.errors import ModelFileError


def read_json_object(path: Path, max_bytes: int) -> dict[str, object]:
    """The object in the JSON file at `path`. Raises `ModelFileError`: unreadable, too large, no JSON, no object."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise ModelFileError(str(path), "file", f"{size} bytes", f"at most {max_bytes}")
        with path.open("rb") as file:
            content = file.read(size)
    except OSError as error:
        raise ModelFileError(str(path), "file", str(error.strerror or error), "a readable JSON file") from error
    return json_object(content, str(path), "JSON")


def json_object(content: bytes, path: str, field: str) -> dict[str, object]:
    """The object that `content` is. Raises `ModelFileError` naming `field` of `path`."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(path, field, f"{type(error).__name__}: {error}", "valid JSON") from error
    if not isinstance(value, dict):
        raise ModelFileError(path, field, f"a {type(value).__name__}", "a JSON object")
    return value
