"""The driver of membership: joins links, the state machine and admission, and carries out what the machine asks.

What lives here: `Mesh`. What does not: rules. It is the one place where a clock is read for membership, where effects
become packets, and where a view is handed on. Called by `meshnode.daemon`; implements the transport's `LinkObserver`
and the feed that a waiting split reads (`meshnode.readiness`).

How it works. Every input (a frame, a timer, an offer) goes into the machine, which answers with effects; they are
carried out in order, before the next input's. An effect can bring an input of its own (closing a link ends it at once):
its effects queue up behind. A link speaks of revocations first, so that no record is taken from a removed node.

Time is one clock that goes on during suspend (`transport.clock`). The machine says when it wants to be polled; an input
that comes later than that, by more than `STALL_S`, proves that this process did not run, and the machine is told so
before anything else: it must not take its own absence for the others'.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

import anyio

from meshnode.events import Event, NodeStalled
from meshnode.membership.effects import CloseLink, Dial, Effect, Emit, PersistIncarnation, Send, SendDatagram
from meshnode.membership.local import OfferDraft
from meshnode.membership.machine import Membership
from meshnode.membership.view import LinkFacts, MeshView
from proto.ids import BootId, NodeId
from proto.messages import Message, RefusalCode, Revocations

STALL_S = 0.25
"""Lateness that counts as a stall. The loop's own work is below 50 ms; half a probe time-out would already mislead."""
SUSPEND_S = 5.0
"""Lateness that is called a suspend in the event's text."""


class Links(Protocol):
    """What the driver needs of the endpoint."""

    def send(self, peer: NodeId, message: Message, coalesce: str | None = None) -> None: ...

    def send_datagram(self, peer: NodeId, message: Message) -> None: ...

    def dial(self, peer: NodeId, addresses: Iterable[str]) -> None: ...

    def close(self, peer: NodeId, code: RefusalCode, text: str) -> None: ...


class RevocationBook(Protocol):
    """What the driver needs of admission: the signed list that every link begins with."""

    def revocation_frames(self) -> list[Revocations]: ...

    def take_revocations(self, entries: Iterable[bytes], from_peer: NodeId) -> tuple[list[bytes], list[NodeId]]: ...


Handler = Callable[[NodeId, Message], None]
"""What takes a message that is none of membership's: who sent it, and the message."""


