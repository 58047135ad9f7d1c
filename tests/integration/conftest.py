"""Real endpoints on loopback for every integration test: `lab` makes nodes, `mesh_of(n)` a mesh of linked ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from making_links import ALab, ANode, full_mesh

MeshMaker = Callable[[int], Awaitable[list[ANode]]]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[ALab]:
    """Makes members of one mesh and runs their endpoints until the test ends."""
    async with AsyncExitStack() as stack:
        yield ALab(tmp_path, stack)


@pytest.fixture
def mesh_of(lab: ALab) -> MeshMaker:
    """`await mesh_of(3)`: three members of one mesh, each linked to each."""
    return lambda count: full_mesh(lab, count)


@pytest.fixture
async def other_lab(tmp_path: Path) -> AsyncIterator[ALab]:
    """A second mesh, with another root."""
    async with AsyncExitStack() as stack:
        yield ALab(tmp_path / "other", stack)
