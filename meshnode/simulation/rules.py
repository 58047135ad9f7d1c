"""What must hold at every step of a simulation, whatever the faults: checked on every event a node reports, and in
worlds of up to `AUDITED_UP_TO` nodes on everything it holds, after each input that changed it.

- No forged or aged part is accepted: each accepted one was signed by its owner and is newer than the last accepted.
- Incarnations only grow, in what each node reports and holds of each other.
- A node that left is never suspected or dead at that incarnation.
- Tombstones hold: who was dead or had left is back only with a higher incarnation.
- Nobody is held other than was reported: no status changes in silence.

What lives here: `Rules`. A broken rule raises `RuleBroken`, whose text names the moment and both nodes; the run's seed
replays it. That everybody knows everybody once faults stop is checked by the scenarios (`world.World.settle`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from meshnode.events import Event, PeerDead, PeerJoined, PeerLeft, PeerRefuted, PeerReturned, PeerSuspect, PeerUpdated
from meshnode.membership.records import NodeEntry
from meshnode.membership.view import Status
from meshnode.simulation.issued import Issued
from proto.codec import kind_of
from proto.ids import NodeId, short
from proto.parts import Part, PartKind

AUDITED_UP_TO = 64
"""Nodes: beyond, looking through all that is held costs more than the simulation."""
UNKNOWN, ALIVE, SUSPECT, DEAD, LEFT = range(5)
_STATUS = {Status.ALIVE: ALIVE, Status.SUSPECT: SUSPECT, Status.DEAD: DEAD, Status.LEFT: LEFT}
_PARTS = {kind.value: index for index, kind in enumerate(PartKind)}
_SLOTS = 2 + len(_PARTS)
"""Per observed node: status, incarnation, and the newest order of each part."""
_VERSION_BITS = 24
_LIVENESS = frozenset({PeerJoined, PeerSuspect, PeerDead, PeerLeft, PeerReturned, PeerRefuted})
_RESURRECTIONS = frozenset(
    {(gone, back) for gone in (Status.DEAD, Status.LEFT) for back in (Status.ALIVE, Status.SUSPECT)}
    | {(Status.LEFT, Status.DEAD)}
)
_Held = tuple[Status, int, Part | None, Part | None, Part | None]


class RuleBroken(AssertionError):
    """An invariant of membership does not hold."""


class Rules:
    """Checks what each node reports of each other. `indices` gives each node's place."""

    def __init__(self, issued: Issued, indices: dict[NodeId, int]) -> None:
        self._issued = issued
        self._indices = indices
        self._seen: dict[NodeId, array[int]] = {}
        self._held: dict[NodeId, dict[NodeId, _Held]] = {}
        self.checked = 0

    def started(self, observer: NodeId) -> None:
        """A process starts with an empty memory."""
        self._seen[observer] = array("q", bytes(8 * _SLOTS * len(self._indices)))
        self._held[observer] = {}

    def check(self, observer: NodeId, event: Event, now_s: float) -> None:
        """Raises `RuleBroken` where `event` must not happen."""
        kind = type(event)
        if kind is PeerUpdated:
            self._check_part(observer, event, now_s)  # type: ignore[arg-type]
        elif kind in _LIVENESS:
            self._check_liveness(observer, event, now_s)  # type: ignore[arg-type]

    def _check_part(self, observer: NodeId, event: PeerUpdated, now_s: float) -> None:
        peer = NodeId(event.peer)
        seen, at = self._seen[observer], _SLOTS * self._indices[peer]
        order = (event.incarnation << _VERSION_BITS) + event.version
        slot = at + 2 + _PARTS[event.part]
        if order <= seen[slot]:
            self._broken(observer, event, now_s, "an aged part was accepted")
        if not self._issued.was_issued(peer, event.part, event.incarnation, event.version):
            self._broken(observer, event, now_s, "a forged part was accepted")
        seen[slot] = order
        self.checked += 1

    def _check_liveness(
        self,
        observer: NodeId,
        event: PeerJoined | PeerSuspect | PeerDead | PeerLeft | PeerReturned | PeerRefuted,
        now_s: float,
    ) -> None:
        seen, at = self._seen[observer], _SLOTS * self._indices[NodeId(event.peer)]
        status, incarnation = seen[at], seen[at + 1]
        if event.incarnation < incarnation:
            self._broken(observer, event, now_s, f"the incarnation fell from {incarnation}")
        if isinstance(event, PeerJoined):
            if status != UNKNOWN:
                self._broken(observer, event, now_s, "a known node joined again")
            new = ALIVE
        elif isinstance(event, PeerReturned):
            if status not in (DEAD, LEFT) or event.incarnation <= incarnation:
                self._broken(observer, event, now_s, "a tombstone did not hold")
            new = ALIVE
        elif isinstance(event, PeerSuspect | PeerDead | PeerRefuted):
            if status in (DEAD, LEFT):
                self._broken(observer, event, now_s, "a node that left or died was examined")
            new = {PeerSuspect: SUSPECT, PeerDead: DEAD, PeerRefuted: ALIVE}[type(event)]
        else:
            new = LEFT
        seen[at], seen[at + 1] = new, event.incarnation
        self.checked += 1

    def audit(self, observer: NodeId, entries: Iterable[NodeEntry], now_s: float) -> None:
        """Raises `RuleBroken` where what `observer` holds is not what it may hold after what it held before."""
        held = self._held[observer]
        for entry in entries:
            now = (entry.status, entry.incarnation, entry.identity, entry.offer, entry.network)
            before = held.get(entry.node)
            if now == before:
                continue
            what = self._wrong_in(now, before)
            if what is None and entry.node != observer:
                reported = self._seen[observer][_SLOTS * self._indices[entry.node]]
                if _STATUS[entry.status] != reported:
                    what = f"{entry.status}, and never said so"
            if what is not None:
                raise RuleBroken(f"{now_s:.6f} s: {short(observer)} holds {short(entry.node)}: {what}")
            held[entry.node] = now
            self.checked += 1

    def _wrong_in(self, now: _Held, before: _Held | None) -> str | None:
        if before is not None and now[1] < before[1]:
            return f"at incarnation {now[1]}, after {before[1]}"
        if before is not None and now[1] == before[1] and (before[0], now[0]) in _RESURRECTIONS:
            return f"{now[0]}, after {before[0]} at the same incarnation"
        for at, part in enumerate(now[2:], 2):
            old = None if before is None else before[at]
            if part is None or part == old:
                continue
            assert not isinstance(old, Status | int)
            if not self._issued.was_issued(part.node, kind_of(part).value, part.incarnation, part.version):
                return f"with a part nobody signed: {part}"
            if old is not None and (part.incarnation, part.version) <= (old.incarnation, old.version):
                return f"with an aged part: {part}"
        return None

    def _broken(self, observer: NodeId, event: Event, now_s: float, what: str) -> None:
        raise RuleBroken(f"{now_s:.6f} s: {short(observer)} reported {event}: {what}")
