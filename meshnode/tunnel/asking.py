"""The opening side: asking a peer for a tunnel, and making the carrier it grants come about.

What lives here: `Asking`. What does not: the answering side (`granting`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from meshnode.events import Event, TunnelTcpFailed
from meshnode.tunnel.opening import Carrier, Opening, TunnelRefused, TunnelUnavailable
from meshnode.tunnel.ports import TunnelPaths
from meshnode.tunnel.relay_table import RelayTable
from meshnode.tunnel.settings import TunnelSettings
from meshnode.tunnel.tcp import TcpCarrier, TcpFailed, TicketRefused
from meshnode.tunnel.tunnel import TunnelStream
from proto.ids import NodeId
from proto.messages import Message
from proto.tunnels import TunnelAnswer, TunnelRequest

NONCE_BITS = 52


@dataclass
class _Question:
    """A request that waits for its answer."""

    peer: NodeId
    key: X25519PrivateKey
    answered: anyio.Event = field(default_factory=anyio.Event)
    answer: TunnelAnswer | None = None


@dataclass(frozen=True, slots=True)
class _Blocked:
    """TCP to a peer failed so many times in a row, and is left alone until then."""

    failures: int
    until_s: float


class Asking:
    """One node's requests."""

    def __init__(
        self,
        settings: TunnelSettings,
        paths: TunnelPaths,
        tcp: TcpCarrier,
        relays: RelayTable,
        clock: Callable[[], float],
        emit: Callable[[Event], None],
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._tcp = tcp
        self._relays = relays
        self._clock = clock
        self._emit = emit
        self._questions: dict[int, _Question] = {}
        self._blocked: dict[NodeId, _Blocked] = {}

    async def connect(self, peer: NodeId, opening: Opening) -> tuple[TunnelStream, Carrier]:
        """A stream to `peer` and what carries it. Raises `TunnelRefused`, `TunnelUnavailable`."""
        try:
            return await self._try(peer, opening, self._wanted(peer))
        except TcpFailed as error:
            # Where only the ticket was refused, TCP is well; what changed meanwhile, the next answer says.
            if not isinstance(error, TicketRefused):
                self._block(peer, error)
            if self._settings.carrier == Carrier.TCP:
                raise TunnelUnavailable(peer, error.text) from error
        try:
            return await self._try(peer, opening, Carrier.QUIC)
        except TcpFailed as error:
            raise TunnelUnavailable(peer, error.text) from error

    def answered(self, peer: NodeId, message: Message) -> None:
        """An answer came; one to nobody's question, or from somebody else, says nothing."""
        assert isinstance(message, TunnelAnswer), "registered for this type"
        question = self._questions.get(message.nonce)
        if question is not None and question.peer == peer:
            question.answer = message
            question.answered.set()

    def removed(self, peer: NodeId) -> None:
        """`peer` is no member any more: who waits for its answer waits no longer."""
        self._blocked.pop(peer, None)
        for question in self._questions.values():
            if question.peer == peer:
                question.answered.set()

    # --- pieces ---

    def _wanted(self, peer: NodeId) -> Carrier:
        if not self._paths.has_path(peer):
            raise TunnelUnavailable(peer, "there is no path to it now, neither a link nor through a neighbour")
        if self._paths.linked_address(peer) is None:
            if self._settings.carrier == Carrier.TCP:
                raise TunnelUnavailable(peer, "tunnel_carrier is tcp, and there is no direct link to the peer")
            return Carrier.RELAY
        failed = self._blocked.get(peer)
        blocked = failed is not None and failed.until_s > self._clock()
        only_link = self._settings.carrier == Carrier.QUIC or (blocked and self._settings.carrier != Carrier.TCP)
        return Carrier.QUIC if only_link else Carrier.TCP

    def _block(self, peer: NodeId, error: TcpFailed) -> None:
        """Each failure in a row doubles the pause: a firewall that drops packets costs the time to connect."""
        now_s = self._clock()
        before = self._blocked.get(peer)
        failures = 1 if before is None else before.failures + 1
        pause_s = min(self._settings.blocked_s * 2.0 ** (failures - 1), self._settings.blocked_most_s)
        forgotten_s = now_s - self._settings.blocked_most_s
        self._blocked = {node: each for node, each in self._blocked.items() if each.until_s > forgotten_s}
        self._blocked[peer] = _Blocked(failures, now_s + pause_s)
        self._emit(TunnelTcpFailed(peer=peer, problem=error.text, retry_after_s=pause_s))

    async def _try(self, peer: NodeId, opening: Opening, wanted: Carrier) -> tuple[TunnelStream, Carrier]:
        nonce = random.getrandbits(NONCE_BITS)
        question = self._questions[nonce] = _Question(peer, X25519PrivateKey.generate())
        try:
            answer = await self._ask(nonce, question, opening, wanted)
        finally:
            del self._questions[nonce]
        if answer.refusal:
            raise TunnelRefused(peer, answer.refusal, answer.text)
        stream = await self._carried(peer, nonce, question.key, answer)
        if answer.carrier == Carrier.TCP:
            self._blocked.pop(peer, None)
        return stream, Carrier(answer.carrier)

    async def _ask(self, nonce: int, question: _Question, opening: Opening, wanted: Carrier) -> TunnelAnswer:
        request = TunnelRequest(
            nonce=nonce,
            purpose=opening.purpose.value,
            model=opening.model,
            fence=opening.fence,
            stage=opening.stage,
            carrier=wanted.value,
            key=question.key.public_key().public_bytes_raw(),
        )
        self._paths.send(question.peer, request)
        with anyio.move_on_after(self._settings.answer_s):
            await question.answered.wait()
        if question.answer is None:
            text = f"no answer within {self._settings.answer_s:g} s: not reachable, or of a version without tunnels"
            raise TunnelUnavailable(question.peer, text)
        return question.answer

    async def _carried(self, peer: NodeId, nonce: int, key: X25519PrivateKey, answer: TunnelAnswer) -> TunnelStream:
        address = self._paths.linked_address(peer)
        stream: TunnelStream | None = None
        if answer.carrier == Carrier.RELAY and answer.key is not None:
            stream = self._relays.make(peer, nonce, key, answer.key, opened_here=True)
        elif answer.carrier == Carrier.TCP and answer.ticket is not None and address is not None:
            return await self._tcp.dial(peer, address, answer.port, answer.ticket)
        elif answer.carrier == Carrier.QUIC and answer.ticket is not None:
            stream = self._paths.open_stream(peer)
            if stream is not None:
                await _show(stream, answer.ticket, peer)
        if stream is None:
            raise TunnelUnavailable(peer, f"granted over {answer.carrier[:16]!r}, which is no path to it from here now")
        return stream


async def _show(stream: TunnelStream, ticket: bytes, peer: NodeId) -> None:
    try:
        await stream.send(ticket)
    except anyio.BrokenResourceError as error:
        raise TunnelUnavailable(peer, "the link ended before the tunnel stood") from error
    except BaseException:
        stream.abandon()
        raise
