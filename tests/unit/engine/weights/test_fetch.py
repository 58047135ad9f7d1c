"""Fetching a stage's tensors: only its layers', from where it stopped, verified, and bounded before the first byte."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import msgpack
import pytest
from making_weights import (
    COORDINATOR,
    LARGE_BYTES,
    LAYERS,
    OTHER_COORDINATOR,
    Source,
    Tasks,
    Worker,
    a_stage,
    by_hash,
    found_in,
    scripted,
)

from meshnode.engine.weights import fetch
from meshnode.engine.weights.folder import About, FetchedFolder
from meshnode.engine.weights.listing import listed
from meshnode.engine.weights.talk import Talk, TalkBroken
from meshnode.events import (
    WeightsFetched,
    WeightsFetching,
    WeightsInterrupted,
    WeightsRejected,
    WeightsRemoved,
    WeightsSkipped,
)
from meshnode.tunnel import TunnelRefusal
from proto.errors import WireError
from proto.parts import FetchedLayers
from proto.weights import TensorSize, WeightsEnd, WeightsList, WeightsRequest, WeightsTensor

MIB = 2**20
MANIFEST = "sampled1:00ff"
UP = [f"blk.{layer}.ffn_up.weight" for layer in range(LAYERS)]


def a_worker(place: Path, tasks: Tasks, source: Source, most_bytes: int | None = None) -> Worker:
    return Worker(place, tasks, source.serve, most_bytes)


# --- what is fetched -------------------------------------------------------------------------------------------------


async def test_worker_without_files_gets_its_own_layers_and_nothing_else(place: Path, tasks: Tasks) -> None:
    source = Source(place, 0, 2)
    worker = a_worker(place, tasks, source)
    folder = await worker.fetch(a_stage("one", 0, 2))
    assert folder is not None
    assert folder.name == "rpc"
    assert found_in(folder) == by_hash(source.tensors, *UP[:2])
    assert oct(folder.stat().st_mode)[-3:] == "500"
    (begun,), (fetched,) = worker.of(WeightsFetching), worker.of(WeightsFetched)
    assert (begun.source, begun.total_bytes, begun.resumed_bytes) == (COORDINATOR, 2 * LARGE_BYTES, 0)
    assert (fetched.tensors, fetched.total_bytes, fetched.received_bytes) == (2, 2 * LARGE_BYTES, 2 * LARGE_BYTES)
    assert worker.told[0] == (0, 2 * LARGE_BYTES, True)
    assert worker.told[-1] == (2 * LARGE_BYTES, 2 * LARGE_BYTES, True)
    about = FetchedFolder(folder.parent).about()
    assert about == About("one", COORDINATOR, source.stage.manifest, ((0, 2),))
    kept = FetchedLayers(COORDINATOR, source.stage.manifest, 0, 2)
    assert worker.cache.fetched == {"one": (kept,)}
    again = a_worker(place, tasks, source)
    await again.cache.look()
    assert again.cache.fetched == {"one": (kept,)}


async def test_last_stage_gets_the_head_too(place: Path, tasks: Tasks) -> None:
    source = Source(place, 2, LAYERS)
    worker = a_worker(place, tasks, source)
    folder = await worker.fetch(a_stage("one", 2, LAYERS))
    assert folder is not None
    assert found_in(folder) == by_hash(source.tensors, UP[2], "output.weight")


async def test_second_load_moves_less_than_a_hundredth(place: Path, tasks: Tasks) -> None:
    source = Source(place, 0, 2)
    worker = a_worker(place, tasks, source)
    await worker.fetch(a_stage("one", 0, 2))
    before, told = worker.received_bytes, len(worker.told)
    folder = await worker.fetch(a_stage("one", 0, 2, generation=2))
    assert folder is not None
    assert found_in(folder) == by_hash(source.tensors, *UP[:2])
    assert worker.received_bytes - before < 2 * LARGE_BYTES // 100
    assert (len(worker.of(WeightsFetching)), len(worker.told)) == (1, told)
    assert [event.received_bytes for event in worker.of(WeightsFetched)] == [2 * LARGE_BYTES, 0]


# --- broken off ------------------------------------------------------------------------------------------------------


async def test_lost_tunnels_are_opened_again_and_nothing_is_sent_twice(place: Path, tasks: Tasks) -> None:
    source = Source(place, 0, 2)
    worker = a_worker(place, tasks, source)
    worker.cuts = [3 * MIB, 11 * MIB]
    folder = await worker.fetch(a_stage("one", 0, 2))
    assert folder is not None
    assert found_in(folder) == by_hash(source.tensors, *UP[:2])
    interrupted = worker.of(WeightsInterrupted)
    assert len(interrupted) == 2
    assert 2 * MIB < interrupted[0].done_bytes < interrupted[1].done_bytes < 2 * LARGE_BYTES
    assert worker.received_bytes < 2 * LARGE_BYTES + MIB // 2
    (fetched,) = worker.of(WeightsFetched)
    assert fetched.received_bytes <= 2 * LARGE_BYTES
    assert worker.of(WeightsRejected) == []


async def test_node_that_was_killed_goes_on_where_it_was(
    place: Path, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(place, 0, 2)
    first = a_worker(place, tasks, source)
    first.cuts = [15 * MIB]
    monkeypatch.setattr(fetch, "PAUSE_S", 60.0)
    async with anyio.create_task_group() as fetching:
        fetching.start_soon(first.fetch, a_stage("one", 0, 2))
        await first.until(WeightsInterrupted)
        fetching.cancel_scope.cancel()
    second = a_worker(place, tasks, source)
    folder = await second.fetch(a_stage("one", 0, 2, generation=2))
    assert folder is not None
    assert found_in(folder) == by_hash(source.tensors, *UP[:2])
    (begun,), (fetched,) = second.of(WeightsFetching), second.of(WeightsFetched)
    assert begun.resumed_bytes > 14 * MIB
    assert fetched.received_bytes + fetched.resumed_bytes == 2 * LARGE_BYTES
    assert second.received_bytes < 2 * LARGE_BYTES - 14 * MIB


async def test_refusal_that_may_pass_is_asked_again(place: Path, tasks: Tasks) -> None:
    source = Source(place, 0, 1)
    worker = a_worker(place, tasks, source)
    worker.refusals = [TunnelRefusal.NOT_ADMITTED, TunnelRefusal.TOO_MANY]
    folder = await worker.fetch(a_stage("one", 0, 1))
    assert folder is not None
    assert found_in(folder) == by_hash(source.tensors, UP[0])
    assert len(worker.of(WeightsInterrupted)) == 2


async def test_part_that_was_damaged_meanwhile_is_fetched_anew(place: Path, tasks: Tasks) -> None:
    source = Source(place, 0, 1)
    folder = FetchedFolder(place / "weights" / f"from-{COORDINATOR}-{source.stage.manifest.replace(':', '-')}")
    folder.make()
    digest = hashlib.sha256(source.tensors[UP[0]]).digest()
    folder.part(UP[0], digest).write_bytes(bytes(5 * MIB))
    worker = a_worker(place, tasks, source)
    found = await worker.fetch(a_stage("one", 0, 1))
    assert found is not None
    assert found_in(found) == by_hash(source.tensors, UP[0])
    (rejected,) = worker.of(WeightsRejected)
    assert (rejected.tensor, rejected.peer, rejected.again) == (UP[0], COORDINATOR, True)
    assert "what was there of it before" in rejected.reason
    assert worker.of(WeightsSkipped) == []


async def test_part_of_other_bytes_is_no_beginning(place: Path, tasks: Tasks) -> None:
    """The coordinator's file is another one than the part was of, with the same tensors."""
    source = Source(place, 0, 1)
    folder = FetchedFolder(place / "weights" / f"from-{COORDINATOR}-{source.stage.manifest.replace(':', '-')}")
    folder.make()
    folder.part(UP[0], bytes(32)).write_bytes(bytes(5 * MIB))
    worker = a_worker(place, tasks, source)
    found = await worker.fetch(a_stage("one", 0, 1))
    assert found is not None
    assert found_in(found) == by_hash(source.tensors, UP[0])
    assert worker.of(WeightsRejected) == []
    assert worker.received_bytes > LARGE_BYTES


