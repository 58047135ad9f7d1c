"""Who gets no tunnel: strangers, thieves of tickets, removed members, generations that are over, and whoever asks for
too much."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import anyio
import pytest
from making_links import DEADLINE_S, an_identity
from making_tunnels import API, TunnelLab, TunnelNode, linked

from meshnode.events import TunnelClosed, TunnelDenied, TunnelTcpFailed
from meshnode.split import Fences, Reservations
from meshnode.transport.clock import boottime_s
from meshnode.tunnel import (
    Carrier,
    Opening,
    Purpose,
    Tunnel,
    TunnelRefused,
    TunnelSettings,
    TunnelUnavailable,
    engine_admission,
)
from meshnode.tunnel.framing import FramedStream
from meshnode.tunnel.tcp import TcpCarrier, TcpFailed, WrongNode
from meshnode.tunnel.tls import dialling_context
from meshnode.tunnel.tls_socket import TlsSocket
from proto.ids import NodeId
from proto.messages import Commit, Fence, Prepare, Release

MODEL = "llama"


def a_ticket(giver: TunnelNode, taker: TunnelNode, carrier: Carrier = Carrier.TCP) -> bytes:
    return giver.tunnels._granting.tickets.issue(taker.node, API, carrier, boottime_s())


def port_of(node: TunnelNode) -> int:
    port = node.tunnels.status()["tcp_port"]
    assert isinstance(port, int)
    return port


async def connected(node: TunnelNode) -> socket.socket:
    plain = socket.socket()
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port_of(node)))
    return plain


async def secured(node: TunnelNode) -> TlsSocket:
    """A stranger's TLS connection, which may say anything next."""
    connection = TlsSocket(await connected(node), dialling_context(), is_server=False)
    assert await connection.handshake()
    return connection


async def is_hung_up(connection: TlsSocket) -> bool:
    with anyio.fail_after(DEADLINE_S):
        try:
            await connection.read_exactly(1)
        except anyio.BrokenResourceError:
            return True
    return False


async def test_stranger_without_a_good_ticket_is_hung_up_on(tunnels: TunnelLab) -> None:
    node = await tunnels.node()
    for words in (bytes(32), b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"x" * 100_000):
        connection = await secured(node)
        await connection.write(words)
        assert await is_hung_up(connection)
        connection.close()
    assert node.taken == []
    assert {event.code for event in node.events.of(TunnelDenied)} == {"bad_ticket"}
    assert node.tunnels.status()["refused"] == 3


async def test_stranger_that_says_nothing_is_hung_up_on_in_time(tunnels: TunnelLab) -> None:
    node = await tunnels.node(TunnelSettings(greeting_s=0.1))
    assert await is_hung_up(await secured(node))
    with await connected(node) as plain, anyio.fail_after(DEADLINE_S):
        assert await asyncio.get_running_loop().sock_recv(plain, 1) == b"", "without a word of TLS as well"


