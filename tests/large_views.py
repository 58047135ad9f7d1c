"""Views of meshes as large and as uneven as the page must show: made, not run, since 64 nodes take a machine of theirs.

`an_uneven_mesh(64)` has names of all lengths, clients, relayed, suspected and dead nodes, several devices, declared and
unknown offers, measured, reported and estimated RTTs, and `HOSTILE` for a name.
"""

from __future__ import annotations

import random
from dataclasses import replace

from making_views import GB, a_link, a_node, a_view, an_offer, an_rtt, node_id
from msgspec import structs

from meshnode.membership.view import MeshView, NodeView, PathKind, RttFigure, RttSource, Status
from proto.ids import NodeId
from proto.parts import DeviceOffer, Role

HOSTILE = "<img src=x onerror=alert(1)>\u202egnp.exe\u0000"
"""A name that tries markup, turns the reading direction around, and ends in a control character."""


def an_uneven_mesh(count: int, *, seed: int = 7) -> MeshView:
    """`count` nodes as the first one sees them."""
    rng = random.Random(seed)
    names = [f"{chr(97 + number % 26)}{number}" for number in range(count)]
    nodes = [_uneven(name, number, rng) for number, name in enumerate(names)]
    carrier = nodes[1].node if count > 1 else None
    shown = [_reached(node, number, carrier) for number, node in enumerate(nodes)]
    return a_view(*shown, local=names[0], rtt=_matrix([node.node for node in nodes], rng))


def _uneven(name: str, number: int, rng: random.Random) -> NodeView:
    node = node_id(name)
    usable = rng.choice([8, 16, 24, 48, 80, 192]) * GB
    device = DeviceOffer(
        "gpu0", "cuda", "NVIDIA GeForce RTX 4090", usable * 10 // 9, usable, usable // 3 * (number % 3 == 0), 10**12
    )
    devices = (device, structs.replace(device, id="gpu1")) if number % 5 == 2 else (device,)
    if number % 7 == 3:
        devices = (structs.replace(device, capacity_bytes=usable, declared=True),)
    status = {9: Status.SUSPECT, 13: Status.DEAD}.get(number % 32, Status.ALIVE)
    role = Role.CLIENT if number % 11 == 5 else Role.WORKER
    made = a_node(name, role=role, status=status, offer=an_offer(node, devices=devices, draining=number % 16 == 8))
    assert made.identity is not None
    called = HOSTILE if number == 2 else f"{rng.choice(['attic', 'study', 'loft', 'rack-with-a-long-name'])}-{number}"
    made = replace(made, identity=structs.replace(made.identity, name=called, addresses=(f"192.0.2.{number}:4411",)))
    return replace(made, offer=None) if number % 32 == 20 else made


def _reached(node: NodeView, number: int, carrier: NodeId | None) -> NodeView:
    if node.status is Status.DEAD:
        return replace(node, link=None, rtt=None)
    if number % 8 == 6:
        return replace(node, link=a_link(path=PathKind.RELAYED, carrier=carrier))
    return replace(node, link=None, rtt=None, connecting=True) if number % 32 == 24 else node


def _matrix(nodes: list[NodeId], rng: random.Random) -> dict[tuple[NodeId, NodeId], RttFigure]:
    found = {}
    for at, source in enumerate(nodes):
        for target in nodes:
            far = rng.choice([0.2, 0.4, 2.1, 7.5, 24.0, 80.0, 190.0])
            kind = RttSource.MEASURED if at == 0 else rng.choice([RttSource.REPORTED, RttSource.ESTIMATED])
            if source != target and rng.random() > 0.02:
                found[source, target] = an_rtt(far, source=kind, corroborated=rng.random() > 0.05)
    return found