async def test_coordinator_that_is_never_reached_leaves_it_to_the_engine(
    place: Path, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = a_worker(place, tasks, Source(place, 0, 1))
    monkeypatch.setattr(fetch, "TRIES", 2)
    worker.cuts = [0, 0, 0]
    assert await worker.fetch(a_stage("one", 0, 1)) is None
    assert len(worker.of(WeightsInterrupted)) == 2
    (skipped,) = worker.of(WeightsSkipped)
    assert "(2 tries)" in skipped.reason


# --- bounds and rooms ------------------------------------------------------------------------------------------------


async def test_too_little_room_is_told_with_figures_before_the_first_byte(place: Path, tasks: Tasks) -> None:
    worker = a_worker(place, tasks, Source(place, 0, 2), most_bytes=15_000_000)
    assert await worker.fetch(a_stage("one", 0, 2)) is None
    (skipped,) = worker.of(WeightsSkipped)
    assert skipped.needed_bytes == 2 * LARGE_BYTES
    assert skipped.reason == "0.0GB needed, max_weights_cache leaves 0.0GB"
    assert worker.received_bytes < 10_000


async def test_one_coordinators_tensors_are_no_others(place: Path, tasks: Tasks) -> None:
    source = Source(place, 0, 1)
    worker = a_worker(place, tasks, source)
    one = await worker.fetch(a_stage("one", 0, 1))
    before = worker.received_bytes
    other = await worker.fetch(a_stage("one", 0, 1, coordinator=OTHER_COORDINATOR))
    assert one is not None
    assert other is not None
    assert one != other
    assert worker.received_bytes - before > LARGE_BYTES


async def test_folder_that_no_stage_uses_goes_when_another_is_filled(place: Path, tasks: Tasks) -> None:
    worker = a_worker(place, tasks, Source(place, 0, 1))
    used = a_stage("one", 0, 1)
    one = await worker.fetch(used)
    assert one is not None
    await worker.fetch(a_stage("one", 0, 1, coordinator=OTHER_COORDINATOR))
    assert one.exists()
    worker.cache.release(used)
    await worker.fetch(a_stage("one", 0, 1, generation=2, coordinator=OTHER_COORDINATOR))
    assert not one.exists()
    assert [each.source for each in worker.cache.fetched["one"]] == [OTHER_COORDINATOR]
    (removed,) = worker.of(WeightsRemoved)
    assert (removed.folder, removed.freed_bytes >= LARGE_BYTES) == (one.parent.name, True)


async def test_what_other_layers_left_goes_where_room_is_wanted(place: Path, tasks: Tasks) -> None:
    source = Source(place, 0, 1)
    worker = a_worker(place, tasks, source, most_bytes=int(1.5 * LARGE_BYTES))
    await worker.fetch(a_stage("one", 0, 1))
    moved = Source(place, 1, 2)
    worker = a_worker(place, tasks, moved, most_bytes=int(1.5 * LARGE_BYTES))
    folder = await worker.fetch(a_stage("one", 1, 2, generation=2))
    assert folder is not None
    assert found_in(folder) == by_hash(source.tensors, UP[1])
    about = FetchedFolder(folder.parent).about()
    assert about is not None
    assert about.ranges == ((1, 2),)


# --- a source that is wrong ------------------------------------------------------------------------------------------


def giving(wrong: bytes, right: bytes) -> Callable[[Talk], None]:
    """Announces `right` for layer 0's tensor and gives `wrong`; layer 1's is as announced."""
    contents = {UP[0]: (wrong, right), UP[1]: (right, right)}

    def script(talk: Talk) -> None:
        talk.say(WeightsList(MANIFEST, tuple(TensorSize(name, len(right)) for name in contents), False))
        while (asked := talk.hear([WeightsRequest])) is not None:
            assert isinstance(asked, WeightsRequest)
            given, announced = contents[asked.name]
            talk.say(WeightsTensor(asked.name, len(announced), hashlib.sha256(announced).digest(), 0))
            talk._end.sendall(given)

    return script


async def test_tensor_that_comes_wrong_twice_is_thrown_away_and_the_others_stay(place: Path, tasks: Tasks) -> None:
    right = bytes(range(256)) * (LARGE_BYTES // 256)
    wrong = b"\xff" + right[1:]
    worker = Worker(place, tasks, scripted(giving(wrong, right)), None)
    folder = await worker.fetch(a_stage("one", 0, 2))
    assert folder is not None
    assert found_in(folder) == by_hash({"": right}, "")
    rejected = worker.of(WeightsRejected)
    assert [(event.tensor, event.peer, event.again) for event in rejected] == [
        (UP[0], COORDINATOR, True), (UP[0], COORDINATOR, False),
    ]  # fmt: skip
    (skipped,) = worker.of(WeightsSkipped)
    assert (skipped.needed_bytes, skipped.reason) == (len(right), "1 tensor(s) came wrong twice")
    about = FetchedFolder(folder.parent).about()
    assert about is not None
    assert about.ranges == ()
    assert list((folder.parent / "parts").iterdir()) == []


def a_tensor(name: str = UP[0], size_bytes: int = LARGE_BYTES) -> TensorSize:
    return TensorSize(name, size_bytes)


def raw(name: str, size_bytes: int) -> bytes:
    """A frame that no source of ours would make."""
    body = msgpack.packb({"type": "weights_list", "manifest": MANIFEST, "tensors": [[name, size_bytes]], "more": False})
    return bytes(len(body).to_bytes(4, "big") + body)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        pytest.param(raw(UP[0], 10**18), "tensors[0][1]", id="an absurd size"),
        pytest.param(raw("../../key", LARGE_BYTES), "tensors[0][0]", id="a path"),
        pytest.param(raw("blk.0.a/b", LARGE_BYTES), "tensors[0][0]", id="a slash"),
        pytest.param(raw("x" * 65, LARGE_BYTES), "tensors[0][0]", id="a long name"),
        pytest.param(b"\xff\xff\xff\xff", "length", id="an absurd frame"),
        pytest.param([a_tensor(), a_tensor(UP[0].upper().replace("BLK", "blk"))], "twice", id="a name twice"),
        pytest.param([a_tensor(UP[2])], "one of layers 0-1", id="another's layer"),
        pytest.param([a_tensor("rope_freqs.weight")], "one of layers 0-1", id="no layer's"),
        pytest.param([a_tensor(size_bytes=10)], "above 10485760", id="a small tensor"),
        pytest.param([a_tensor(size_bytes=10**17)], "the stage has reserved", id="more than the stage holds"),
    ],
)
def test_list_that_cannot_be_this_stages_is_a_wire_error(said: bytes | list[TensorSize], reason: str) -> None:
    here, there = socket.socketpair()
    with here, there:
        if isinstance(said, bytes):
            there.sendall(said)
        else:
            Talk(there).say(WeightsList(MANIFEST, tuple(said), False))
        with pytest.raises(WireError, match=re.escape(reason)):
            listed(Talk(here), ((0, 2),), 10 * LARGE_BYTES)


