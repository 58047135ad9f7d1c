"""One QUIC connection as a pair of queues: frames and datagrams in, frames and datagrams out.

What lives here: `Channel`: framing, the bounded send queue, the inbound budget, and closing so that the last frame is
read. What does not: who the peer is (`link`), timers and sockets (the endpoint calls `receive`, `wake` and `flush`, and
puts what `flush` returns on the wire). Time is an argument.

**Sending.** QUIC buffers whatever it is given, so it is given little: at most `unacknowledged_bytes` ahead of the
peer's acknowledgements. The rest waits in a `SendQueue`. A queue at its watermark, or whose head has waited too long,
means a slow reader, and the channel says so.

**Receiving.** Frames are handed on one by one while the peer is within its budget and the user wants them (`reading`).
What is not taken stays, credit for it is not granted, and the peer's own queue fills: it is slowed down.

**Closing.** QUIC drops unsent stream data when it closes. So the refusal goes out first, as the stream's last bytes;
the connection is closed when the peer has acknowledged them, or after `flush_s`. The close itself names the code and
text once more, for a peer whose stream is stuck.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from aioquic.quic import events

from meshnode.transport.addresses import SocketName
from meshnode.transport.counters import Counters
from meshnode.transport.quic import CONTROL_STREAM, Ending, MeshQuicConnection
from meshnode.transport.rate_limit import Budget, Overrun, TokenBucket
from meshnode.transport.send_queue import SendQueue
from meshnode.transport.settings import TransportSettings
from meshnode.transport.streams import LinkStream, Streams
from proto.codec import FrameDecoder, decode_datagram, encode_datagram, encode_frame
from proto.errors import WireError
from proto.messages import Message, Refusal, RefusalCode
from proto.registry import HANDSHAKE_MESSAGES, MAX_FRAME_BYTES

APPLICATION_ERROR = 0x6D
"""The one application error code of a close; the phrase that comes with it is `<refusal code>: <text>`."""
MAX_PHRASE_BYTES = 300
IDLE_PHRASE = "Idle timeout"
IDLE_TIMEOUT = "idle_timeout"
CONNECTION_LOST = "connection_lost"
INFINITY = float("inf")
_REFUSAL_CODES = frozenset(code.value for code in RefusalCode)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a channel ended. `code` is a `RefusalCode` value, `idle_timeout` or `connection_lost`."""

    code: str
    reason: str
    by_peer: bool


class Outgoing(NamedTuple):
    """One UDP datagram to put on the wire."""

    data: bytes
    to: SocketName


class ChannelUser(Protocol):
    """Told of what comes in."""

    def secured(self, now_s: float) -> None:
        """TLS is done; the peer's certificate, if it has one, is proved."""

    def frame(self, message: Message, received_at_s: float, now_s: float) -> None:
        """One control message."""

    def datagram(self, message: Message, received_at_s: float) -> None:
        """One datagram message, on an authenticated channel."""

    def violated(self, error: WireError, now_s: float) -> None:
        """The peer's bytes broke a rule of the wire; the user closes the channel."""

    def throttled(self, overrun: Overrun) -> None:
        """The peer went over its budget; told once per spell."""

    def overwhelmed(self, code: RefusalCode, text: str, now_s: float) -> None:
        """The peer reads too slowly or sends too much for too long; the user closes the channel."""

    def cid_issued(self, cid: bytes) -> None:
        """Packets with this destination connection id belong here."""

    def cid_retired(self, cid: bytes) -> None:
        """They no longer do."""

    def answered(self, question: int) -> None:
        """The sign of life that was asked for with this `ask` came."""

    def stream_opened(self, stream: LinkStream) -> None:
        """The peer, who is authenticated, opened a stream beside the control stream."""


