"""The driver of membership: joins links, the state machine and admission, and carries out what the machine asks.

What lives here: `Mesh`. What does not: rules, its timer (`meshnode.alarm`), and the questions that wait for an answer
(`meshnode.questions`). It is the one place where a clock is read for membership, where effects become packets, and
where a view is handed on. Called by `meshnode.daemon`; implements the transport's `LinkObserver` and the feed that a
waiting split reads (`meshnode.readiness`).

How it works. Every input (a frame, a timer, an offer) goes into the machine, which answers with effects; they are
carried out in order, before the next input's. An effect can bring an input of its own (closing a link ends it at once):
its effects queue up behind. A link speaks of revocations first, so that no record is taken from a removed node.

Time is one clock that goes on during suspend (`transport.clock`). The machine says when it wants to be polled; an input
that comes later than that, by more than `STALL_S`, proves that this process did not run. The machine is polled before
it then, notices, and does not take its own absence for the others'.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import anyio
from msgspec.structs import replace as replace_in

from meshnode.admission import Admission
from meshnode.alarm import Alarm
from meshnode.events import Event, NodeRemoved, StateUnsaved, WireRejected
from meshnode.membership.effects import CloseLink, Deliver, Dial, Effect, Emit, PersistIncarnation, Send, SendDatagram
from meshnode.membership.local import LocalNode, OfferDraft
from meshnode.membership.machine import Membership
from meshnode.membership.pings import hold_us_of
from meshnode.membership.view import LinkFacts, MeshView
from meshnode.questions import Questions
from proto.ids import BootId, NodeId
from proto.messages import Ack, Confirm, ConfirmRequest, Message, Ping, RefusalCode, Revocations

STALL_S = 0.25
"""Lateness that counts as a stall. The loop's own work is below 50 ms; half a probe time-out would already mislead."""
GATHER_S = 0.02
"""Readers of views get one view for all changes of this time."""
SENDS_TO_KNOW = 16
"""After so many datagrams the least time it takes to encode and encrypt one is known well enough to be counted."""
REVOCATIONS_PER_FRAME = 48
"""48 entries of at most 4,096 bytes stay within a frame's 256 KiB."""


class Links(Protocol):
    """What the driver needs of the endpoint."""

    def send(self, peer: NodeId, message: Message, coalesce: str | None = None) -> None: ...

    def send_datagram(self, peer: NodeId, message: Message) -> float | None: ...

    def dial(self, peer: NodeId, addresses: Iterable[str]) -> None: ...

    def close(self, peer: NodeId, code: RefusalCode, text: str) -> None: ...


Handler = Callable[[NodeId, Message], None]
"""What takes a message that is none of membership's: who sent it, and the message."""


