"""What an announcement on the local network says, checked: anybody there can say anything.

What lives here: `FoundMember`, `FoundMesh`, `read_announcement`, `by_mesh`. What does not: multicast DNS
(`meshnode.lan.mdns`). Nothing found here is believed: the key a member must prove is taken from it, and whether that is
the right key the two operators tell by comparing words (`proto.approval`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from proto.ids import MeshId, NodeId, parse_mesh_id, parse_node_id, short

MAX_NAME: Final = 40
MAX_ADDRESSES: Final = 8


@dataclass(frozen=True, slots=True)
class FoundMember:
    """A member that says it lets nodes in by approval, and where it answers."""

    mesh: MeshId
    node: NodeId
    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FoundMesh:
    """A mesh by its members that announce it. People know it by their names and its fingerprint."""

    mesh: MeshId
    members: tuple[FoundMember, ...]

    @property
    def fingerprint(self) -> str:
        """The beginning of the mesh's id, as `meshnode status` shows the whole of it."""
        return short(self.mesh)

    @property
    def called(self) -> str:
        """What its announcing members are called."""
        return ", ".join(dict.fromkeys(member.name or short(member.node) for member in self.members))


def read_announcement(
    properties: Mapping[bytes, bytes | None], hosts: Iterable[str], port: int | None
) -> FoundMember | None:
    """The member of one announcement; None where it says nothing of use. Only addresses of local networks are taken: an
    announcement must not send this machine's packets across the internet."""
    try:
        mesh = parse_mesh_id((properties.get(b"mesh") or b"").decode("ascii"))
        node = parse_node_id((properties.get(b"node") or b"").decode("ascii"))
    except ValueError:
        return None
    name = (properties.get(b"name") or b"").decode("utf-8", errors="replace")[:MAX_NAME]
    addresses = [text for host in hosts if (text := _local(host, port)) is not None]
    if not addresses:
        return None
    shown = "".join(character if character.isprintable() else "?" for character in name)
    return FoundMember(mesh, node, shown, tuple(dict.fromkeys(addresses))[:MAX_ADDRESSES])


def by_mesh(members: Iterable[FoundMember]) -> list[FoundMesh]:
    """The meshes, by fingerprint; a member that announces twice counts once."""
    found: dict[MeshId, dict[NodeId, FoundMember]] = {}
    for member in members:
        found.setdefault(member.mesh, {})[member.node] = member
    return [FoundMesh(mesh, tuple(by_node.values())) for mesh, by_node in sorted(found.items())]


def _local(host: str, port: int | None) -> str | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if not port or not address.is_private or address.is_unspecified or address.is_multicast:
        return None
    if address.version == 6:
        # A link-local address needs its interface, which the resolver tells behind the percent sign.
        return f"[{host}]:{port}" if not address.is_link_local or "%" in host else None
    return f"{host}:{port}"
