"""Real members over real state directories, one per name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from mesh_of_members import MeshOfMembers


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[MeshOfMembers]:
    """A mesh founded by the member `founder`."""
    with ExitStack() as stack:
        yield MeshOfMembers(tmp_path, stack)


@pytest.fixture
def another_mesh(tmp_path: Path) -> Iterator[MeshOfMembers]:
    with ExitStack() as stack:
        yield MeshOfMembers(tmp_path / "another", stack)


@pytest.fixture
def without_root(tmp_path: Path) -> Iterator[MeshOfMembers]:
    """A mesh whose root key was exported to `root.pem` at its founding."""
    with ExitStack() as stack:
        yield MeshOfMembers(tmp_path, stack, export_root=tmp_path / "root.pem")
