"""What tunnels ask of the rest of the node.

What lives here: `TunnelPaths`, and `MeshPaths`, the node's own. What does not: any rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from meshnode.membership.view import LinkFacts, PathKind
from meshnode.mesh import Mesh
from meshnode.transport.endpoint import Endpoint
from meshnode.transport.streams import LinkStream
from proto.ids import NodeId
from proto.messages import Message

Hear = Callable[[NodeId, Message], None]


class TunnelPaths(Protocol):
    """How this node reaches others. Whoever a message or a stream comes from is authenticated and a member."""

    def send(self, peer: NodeId, message: Message) -> None:
        """Send over the link or through a neighbour; dropped where there is no path."""

    def hear(self, kind: type[Message], hear: Hear) -> None:
        """Hand messages of this kind to `hear`."""

    def has_path(self, peer: NodeId) -> bool:
        """Whether `send` reaches `peer` now."""

    def linked_address(self, peer: NodeId) -> str | None:
        """Where `peer` is, on the direct link to it; None where there is none."""

    def open_stream(self, peer: NodeId) -> LinkStream | None:
        """A new stream on that link."""

    def take_streams(self, take: Callable[[NodeId, LinkStream], None]) -> None:
        """Hand streams that peers open to `take`."""


class MeshPaths:
    """Over the driver of membership and its endpoint."""

    def __init__(self, mesh: Mesh, endpoint: Endpoint) -> None:
        self._mesh = mesh
        self._endpoint = endpoint

    def send(self, peer: NodeId, message: Message) -> None:
        """See `TunnelPaths`."""
        self._mesh.send(peer, message)

    def hear(self, kind: type[Message], hear: Hear) -> None:
        """See `TunnelPaths`."""
        self._mesh.handle(kind, hear)

    def has_path(self, peer: NodeId) -> bool:
        """See `TunnelPaths`."""
        return self._link_to(peer) is not None

    def linked_address(self, peer: NodeId) -> str | None:
        """See `TunnelPaths`."""
        link = self._link_to(peer)
        return link.address if link is not None and link.path is PathKind.DIRECT else None

    def open_stream(self, peer: NodeId) -> LinkStream | None:
        """See `TunnelPaths`."""
        return self._endpoint.open_stream(peer)

    def take_streams(self, take: Callable[[NodeId, LinkStream], None]) -> None:
        """See `TunnelPaths`."""
        self._endpoint.take_streams(take)

    def _link_to(self, peer: NodeId) -> LinkFacts | None:
        node = self._mesh.view().nodes.get(peer)
        return None if node is None else node.link
