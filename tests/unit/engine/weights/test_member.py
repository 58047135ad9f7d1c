"""Bytes from a member that is nearer, on the coordinator's word; the coordinator gives what that one has not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from making_weights import (
    COORDINATOR,
    LARGE_BYTES,
    LAYERS,
    Source,
    Tasks,
    Worker,
    a_stage,
    by_hash,
    found_in,
    scripted,
)

from meshnode.engine.weights.talk import Talk
from meshnode.events import WeightsFetched, WeightsFetching, WeightsInterrupted, WeightsRejected
from proto.ids import NodeId
from proto.weights import TensorSize, WeightsList, WeightsRequest, WeightsTensor

MEMBER = NodeId("m" * 51 + "a")
UP = [f"blk.{layer}.ffn_up.weight" for layer in range(LAYERS)]


@pytest.fixture
def source(place: Path) -> Source:
    return Source(place, 0, 2)


@pytest.fixture
def worker(place: Path, tasks: Tasks, source: Source) -> Worker:
    worker = Worker(place, tasks, source.serve, None)
    worker.nearest = MEMBER
    return worker


async def fetched(worker: Worker, source: Source) -> None:
    folder = await worker.fetch(a_stage("one", 0, 2))
    assert folder is not None
    assert found_in(folder) == by_hash(source.tensors, *UP[:2])
    (event,) = worker.of(WeightsFetched)
    assert event.received_bytes >= 2 * LARGE_BYTES


def received(worker: Worker, peer: NodeId) -> int:
    return sum(tunnel.received_bytes for tunnel in worker.tunnels if tunnel.peer == peer)


async def test_member_gives_the_bytes_and_the_coordinator_its_word(worker: Worker, source: Source) -> None:
    # The same files and process, asked under another id: each node keeps one tunnel for each asker.
    worker.members[MEMBER] = lambda end, opening: source.serve(end, opening, MEMBER)
    await fetched(worker, source)
    assert received(worker, MEMBER) > 2 * LARGE_BYTES
    assert received(worker, COORDINATOR) < 10_000
    (begun,) = worker.of(WeightsFetching)
    assert begun.source == MEMBER
    assert worker.of(WeightsRejected) == []


async def test_member_that_is_lost_leaves_the_rest_to_the_coordinator(worker: Worker, source: Source) -> None:
    def script(talk: Talk) -> None:
        content = source.tensors[UP[0]]
        talk.say(WeightsList(source.stage.manifest, (TensorSize(UP[0], LARGE_BYTES),), False))
        asked = talk.hear([WeightsRequest])
        assert isinstance(asked, WeightsRequest)
        talk.say(WeightsTensor(UP[0], LARGE_BYTES, hashlib.sha256(content).digest(), asked.offset))
        talk._end.sendall(content[: 6 * 2**20])

    worker.members[MEMBER] = scripted(script)
    await fetched(worker, source)
    assert received(worker, MEMBER) > 6 * 2**20
    assert received(worker, COORDINATOR) < 2 * LARGE_BYTES - 6 * 2**20 + 100_000
    assert [*worker.of(WeightsInterrupted), *worker.of(WeightsRejected)] == []


async def test_member_that_gives_other_bytes_than_it_says_is_named_and_left(worker: Worker, source: Source) -> None:
    def script(talk: Talk) -> None:
        talk.say(WeightsList(source.stage.manifest, tuple(TensorSize(name, LARGE_BYTES) for name in UP), False))
        while (asked := talk.hear([WeightsRequest])) is not None:
            assert isinstance(asked, WeightsRequest)
            digest = hashlib.sha256(source.tensors[asked.name]).digest()
            talk.say(WeightsTensor(asked.name, LARGE_BYTES, digest, asked.offset))
            talk._end.sendall(bytes(LARGE_BYTES))

    worker.members[MEMBER] = scripted(script)
    await fetched(worker, source)
    rejected = worker.of(WeightsRejected)
    assert {event.peer for event in rejected} == {MEMBER}
    assert all(event.again for event in rejected)
    assert received(worker, COORDINATOR) > 2 * LARGE_BYTES


async def test_member_of_another_package_is_named_and_asked_for_nothing(worker: Worker, source: Source) -> None:
    worker.members[MEMBER] = scripted(lambda talk: talk.say(WeightsList("sampled1:00", (), False)))
    await fetched(worker, source)
    (rejected,) = worker.of(WeightsRejected)
    assert (rejected.peer, rejected.tensor) == (MEMBER, "")
    assert "sampled1:00" in rejected.reason
