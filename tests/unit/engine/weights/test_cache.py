"""The weights cache: large tensors of a local model by hash, one folder per manifest, with disk counted."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from making_weights import LAYERS, a_stage, write_model

from meshnode.engine.confinement.reach import Reach
from meshnode.engine.weights.cache import LocalPackage, WeightsCache
from meshnode.engine.weights.fnv import fnv1a_64
from meshnode.events import Event, WeightsFilled, WeightsRemoved, WeightsSkipped
from meshnode.models import load_model_blocking, sampled_manifest
from meshnode.split import Held
from meshnode.tunnel import Opening, Tunnel, TunnelRefusal, TunnelRefused
from proto.ids import NodeId


async def no_tunnel(peer: NodeId, _opening: Opening) -> Tunnel:
    raise TunnelRefused(peer, TunnelRefusal.NOT_OFFERED, "nothing is offered here")


class Home:
    """A node's models and its cache."""

    def __init__(self, place: Path, most_bytes: int | None = None, keep_s: float = 0.0) -> None:
        self.place = place
        self.events: list[Event] = []
        self.packages: dict[str, LocalPackage] = {}
        self.root = place / "weights"
        self.cache = WeightsCache(
            self.root,
            most_bytes,
            self.packages.get,
            no_tunnel,
            self.events.append,
            Reach(),
            lambda *_: None,
            keep_s=keep_s,
        )

    def model(self, name: str, seed: int = 1, *, tied: bool = False) -> dict[str, bytes]:
        path = self.place / f"{name}.gguf"
        tensors = write_model(path, seed, tied=tied)
        package = load_model_blocking(str(path), cache_dir=self.place / "cache")
        manifest = sampled_manifest(package)
        assert manifest is not None
        self.packages[package.name] = LocalPackage(package, manifest)
        return tensors

    async def fill(self, held: Held) -> Path | None:
        found = await self.cache.prepare(held, lambda _done, _total, _fetching: None)
        return None if found is None else Path(found)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    yield Home(tmp_path)
    for folder in tmp_path.rglob("rpc"):
        folder.chmod(0o700)


def hashed(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if len(file.name) == 16}


def expected(tensors: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {f"{fnv1a_64(tensors[name]):016x}": tensors[name] for name in names}


async def test_large_tensors_of_the_stages_layers_are_found_by_their_hash(home: Home) -> None:
    tensors = home.model("one")
    folder = await home.fill(a_stage("one", 0, 2))
    assert folder is not None
    assert folder.name == "rpc"
    assert hashed(folder) == expected(tensors, "blk.0.ffn_up.weight", "blk.1.ffn_up.weight")
    (filled,) = home.events
    assert isinstance(filled, WeightsFilled)
    assert (filled.tensors, filled.written_bytes) == (2, 2 * 2600 * 2048 * 2)


@pytest.mark.parametrize(("tied", "head"), [(False, "output.weight"), (True, "token_embd.weight")])
async def test_last_stage_has_the_head_which_may_be_the_embedding(home: Home, tied: bool, head: str) -> None:
    tensors = home.model("one", tied=tied)
    folder = await home.fill(a_stage("one", 2, LAYERS))
    assert folder is not None
    assert hashed(folder) == expected(tensors, "blk.2.ffn_up.weight", head)


async def test_server_can_read_there_and_never_write(home: Home) -> None:
    home.model("one")
    folder = await home.fill(a_stage("one", 0, 1))
    assert folder is not None
    modes = {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir() if len(file.name) == 16}
    assert (stat.S_IMODE(folder.stat().st_mode), modes) == (0o500, {0o400})


async def test_what_is_there_is_not_written_again_and_what_is_missing_is_added(home: Home) -> None:
    tensors = home.model("one")
    await home.fill(a_stage("one", 0, 2))
    folder = await home.fill(a_stage("one", 0, 3, generation=2))
    assert folder is not None
    names = [f"blk.{layer}.ffn_up.weight" for layer in range(3)]
    assert hashed(folder) == expected(tensors, *names, "output.weight")
    first, second = home.events
    assert isinstance(first, WeightsFilled)
    assert isinstance(second, WeightsFilled)
    assert second.written_bytes == first.written_bytes == 2 * 2600 * 2048 * 2


async def test_coordinator_of_an_earlier_release_offers_nothing_and_its_engine_sends_it_all(home: Home) -> None:
    assert await home.fill(a_stage("elsewhere", 0, 1)) is None
    (skipped,) = home.events
    assert isinstance(skipped, WeightsSkipped)
    assert skipped.reason == "the coordinator gives none: nothing is offered here"


async def test_too_little_room_is_told_with_figures_and_leaves_the_stage_without_a_cache(tmp_path: Path) -> None:
    home = Home(tmp_path, most_bytes=15_000_000)
    home.model("one")
    assert await home.fill(a_stage("one", 0, 2)) is None
    (skipped,) = home.events
    assert isinstance(skipped, WeightsSkipped)
    assert skipped.needed_bytes == 2 * 2600 * 2048 * 2
    assert skipped.reason == "0.0GB needed, max_weights_cache leaves 0.0GB"


async def test_files_that_changed_since_the_manifest_fill_nothing(home: Home) -> None:
    home.model("one")
    path = home.place / "one.gguf"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert await home.fill(a_stage("one", 0, 1)) is None
    (skipped,) = home.events
    assert isinstance(skipped, WeightsSkipped)
    assert "changed" in skipped.reason


async def test_folder_stays_while_a_stage_uses_it_and_goes_when_another_model_comes(home: Home) -> None:
    home.model("one", seed=1)
    home.model("two", seed=2)
    used = a_stage("one", 0, 1)
    first = await home.fill(used)
    await home.fill(a_stage("two", 0, 1))
    assert first is not None
    assert first.exists()
    home.cache.release(replace(used, renewed_s=99.0))
    assert first.exists()
    await home.fill(a_stage("two", 0, 1, generation=2))
    assert not first.exists()
    (removed,) = (event for event in home.events if isinstance(event, WeightsRemoved))
    assert removed.freed_bytes > 10_000_000


async def test_folder_that_was_used_lately_stays_until_room_is_wanted(tmp_path: Path) -> None:
    home = Home(tmp_path, most_bytes=25_000_000, keep_s=600.0)
    home.model("one", seed=1)
    home.model("two", seed=2)
    used = a_stage("one", 0, 1)
    first = await home.fill(used)
    home.cache.release(used)
    assert await home.fill(a_stage("two", 0, 1)) is not None
    assert first is not None
    assert first.exists()
    assert await home.fill(a_stage("two", 0, 2, generation=2)) is not None
    assert not first.exists()
