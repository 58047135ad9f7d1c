"""Which link to a node stays, when there could be two.

What lives here: `LinkTable`, all of that decision. What does not: QUIC, timers, pings (the endpoint carries the actions
out and reports back). Pure: links are opaque numbers, and there is no clock.

A link arrives here when its peer is authenticated. At most one link per node is *current*. The rules, in order:

1. **No current link.** The newcomer becomes current; but where it was dialled by them, our own dial to them is about to
   be answered, and that one would win by rule 2, the newcomer waits for it. So two nodes that dial each other at
   once see one link come up, not one replaced by the other.
2. **Same boot id, dialled from both sides.** The link dialled by the smaller node id stays: both ends decide alike
   without a word. The loser is refused as `duplicate_link`, except that a loser dialled by *them* first has the current
   link asked for a sign of life. A peer that dials while it has a living link is a peer whose end of that link is gone
   (its address changed, its packets vanish), and then the tie-break would keep the dead link.
3. **Same boot id, dialled twice from one side.** The second takes the place of the first: who dials again has lost the
   first, or moves it to another address.
4. **Another boot id.** The same key runs in a second process, or the node restarted. The current link is asked; an
   answer means that two processes live, and the newcomer is refused (`identity_in_use`, with the older process's own
   signature, since it is not to be believed without); silence means a restart, and the newcomer takes over at once.

At most one link per node waits. A second one with the same boot id takes the waiting one's place (its dialler has given
that one up); one with a third boot id is refused as `busy`.
"""

from __future__ import annotations

from dataclasses import dataclass

from proto.ids import BootId, NodeId
from proto.messages import RefusalCode


@dataclass(frozen=True, slots=True)
class Candidate:
    """An authenticated link: `peer` and `boot_id` are proved."""

    link: int
    peer: NodeId
    boot_id: BootId
    dialled_by_us: bool


