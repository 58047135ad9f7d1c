"""For every integration test: `lab` and `mesh_of(n)` make real endpoints in this process, `nodes` real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from making_links import ALab, ANode, full_mesh
from making_nodes import Nodes

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


@pytest.fixture
def nodes(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Starts node processes; all are gone when the test ends."""
    started = Nodes(tmp_path, tmp_path_factory.mktemp("c"))
    try:
        yield started
    finally:
        started.end()