class Mesh:
    """Drives one node's membership. All calls from the event loop's thread; `run` owns the timer.

    `persist_incarnation` stores a number durably before it returns. `handlers` take the messages of readiness and
    splits by type. The endpoint is attached once it is bound, since each needs the other.
    """

    def __init__(
        self,
        machine: Membership,
        revocations: RevocationBook,
        *,
        clock: Callable[[], float],
        emit: Callable[[Event], None],
        persist_incarnation: Callable[[int], None],
        identity_in_use: Callable[[str], None],
    ) -> None:
        self._machine = machine
        self._revocations = revocations
        self._clock = clock
        self._emit = emit
        self._persist_incarnation = persist_incarnation
        self._identity_in_use = identity_in_use
        self._links: Links | None = None
        self._handlers: dict[type[Message], Handler] = {}
        self._effects: deque[Effect] = deque()
        self._performing = False
        self._due_s = clock()
        self._poke = anyio.Event()
        self._changed = anyio.Event()
        self._opened: set[NodeId] = set()
        """Peers whose opening list of revocations is complete: their records may be read."""
        self._observed: dict[NodeId, str] = {}

    def attach(self, links: Links) -> None:
        """Use `links` for everything sent from now on."""
        self._links = links

    def handle(self, kind: type[Message], handler: Handler) -> None:
        """Give messages of `kind` to `handler`."""
        self._handlers[kind] = handler

    # --- the feed of views ---

    def view(self) -> MeshView:
        """The mesh now."""
        return self._machine.view(self._clock())

    async def changed(self) -> None:
        """Return after the next input that may have changed the view."""
        await self._changed.wait()

    # --- inputs from this node ---

    def publish_offer(self, draft: OfferDraft) -> None:
        """What this node offers now; the machine decides when the mesh hears of it."""
        self._input(lambda now: self._machine.publish_offer(draft, now))

    def set_addresses(self, addresses: tuple[str, ...]) -> None:
        """Where this node answers now, best first."""
        self._input(lambda now: self._machine.set_addresses(addresses, now))

    def measure(self, peers: Iterable[NodeId]) -> None:
        """Take RTT samples of `peers` now: a split waits for them."""
        wanted = tuple(peers)
        self._input(lambda now: self._machine.measure(wanted, now))

    def leave(self) -> None:
        """Say goodbye: the mesh sees `left`, not `dead`."""
        self._input(self._machine.leave)

    def announce_revocation(self, entries: list[bytes], revoked: list[NodeId]) -> None:
        """A revocation was made here: act on it and tell every linked peer."""
        self._act_on_revocations(entries, revoked, told_by=None)

    def send(self, peer: NodeId, message: Message) -> None:
        """Put a message of readiness or a split on the link to `peer`; dropped where there is none."""
        if self._links is not None:
            self._links.send(peer, message)

    # --- the timer ---

    async def run(self) -> None:
        """Poll the machine when it wants to be polled. Ends by cancellation."""
        while True:
            wait_s = self._machine.next_wakeup() - self._clock()
            if wait_s > 0:
                self._due_s = self._clock() + wait_s
                with anyio.move_on_after(wait_s):
                    await self._poke.wait()
                if self._poke.is_set():
                    self._poke = anyio.Event()
                    continue
            else:
                # The loop must come round even where the machine always wants more.
                await anyio.lowlevel.checkpoint()
            self._input(self._machine.poll)

    # --- LinkObserver: inputs from the transport ---

    def link_up(self, peer: NodeId, facts: LinkFacts, boot_id: BootId, incarnation_floor: int) -> None:
        """See `LinkObserver`. Revocations go out before anything that the machine sends in answer."""
        if self._links is not None:
            for frame in self._revocations.revocation_frames():
                self._links.send(peer, frame)
        self._input(lambda now: self._machine.link_up(peer, facts, incarnation_floor, now))

    def link_down(self, peer: NodeId, code: str, reason: str, by_peer: bool) -> None:
        """See `LinkObserver`."""
        self._opened.discard(peer)
        self._observed.pop(peer, None)
        self._input(lambda now: self._machine.link_down(peer, code, reason, now))

    def dial_failed(self, peer: NodeId, reason: str) -> None:
        """See `LinkObserver`."""
        self._input(lambda now: self._machine.dial_failed(peer, reason, now))

    def message(self, peer: NodeId, message: Message, received_at_s: float) -> None:
        """See `LinkObserver`."""
        if isinstance(message, Revocations):
            self._take_revocations(peer, message)
        elif peer not in self._opened:
            self._close(peer, RefusalCode.PROTOCOL_ERROR, "a link begins with revocations")
        elif (handler := self._handlers.get(type(message))) is not None:
            handler(peer, message)
        else:
            self._input(lambda now: self._machine.receive(peer, message, received_at_s, now))

    def datagram(self, peer: NodeId, message: Message, received_at_s: float) -> None:
        """See `LinkObserver`."""
        self._input(lambda now: self._machine.receive_datagram(peer, message, received_at_s, now))

    def peer_floor(self, node: NodeId) -> int:
        """See `LinkObserver`."""
        return self._machine.peer_floor(node)

    def emit(self, event: Event) -> None:
        """See `LinkObserver`."""
        self._emit(event)

    def identity_in_use(self, peer: NodeId, text: str) -> None:
        """See `LinkObserver`."""
        self._identity_in_use(text)

    # --- revocations ---

    def _take_revocations(self, peer: NodeId, frame: Revocations) -> None:
        fresh, revoked = self._revocations.take_revocations(frame.entries, peer)
        if frame.complete:
            self._opened.add(peer)
        if fresh:
            self._act_on_revocations(fresh, revoked, told_by=peer)

    def _act_on_revocations(self, entries: list[bytes], revoked: list[NodeId], told_by: NodeId | None) -> None:
        """Close the links of who is revoked and pass the news on, then let the machine forget them."""
        for node in revoked:
            self._close(node, RefusalCode.REMOVED, "removed from the mesh")
        for peer in sorted(self._opened - {told_by} - set(revoked)):
            self.send(peer, Revocations(entries=tuple(entries[:64]), complete=True))
        if revoked:
            self._input(lambda now: self._machine.revoked(tuple(revoked), now))

    # --- carrying out ---

    def _input(self, step: Callable[[float], list[Effect]]) -> None:
        now = self._clock()
        late_s = now - self._due_s
        if late_s > STALL_S:
            self._due_s = now
            cause = "suspend" if late_s > SUSPEND_S else "blocked event loop"
            self._emit(NodeStalled(stalled_s=round(late_s, 3), cause=cause))
            self._effects.extend(self._machine.stalled(late_s, now))
        self._effects.extend(step(now))
        if not self._performing:
            self._perform()
        self._notice_changes()

    def _perform(self) -> None:
        self._performing = True
        try:
            while self._effects:
                self._carry_out(self._effects.popleft())
        finally:
            self._performing = False

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(peer, message, coalesce):
                if self._links is not None:
                    self._links.send(peer, message, coalesce)
            case SendDatagram(peer, message):
                if self._links is not None:
                    self._links.send_datagram(peer, message)
            case Dial(peer, addresses):
                if self._links is not None:
                    self._links.dial(peer, addresses)
            case CloseLink(peer, code, text):
                self._close(peer, code, text)
            case PersistIncarnation(incarnation):
                self._persist_incarnation(incarnation)
            case Emit(event):
                self._emit(event)

    def _close(self, peer: NodeId, code: RefusalCode, text: str) -> None:
        if self._links is not None:
            self._links.close(peer, code, text)

    def _notice_changes(self) -> None:
        """Wake the timer where the machine wants to be polled earlier now, and whoever reads views."""
        if self._machine.next_wakeup() < self._due_s:
            self._poke.set()
        self._changed.set()
        self._changed = anyio.Event()