@dataclass(frozen=True, slots=True)
class Install:
    """`link` is current now; the one it `replaces`, if any, must be closed as `duplicate_link`."""

    link: int
    replaces: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Close `link` with this code; it never was current."""

    link: int
    code: RefusalCode
    reason: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the current link `old` for a sign of life, then report `answered` or, after the time allowed, `silent`.
    `newcomer` is the other boot id whose link waits: it wants proof. None where the same process dialled again."""

    old: int
    newcomer: BootId | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two living processes have one key: `old` answered, `new` is refused."""

    old: int
    new: int


Action = Install | Refuse | Ask | Conflict


@dataclass(frozen=True, slots=True)
class _Waiting:
    candidate: Candidate
    for_own_dial: bool


class LinkTable:
    """The current link of each peer, and at most one waiting per peer."""

    def __init__(self, own: NodeId, max_links: int) -> None:
        self._own = own
        self._max_links = max_links
        self._current: dict[NodeId, Candidate] = {}
        self._waiting: dict[NodeId, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._current)

    def current(self, peer: NodeId) -> int | None:
        """The current link to `peer`, or None."""
        found = self._current.get(peer)
        return None if found is None else found.link

    def is_waiting(self, peer: NodeId) -> bool:
        """True where a link to `peer` waits for a decision."""
        return peer in self._waiting

    def arrive(self, candidate: Candidate, *, own_dial_leads: bool) -> tuple[Action, ...]:
        """An authenticated link came. `own_dial_leads` where a dial of ours to the same peer has reached it already and
        waits for its welcome."""
        current = self._current.get(candidate.peer)
        if current is None:
            return self._arrive_alone(candidate, own_dial_leads=own_dial_leads)
        if current.boot_id != candidate.boot_id:
            return self._wait(candidate, current)
        if current.dialled_by_us == candidate.dialled_by_us:
            return self._install(candidate, "dialled again")
        if self._wins(candidate):
            return self._install(candidate, "dialled by the smaller node id")
        if candidate.dialled_by_us:
            return (Refuse(candidate.link, RefusalCode.DUPLICATE_LINK, "the link dialled by the smaller id stays"),)
        return self._wait(candidate, current)

    def answered(self, peer: NodeId) -> tuple[Action, ...]:
        """The current link that was asked gave a sign of life."""
        waiting = self._waiting.pop(peer, None)
        current = self._current.get(peer)
        if waiting is None or current is None:
            return ()
        link = waiting.candidate.link
        if waiting.candidate.boot_id == current.boot_id:
            return (Refuse(link, RefusalCode.DUPLICATE_LINK, "the link dialled by the smaller id lives"),)
        refusal = Refuse(link, RefusalCode.IDENTITY_IN_USE, "another living process has this node's key")
        return (Conflict(current.link, link), refusal)

    def silent(self, peer: NodeId) -> tuple[Action, ...]:
        """The current link that was asked gave none in time."""
        waiting = self._waiting.pop(peer, None)
        if waiting is None:
            return ()
        return self._install(waiting.candidate, "the older link does not answer")

    def own_dial_ended(self, peer: NodeId) -> tuple[Action, ...]:
        """Our dial to `peer` ended without a link: whoever waited for it need not."""
        waiting = self._waiting.get(peer)
        if waiting is None or not waiting.for_own_dial:
            return ()
        del self._waiting[peer]
        return self.arrive(waiting.candidate, own_dial_leads=False)

    def gone(self, link: int, peer: NodeId) -> tuple[Action, ...]:
        """`link` ended, whether it was current, waiting or neither."""
        waiting = self._waiting.get(peer)
        if waiting is not None and waiting.candidate.link == link:
            del self._waiting[peer]
            return ()
        current = self._current.get(peer)
        if current is None or current.link != link:
            return ()
        del self._current[peer]
        return self.silent(peer)

    def _arrive_alone(self, candidate: Candidate, *, own_dial_leads: bool) -> tuple[Action, ...]:
        if not candidate.dialled_by_us and len(self._current) >= self._max_links:
            return (Refuse(candidate.link, RefusalCode.LINK_LIMIT, f"{self._max_links} links are up already"),)
        if not candidate.dialled_by_us and own_dial_leads and not self._wins(candidate):
            return self._replace_waiting(_Waiting(candidate, for_own_dial=True))
        return self._install(candidate, "first link")

    def _wait(self, candidate: Candidate, current: Candidate) -> tuple[Action, ...]:
        asked_already = candidate.peer in self._waiting
        actions = self._replace_waiting(_Waiting(candidate, for_own_dial=False))
        newcomer = candidate.boot_id if candidate.boot_id != current.boot_id else None
        return actions if asked_already else (*actions, Ask(current.link, newcomer))

    def _replace_waiting(self, waiting: _Waiting) -> tuple[Action, ...]:
        older = self._waiting.get(waiting.candidate.peer)
        if older is not None and older.candidate.boot_id != waiting.candidate.boot_id:
            return (Refuse(waiting.candidate.link, RefusalCode.BUSY, "another link of this node is being judged"),)
        self._waiting[waiting.candidate.peer] = waiting
        if older is None:
            return ()
        return (Refuse(older.candidate.link, RefusalCode.DUPLICATE_LINK, "dialled again"),)

    def _install(self, candidate: Candidate, reason: str) -> tuple[Action, ...]:
        replaced = self._current.get(candidate.peer)
        self._current[candidate.peer] = candidate
        installed = Install(candidate.link, None if replaced is None else replaced.link, reason)
        waiting = self._waiting.pop(candidate.peer, None)
        if waiting is None:
            return (installed,)
        if waiting.for_own_dial and waiting.candidate.boot_id == candidate.boot_id:
            refusal = Refuse(waiting.candidate.link, RefusalCode.DUPLICATE_LINK, "the smaller id's dial was answered")
            return (installed, refusal)
        # It is judged again, against the link that is current now.
        return (installed, *self.arrive(waiting.candidate, own_dial_leads=False))

    def _wins(self, candidate: Candidate) -> bool:
        """Rule 2's tie-break: dialled by the smaller node id."""
        return candidate.dialled_by_us == (self._own < candidate.peer)