async def test_stranger_that_speaks_no_tls_is_hung_up_on(tunnels: TunnelLab) -> None:
    node = await tunnels.node()
    loop = asyncio.get_running_loop()
    with await connected(node) as plain, anyio.fail_after(DEADLINE_S):
        await loop.sock_sendall(plain, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            while await loop.sock_recv(plain, 100):
                pass


async def test_strangers_hold_no_more_connections_than_the_cap_and_members_still_get_in(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair(None, TunnelSettings(greeting_cap=4))
    held = [await secured(there) for _ in range(12)]
    assert there.tunnels._tcp.greeting_count <= 4
    assert there.tunnels.status()["shed"] >= 8
    async with await here.tunnels.open(there.node, API) as tunnel:
        assert tunnel.carrier is Carrier.TCP
    for connection in held:
        connection.close()


async def test_one_network_opens_connections_no_faster_than_its_rate(tunnels: TunnelLab) -> None:
    node = await tunnels.node(TunnelSettings(greetings_per_source_burst=3.0, greetings_per_source_per_s=0.001))
    for _ in range(3):
        (await secured(node)).close()
    with await connected(node) as plain, anyio.fail_after(DEADLINE_S):
        assert await asyncio.get_running_loop().sock_recv(plain, 1) == b""
    assert node.tunnels.status()["shed"] == 1


async def test_ticket_is_good_once(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair()
    ticket = a_ticket(there, here)
    tcp = TcpCarrier(TunnelSettings(), boottime_s)
    async with await tcp.dial(there.node, there.address, port_of(there), ticket):
        assert (await there.took()).peer == here.node
        with pytest.raises(TcpFailed):
            await tcp.dial(there.node, there.address, port_of(there), ticket)


async def test_ticket_of_another_client_is_worth_nothing_on_a_link_and_is_lost(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair()
    ticket = a_ticket(there, there, Carrier.QUIC)
    for _ in range(2):
        stream = here.endpoint.open_stream(there.node)
        assert stream is not None
        await stream.send(ticket)
        with anyio.fail_after(DEADLINE_S), pytest.raises(anyio.BrokenResourceError):
            await stream.receive()
    assert there.taken == []
    assert [event.peer for event in there.events.of(TunnelDenied)] == [here.node] * 2


async def test_ticket_for_a_stream_opens_no_tcp(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair()
    ticket = a_ticket(there, here, Carrier.QUIC)
    with pytest.raises(TcpFailed):
        await TcpCarrier(TunnelSettings(), boottime_s).dial(there.node, there.address, port_of(there), ticket)
    assert there.taken == []


async def test_another_node_at_the_port_never_sees_the_ticket(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair()
    impostor = await tunnels.node()
    ticket = a_ticket(there, here)
    with pytest.raises(WrongNode):
        await TcpCarrier(TunnelSettings(), boottime_s).dial(there.node, there.address, port_of(impostor), ticket)
    assert impostor.tunnels.status()["refused"] == 0, "it was shown nothing"
    there.tunnels._tcp.port = port_of(impostor)
    async with await here.tunnels.open(there.node, API) as tunnel:
        assert tunnel.carrier is Carrier.QUIC
    assert "answered in its place" in (await here.events.one(TunnelTcpFailed)).problem


async def test_port_where_nobody_answers_costs_the_connect_time_and_no_more(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair(TunnelSettings(connect_s=0.1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        there.tunnels._tcp.port = silent.getsockname()[1]
        async with await here.tunnels.open(there.node, API) as tunnel:
            assert tunnel.carrier is Carrier.QUIC
    assert "no answer" in (await here.events.one(TunnelTcpFailed)).problem


async def test_what_is_not_offered_is_refused_with_its_purpose(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair()
    with pytest.raises(TunnelRefused) as refused:
        await here.tunnels.open(there.node, Opening(Purpose.ENGINE, MODEL, Fence(1, here.node)))
    assert refused.value.code == "not_offered"
    assert "'engine'" in refused.value.text
    assert (await there.events.one(TunnelDenied)).by_us
    assert not (await here.events.one(TunnelDenied)).by_us


async def test_peer_gets_no_more_tunnels_than_its_share(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair(None, TunnelSettings(per_peer=2))
    for _ in range(2):
        await here.tunnels.open(there.node, API)
        await there.took()
    with pytest.raises(TunnelRefused) as refused:
        await here.tunnels.open(there.node, API)
    assert refused.value.code == "too_many"
    assert "2 tunnels for api" in refused.value.text
    # Neither the other purpose's share is used up by that, nor the other side's.
    there.tunnels.offer(Purpose.ENGINE, stays_open, lambda _peer, _opening: None)
    await here.tunnels.open(there.node, Opening(Purpose.ENGINE, MODEL, Fence(1, here.node)))
    await there.tunnels.open(here.node, API)
    there.tunnels.cut("enough")
    await here.tunnels.open(there.node, API)


async def stays_open(tunnel: Tunnel) -> None:
    await anyio.sleep_forever()


async def test_requests_above_the_rate_are_refused(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair(None, TunnelSettings(opens_per_s=0.001, opens_burst=1.0))
    await here.tunnels.open(there.node, API)
    with pytest.raises(TunnelRefused) as refused:
        await here.tunnels.open(there.node, API)
    assert refused.value.code == "too_many"


async def test_node_that_is_not_reachable_is_unavailable(tunnels: TunnelLab) -> None:
    here = await tunnels.node(TunnelSettings(answer_s=0.1))
    with pytest.raises(TunnelUnavailable):
        await here.tunnels.open(an_identity().node, API)
    with pytest.raises(TunnelUnavailable):
        await here.tunnels.open(here.node, API)


async def test_removed_member_loses_its_tunnels_and_tickets_and_gets_no_new_ones(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair()
    ticket = a_ticket(there, here)
    over_tcp = await here.tunnels.open(there.node, API)
    assert over_tcp.carrier is Carrier.TCP
    taken = await there.took()
    now_unix_s = int(time.time())
    removal = there.admission.remove(there.admission.plan_removal(here.node, now_unix_s), (), now_unix_s)
    there.mesh.spread(removal.entries)
    for end in (over_tcp, taken):
        with anyio.fail_after(DEADLINE_S), pytest.raises(anyio.BrokenResourceError):
            await end.receive()
    assert (await there.events.one(TunnelClosed)).reason == "removed from the mesh"
    with pytest.raises(TcpFailed):
        await TcpCarrier(TunnelSettings(), boottime_s).dial(there.node, there.address, port_of(there), ticket)
    with pytest.raises(TunnelUnavailable):
        await here.tunnels.open(there.node, API)


async def test_member_removed_while_a_tunnel_to_it_opens_gets_none(
    tunnels: TunnelLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await tunnels.pair()
    dial = here.tunnels._tcp.dial

    async def removed_meanwhile(peer: NodeId, address: str, port: int, ticket: bytes) -> FramedStream:
        stream = await dial(peer, address, port, ticket)
        now_unix_s = int(time.time())
        plan = here.admission.plan_removal(there.node, now_unix_s)
        here.mesh.spread(here.admission.remove(plan, (), now_unix_s).entries)
        return stream

    monkeypatch.setattr(here.tunnels._tcp, "dial", removed_meanwhile)
    with pytest.raises(TunnelUnavailable, match="path to it was lost"):
        await here.tunnels.open(there.node, API)
    assert here.tunnels.status()["open"] == []
    async with await there.took() as tunnel:
        with anyio.fail_after(DEADLINE_S), pytest.raises(anyio.BrokenResourceError):
            await tunnel.receive()


async def test_handler_that_fails_breaks_its_tunnel_and_no_other(tunnels: TunnelLab) -> None:
    here, there = await tunnels.pair()
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))

    async def fail(tunnel: Tunnel) -> None:
        raise ZeroDivisionError

    there.tunnels.offer(Purpose.ENGINE, fail, lambda peer, opening: None)
    kept = await here.tunnels.open(there.node, API)
    broken = await here.tunnels.open(there.node, Opening(Purpose.ENGINE, MODEL))
    with anyio.fail_after(DEADLINE_S), pytest.raises(anyio.BrokenResourceError):
        await broken.receive()
    assert [type(fault) for fault in faults] == [ZeroDivisionError]
    await kept.send(b"on")
    assert await (await there.took()).receive() == b"on"


class Worker:
    """`node` as the worker of a split that `coordinator` runs, with real reservations."""

    def __init__(self, node: TunnelNode, coordinator: TunnelNode) -> None:
        self.node, self.coordinator = node, coordinator
        self.reservations = Reservations(node.node, Fences())
        self.reservations.offer({"cpu0": 10**9}, None)
        node.tunnels.offer(Purpose.ENGINE, node.keep, engine_admission(self.reservations.held))

    def fence(self, generation: int) -> Fence:
        return Fence(generation, self.coordinator.node)

    def hears(self, message: Prepare | Commit | Release) -> None:
        self.reservations.receive(self.coordinator.node, message, boottime_s())

    def runs(self, generation: int) -> None:
        """The plan of this generation is prepared and committed here."""
        self.hears(Prepare(generation, MODEL, self.fence(generation), 0, 4, (("cpu0", 1000),), (("cpu0", 0, 4),)))
        self.hears(Commit(MODEL, self.fence(generation)))

    async def open(self, generation: int, opener: TunnelNode | None = None) -> Tunnel:
        opening = Opening(Purpose.ENGINE, MODEL, self.fence(generation), 1)
        return await (opener or self.coordinator).tunnels.open(self.node.node, opening)


@pytest.fixture
async def worker(tunnels: TunnelLab) -> Worker:
    here, there = await tunnels.pair()
    return Worker(there, here)


async def test_coordinator_reaches_the_engine_of_the_stage_it_committed(worker: Worker) -> None:
    worker.runs(3)
    async with await worker.open(3) as tunnel:
        taken = await worker.node.took()
        assert (taken.purpose, taken.fence, taken.stage) == (Purpose.ENGINE, worker.fence(3), 1)
        await tunnel.send(b"graph")
        assert await taken.receive() == b"graph"


async def test_generation_that_is_over_is_refused_with_both_numbers(worker: Worker) -> None:
    worker.runs(3)
    worker.runs(4)
    with pytest.raises(TunnelRefused) as refused:
        await worker.open(3)
    assert refused.value.code == "not_admitted"
    assert refused.value.text == "fenced: generation 3 is not held here, but 4"


async def test_ticket_of_a_generation_that_ended_meanwhile_opens_nothing(worker: Worker) -> None:
    worker.runs(3)
    opening = Opening(Purpose.ENGINE, MODEL, worker.fence(3), 1)
    ticket = worker.node.tunnels._granting.tickets.issue(worker.coordinator.node, opening, Carrier.TCP, boottime_s())
    worker.hears(Release(MODEL, worker.fence(3), "withdrawn"))
    with pytest.raises(TcpFailed):
        await TcpCarrier(TunnelSettings(), boottime_s).dial(
            worker.node.node, worker.node.address, port_of(worker.node), ticket
        )
    assert (await worker.node.events.one(TunnelDenied)).reason == f"fenced: no stage of {MODEL} is held here"


async def test_stage_that_stops_cuts_its_tunnels_and_tickets_and_no_others(worker: Worker) -> None:
    worker.runs(3)
    engine, api = await worker.open(3), await worker.coordinator.tunnels.open(worker.node.node, API)
    opening = Opening(Purpose.ENGINE, MODEL, worker.fence(3), 1)
    worker.node.tunnels._granting.tickets.issue(worker.coordinator.node, opening, Carrier.TCP, boottime_s())
    await worker.node.took()
    await worker.node.took()
    assert worker.node.tunnels.cut("the stage stops", model=MODEL, fence=worker.fence(3)) == 1
    assert len(worker.node.tunnels._granting.tickets) == 0
    with anyio.fail_after(DEADLINE_S), pytest.raises(anyio.BrokenResourceError):
        await engine.receive()
    await api.send(b"on")


async def test_generation_that_ends_before_the_ticket_is_shown_is_refused_and_tcp_stays_in_use(worker: Worker) -> None:
    worker.runs(3)
    asked = []

    def admit(peer: NodeId, opening: Opening) -> str | None:
        asked.append(opening)
        return None if len(asked) == 1 else "over"

    worker.node.tunnels.offer(Purpose.ENGINE, worker.node.keep, admit)
    with pytest.raises(TunnelRefused) as refused:
        await worker.open(3)
    assert refused.value.text == "over"
    assert len(asked) == 3, "at the request, at the ticket, and at the next request"
    assert worker.coordinator.events.of(TunnelTcpFailed) == []


async def test_member_that_is_not_the_coordinator_gets_no_engine(worker: Worker, tunnels: TunnelLab) -> None:
    worker.runs(3)
    other = await tunnels.node()
    await linked(other, worker.node)
    with pytest.raises(TunnelRefused) as refused:
        await worker.open(3, opener=other)
    assert refused.value.code == "not_admitted"
    assert worker.coordinator.node in refused.value.text
