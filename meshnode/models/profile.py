"""Model profiles: a TOML file that states a model's figures, for planning without its files.

The fields are `planner.files`' business (`parse_profile`); here the file is read and its errors get its path.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from meshnode.models.errors import ModelFileError
from meshnode.models.package import ModelPackage, PackageKind
from planner import InvalidPlanInput
from planner.files import parse_profile

_MAX_BYTES = 2**20


def read_profile(ref: str, path: Path) -> ModelPackage:
    """The profile at `path`. Raises `ModelFileError` naming the field, what was found and what would be right."""
    try:
        content = path.read_bytes()[: _MAX_BYTES + 1]
    except OSError as error:
        raise ModelFileError(str(path), "file", str(error.strerror or error), "a readable profile") from error
    if len(content) > _MAX_BYTES:
        raise ModelFileError(str(path), "file", f"more than {_MAX_BYTES} bytes", "a model profile")
    try:
        table = tomllib.loads(content.decode("utf-8"))
        spec = parse_profile(table)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ModelFileError(str(path), "TOML", str(error), "a valid TOML file") from error
    except InvalidPlanInput as error:
        raise ModelFileError(str(path), error.field, repr(error.found), error.expected) from error
    return ModelPackage(ref, PackageKind.PROFILE, spec, architecture="profile", layers_in_files=spec.layer_count)
