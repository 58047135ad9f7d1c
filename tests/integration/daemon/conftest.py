"""Real node processes for every test here: `nodes.start(...)` runs one, and none of them outlives its test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from making_nodes import Nodes


@pytest.fixture
def nodes(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Starts node processes; all are gone when the test ends."""
    started = Nodes(tmp_path, tmp_path_factory.mktemp("c"))
    try:
        yield started
    finally:
        started.end()
