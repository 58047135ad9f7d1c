"""What the mesh is told of models: those with files, and layers that are kept of others."""

from __future__ import annotations

from pathlib import Path

from meshnode.config import NodeConfig
from meshnode.events import Event
from meshnode.inventory import Inventory
from proto.parts import FetchedLayers


async def test_model_that_is_not_there_is_told_of_once(tmp_path: Path) -> None:
    events: list[Event] = []
    changes: list[None] = []
    config = NodeConfig(state_dir=tmp_path, models=(str(tmp_path / "missing.gguf"),))
    inventory = Inventory(config, lambda: changes.append(None), events.append)
    await inventory.read()
    await inventory.read()
    assert [event.name for event in events] == ["model.unreadable"]
    assert len(changes) == 1, "the second reading is no news to splits and peers"
    (tmp_path / "missing.gguf").write_bytes(b"no model")
    await inventory.read()
    assert len(events) == 2, "another fault is news"


async def test_model_without_a_file_is_told_of_for_the_layers_that_are_kept(tmp_path: Path) -> None:
    inventory = Inventory(NodeConfig(state_dir=tmp_path, models=("wanted",)), lambda: None, lambda _: None)
    await inventory.read()
    kept = FetchedLayers("a" * 52, "sampled1:00", 0, 8)
    wanted, other = inventory.offers({}, {"other": (kept,), "wanted": (kept,)})
    assert (wanted.ref, wanted.wanted, wanted.fetched) == ("wanted", True, (kept,))
    assert (other.ref, other.wanted, other.complete, other.cached_bytes) == ("other", False, False, 0)
    assert other.fetched == (kept,)
    assert [offer.ref for offer in inventory.offers({}, {})] == ["wanted"]