class Mesh:
    """Drives one node's membership. All calls from the event loop's thread; `run` owns the timer.

    `local` is what the machine was made with; later descriptions start from it.
    `persist_incarnation` stores a number durably before it returns; `identity_in_use` and `removed` are told why this
    process must not go on. The endpoint is attached once it is bound, since each needs the other.
    """

    def __init__(
        self,
        machine: Membership,
        local: LocalNode,
        admission: Admission,
        *,
        clock: Callable[[], float],
        emit: Callable[[Event], None],
        persist_incarnation: Callable[[int], None],
        identity_in_use: Callable[[str], None],
        removed: Callable[[], None],
    ) -> None:
        self._machine = machine
        self._described = local
        self._admission = admission
        self._clock = clock
        self._emit = emit
        self._persist_incarnation = persist_incarnation
        self._identity_in_use = identity_in_use
        self._removed = removed
        self._local = admission.identity.node
        self._links: Links | None = None
        self._handlers: dict[type[Message], Handler] = {}
        self._effects: deque[Effect] = deque()
        self._performing = False
        self._alarm = Alarm(clock, machine.next_wakeup, lambda: self._input(self._machine.poll))
        self._sends = 0
        self._least_send_cost_s = math.inf
        self._changes_seen = -1
        self._changed = anyio.Event()
        self._opened: set[NodeId] = set()
        """Peers whose opening list of revocations is complete: their records may be read."""
        self._observed: dict[NodeId, str] = {}
        self._questions = Questions()
        self._told_of_removals: list[Callable[[Sequence[NodeId]], None]] = []
        self.handle(Confirm, self._questions.answered)

    def attach(self, links: Links) -> None:
        """Use `links` for everything sent from now on."""
        self._links = links

    def on_removal(self, told: Callable[[Sequence[NodeId]], None]) -> None:
        """Call `told` too with the members of each removal, after their links are closed."""
        self._told_of_removals.append(told)

    def handle(self, kind: type[Message], handler: Handler) -> None:
        """Give messages of `kind` to `handler` instead of the machine."""
        self._handlers[kind] = handler

    # --- the feed of views, which waiting splits read (`meshnode.readiness.MeshFeed`) ---

    def view(self) -> MeshView:
        """The mesh now; the same object as long as nothing changed."""
        return self._machine.view(self._clock())

    async def newer_view(self, seen: MeshView) -> MeshView:
        """A view that is not `seen`, as soon as there is one. Bursts of changes become one view; that ages grow is no
        change that anybody is woken for."""
        while (view := self.view()) is seen:
            await self._changed.wait()
            await anyio.sleep(GATHER_S)
        return view

    async def ask_confirm(self, node: NodeId, model: str) -> Confirm | None:
        """Ask `node` over its link for its figures for `model`; None where there is no link or the link ends. The local
        node answers from its own state. The caller bounds the time."""
        if node == self._local:
            handler = self._handlers.get(ConfirmRequest)
            return None if handler is None else await self._questions.ask(node, model, partial(handler, node))
        if node not in self._opened:
            return None
        return await self._questions.ask(node, model, partial(self.send, node))

    def measure(self, nodes: Sequence[NodeId]) -> None:
        """Take RTT samples of `nodes` now: a split waits for them."""
        self._input(lambda now: self._machine.measure(nodes, now))

    # --- inputs from this node ---

    @property
    def incarnation(self) -> int:
        """This node's own incarnation."""
        return self._machine.incarnation

    def know(self, peers: Mapping[NodeId, tuple[str, ...]]) -> None:
        """Members known from before, with their addresses: they are dialled until the mesh is found."""
        self._input(lambda now: self._machine.known_peers(peers, now))

    def publish_offer(self, draft: OfferDraft) -> None:
        """What this node offers now; the machine decides when the mesh hears of it."""
        self._input(lambda now: self._machine.publish_offer(draft, now))

    def set_addresses(self, addresses: tuple[str, ...]) -> None:
        """Where this node answers now, best first."""
        self._describe(replace(self._described, addresses=addresses))

    def _describe(self, local: LocalNode) -> None:
        self._described = local
        self._input(lambda now: self._machine.describe(local, now))

    def called(self, peer: NodeId, address: str) -> None:
        """A member called from `address` on the local network: it is dialled there."""
        self._input(lambda now: self._machine.called(peer, address, now))

    def leave(self) -> None:
        """Say goodbye: the mesh sees `left`, not `dead`."""
        self._input(self._machine.leave)

    def send(self, peer: NodeId, message: Message) -> None:
        """Send a message of readiness or a split over the link to `peer` or through a common neighbour; dropped where
        there is no path. To this node itself it goes straight to the handler."""
        if peer == self._local:
            self.message(peer, message, self._clock())
        else:
            self._input(lambda now: self._machine.send(peer, message, now))

    def observed_addresses(self) -> tuple[str, ...]:
        """Where peers see this node, the most often seen first."""
        seen = list(self._observed.values())
        return tuple(sorted(set(seen), key=lambda address: (-seen.count(address), address)))

    # --- the timer ---

    async def run(self) -> None:
        """Poll the machine when it wants to be polled. Ends by cancellation."""
        self._input(self._machine.begin)
        await self._alarm.run()

    # --- LinkObserver: inputs from the transport ---

    def link_up(self, peer: NodeId, facts: LinkFacts, boot_id: BootId, incarnation_floor: int) -> None:
        """See `LinkObserver`. Revocations go out before anything that the machine sends in answer."""
        if self._links is not None:
            for frame in self._admission.revocation_frames():
                self._links.send(peer, frame)
        self._input(lambda now: self._machine.link_up(peer, facts, incarnation_floor, now))

    def link_down(self, peer: NodeId, code: str, reason: str, by_peer: bool) -> None:
        """See `LinkObserver`."""
        self._opened.discard(peer)
        self._observed.pop(peer, None)
        self._questions.link_down(peer)
        self._input(lambda now: self._machine.link_down(peer, code, reason, now))

    def dial_failed(self, peer: NodeId, reason: str) -> None:
        """See `LinkObserver`."""
        self._input(lambda now: self._machine.dial_failed(peer, reason, now))

    def message(self, peer: NodeId, message: Message, received_at_s: float) -> None:
        """See `LinkObserver`."""
        handler = self._handlers.get(type(message))
        if isinstance(message, Revocations):
            self._take_revocations(peer, message)
        elif peer not in self._opened and peer != self._local:
            self._close(peer, RefusalCode.PROTOCOL_ERROR, "a link begins with revocations")
        elif handler is not None:
            handler(peer, message)
        else:
            self._input(lambda now: self._machine.receive(peer, message, received_at_s, now))

    def datagram(self, peer: NodeId, message: Message, received_at_s: float) -> None:
        """See `LinkObserver`."""
        self._input(lambda now: self._machine.receive_datagram(peer, message, received_at_s, now))

    def migrated(self, peer: NodeId, old: str, new: str) -> None:
        """See `LinkObserver`."""
        self._input(lambda now: self._machine.migrated(peer, new, now))

    def observed_address(self, peer: NodeId, address: str) -> None:
        """See `LinkObserver`."""
        self._observed[peer] = address

    def path_trouble(self, peer: NodeId, reason: str) -> None:
        """See `LinkObserver`."""
        self._input(lambda now: self._machine.path_trouble(peer, reason, now))

    def identity_in_use(self, peer: NodeId, text: str) -> None:
        """See `LinkObserver`."""
        self._identity_in_use(text)

    def peer_floor(self, node: NodeId) -> int:
        """See `LinkObserver`."""
        return self._machine.floor_of(node)

    def emit(self, event: Event) -> None:
        """See `LinkObserver`."""
        self._emit(event)

    # --- revocations ---

    def spread(self, entries: Sequence[bytes]) -> None:
        """Revocations made here: act on them and tell every linked peer."""
        self._act_on(entries, told_by=None)

    def _take_revocations(self, peer: NodeId, frame: Revocations) -> None:
        learned = self._admission.learn(frame.entries, int(time.time()))
        for text in learned.refused:
            expected = "signed by the root or an ancestor"
            self._emit(WireRejected(peer, "", "revocations", "entries", text[:200], expected))
        if (unsaved := learned.unsaved) is not None:
            self._emit(StateUnsaved(path=str(unsaved.path), problem=unsaved.found, advice=unsaved.fix))
        if frame.complete:
            self._opened.add(peer)
        if learned.new:
            self._act_on(learned.new, told_by=peer)

    def _act_on(self, entries: Sequence[bytes], told_by: NodeId | None) -> None:
        """Close the links of who is out now, pass the news on, and let the machine forget them."""
        roll = self._admission.roll
        if roll.is_cut(self._local):
            self._removed()
            return
        if self._admission.chain != self._described.chain:
            # A removal that cut this node's chain carried a new one for it: others judge it by that from now on.
            self._describe(replace(self._described, chain=self._admission.chain))
        # The removed hear it too, as the last thing before their links close: they stop instead of knocking for ever.
        for peer in sorted(self._opened - {told_by}):
            for start in range(0, len(entries), REVOCATIONS_PER_FRAME):
                page = tuple(entries[start : start + REVOCATIONS_PER_FRAME])
                self.send(peer, Revocations(entries=page, complete=True))
        out = sorted(node for node in {*self.view().nodes, *self._opened} if roll.is_cut(node))
        for node in out:
            self._emit(NodeRemoved(node=node, by=told_by or self._local, descendants=len(roll.taken_along(node))))
            self._close(node, RefusalCode.REMOVED, "removed from the mesh")
        if out:
            self._input(lambda now: self._machine.revoked(out, now))
            for told in self._told_of_removals:
                told(out)

    # --- carrying out ---

    def _input(self, step: Callable[[float], Iterable[Effect]]) -> None:
        now = self._clock()
        if self._alarm.is_running and now - self._machine.next_wakeup() > STALL_S:
            self._effects.extend(self._machine.poll(now))
        self._effects.extend(step(now))
        if not self._performing:
            self._perform()
        self._alarm.set()
        if self._machine.changes != self._changes_seen:
            self._changes_seen = self._machine.changes
            self._changed.set()
            self._changed = anyio.Event()

    def _perform(self) -> None:
        self._performing = True
        try:
            while self._effects:
                self._carry_out(self._effects.popleft())
        finally:
            self._performing = False

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, PersistIncarnation):
            self._persist_incarnation(effect.incarnation)
        elif isinstance(effect, Emit):
            self._emit(effect.event)
        elif isinstance(effect, Deliver):
            if (handler := self._handlers.get(type(effect.message))) is not None:
                handler(effect.peer, effect.message)
        elif self._links is None:
            return
        elif isinstance(effect, Send):
            self._links.send(effect.peer, effect.message, effect.coalesce)
        elif isinstance(effect, SendDatagram):
            self._send_datagram(self._links, effect)
        elif isinstance(effect, Dial):
            self._links.dial(effect.peer, effect.addresses)
        elif isinstance(effect, CloseLink):
            self._links.close(effect.peer, effect.code, effect.text)

    def _send_datagram(self, links: Links, effect: SendDatagram) -> None:
        """Stamps at the edge: an ack says how long its ping was held until now, and the machine hears when a ping left.
        Encoding and encrypting an ack comes after it was stamped: it counts as the least that it ever took, which makes
        no path look shorter than it is."""
        now, message = self._clock(), effect.message
        if isinstance(message, Ack) and effect.held_since_s is not None:
            cost_s = self._least_send_cost_s if self._sends >= SENDS_TO_KNOW else 0.0
            message = replace_in(message, hold_us=hold_us_of(now + cost_s - effect.held_since_s))
        sent_at_s = links.send_datagram(effect.peer, message)
        if sent_at_s is not None:
            self._sends += 1
            self._least_send_cost_s = min(self._least_send_cost_s, sent_at_s - now)
        if isinstance(message, Ping):
            self._machine.ping_left(message.nonce, sent_at_s)

    def _close(self, peer: NodeId, code: RefusalCode, text: str) -> None:
        if self._links is not None:
            self._links.close(peer, code, text)
