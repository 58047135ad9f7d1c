"""Who gets tensors from a coordinator: the workers of the plan that runs there now, each of its own stage."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import anyio.to_thread
import pytest
from making_weights import LARGE_BYTES, LAYERS, Source, Tasks, Worker, a_stage
from planning_makers import a_plan

from meshnode.engine.weights.cache import LocalPackage
from meshnode.engine.weights.source import stage_weights
from meshnode.engine.weights.talk import Talk, TalkBroken
from meshnode.models import load_model_blocking
from meshnode.tunnel import Opening, Purpose
from proto.ids import NodeId
from proto.messages import Fence, Message
from proto.weights import TensorSize, WeightsEnd, WeightsList, WeightsRequest, WeightsTensor

HERE, STUDY, LOFT, STRANGER = (NodeId(letter * 51 + "a") for letter in "abcd")
FENCE = Fence(3, HERE)
PLAN = a_plan([1, 1, 1], nodes=[STUDY, LOFT, STUDY])
OPENING = Opening(Purpose.WEIGHTS, "one", FENCE)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source(tmp_path_factory.mktemp("source"), 0, 1)


@pytest.fixture
def local(source: Source) -> LocalPackage:
    package = load_model_blocking(str(source.path), cache_dir=source.path.parent / "known")
    return LocalPackage(package, source.stage.manifest)


def test_worker_gets_the_layers_that_the_plan_gives_it_and_the_head_with_the_last(local: LocalPackage) -> None:
    study, loft = (stage_weights((PLAN, FENCE), local, node, OPENING) for node in (STUDY, LOFT))
    assert not isinstance(study, str)
    assert not isinstance(loft, str)
    assert (study.ranges, study.head) == (((0, 1), (2, LAYERS)), True)
    assert (loft.ranges, loft.head) == (((1, 2),), False)
    assert study.manifest == local.manifest


@pytest.mark.parametrize(
    ("opening", "peer", "reason"),
    [
        (Opening(Purpose.WEIGHTS, "one", Fence(2, HERE)), STUDY, "fenced"),
        (Opening(Purpose.WEIGHTS, "one", Fence(3, LOFT)), STUDY, "fenced"),
        (Opening(Purpose.WEIGHTS, "one", None), STUDY, "fenced"),
        (OPENING, STRANGER, "no stage of it is on that node"),
    ],
    ids=("an older plan", "another coordinator's", "of no plan", "not in the plan"),
)
def test_nobody_else_gets_anything(local: LocalPackage, opening: Opening, peer: NodeId, reason: str) -> None:
    why = stage_weights((PLAN, FENCE), local, peer, opening)
    assert isinstance(why, str)
    assert reason in why


def test_plan_that_is_over_and_files_that_are_gone_give_nothing(local: LocalPackage) -> None:
    assert "fenced" in str(stage_weights(None, local, STUDY, OPENING))
    assert stage_weights((PLAN, FENCE), None, STUDY, OPENING) == "the files are gone"


class _Talks:
    """Tunnels to `source`, as a worker has them."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._ends: list[socket.socket] = []

    def open(self, tasks: Tasks, peer: NodeId = STUDY) -> Talk:
        here, there = socket.socketpair()
        self._ends.append(here)
        tasks.start_soon(self._source.serve, there, OPENING, peer)
        return Talk(here)

    def close(self) -> None:
        for end in self._ends:
            end.close()


@pytest.fixture
def talks(source: Source) -> Iterator[_Talks]:
    talks = _Talks(source)
    yield talks
    talks.close()


async def heard(talk: Talk, *kinds: type[Message]) -> Message | None:
    return await anyio.to_thread.run_sync(talk.hear, kinds)


async def test_source_gives_what_it_listed_and_nothing_else(talks: _Talks) -> None:
    tasks = Tasks()
    talk = talks.open(tasks)
    listed = await heard(talk, WeightsList)
    assert isinstance(listed, WeightsList)
    assert listed.tensors == (TensorSize("blk.0.ffn_up.weight", LARGE_BYTES),)
    talk.say(WeightsRequest("blk.2.ffn_up.weight", 0, None))
    ended = await heard(talk, WeightsEnd, WeightsTensor)
    assert isinstance(ended, WeightsEnd)
    assert "a tensor of the list" in ended.reason
    await tasks.end()


async def test_worker_that_comes_again_has_lost_the_tunnel_before(talks: _Talks) -> None:
    tasks = Tasks()
    first = talks.open(tasks)
    await heard(first, WeightsList)
    second = talks.open(tasks)
    assert await heard(second, WeightsList) is not None
    with suppress(TalkBroken):
        assert await heard(first, WeightsTensor) is None
    await tasks.end()


async def test_worker_that_takes_nothing_keeps_nobody_waiting_and_fills_no_memory(
    talks: _Talks, source: Source, place: Path
) -> None:
    tasks = Tasks()
    source.tunnels.clear()
    stalled = talks.open(tasks, LOFT)
    await heard(stalled, WeightsList)
    stalled.say(WeightsRequest("blk.0.ffn_up.weight", 0, None))
    await heard(stalled, WeightsTensor)
    worker = Worker(place, tasks, source.serve, None)
    assert await worker.fetch(a_stage("one", 0, 1)) is not None
    # What lies in sockets and one piece of the splice, of 10.6 MB.
    assert source.tunnels[0].sent_bytes < LARGE_BYTES // 2
    await tasks.end()
