"""Real nodes behind the link emulator: `mesh.start(...)` runs one, `mesh.net` shapes what lies between them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from emulated_mesh import EmulatedMesh
from emulation import LinkEmulator
from making_nodes import Nodes


@pytest.fixture
def mesh(nodes: Nodes) -> Iterator[EmulatedMesh]:
    """Starts node processes that reach each other only through a fresh emulator."""
    with LinkEmulator(seed=4) as net:
        yield EmulatedMesh(nodes, net)
