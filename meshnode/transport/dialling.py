"""One dial in progress: a race (`dialler`) carried out with links.

What lives here: `Dial`. What does not: when to try what (`DialRace`), what a link that leads says (`handshake`), what
becomes of the outcome (the endpoint for peers, `redemption` for invites). Runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum

from meshnode.transport.addresses import format_address
from meshnode.transport.dialler import Abandon, DialRace, Exhausted, Lead, RaceAction, Start, Target
from meshnode.transport.link import Link
from meshnode.transport.settings import TransportSettings
from meshnode.transport.switchboard import Switchboard

STALL_S = 0.1
"""A timer this late says that this process was blocked."""
GRACE_S = 0.05
"""What the peers get then, once."""
NO_SOCKET = "no_socket_of_its_address_family"
OVERTAKEN = "overtaken"
"""Another address was quicker; this one had not answered yet."""


class Purpose(Enum):
    """Why a dial was started."""

    LINK = "link"
    MOVE = "move"
    """The peer of a standing link was heard at another address; failing is no news."""
    REDEEM = "redeem"


class Dial:
    """Carries a race out. `lead` gives a link the handshake; `lost` is told when no target is left; `tried` of each
    target's outcome and how long it took (ms)."""

    def __init__(
        self,
        targets: Sequence[Target],
        purpose: Purpose,
        switchboard: Switchboard,
        settings: TransportSettings,
        clock: Callable[[], float],
        *,
        lead: Callable[[Dial, Link], None],
        lost: Callable[[Dial], None],
        tried: Callable[[Target, str, float], None] | None = None,
    ) -> None:
        self.purpose = purpose
        self.targets = tuple(targets)
        self._switchboard = switchboard
        self._clock = clock
        self._lead = lead
        self._lost = lost
        self._tried = tried
        self._links: dict[Target, Link] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        self._over = False
        self.race = DialRace(
            self.targets,
            stagger_s=settings.dial_stagger_s,
            answer_timeout_s=settings.answer_timeout_s,
            connect_deadline_s=settings.handshake_deadline_s,
        )

    @property
    def leads(self) -> bool:
        """True once a link of it has said hello."""
        return self.race.leader is not None

    def start(self) -> None:
        """Open the first connection."""
        self._carry_out(self.race.poll(self._clock()))

    def owns(self, link: Link) -> bool:
        """Whether `link` is one of this dial's, still racing."""
        return link in self._links.values()

    def secured(self, link: Link) -> None:
        """The link's TLS is done and its key is right."""
        self._carry_out(self.race.connected(self._target_of(link), self._clock()))

    def progressed(self, link: Link) -> None:
        """The link's peer answered a step."""
        self.race.progressed(self._target_of(link), self._clock())
        self._arm()

    def failed(self, link: Link, reason: str) -> None:
        """The link is no good; the race goes on."""
        target = self._target_of(link)
        del self._links[target]
        self._fail(target, reason)

    def won(self, link: Link) -> None:
        """The link made it: the others are not needed."""
        self._report(self._target_of(link), "linked")
        self._links.pop(self._target_of(link))
        for target in self._links:
            self._report(target, OVERTAKEN)
        self.cancel()

    def cancel(self) -> None:
        """End the race without a word to anybody."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        for link in self._links.values():
            link.channel.abandon("another link of the same dial came first, or it is not needed any more")
            self._switchboard.touch(link)
        self._links.clear()

    def outcomes(self) -> str:
        """What became of each address, for people."""
        return ", ".join(f"{format_address(target.address)}: {why}" for target, why in self.race.outcomes.items())

    def _target_of(self, link: Link) -> Target:
        return next(target for target, found in self._links.items() if found is link)

    def _fail(self, target: Target, reason: str) -> None:
        self._report(target, reason)
        self._carry_out(self.race.failed(target, reason, self._clock()))

    def _report(self, target: Target, outcome: str) -> None:
        if self._tried is not None:
            self._tried(target, outcome, (self._clock() - self.race.started_s(target)) * 1000.0)

    def _carry_out(self, actions: list[RaceAction]) -> None:
        for action in actions:
            if self._over:
                return
            match action:
                case Start(target):
                    self._open(target)
                case Lead(target):
                    self._lead(self, self._links[target])
                case Abandon(target):
                    self._give_up(target)
                case Exhausted():
                    self.cancel()
                    self._lost(self)
        self._arm()

    def _open(self, target: Target) -> None:
        link = self._switchboard.open(target, self._clock())
        if link is None:
            self._fail(target, NO_SOCKET)
        else:
            self._links[target] = link

    def _give_up(self, target: Target) -> None:
        link = self._links.pop(target)
        self._report(target, self.race.outcomes[target])
        link.channel.abandon("it did not answer in time")
        self._switchboard.touch(link)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_s = self.race.next_wakeup_s()
        if not self._over and due_s != float("inf"):
            now_s = self._clock()
            self._due_s = max(due_s, now_s)
            self._timer = asyncio.get_running_loop().call_later(self._due_s - now_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        now_s = self._clock()
        if now_s - self._due_s > STALL_S:
            # It was this process that did not run: the answers may lie in the socket, which is read first.
            self._due_s = now_s
            self._timer = asyncio.get_running_loop().call_later(GRACE_S, self._wake)
            return
        self._carry_out(self.race.poll(now_s))
