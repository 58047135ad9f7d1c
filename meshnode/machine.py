"""Which machine this is, as far as it can be told: to notice a state directory that was copied to another one.

What lives here: `machine_fingerprint`. Called by `meshnode.state`. Two nodes with one key break each other's
membership, and a disk image or a home directory copied to a second machine is how it happens.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_SOURCES: Final = ("etc/machine-id", "var/lib/dbus/machine-id")
_CONTAINER_MARKS: Final = (".dockerenv", "run/.containerenv")
_FINGERPRINT_CHARACTERS: Final = 32


def machine_fingerprint(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> str | None:
    """A hash of systemd's machine id (machine-id(5) asks never to show the id itself).

    None where the machine has none, and inside a container: there the id belongs to the image, or changes at each
    start, and says nothing about the volume that holds the state.
    """
    if "container" in environment or any((root / mark).exists() for mark in _CONTAINER_MARKS):
        return None
    for source in _SOURCES:
        try:
            text = (root / source).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if text and text != "uninitialized":
            return hashlib.sha256(f"meshnode/v1/machine:{text}".encode()).hexdigest()[:_FINGERPRINT_CHARACTERS]
    return None