class Channel:
    """See the module's text. `connection` must have had its address set (dialling) or its first packet is due; `touch`
    makes the endpoint flush this channel."""

    def __init__(
        self,
        connection: MeshQuicConnection,
        user: ChannelUser,
        settings: TransportSettings,
        counters: Counters,
        now_s: float,
        touch: Callable[[], None],
    ) -> None:
        self.connection = connection
        self.streams = Streams(connection, settings, user.stream_opened, touch)
        self._user = user
        self._settings = settings
        self._counters = counters
        self._decoder = FrameDecoder(HANDSHAKE_MESSAGES, settings.unauthenticated_bytes)
        self._received_at_s = now_s
        self._queue = SendQueue(settings.send_queue_frames, settings.send_queue_bytes)
        self._budget = Budget(
            settings.frames_per_s, settings.frames_burst, settings.bytes_per_s, settings.bytes_burst, now_s
        )
        self._datagrams = TokenBucket(settings.datagrams_per_s, settings.datagrams_burst, now_s)
        self._resume_at_s: float | None = None
        self._close_at_s: float | None = None
        self._last_words: Refusal | None = None
        self._authenticated = False
        self._questions = 0
        self._peer_finished = False
        self._draining = False
        self.reading = True
        """False holds frames back, with the credit for them."""
        self.ended: Ended | None = None
        """Set once: the connection is over, or its last packet is about to leave."""

    # --- in ---------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, source: SocketName, at_s: float, now_s: float) -> None:
        """A UDP datagram of this connection came; `at_s` is when it reached this machine."""
        self.connection.receive_datagram(data, source, now_s)
        self._handle_events(at_s, now_s)

    def wake(self, now_s: float) -> None:
        """The time `next_deadline_s` gave has come."""
        timer_s = self.connection.get_timer()
        if timer_s is not None and now_s >= timer_s:
            self.connection.handle_timer(now_s)
        self._handle_events(now_s, now_s)
        if self._resume_at_s is not None and now_s >= self._resume_at_s:
            self._resume_at_s = None
            self.take_frames(now_s)
        if self._close_at_s is not None and now_s >= self._close_at_s:
            self._finish_closing()
        elif self._is_open and now_s >= self._queue_deadline_s():
            text = f"a frame waited {self._settings.send_queue_age_s:.0f} s for the peer to read"
            self._user.overwhelmed(RefusalCode.SLOW_READER, text, now_s)

    def take_frames(self, now_s: float) -> None:
        """Hand on the frames that wait, as far as `reading` and the budget allow."""
        while self.reading and self._is_open:
            if self._authenticated and (wait_s := self._budget.wait_s(now_s)) > 0 and self._decoder.waiting_bytes:
                self._hold_back(wait_s, now_s)
                return
            waiting_bytes = self._decoder.waiting_bytes
            try:
                message = self._decoder.take()
            except WireError as error:
                self._user.violated(error, now_s)
                return
            taken_bytes = waiting_bytes - self._decoder.waiting_bytes
            if taken_bytes:
                self.connection.consume(CONTROL_STREAM, taken_bytes)
                self._budget.charge(taken_bytes, now_s)
            if message is None:
                self._budget.caught_up(now_s)
                if self._peer_finished:
                    self.close(Refusal(RefusalCode.PROTOCOL_ERROR, "the control stream ended without a refusal"), now_s)
                return
            self._counters.frames_received += 1
            self._user.frame(message, self._received_at_s, now_s)

    # --- out --------------------------------------------------------------------------------------------------------

    def send(self, message: Message, coalesce: str | None, now_s: float) -> None:
        """Queue a control message. Raises `WireError` where it is larger than its type allows; a queue over its
        watermark tells the user `overwhelmed`."""
        frame = encode_frame(message)
        if not self._is_open:
            return
        self._counters.frame_sent(str(message.__struct_config__.tag), len(frame))
        if not self._queue.push(frame, coalesce, now_s):
            text = f"{len(self._queue)} frames ({self._queue.queued_bytes} bytes) wait for the peer to read"
            self._user.overwhelmed(RefusalCode.SLOW_READER, text, now_s)

    def send_datagram(self, message: Message) -> bool:
        """Send a probe; False where it was dropped, since congestion control holds too many back. Raises `WireError`
        for a message that is no probe, or one above 1,100 bytes: QUIC could never send it, and would hold back all
        later ones."""
        data = encode_datagram(message)
        if not self._is_open or self.connection.pending_datagrams >= self._settings.pending_datagrams:
            self._counters.datagrams_dropped += 1
            return False
        self.connection.send_datagram_frame(data)
        self._counters.datagrams_sent += 1
        self._counters.datagram_bytes_sent += len(data)
        return True

    def ask(self) -> int:
        """Ask for a sign of life; the number of the question comes back with `answered`. A QUIC ping proves that the
        peer's process runs, and nothing it sent before can be taken for an answer."""
        self._questions += 1
        if self.ended is None:
            self.connection.send_ping(self._questions)
        return self._questions

    def authenticate(self) -> None:
        """The peer is who it says: every message is read from now on, within its budget, and more may be on the way."""
        self._authenticated = True
        self._decoder.allowed = None
        self._decoder.max_frame_bytes = MAX_FRAME_BYTES
        self.connection.widen_window(self._settings.receive_window_bytes)
        self.connection.allow_streams(self._settings.streams_per_link, self._settings.stream_window_bytes)

    def flush(self, now_s: float) -> list[Outgoing]:
        """What must go on the wire now."""
        if self.ended is None:
            self._pump()
        self.connection.acknowledge_now(now_s)
        if self.connection.is_quiet():
            return []
        packets = [Outgoing(data, to) for data, to in self.connection.datagrams_to_send(now_s)]
        self._drain_events(now_s, now_s)
        self._notice_ending()
        return packets

    def next_deadline_s(self) -> float | None:
        """When `wake` is due; None where the connection is over."""
        if (timer_s := self.connection.get_timer()) is None:
            return None
        due = (timer_s, self._resume_at_s, self._close_at_s, self._queue_deadline_s())
        return min(at_s for at_s in due if at_s is not None)

    def _queue_deadline_s(self) -> float:
        oldest_at_s = self._queue.oldest_at_s()
        return INFINITY if oldest_at_s is None else oldest_at_s + self._settings.send_queue_age_s

    # --- closing ----------------------------------------------------------------------------------------------------

    def close(self, refusal: Refusal, now_s: float) -> None:
        """Say `refusal` as the last frame, then close. What was queued before goes out first, if it can."""
        if not self._is_open:
            return
        self._last_words = refusal
        if not self._stream_is_open() or refusal.code is RefusalCode.SLOW_READER:
            # There is no stream to say it on, or the peer does not read it.
            self._finish_closing()
            return
        self._close_at_s = now_s + self._settings.flush_s

    def concede(self, refusal: Refusal) -> None:
        """The peer said `refusal` as its last frame: close at once, it is waiting for that."""
        self._end(Ended(refusal.code, refusal.text, by_peer=True))

    def abandon(self, reason: str) -> None:
        """Close without a word; `reason` is for this side only."""
        self._end(Ended(CONNECTION_LOST, reason, by_peer=False))

    def _end(self, ended: Ended, phrase: str = "") -> None:
        self._queue.clear()
        if self.ended is None:
            self.ended = ended
            self.connection.close(APPLICATION_ERROR, reason_phrase=phrase)
            self.streams.end()

    @property
    def is_closing(self) -> bool:
        """True once its end is decided: nothing more is read, nothing more can be sent."""
        return not self._is_open

    @property
    def _is_open(self) -> bool:
        return self.ended is None and self._last_words is None

    def _stream_is_open(self) -> bool:
        """False until the control stream exists; the dialler's first frame makes it."""
        return self.connection.has_stream(CONTROL_STREAM)

    def _finish_closing(self) -> None:
        if self._last_words is None:
            return
        code, text = self._last_words.code, self._last_words.text
        phrase = f"{code}: {text}".encode()[:MAX_PHRASE_BYTES].decode(errors="ignore")
        self._end(Ended(code, text, by_peer=False), phrase)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Give QUIC as many frames as it should hold, then the last words."""
        room_bytes = self._settings.unacknowledged_bytes - self.connection.unacknowledged_bytes(CONTROL_STREAM)
        while room_bytes > 0 and (frame := self._queue.pop()) is not None:
            self.connection.send_stream_data(CONTROL_STREAM, frame)
            room_bytes -= len(frame)
        if self._last_words is None or len(self._queue):
            return
        said_already = not self.connection.end_stream(CONTROL_STREAM, encode_frame(self._last_words))
        if said_already and self.connection.unacknowledged_bytes(CONTROL_STREAM) == 0:
            self._finish_closing()

    def _handle_events(self, at_s: float, now_s: float) -> None:
        self._drain_events(at_s, now_s)
        self.streams.progressed()
        self._notice_ending()

    def _drain_events(self, at_s: float, now_s: float) -> None:
        if self._draining:
            # An event's handler sends an answer at once, which flushes: the outer loop goes on with what is left.
            return
        self._draining = True
        try:
            while (event := self.connection.next_event()) is not None:
                self._handle_event(event, at_s, now_s)
        finally:
            self._draining = False

    def _handle_event(self, event: events.QuicEvent, at_s: float, now_s: float) -> None:
        match event:
            case events.DatagramFrameReceived():
                self._handle_datagram(event.data, at_s, now_s)
            case events.StreamDataReceived(stream_id=number) if number == CONTROL_STREAM:
                self._handle_stream(event, at_s, now_s)
            case events.StreamDataReceived():
                self.streams.data(event.stream_id, event.data, end=event.end_stream)
            case events.StreamReset():
                self.streams.reset(event.stream_id)
            case events.StopSendingReceived():
                self.streams.stopped(event.stream_id)
            case events.PingAcknowledged():
                self._user.answered(event.uid)
            case events.ConnectionIdIssued():
                self._user.cid_issued(event.connection_id)
            case events.ConnectionIdRetired():
                self._user.cid_retired(event.connection_id)
            case events.HandshakeCompleted() if self._is_open:
                self._user.secured(now_s)

    def _handle_datagram(self, data: bytes, at_s: float, now_s: float) -> None:
        if not self._authenticated or not self._is_open:
            return
        if not self._datagrams.take(1.0, now_s):
            self._counters.datagrams_dropped += 1
            return
        self._counters.datagrams_received += 1
        try:
            message = decode_datagram(data)
        except WireError as error:
            self._user.violated(error, now_s)
            return
        if message is not None:
            self._user.datagram(message, at_s)

    def _handle_stream(self, event: events.StreamDataReceived, at_s: float, now_s: float) -> None:
        if not self._is_open:
            # Even after a close was asked for, the data of the same packet is still delivered.
            return
        self._received_at_s = at_s
        self._decoder.push(event.data)
        if not self._authenticated and self._decoder.waiting_bytes > self._settings.unauthenticated_bytes:
            found = f"{self._decoder.waiting_bytes} bytes"
            limit = f"at most {self._settings.unauthenticated_bytes} bytes before a proof"
            self._user.violated(WireError("stream", "", found, limit), now_s)
            return
        self._peer_finished = self._peer_finished or event.end_stream
        self.take_frames(now_s)

    def _hold_back(self, wait_s: float, now_s: float) -> None:
        if (overrun := self._budget.hold_back(now_s)) is not None:
            self._user.throttled(overrun)
        if self._budget.floods(self._settings.flood_s, now_s):
            text = f"over the budget of {self._settings.bytes_per_s:.0f} bytes/s for {self._settings.flood_s:.0f} s"
            self._user.overwhelmed(RefusalCode.FLOODING, text, now_s)
            return
        self._resume_at_s = now_s + max(wait_s, 0.01)

    def _notice_ending(self) -> None:
        """Learn that QUIC is over, from the peer's close, an idle time-out or a violation."""
        ending = self.connection.ending
        if ending is not None and self.ended is None:
            self._queue.clear()
            self.ended = _meaning_of(ending, self._last_words)
            self.streams.end()


def _meaning_of(ending: Ending, last_words: Refusal | None) -> Ended:
    if last_words is not None:
        return Ended(last_words.code, last_words.text, by_peer=False)
    if ending.phrase == IDLE_PHRASE and not ending.by_peer:
        return Ended(IDLE_TIMEOUT, "nothing was heard until the idle time-out", by_peer=False)
    code, _, text = ending.phrase.partition(": ")
    if ending.error_code == APPLICATION_ERROR and code in _REFUSAL_CODES:
        return Ended(code, text, ending.by_peer)
    return Ended(CONNECTION_LOST, f"QUIC error 0x{ending.error_code:x} {ending.phrase}".rstrip(), ending.by_peer)
