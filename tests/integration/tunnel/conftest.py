"""`tunnels`: makes real nodes with tunnels, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from making_links import ALab
from making_tunnels import TunnelLab, a_tunnel_lab


@pytest.fixture
async def tunnels(lab: ALab, tmp_path: Path) -> AsyncIterator[TunnelLab]:
    """Ends everything that the test made."""
    async with a_tunnel_lab(lab, tmp_path) as made:
        yield made
