"""A running node looks at itself: gathers the facts, has them judged, and gives the findings as JSON.

What lives here: `Examiner`. What does not: the judging (`machine`, `mesh`), trying the paths (`meshnode.reaching`).
Called by the control interface (`POST /v1/doctor`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from anyio import to_thread

from meshnode import __version__
from meshnode.addresses import InterfaceAddress, interface_addresses
from meshnode.config import NodeConfig
from meshnode.config.values import socket_address
from meshnode.control.ring import EventRing
from meshnode.control.shapes import Json
from meshnode.doctor.engines import EngineBounds, EngineFacts, check_engines
from meshnode.doctor.finding import worst
from meshnode.doctor.machine import check_machine, look_at_machine
from meshnode.doctor.mesh import Conflict, MeshFacts, check_mesh
from meshnode.doctor.peers import PeerFacts
from meshnode.logs import Record
from meshnode.membership.view import MeshView, NodeView
from meshnode.mesh import Mesh
from meshnode.reaching import Reached, Reaching
from meshnode.resources import MachineCapacity
from proto.ids import NodeId
from proto.messages import RefusalCode
from proto.parts import Role


class Examiner:
    """Examines one running node. `addresses` gives where it says that it answers, `bound` where it listens."""

    def __init__(
        self,
        config: NodeConfig,
        mesh: Mesh,
        reaching: Reaching,
        ring: EventRing,
        *,
        addresses: Callable[[], tuple[str, ...]],
        bound: tuple[str, ...],
        role: Role,
    ) -> None:
        self._config = config
        self._mesh = mesh
        self._reaching = reaching
        self._ring = ring
        self._addresses = addresses
        self._bound = bound
        self._role = role

    async def examine(self) -> Json:
        """The worst grade, the findings, and what is known of each peer."""
        reached = await self._reaching.reach_all()
        machine = await to_thread.run_sync(lambda: look_at_machine(self._config, running=True))
        mesh = self._mesh_facts(reached, await to_thread.run_sync(interface_addresses))
        is_client = self._role is Role.CLIENT
        engine = _engine_facts(self._mesh.view(), self._ring.records(), is_client, machine.capacity)
        findings = [
            *check_machine(machine, client=is_client), *check_engines(engine, mesh.peers), *check_mesh(mesh),
        ]  # fmt: skip
        return {
            "worst": worst(findings).value,
            "findings": [finding.to_dict() for finding in findings],
            "peers": [peer.to_dict() for peer in mesh.peers],
        }

    def _mesh_facts(self, reached: Mapping[NodeId, Reached], interfaces: tuple[InterfaceAddress, ...]) -> MeshFacts:
        view = self._mesh.view()
        conflicts, refused = _told(self._ring.records())
        return MeshFacts(
            node=view.local,
            software=f"meshnode {__version__}",
            port=socket_address(self._bound[0]).port,
            addresses=self._addresses(),
            interfaces=interfaces,
            observed={node: found.observed_address for node, found in reached.items() if found.observed_address},
            peers=tuple(_peer(node, reached.get(node.node)) for node in _others(view)),
            conflicts=conflicts,
            refused=refused,
        )


def _others(view: MeshView) -> list[NodeView]:
    """Peers that are, or shall be, part of the mesh: whoever left did so on purpose."""
    return [node for _, node in sorted(view.nodes.items()) if node.node != view.local and node.status.value != "left"]


def _peer(node: NodeView, reached: Reached | None) -> PeerFacts:
    found = reached or Reached(answered=False, tried=())
    link = node.link
    return PeerFacts(
        node=node.node,
        name=node.identity.name if node.identity else "",
        status=node.status.value,
        addresses=node.identity.addresses if node.identity else (),
        software=node.identity.software if node.identity else "",
        engine=node.identity.engine if node.identity else None,
        path=None if link is None else link.path.value,
        link_address=None if link is None else link.address,
        dialled_by_us=link is not None and link.dialled_by_us,
        answered=found.answered,
        tried=found.tried,
        arrived=found.arrived,
        tried_here=found.tried_here,
        arrived_here=found.arrived_here,
        largest_bytes=found.largest_bytes,
        clock_ahead_s=found.clock_ahead_s,
        clock_error_s=found.clock_error_s,
    )


def _engine_facts(view: MeshView, records: Iterable[Record], is_client: bool, capacity: MachineCapacity) -> EngineFacts:
    own = view.nodes.get(view.local)
    word = None if own is None or own.identity is None else own.identity.engine
    reason = advice = api_problem = api_advice = ""
    died: list[str] = []
    bounds: EngineBounds | None = None
    for record in records:
        if record["event"] == "engine.missing":
            reason, advice = str(record["reason"]), str(record["advice"])
        elif record["event"] == "engine.died":
            died.append(f"{record['part']} of {record['model']}: {record['how']}")
        elif record["event"] == "api.unavailable":
            api_problem, api_advice = f"{record['address']}: {record['reason']}", str(record["advice"])
        elif record["event"] == "engine.found":
            private, landlock, tcp_only = (record[name] for name in ("private_network", "landlock", "tcp_only"))
            bounds = EngineBounds(private is True, int(str(landlock)), tcp_only is True)
    devices = tuple(device.id for device in capacity.devices)
    return EngineFacts(is_client, word, reason, advice, devices, tuple(died[-3:]), bounds, api_problem, api_advice)


def _told(records: Iterable[Record]) -> tuple[tuple[Conflict, ...], tuple[str, ...]]:
    """What recent events say of keys in use twice, and of versions that do not meet."""
    conflicts: list[Conflict] = []
    refused: list[str] = []
    for record in records:
        if record["event"] == "peer.identity_conflict":
            addresses = str(record["address"]), str(record["other_address"])
            conflicts.append(Conflict(str(record["peer"]), *addresses))
        elif record["event"] == "link.refused" and record["code"] == RefusalCode.NO_COMMON_VERSION:
            refused.append(f"{record['address']}: {record['text']} ({record['found']}, {record['required']})")
    return tuple(conflicts), tuple(refused)
