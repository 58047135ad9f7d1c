"""Port 0: the port of the last start is asked for again, and another one taken where it can't be had."""

from __future__ import annotations

import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
from making_links import ALab, Watch, an_identity

from meshnode.admission.gate import JoiningGate
from meshnode.config.values import SocketAddress
from meshnode.events import Event, NodePortChanged
from meshnode.listening import listening
from meshnode.state import StateDirectory
from meshnode.transport import Endpoint, TransportSettings

ANY_PORT = SocketAddress("127.0.0.1", 0)


class Starts:
    """Starts and stops one node's endpoint, over and over."""

    def __init__(self, lab: ALab, state: StateDirectory) -> None:
        self._lab = lab
        self.state = state
        self.events: list[Event] = []

    async def port(self, listen: SocketAddress = ANY_PORT) -> int:
        """Start once; the port it listened on."""
        async with AsyncExitStack() as stack:
            endpoint = await listening(stack, listen, self.state, self._endpoint, self.events.append)
            ports = {int(address.rpartition(":")[2]) for address in endpoint.bound_addresses}
        assert len(ports) == 1, "both families answer on one port"
        return ports.pop()

    def _endpoint(self, listen: SocketAddress) -> Endpoint:
        gate = JoiningGate(self._lab.mesh, lambda: 0.0)
        return Endpoint(an_identity(), self._lab.mesh, gate, [str(listen)], TransportSettings(), Watch())


@pytest.fixture
async def starts(lab: ALab, tmp_path: Path) -> AsyncIterator[Starts]:
    with StateDirectory.open(tmp_path / "starting") as state:
        yield Starts(lab, state)


@contextmanager
def taken(port: int) -> Iterator[None]:
    """Another program has this port, on IPv4."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port))
        yield


async def test_the_port_that_the_system_chose_is_asked_for_again(starts: Starts) -> None:
    chosen = await starts.port()
    assert [await starts.port(), await starts.port()] == [chosen, chosen]
    assert starts.events == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
async def test_another_port_is_taken_and_named_where_it_is_in_use(starts: Starts, host: str) -> None:
    listen = SocketAddress(host, 0)
    old = await starts.port(listen)
    with taken(old):
        new = await starts.port(listen)
    (event,) = starts.events
    assert isinstance(event, NodePortChanged)
    assert (event.old_port, event.new_port) == (old, new)
    assert "in use" in event.problem
    assert await starts.port(listen) == new, "where its peers saw it last"


async def test_a_configured_port_is_neither_stored_nor_replaced(starts: Starts) -> None:
    chosen = await starts.port()
    configured = await starts.port(SocketAddress("127.0.0.1", chosen + 1 if chosen < 65_535 else chosen - 1))
    assert configured != chosen
    assert await starts.port() == chosen


async def test_a_port_that_can_not_be_stored_keeps_nobody_from_running(starts: Starts) -> None:
    shutil.rmtree(starts.state.path)
    assert await starts.port()
    assert [event.name for event in starts.events] == ["state.unsaved"]
