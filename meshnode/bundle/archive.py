"""The zip itself: bounded, private to its user, never over an existing file.

What lives here: `write_bundle`. What does not: what goes in (`contents`), and the blotting (`redactor`), which each
piece has gone through before it comes here.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from meshnode.bundle.contents import Piece
from meshnode.bundle.redactor import BundleRedactor

MAX_PIECE_BYTES: Final = 2 * 1024 * 1024
MAX_TOTAL_BYTES: Final = 12 * 1024 * 1024
"""Before compression; a zip of such texts is a tenth of it, and fits into a mail."""


class BundleExists(Exception):
    """There is a file of that name."""


def write_bundle(path: Path, pieces: Sequence[Piece], redactor: BundleRedactor) -> list[str]:
    """Write the pieces, redacted, as a new zip of mode 0600; returns what was shortened or left out.

    Raises `BundleExists`, `OSError`."""
    notes: list[str] = []
    files: dict[str, bytes] = {}
    left_bytes = MAX_TOTAL_BYTES
    for piece in pieces:
        allowed = min(MAX_PIECE_BYTES, left_bytes)
        content = _redacted(piece, redactor).encode("utf-8", errors="replace")
        if len(content) > allowed:
            content = _shortened(content, allowed, piece)
            notes.append(f"{piece.name}: too long, " + ("only its end is here" if content else "left out"))
        if content:
            files[piece.name] = content
            left_bytes -= len(content)
    _write(path, files, notes)
    return notes


def _redacted(piece: Piece, redactor: BundleRedactor) -> str:
    return redactor.text(piece.value) if isinstance(piece.value, str) else redactor.json_text(piece.value)


def _shortened(content: bytes, allowed: int, piece: Piece) -> bytes:
    """The end of a log, from the beginning of a line; half of a JSON document is of no use."""
    if not piece.is_lines or allowed <= 0:
        return b""
    return content[-allowed:].partition(b"\n")[2]


def _write(path: Path, files: dict[str, bytes], notes: list[str]) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise BundleExists(str(path)) from error
    try:
        with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
            if notes:
                archive.writestr("left-out.txt", "\n".join(notes) + "\n")
    except OSError:
        path.unlink(missing_ok=True)
        raise
