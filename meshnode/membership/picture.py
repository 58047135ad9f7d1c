"""Makes the immutable `MeshView` out of the live state, and keeps it until something changes.

What lives here: `Picture`, and `RttMatrix`, which answers for any pair without holding all of them. What does not: any
decision. RTT figures come from three sources, the better first: own links (measured), rows of others (reported),
coordinates (estimated, always marked).

What two others report of the path between them is one round trip seen from either end. Of the two the larger counts,
and it is corroborated only where they agree: a member alone can make its paths look longer, never shorter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from meshnode.membership.board import Board
from meshnode.membership.coordinates import estimate_error, estimate_us
from meshnode.membership.records import NodeEntry
from meshnode.membership.view import LinkFacts, MeshView, NodeView, RttFigure, RttSource
from proto.ids import BootId, NodeId
from proto.parts import Coordinate, RttEntry

if TYPE_CHECKING:
    from meshnode.membership.relaying import Relaying
    from meshnode.membership.topology import Topology

AGREE_MS = 2.0
AGREE = 0.4
"""Two reports of one path may differ by the larger of these: twice what may change before a row is said anew."""
VIEW_MAX_AGE_S = 1.0
"""Ages in a view grow while it is kept; older than this it is made anew."""


class RttMatrix(Mapping[tuple[NodeId, NodeId], RttFigure]):
    """RTT figures by (from, to), computed when asked for: a mesh of 1,000 nodes has a million pairs."""

    def __init__(
        self,
        measured: Mapping[tuple[NodeId, NodeId], RttFigure],
        rows: Mapping[NodeId, tuple[float, Mapping[bytes, RttEntry]]],
        coordinates: Mapping[NodeId, Coordinate],
        shorts: Mapping[NodeId, bytes],
    ) -> None:
        self._measured = measured
        self._rows = rows
        self._coordinates = coordinates
        self._shorts = shorts

    def __getitem__(self, pair: tuple[NodeId, NodeId]) -> RttFigure:
        figure = self._measured.get(pair) or self._reported(*pair) or self._estimated(*pair)
        if figure is None:
            raise KeyError(pair)
        return figure

    def __iter__(self) -> Iterator[tuple[NodeId, NodeId]]:
        return (pair for a in self._shorts for b in self._shorts if a != b and (pair := (a, b)) in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, pair: object) -> bool:
        return isinstance(pair, tuple) and len(pair) == 2 and self.get(pair) is not None

    def _reported(self, source: NodeId, target: NodeId) -> RttFigure | None:
        there, back = self._told(source, target), self._measured.get((target, source)) or self._told(target, source)
        if there is None or back is None:
            # In a large mesh few rows are known: one end's word is then all there is. Where the other end's row is
            # known and does not name this path, nobody confirms it.
            only = there or back
            silent = source if there is None else target
            if only is None or silent not in self._rows:
                return only
            return replace(only, corroborated=False)
        less, more = sorted((there, back), key=lambda figure: figure.min_ms)
        agreed = more.min_ms - less.min_ms <= max(AGREE_MS, AGREE * more.min_ms)
        corroborated = agreed and there.corroborated and back.corroborated
        return replace(more, corroborated=corroborated, source=RttSource.REPORTED)

    def _told(self, source: NodeId, target: NodeId) -> RttFigure | None:
        """What `source` says in its row of its path to `target`."""
        short = self._shorts.get(target)
        age_s, row = self._rows.get(source, (0.0, {}))
        entry = row.get(short) if short is not None else None
        if entry is None:
            return None
        return RttFigure(
            min_ms=entry.rtt_us / 1e3,
            smoothed_ms=entry.smoothed_us / 1e3,
            variation_ms=None,
            samples=entry.samples,
            age_s=age_s,
            corroborated=entry.samples >= 2,
            source=RttSource.REPORTED,
        )

    def _estimated(self, source: NodeId, target: NodeId) -> RttFigure | None:
        a, b = self._coordinates.get(source), self._coordinates.get(target)
        if a is None or b is None or source == target:
            return None
        return _estimate_of(a, b)


class Picture:
    """The view of one node, made when asked for."""

    def __init__(self, board: Board, topology: Topology, relaying: Relaying) -> None:
        self._board = board
        self._topology = topology
        self._relaying = relaying
        self._view: MeshView | None = None
        self._made_at_change = -1
        self._generation = 0
        self._facts: dict[NodeId, tuple[object, ...]] = {}
        self.asked_rows: dict[NodeId, tuple[float, dict[bytes, RttEntry]]] = {}
        """Rows received on request: node -> (received at, row)."""

    def view(self, now: float) -> MeshView:
        """The mesh now; the same object while nothing changed and it is younger than a second."""
        changes = self._board.store.changes
        kept = self._view
        if kept is not None and self._made_at_change == changes and now - kept.at_s < VIEW_MAX_AGE_S:
            return kept
        nodes = {entry.node: self._node(entry, now) for entry in self._board.store.entries.values()}
        self._count_generation(nodes)
        self._made_at_change = changes
        self._view = MeshView(
            mesh=self._board.local.mesh,
            local=self._board.node,
            generation=self._generation,
            at_s=now,
            nodes=MappingProxyType(nodes),
            rtt=self._matrix(now),
        )
        return self._view

    def _count_generation(self, nodes: Mapping[NodeId, NodeView]) -> None:
        """The generation grows with every change of membership, liveness or offers, not with ages or RTT."""
        facts: dict[NodeId, tuple[object, ...]] = {
            node: (view.status, view.incarnation, view.identity, view.offer, view.link is not None, view.connecting)
            for node, view in nodes.items()
        }
        if facts != self._facts:
            self._facts = facts
            self._generation += 1

    def _node(self, entry: NodeEntry, now: float) -> NodeView:
        link, rtt = self._path(entry.node, now)
        heard_at_s = entry.heard_at_s
        return NodeView(
            node=entry.node,
            role=entry.role,
            status=entry.status,
            incarnation=entry.incarnation,
            boot_id=_boot_id(entry),
            status_since_s=entry.status_since_s,
            identity=entry.identity,
            offer=entry.offer,
            network=entry.network,
            link=link,
            rtt=rtt,
            last_contact_age_s=None if heard_at_s is None else max(0.0, now - heard_at_s),
            record_age_s=max(0.0, now - entry.newest_part_at_s),
            connecting=link is None and self._topology.is_connecting(entry.node),
        )

    def _path(self, node: NodeId, now: float) -> tuple[LinkFacts | None, RttFigure | None]:
        settings = self._board.settings
        link = self._board.links.get(node)
        if link is not None:
            return link.facts, link.rtt.figure(now, settings)
        path = self._relaying.paths.get(node)
        if path is not None:
            return path.facts(), path.rtt.figure(now, settings)
        return None, self._estimate(node)

    def _estimate(self, node: NodeId) -> RttFigure | None:
        own, other = self._board.store.get(self._board.node), self._board.store.get(node)
        if node == self._board.node or own is None or other is None or own.network is None or other.network is None:
            return None
        a, b = own.network.coordinate, other.network.coordinate
        if a is None or b is None:
            return None
        return _estimate_of(a, b)

    def _matrix(self, now: float) -> RttMatrix:
        board = self._board
        measured: dict[tuple[NodeId, NodeId], RttFigure] = {}
        rows: dict[NodeId, tuple[float, Mapping[bytes, RttEntry]]] = {}
        coordinates: dict[NodeId, Coordinate] = {}
        shorts: dict[NodeId, bytes] = {}
        for entry in board.store.live():
            shorts[entry.node] = entry.short
            network = entry.network
            if network is not None and network.coordinate is not None:
                coordinates[entry.node] = network.coordinate
            if network is not None and network.row:
                rows[entry.node] = (max(0.0, now - entry.network_at_s), {row.peer: row for row in network.row})
            elif entry.node in self.asked_rows:
                at_s, row = self.asked_rows[entry.node]
                rows[entry.node] = (max(0.0, now - at_s), row)
        for peer in (*board.links, *self._relaying.paths):
            figure = self._path(peer, now)[1]
            if figure is not None and figure.source is RttSource.MEASURED:
                measured[(board.node, peer)] = figure
        return RttMatrix(measured, rows, coordinates, shorts)


def _estimate_of(a: Coordinate, b: Coordinate) -> RttFigure:
    value_ms = estimate_us(a, b) / 1e3
    return RttFigure(value_ms, value_ms, None, 0, 0.0, False, RttSource.ESTIMATED, estimate_error(a, b))


def _boot_id(entry: NodeEntry) -> BootId | None:
    return None if entry.identity is None else BootId(entry.identity.boot_id)
