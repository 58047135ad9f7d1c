"""A staggered race over the addresses at which a node may answer.

What lives here: `DialRace`, which says when to try which address, which one leads, and when to give up. What does not:
QUIC and the handshake (links), key pinning (`Link` checks the TLS key against the target's node id and reports a
failure). Used by the endpoint for a peer's addresses, and for the pinned members of an invite token. Pure: time is an
argument.

Some addresses of a node are always dead: a bridge of its containers, the LAN it left, a family the path lacks. They
are tried in parallel with a short stagger (RFC 8305, "Happy Eyeballs"): the next one starts `stagger_s` after the last,
or at once when the last one failed. The first to finish TLS with the right key *leads*: it alone carries the handshake,
so the peer never sees two half-made links, and no further address starts. A leader that is silent for
`answer_timeout_s` at one step is abandoned (an address may accept and never answer), and the next one leads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from meshnode.transport.addresses import SocketName
from proto.ids import NodeId

NO_ANSWER = "no_answer"


@dataclass(frozen=True, slots=True)
class Target:
    """One address at which `peer` may answer."""

    peer: NodeId
    address: SocketName


@dataclass(frozen=True, slots=True)
class Start:
    """Open a connection to the target."""

    target: Target


@dataclass(frozen=True, slots=True)
class Lead:
    """Carry the handshake on the target's connection."""

    target: Target


@dataclass(frozen=True, slots=True)
class Abandon:
    """Close the target's connection; it took too long."""

    target: Target


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Every target failed; why is in the race's `outcomes`."""


RaceAction = Start | Lead | Abandon | Exhausted


class _State(Enum):
    WAITING = "waiting"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    LEADING = "leading"
    ENDED = "ended"


@dataclass(slots=True)
class _Attempt:
    target: Target
    state: _State = _State.WAITING
    since_s: float = 0.0
    started_s: float = field(default=0.0)


class DialRace:
    """One race. Feed it what happens on the connections and the time; carry out what it returns."""

    def __init__(
        self, targets: Sequence[Target], *, stagger_s: float, answer_timeout_s: float, connect_deadline_s: float
    ) -> None:
        self._attempts = {target: _Attempt(target) for target in targets}
        self._stagger_s = stagger_s
        self._answer_timeout_s = answer_timeout_s
        self._connect_deadline_s = connect_deadline_s
        self._next_start_s = float("-inf")
        self._exhausted = False
        self.outcomes: dict[Target, str] = {}
        """Why each ended target ended, in the order they did."""

    @property
    def leader(self) -> Target | None:
        """The target that carries the handshake, if any."""
        return next((found.target for found in self._attempts.values() if found.state is _State.LEADING), None)

    def started_s(self, target: Target) -> float:
        """When the target's connection was opened."""
        return self._attempts[target].started_s

    def poll(self, now_s: float) -> list[RaceAction]:
        """What is due at `now_s`."""
        actions: list[RaceAction] = []
        for attempt in self._attempts.values():
            if self._is_overdue(attempt, now_s):
                self._end(attempt, NO_ANSWER, now_s)
                actions.append(Abandon(attempt.target))
        return [*actions, *self._advance(now_s)]

    def connected(self, target: Target, now_s: float) -> list[RaceAction]:
        """TLS is done and the key is the target's."""
        self._enter(self._attempts[target], _State.CONNECTED, now_s)
        return self._advance(now_s)

    def progressed(self, target: Target, now_s: float) -> None:
        """The leader answered a step of the handshake; the next one gets its own time."""
        self._attempts[target].since_s = now_s

    def failed(self, target: Target, reason: str, now_s: float) -> list[RaceAction]:
        """The target's connection ended."""
        attempt = self._attempts[target]
        if attempt.state is _State.ENDED:
            return []
        self._end(attempt, reason, now_s)
        return self._advance(now_s)

    def next_wakeup_s(self) -> float:
        """When `poll` is due next; infinity where only a connection's news can move the race."""
        due = [self._due_s(attempt) for attempt in self._attempts.values()]
        if self.leader is None and any(found.state is _State.WAITING for found in self._attempts.values()):
            due.append(self._next_start_s)
        return min(due, default=float("inf"))

    def _advance(self, now_s: float) -> list[RaceAction]:
        actions: list[RaceAction] = []
        if self.leader is None:
            actions.extend(self._choose_leader(now_s))
        if self.leader is None:
            actions.extend(self._start_next(now_s))
        if not self._exhausted and all(found.state is _State.ENDED for found in self._attempts.values()):
            self._exhausted = True
            actions.append(Exhausted())
        return actions

    def _choose_leader(self, now_s: float) -> list[RaceAction]:
        connected = [found for found in self._attempts.values() if found.state is _State.CONNECTED]
        if not connected:
            return []
        first = min(connected, key=lambda found: found.since_s)
        self._enter(first, _State.LEADING, now_s)
        return [Lead(first.target)]

    def _start_next(self, now_s: float) -> list[RaceAction]:
        waiting = next((found for found in self._attempts.values() if found.state is _State.WAITING), None)
        if waiting is None or now_s < self._next_start_s:
            return []
        self._enter(waiting, _State.CONNECTING, now_s)
        waiting.started_s = now_s
        self._next_start_s = now_s + self._stagger_s
        return [Start(waiting.target)]

    def _end(self, attempt: _Attempt, reason: str, now_s: float) -> None:
        attempt.state = _State.ENDED
        self.outcomes[attempt.target] = reason
        # A failure is news: whoever is next need not wait for the rest of the stagger.
        self._next_start_s = now_s

    @staticmethod
    def _enter(attempt: _Attempt, state: _State, now_s: float) -> None:
        attempt.state = state
        attempt.since_s = now_s

    def _is_overdue(self, attempt: _Attempt, now_s: float) -> bool:
        return now_s >= self._due_s(attempt)

    def _due_s(self, attempt: _Attempt) -> float:
        if attempt.state is _State.CONNECTING:
            return attempt.since_s + self._connect_deadline_s
        if attempt.state is _State.LEADING:
            return attempt.since_s + self._answer_timeout_s
        return float("inf")
