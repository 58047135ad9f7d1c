"""Makers of other releases of meshnode: wheels of this tree with other versions, installed beside it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("meshnode", "planner", "proto", "configs", "pyproject.toml", "README.md", "LICENSE")


@dataclass(frozen=True)
class Release:
    """One release: `version` of the package, and the protocol range it speaks (minors of major 1). `novelty` adds what
    a later release may add: fields that others don't know."""

    version: str
    lowest: int
    highest: int
    novelty: bool = False


def program_of(release: Release, root: Path) -> tuple[str, ...]:
    """How this release is started: its wheel is built from the tree and unpacked below `root`; libraries are shared."""
    source, home = root / f"source-{release.version}", root / f"release-{release.version}"
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(ROOT / part, source / part)
    _alter(source / "pyproject.toml", r'^version = ".*"$', f'version = "{release.version}"')
    _alter(source / "meshnode" / "__init__.py", r'^__version__ = ".*"$', f'__version__ = "{release.version}"')
    spoken = f"OURS = VersionRange(ProtocolVersion(1, {release.lowest}), ProtocolVersion(1, {release.highest}))"
    _alter(source / "proto" / "versions.py", r"^OURS = .*$", spoken)
    if release.novelty:
        for shape in ("Hello", "Ping", "OfferPart"):
            _add_field(source / "proto", shape)
    _run(sys.executable, "-m", "build", "--wheel", "--outdir", str(root / "wheels" / release.version), str(source))
    (wheel,) = (root / "wheels" / release.version).glob("*.whl")
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(home), str(wheel))
    # Nothing of this checkout may be found first, by the node or by processes that it starts.
    return ("env", f"PYTHONPATH={home}", "PYTHONSAFEPATH=1", sys.executable, "-m", "meshnode")


def _alter(file: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert count == 1, f"{file}: {pattern} stands there {count} times"
    file.write_text(text, encoding="utf-8")


def _add_field(folder: Path, shape: str) -> None:
    """A field at the end of the shape, before the next class, in the one file below `folder` that has it."""
    head = f"\nclass {shape}("
    (file,) = (file for file in folder.rglob("*.py") if head in file.read_text(encoding="utf-8"))
    text = file.read_text(encoding="utf-8")
    begin = text.index(head)
    end = text.index("\n\n\n", begin)
    file.write_text(f"{text[:end]}\n    novelty: str = 'since then'\n{text[end:]}", encoding="utf-8")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
