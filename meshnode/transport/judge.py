"""The link table put into practice: installs and refuses links, and asks old processes for a sign of life.

What lives here: `Judge`. What does not: the rules (`link_table`). Owned by the reception; runs in the event loop's
thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from meshnode.transport.link import Link
from meshnode.transport.link_table import Action, Ask, Candidate, Conflict, Install, LinkTable, Refuse
from meshnode.transport.settings import TransportSettings
from meshnode.transport.switchboard import Switchboard
from proto.ids import BootId, NodeId
from proto.messages import LifeProof, LifeRequest, LifeSign, Refusal, RefusalCode

QUESTIONS = 3
"""How often a silent link is asked within the time allowed: one lost packet must not read as a death."""


STALL_S = 0.1
"""A timer this late says that this process was blocked."""


@dataclass(slots=True)
class _Asked:
    """`link` was asked; answers to questions before `first_question` are older than this asking."""

    link: Link
    newcomer: BootId | None
    """Who wants it proved that `link` lives."""
    first_question: int
    until_s: float
    timers: list[asyncio.TimerHandle]
    answers: bool = False
    """It lives, and has proved nothing yet."""


class Judge:
    """`installed(link, replaced, reason)` and `conflicting(old, new, proof)` are told as it happens. `proof` is None
    where the older process answered QUIC's ping and no life request, as a version without them does."""

    def __init__(
        self,
        own: NodeId,
        switchboard: Switchboard,
        settings: TransportSettings,
        clock: Callable[[], float],
        *,
        installed: Callable[[Link, Link | None, str], None],
        conflicting: Callable[[Link, Link, LifeProof | None], None],
    ) -> None:
        self._table = LinkTable(own, settings.max_links)
        self._switchboard = switchboard
        self._settings = settings
        self._clock = clock
        self._installed = installed
        self._conflicting = conflicting
        self._asked: dict[NodeId, _Asked] = {}
        self._current: dict[NodeId, Link] = {}

    def __len__(self) -> int:
        return len(self._table)

    def current(self, peer: NodeId) -> Link | None:
        """The link to `peer` that counts, if there is one."""
        return self._current.get(peer)

    def is_current(self, link: Link) -> bool:
        """Whether this is the link to its peer that counts."""
        return link.peer is not None and self._current.get(link.peer) is link

    def boot_id_of(self, peer: NodeId) -> BootId | None:
        """Which process of `peer` its current link is to."""
        link = self._current.get(peer)
        return None if link is None else link.boot_id

    def is_judging(self, peer: NodeId) -> bool:
        """Whether a link to `peer` waits for a decision."""
        return self._table.is_waiting(peer)

    def peers(self) -> tuple[NodeId, ...]:
        """Every peer with a current link."""
        return tuple(self._current)

    def arrive(self, link: Link, *, own_dial_leads: bool) -> None:
        """`link` is authenticated."""
        assert link.peer is not None, "an authenticated link has a peer"
        candidate = Candidate(link.number, link.peer, link.boot_id, link.dialled_by_us)
        self._carry_out(link.peer, self._table.arrive(candidate, own_dial_leads=own_dial_leads))

    def lapsed(self, link: Link) -> None:
        """`link` counts no more; `gone` then lets in whoever waited for its place."""
        if link.peer is not None and self.is_current(link):
            del self._current[link.peer]
            self._stop_asking(link.peer)

    def gone(self, link: Link) -> None:
        """`link` ended, or its end is decided."""
        if link.peer is None:
            return
        self.lapsed(link)
        self._carry_out(link.peer, self._table.gone(link.number, link.peer))

    def own_dial_ended(self, peer: NodeId) -> None:
        """Our dial to `peer` brought no link."""
        self._carry_out(peer, self._table.own_dial_ended(peer))

    def answered(self, link: Link, question: int) -> None:
        """`link` gave a sign of life."""
        asked = self._asked.get(link.peer) if link.peer is not None else None
        if asked is None or asked.link is not link or question < asked.first_question or link.peer is None:
            return
        asked.answers = True
        if asked.newcomer is None:
            self._lives(link.peer)

    def proved_alive(self, link: Link, sign: LifeSign) -> None:
        """`link` signed for the newcomer that it was asked about."""
        asked = self._asked.get(link.peer) if link.peer is not None else None
        if asked is not None and asked.link is link and asked.newcomer == sign.newcomer and link.peer is not None:
            self._lives(link.peer, sign.proof)

    def _lives(self, peer: NodeId, proof: LifeProof | None = None) -> None:
        self._stop_asking(peer)
        self._carry_out(peer, self._table.answered(peer), proof)

    def stop(self) -> None:
        """Ask nobody any more."""
        for peer in tuple(self._asked):
            self._stop_asking(peer)

    def _carry_out(self, peer: NodeId, actions: tuple[Action, ...], proof: LifeProof | None = None) -> None:
        for action in actions:
            match action:
                case Install(number, _, reason):
                    self._install(peer, number, reason)
                case Refuse(number, code, reason):
                    self._refuse(number, code, reason)
                case Ask(number, newcomer):
                    self._ask(peer, number, newcomer)
                case Conflict(old, new):
                    self._report_conflict(old, new, proof)

    def _install(self, peer: NodeId, number: int, reason: str) -> None:
        link = self._switchboard.link(number)
        if link is None or link.is_closing:
            # It ended while it was being judged; its end is on the way to the table.
            return
        self._stop_asking(peer)
        replaced = self._current.get(peer)
        self._current[peer] = link
        self._installed(link, replaced, reason)

    def _refuse(self, number: int, code: RefusalCode, reason: str) -> None:
        link = self._switchboard.link(number)
        if link is not None:
            link.refuse(Refusal(code, reason), self._clock())
            self._switchboard.touch(link)

    def _report_conflict(self, old: int, new: int, proof: LifeProof | None) -> None:
        links = self._switchboard.link(old), self._switchboard.link(new)
        if links[0] is not None and links[1] is not None:
            self._conflicting(links[0], links[1], proof)

    def _ask(self, peer: NodeId, number: int, newcomer: BootId | None) -> None:
        link = self._switchboard.link(number)
        if link is None or link.is_closing:
            return
        loop = asyncio.get_running_loop()
        time_s = self._settings.old_boot_answer_s
        again = [
            loop.call_later(time_s * part / QUESTIONS, partial(self._question, link)) for part in range(1, QUESTIONS)
        ]
        end = loop.call_later(time_s, partial(self._give_up_asking, peer))
        until_s = self._clock() + time_s
        if newcomer is not None:
            link.channel.send(LifeRequest(newcomer), None, self._clock())
        self._asked[peer] = _Asked(link, newcomer, self._question(link), until_s, [*again, end])

    def _question(self, link: Link) -> int:
        question = link.channel.ask()
        self._switchboard.touch(link)
        return question

    def _give_up_asking(self, peer: NodeId) -> None:
        asked = self._asked[peer]
        self._stop_asking(peer)
        if self._clock() - asked.until_s > STALL_S:
            # It was this process that did not run: the answer may lie in the socket. A living process must not be
            # taken for dead by that, so it is asked anew.
            self._ask(peer, asked.link.number, asked.newcomer)
        elif asked.answers:
            self._lives(peer)
        else:
            self._carry_out(peer, self._table.silent(peer))

    def _stop_asking(self, peer: NodeId) -> None:
        asked = self._asked.pop(peer, None)
        if asked is not None:
            for timer in asked.timers:
                timer.cancel()