async def test_source_that_breaks_the_rules_is_asked_for_nothing_and_named(place: Path, tasks: Tasks) -> None:
    asked: list[object] = []

    def script(talk: Talk) -> None:
        talk.say(WeightsList(MANIFEST, (a_tensor(UP[2]),), False))
        try:
            asked.append(talk.hear([WeightsRequest]))
        except TalkBroken:
            asked.append(None)

    worker = Worker(place, tasks, scripted(script), None)
    assert await worker.fetch(a_stage("one", 0, 2)) is None
    (rejected,), (skipped,) = worker.of(WeightsRejected), worker.of(WeightsSkipped)
    assert (rejected.peer, rejected.again) == (COORDINATOR, False)
    assert "one of layers 0-1" in rejected.reason
    assert rejected.reason in skipped.reason
    assert list((place / "weights").iterdir()) == []
    assert asked == [None]


async def test_source_that_cannot_go_on_says_why(place: Path, tasks: Tasks) -> None:
    ending = WeightsEnd("one.gguf changed since it was read")
    worker = Worker(place, tasks, scripted(lambda talk: talk.say(ending)), None)
    assert await worker.fetch(a_stage("one", 0, 2)) is None
    (skipped,) = worker.of(WeightsSkipped)
    assert skipped.reason == "the source ended it: one.gguf changed since it was read"


async def test_tensor_of_another_size_than_listed_is_refused(place: Path, tasks: Tasks) -> None:
    def script(talk: Talk) -> None:
        talk.say(WeightsList(MANIFEST, (a_tensor(),), False))
        talk.hear([WeightsRequest])
        talk.say(WeightsTensor(UP[0], 10**15, bytes(32), 0))

    worker = Worker(place, tasks, scripted(script), None)
    assert await worker.fetch(a_stage("one", 0, 2)) is None
    (rejected,) = worker.of(WeightsRejected)
    assert f"'{UP[0]}' of {10**15} bytes" in rejected.reason
