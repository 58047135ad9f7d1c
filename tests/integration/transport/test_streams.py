"""Streams beside the control stream, between two real endpoints on loopback."""

from __future__ import annotations

import anyio
import pytest
from making_links import ALab, ANode

from meshnode.transport.settings import TransportSettings
from meshnode.transport.streams import LinkStream
from proto.ids import NodeId
from proto.messages import RefusalCode, ViewHash

DEADLINE_S = 10.0
SETTINGS = TransportSettings()


class Streaming:
    """Two linked nodes; `stream` gives both ends of a new stream from `one` to `two`."""

    def __init__(self, one: ANode, two: ANode) -> None:
        self.one, self.two = one, two
        self._taken: list[LinkStream] = []
        self._came = anyio.Event()
        two.endpoint.take_streams(self._take)

    def _take(self, peer: NodeId, stream: LinkStream) -> None:
        assert peer == self.one.node
        self._taken.append(stream)
        self._came.set()
        self._came = anyio.Event()

    async def stream(self) -> tuple[LinkStream, LinkStream]:
        here = self.one.endpoint.open_stream(self.two.node)
        assert here is not None
        await here.send(b"!")
        with anyio.fail_after(DEADLINE_S):
            while not self._taken:
                await self._came.wait()
        there = self._taken.pop()
        assert await there.receive() == b"!"
        return here, there


@pytest.fixture(params=["the dialler opens", "the acceptor opens"])
async def linked(lab: ALab, request: pytest.FixtureRequest) -> Streaming:
    dialler, acceptor = await lab.node(), await lab.node()
    await dialler.link_to(acceptor)
    opener, other = (dialler, acceptor) if request.param == "the dialler opens" else (acceptor, dialler)
    return Streaming(opener, other)


async def read_all(stream: LinkStream) -> bytes:
    data = b""
    with anyio.fail_after(DEADLINE_S):
        async for piece in stream:
            data += piece
    return data


async def test_bytes_go_both_ways_and_each_side_ends_its_own(linked: Streaming) -> None:
    here, there = await linked.stream()
    sent = bytes(range(256)) * 8192
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here.send, sent)
        assert await there.receive(7) == sent[:7]
        received = b""
        while len(received) < len(sent) - 7:
            received += await there.receive()
    assert received == sent[7:]
    await here.send_eof()
    assert await read_all(there) == b""
    await there.send(b"still")
    await there.send_eof()
    assert await read_all(here) == b"still"


async def test_reader_that_stalls_stops_the_writer_and_not_the_control_stream(linked: Streaming) -> None:
    here, there = await linked.stream()
    sent_bytes = 0
    with anyio.move_on_after(0.5) as waiting:
        while True:
            await here.send(b"x" * 65_536)
            sent_bytes += 65_536
    assert waiting.cancelled_caught
    assert sent_bytes <= SETTINGS.stream_window_bytes + SETTINGS.stream_unacknowledged_bytes
    linked.one.endpoint.send(linked.two.node, ViewHash(value=bytes(8), nodes=1))
    await linked.two.watch.until(lambda: linked.two.watch.messages, "a frame past the stalled stream")
    received = 0
    while received < sent_bytes:
        received += len(await there.receive())
    assert linked.one.watch.downs == []


async def test_closing_an_unfinished_stream_cancels_it_at_the_other_end(linked: Streaming) -> None:
    here, there = await linked.stream()
    await here.aclose()
    with anyio.fail_after(DEADLINE_S), pytest.raises(anyio.BrokenResourceError):
        await there.receive()
    with pytest.raises(anyio.BrokenResourceError):
        await there.send(b"more")


async def test_reader_that_closes_stops_the_writer(linked: Streaming) -> None:
    here, there = await linked.stream()
    await there.aclose()
    more_than_anybody_buffers = b"x" * 4 * (SETTINGS.stream_window_bytes + SETTINGS.stream_unacknowledged_bytes)
    with anyio.fail_after(DEADLINE_S), pytest.raises(anyio.BrokenResourceError):
        await here.send(more_than_anybody_buffers)


async def test_streams_break_with_their_link(linked: Streaming) -> None:
    here, there = await linked.stream()
    linked.one.endpoint.close(linked.two.node, RefusalCode.LEAVING, "enough")
    for stream in (here, there):
        with anyio.fail_after(DEADLINE_S), pytest.raises(anyio.BrokenResourceError):
            await stream.receive()
    assert linked.one.endpoint.open_stream(linked.two.node) is None


async def test_what_had_come_to_its_end_is_still_read_after_the_link_is_gone(linked: Streaming) -> None:
    here, there = await linked.stream()
    await here.send(b"all of it")
    await here.send_eof()
    assert await there.receive(3) == b"all"
    await there.send(b"never read")
    linked.one.endpoint.close(linked.two.node, RefusalCode.LEAVING, "enough")
    await linked.two.watch.until(lambda: linked.two.watch.downs, "the end of the link")
    assert await read_all(there) == b" of it"
    with pytest.raises(anyio.BrokenResourceError):
        await there.send(b"more")


async def test_cancelled_streams_cost_the_link_no_credit_for_ever(linked: Streaming) -> None:
    """Each leaves half a window unread: without forgiving it, the link would stand still long before the last one."""
    for _ in range(3 * SETTINGS.streams_per_link):
        here, there = await linked.stream()
        await here.send(b"x" * (SETTINGS.stream_unacknowledged_bytes // 2))
        await here.aclose()
        await there.aclose()
    here, there = await linked.stream()
    await here.send(b"done")
    with anyio.fail_after(DEADLINE_S):
        assert await there.receive() == b"done"
