"""Fixtures of the tests that fill, fetch and give weights."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from making_weights import Tasks

from meshnode.engine.weights import fetch


@pytest.fixture
async def tasks(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tasks]:
    """Pauses between tries are of no use where nothing else goes on."""
    monkeypatch.setattr(fetch, "PAUSE_S", 0.0)
    tasks = Tasks()
    yield tasks
    await tasks.end()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder whose weights, which are read-only, can be removed afterwards."""
    yield tmp_path
    for folder in tmp_path.rglob("rpc"):
        folder.chmod(0o700)
