"""A silence: own probes that go unanswered one after another, and who was not heard all that time.

Probes find one death a period. That is enough where one node dies. But a node whose own path is cut sees everybody
fail, doubts itself (`awareness`), and stretches its periods up to nine times: of 15 others it held the last one suspect
after 39 s, when the links' idle time-out had ended them (SWIM and Lifeguard say nothing of a node alone). So two probes
in a row that nothing answered are reason to look at once at everybody else who was silent as long: a roll call, by
bursts. Only the looking is hurried. Time-outs stay as long as local health makes them, suspects keep their full time,
and a stall ends the silence: nobody is missed for what went unheard while this process did not run.

Where nothing came over any link, this node is *cut off*: either its own path is broken or all others stopped, and it
reaches nobody either way. It says so, and keeps its accusations to itself: they would reach nobody now, and everybody,
long outdated, once the path is back.

What lives here: `Silence`. What does not: bursts (`detector`), what follows for cases and claims (`judge`).
"""

from __future__ import annotations

from meshnode.events import CutOff, HeardAgain
from meshnode.membership.board import Board
from proto.ids import NodeId

ROLL_CALL_AFTER = 2
"""Own probes in a row without an answer. One is a single death; at 20 % loss each way it takes 64 nodes hours until one
of them has two."""
ADVICE = (
    "this node's own network is down, or all others stopped at once: look at its cable, Wi-Fi, VPN and firewall; "
    "it goes on trying, and is back within seconds of the path's return"
)


class Silence:
    """What one node did not hear. Knows probes and links, no cases."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._unanswered = 0
        self._since_s = 0.0
        """When the last but one unanswered probe began: a packet may have been on its way when the path was cut."""
        self._latest_s = 0.0
        self._last_heard_s = 0.0
        """When anything last came, before this node was cut off."""
        self.is_cut_off = False

    def probe_unanswered(self, started_at_s: float) -> None:
        """Nothing came of a whole probe round that began then."""
        self._since_s, self._latest_s = self._latest_s, started_at_s
        self._unanswered += 1

    def end(self) -> None:
        """A probe was answered, or this process did not run and can't tell."""
        self._unanswered = 0

    def roll_call(self, now: float) -> list[NodeId]:
        """Linked live members to be looked at now: those not heard in the last two rounds. None after a single one."""
        if self._unanswered < ROLL_CALL_AFTER:
            return []
        heard_s = {peer: self._heard_s(peer) for peer in self._board.links if self._board.live_entry(peer) is not None}
        missing = [peer for peer, at_s in heard_s.items() if at_s < self._since_s]
        if missing and len(missing) == len(heard_s) and not self.is_cut_off:
            self.is_cut_off = True
            self._last_heard_s = max(heard_s.values())
            self._board.emit(CutOff(len(missing), round(now - self._last_heard_s, 3), ADVICE))
        return missing

    def broken_by(self, peer: NodeId, received_at: float) -> bool:
        """A packet came from `peer` at `received_at`: True where that ends having been cut off."""
        if not self.is_cut_off or received_at < self._since_s:
            return False
        self.is_cut_off = False
        self._board.emit(HeardAgain(peer, round(received_at - self._last_heard_s, 3)))
        return True

    def _heard_s(self, peer: NodeId) -> float:
        """When anything last came from a linked peer."""
        entry, link = self._board.live_entry(peer), self._board.links[peer]
        return link.up_at_s if entry is None or entry.heard_at_s is None else entry.heard_at_s
