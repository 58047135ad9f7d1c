"""Finding members again that were given other addresses while everybody was down.

What lives here: `Calling`: when to call on the local networks, at which ports, and whom a call that was heard comes
from. What does not: a call's form (`meshnode.transport.call`), dialling (`meshnode.membership`). Run by the node in its
task group.

A node calls while it misses members: those that it remembers, or holds as dead, and is not told of as having left. It
calls seldom, ever more so, and at once when its own addresses have changed. Only networks with private IPv4 addresses
are called, which is what home routers give out, and only by a node that listens on every address, since no other one
hears a broadcast.
"""

from __future__ import annotations

import ipaddress
import random
import socket
from collections.abc import Callable, Mapping
from typing import Final

import anyio

from meshnode.addresses import is_bridge
from meshnode.config.values import WrongValue, socket_address
from meshnode.events import Event, LanCalled, PeerCalled
from meshnode.membership.view import MeshView, PathKind, Status
from meshnode.mesh import Mesh
from meshnode.transport.addresses import SocketName, format_address
from meshnode.transport.call import call_packet, caller_of
from meshnode.transport.endpoint import Endpoint
from proto.ids import MeshId, NodeId

FIRST_S: Final = 3.0
"""From the start, or from when somebody began to be missing, to the first call: most are found by their addresses."""
LONGEST_S: Final = 300.0
LOOK_S: Final = 15.0
"""How soon it is noticed that somebody is missing, or that this machine has moved."""
MAX_NETWORKS: Final = 8
MAX_PORTS: Final = 16
MAX_CANDIDATES: Final = 1024
HEARD_PER_S: Final = 5.0
"""Calls that are looked into; each costs a millisecond at most."""
DIAL_AGAIN_S: Final = 5.0

Known = Mapping[NodeId, tuple[str, ...]]


class Calling:
    """One node's calls. `known` tells the members remembered from before, with their addresses."""

    def __init__(
        self,
        node: NodeId,
        mesh_id: MeshId,
        mesh: Mesh,
        endpoint: Endpoint,
        known: Callable[[], Known],
        own_addresses: Callable[[], tuple[str, ...]],
        *,
        clock: Callable[[], float],
        emit: Callable[[Event], None],
    ) -> None:
        self._node = node
        self._mesh_id = mesh_id
        self._mesh = mesh
        self._endpoint = endpoint
        self._known = known
        self._own_addresses = own_addresses
        self._clock = clock
        self._emit = emit
        self._heard_s = 0.0
        self._dialled_s: dict[NodeId, float] = {}

    async def run(self) -> None:
        """Call for ever, while somebody is missing."""
        missed: set[NodeId] = set()
        addresses = self._own_addresses()
        pause_s, quiet_s = FIRST_S, 0.0
        while True:
            step_s = min(LOOK_S, max(FIRST_S, pause_s - quiet_s))
            await anyio.sleep(step_s)
            quiet_s += step_s
            missing = missing_members(self._node, self._mesh.view(), self._known())
            moved, addresses = addresses != self._own_addresses(), self._own_addresses()
            if moved or missing.keys() - missed:
                pause_s = FIRST_S
            missed = set(missing)
            if not missing:
                pause_s, quiet_s = LOOK_S, 0.0
            elif moved or quiet_s >= pause_s:
                self._call(missing)
                pause_s, quiet_s = min(LONGEST_S, pause_s * random.uniform(1.5, 2.5)), 0.0

    def _call(self, missing: Known) -> None:
        ports = ports_of(missing)
        chosen = random.sample(ports, min(MAX_PORTS, len(ports)))
        hosts = broadcast_hosts()
        packet = call_packet(self._mesh_id, self._node)
        sent = self._endpoint.call(packet, [(host, port) for host in hosts for port in chosen])
        if sent:
            self._emit(LanCalled(missing=len(missing), networks=hosts, ports=tuple(sorted(chosen))))

    def heard(self, data: bytes, source: SocketName) -> None:
        """A call came from `source`."""
        now_s = self._clock()
        if now_s - self._heard_s < 1.0 / HEARD_PER_S or not ipaddress.ip_address(source[0]).is_private:
            return
        self._heard_s = now_s
        caller = caller_of(data, self._mesh_id, self._strangers())
        if caller is None or now_s - self._dialled_s.get(caller, -DIAL_AGAIN_S) < DIAL_AGAIN_S:
            return
        self._dialled_s[caller] = now_s
        self._emit(PeerCalled(peer=caller, address=format_address(source)))
        self._mesh.called(caller, format_address(source))

    def _strangers(self) -> list[NodeId]:
        """Members without a link of their own to this node: others have no reason to call."""
        view = self._mesh.view()
        linked = {node.node for node in view.nodes.values() if node.link and node.link.path is PathKind.DIRECT}
        every = dict.fromkeys((*self._known(), *view.nodes))
        return [node for node in every if node not in linked and node != self._node][:MAX_CANDIDATES]


def missing_members(own: NodeId, view: MeshView, known: Known) -> dict[NodeId, tuple[str, ...]]:
    """The members of `known` that the view does not show, and those that it shows as dead, with their addresses."""
    missing = {node: addresses for node, addresses in known.items() if node not in view.nodes}
    for node in view.nodes.values():
        if node.status is Status.DEAD:
            own_word = () if node.identity is None else node.identity.addresses
            missing[node.node] = (*own_word, *known.get(node.node, ()))
    missing.pop(own, None)
    return missing


def ports_of(members: Known) -> list[int]:
    """Each port at which any of them answered on IPv4, once."""
    ports: dict[int, None] = {}
    for text in (text for addresses in members.values() for text in addresses if not text.startswith("[")):
        try:
            ports[socket_address(text).port] = None
        except WrongValue:
            continue
    return list(ports)


def broadcast_hosts() -> tuple[str, ...]:
    """The broadcast addresses of this machine's networks that have private addresses, without containers' bridges."""
    import psutil

    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    found: dict[str, None] = {}
    for name, entries in psutil.net_if_addrs().items():
        if name in up and not is_bridge(name):
            for entry in entries:
                if entry.family is socket.AF_INET and (host := _broadcast_of(entry.address, entry.netmask)) is not None:
                    found[host] = None
    return tuple(found)[:MAX_NETWORKS]


def _broadcast_of(address: str, netmask: str | None) -> str | None:
    network = ipaddress.IPv4Network(f"{address}/{netmask or 32}", strict=False)
    if network.is_loopback or not network.is_private or network.prefixlen > 30:
        return None
    return str(network.broadcast_address)
