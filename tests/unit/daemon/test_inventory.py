"""What the mesh is told of models: those with files, and layers that are kept of others."""

from __future__ import annotations

from pathlib import Path

from meshnode.config import NodeConfig
from meshnode.inventory import Inventory
from proto.parts import FetchedLayers


async def test_model_without_a_file_is_told_of_for_the_layers_that_are_kept(tmp_path: Path) -> None:
    inventory = Inventory(NodeConfig(state_dir=tmp_path, models=("wanted",)), lambda: None, lambda _: None)
    await inventory.read()
    kept = FetchedLayers("a" * 52, "sampled1:00", 0, 8)
    wanted, other = inventory.offers({}, {"other": (kept,), "wanted": (kept,)})
    assert (wanted.ref, wanted.wanted, wanted.fetched) == ("wanted", True, (kept,))
    assert (other.ref, other.wanted, other.complete, other.cached_bytes) == ("other", False, False, 0)
    assert other.fetched == (kept,)
    assert [offer.ref for offer in inventory.offers({}, {})] == ["wanted"]
